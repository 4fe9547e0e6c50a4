"""`demo`: an embedded BookReader, captured, verified and copied as in production, then the UI."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_report import read_report, reports_of
from bookreader_backup_assets.actions.seal import MANIFEST
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.cli.backup import choose, print_set
from bookreader_backup_assets.cli.drill import print_drill
from bookreader_backup_assets.cli.replicate import bring, print_rows
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation
    from bookreader_backup_assets.core.artifact import Entry

PORTS = range(3000, 3100)
_UP = 90.0
_DOWN = 15.0


@click.command("demo")
@click.option("--no-ui", is_flag=True, help="End after the backup instead of serving the UI.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".demo"),
    show_default=True,
    help="Where the demo keeps its vault and Dagster's history.",
)
@output.json_option
def command(no_ui: bool, folder: Path, as_json: bool) -> None:
    """Start an embedded BookReader, back it up, verify it, drill a restore, copy it into a bucket, and serve
    the UI until Ctrl-C.

    Real PostgreSQL, Redis and S3 servers, from this machine or from wheels, with real books, images and
    configuration. Everything that was started is stopped at the end. Exit status 0 only if all of it
    was verified, came back, and is in the bucket, too.
    """
    from bookreader_backup_assets.demo.bookreader import bookreader

    folder = folder.resolve()
    started = time.monotonic()
    good = False
    try:
        click.echo("starting an embedded BookReader …", err=True)
        with bookreader(folder) as system:
            os.environ.update(system.environ)
            os.environ["DAGSTER_HOME"] = str(folder / "dagster")
            click.echo(f"it runs, after {output.span(time.monotonic() - started)}; capturing it …", err=True)
            good = _capture(as_json=as_json)
            said = "everything is verified" if good else "NOT everything is verified"
            click.echo("a restore drill, into scratch servers …", err=True)
            drilled = _drill(as_json=as_json)
            said += ", comes back" if drilled else ", does NOT come back as it should"
            click.echo("its copies, into a bucket …", err=True)
            copied = _replicate(as_json=as_json)
            said += ", and is offsite, too" if copied else ", and is NOT all offsite"
            good = good and drilled and copied
            took = output.span(time.monotonic() - started)
            click.echo(f"\n{said}, after {took}; the vault is {system.environ['BACKUP_VAULT']}", err=True)
            if not no_ui:
                _serve(folder)
    except KeyboardInterrupt:
        click.echo("\nstopped", err=True)
    sys.exit(0 if good else 1)


def _capture(*, as_json: bool) -> bool:
    from bookreader_backup_assets.cli.dagster_runs import with_dagster

    installation = replace(assemble(load_settings(env_file=Path(os.devnull))), watch=output.watch)
    components = (*choose(installation, ()), "code")
    fine = with_dagster(installation, components)
    assets = (asset for asset in installation.components if asset.split("/")[0] in components)
    good = print_set(installation, installation.today(), (*assets, MANIFEST), as_json=as_json)
    return good and fine


def _drill(*, as_json: bool) -> bool:
    """Run this month's drill, and print its times; with `as_json` the day is the one document."""
    from bookreader_backup_assets.cli.dagster_runs import drill_with_dagster

    installation = replace(assemble(load_settings(env_file=Path(os.devnull))), watch=output.watch)
    filed = drill_with_dagster(installation)
    reports = reports_of(installation, installation.today()[:7])
    if not filed or not reports:
        return False
    report = read_report(installation, reports[-1])
    if as_json:
        return report.good
    return print_drill(reports[-1], report, as_json=False)


def _replicate(*, as_json: bool) -> bool:
    """Bring what is missing elsewhere, print it, and say whether all of today's is there, and proven."""
    installation = replace(assemble(load_settings(env_file=Path(os.devnull))), watch=output.watch)
    names = tuple(installation.outside)
    rows = bring(installation, names)
    if not as_json:
        output.say()
        print_rows(rows, names)
    here = Catalog(installation.vault)
    held = [here.of_day(asset, installation.set_of(asset)) for asset in (*installation.components, MANIFEST)]
    wanted = [entry for entry in held if entry is not None]
    return all(_is_there(installation, name, wanted) for name in names)


def _is_there(installation: Installation, name: str, wanted: list[Entry]) -> bool:
    there = Catalog(installation.reading(name).vault)
    listed = {entry.name: entry for entry in there.entries()}
    return all(
        entry.name in listed and there.standing(listed[entry.name]).verdict is Verdict.PASSED
        for entry in wanted
        if installation.vault_outside(name).wants(entry)
    )


def _serve(folder: Path) -> None:
    """Serve the UI, with the daemon beside it, until somebody interrupts."""
    port = _free_port()
    module = ["-m", "bookreader_backup_assets.definitions"]
    webserver = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), *module]
    with (
        _started("dagster-webserver", webserver, folder) as server,
        _started("dagster-daemon", ["-m", "dagster._daemon", "run", *module], folder),
    ):
        _await(f"http://127.0.0.1:{port}/server_info", server, folder)
        output.say(f"\nthe Dagster UI is at http://127.0.0.1:{port} (Ctrl-C stops it, and everything else)")
        status = server.wait()
        raise BackupError(
            f"dagster-webserver ended with status {status}", hint=f"see {folder}/dagster-webserver.log"
        )


@contextlib.contextmanager
def _started(name: str, arguments: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a child and the code servers below it: they are in its session."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_DOWN)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _await(url: str, server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _UP
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - ours
            return
        time.sleep(0.2)
    raise BackupError("the Dagster UI did not come up", hint=f"see {folder}/dagster-webserver.log")


def _free_port() -> int:
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise BackupError("no port from 3000 to 3099 is free", hint="stop what listens there: ss -ltnp")
