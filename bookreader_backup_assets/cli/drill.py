"""`drill`: a restore into scratch servers and folders, compared, timed, and held against the objectives."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.installation import LOCAL, VAULTS
from bookreader_backup_assets.actions.restore_source import LATEST
from bookreader_backup_assets.assembly import assemble, drill_ground
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.drill import CHECKS, PARTIAL, SCENARIOS
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.core.artifact import Entry
    from bookreader_backup_assets.core.drill import DrillReport


@click.command("drill")
@click.argument("scenario", type=click.Choice(list(SCENARIOS)), default=PARTIAL)
@click.option(
    "--from",
    "from_set",
    default=LATEST,
    show_default=True,
    metavar="SET",
    help="The backup set: a day such as 2025-10-24, a labelled set, or `latest` (the newest verified).",
)
@click.option(
    "--vault",
    default=LOCAL,
    show_default=True,
    metavar="VAULT",
    help="Where it is taken from: `local` (BACKUP_VAULT), `nas`, `offsite`, `git`, or the folder of a copy.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Decrypt with the key in this file, and with no other: a passphrase, or an OpenPGP secret key.",
)
@output.json_option
def command(scenario: str, from_set: str, vault: str, key_file: Path | None, as_json: bool) -> None:
    """Bring a backup set back into scratch servers and folders, compare it, and time it.

    SCENARIO is `partial` (the default: database, Redis, configuration and one file), `system`
    (everything), or one of postgresql, redis, storage, file, config. Production is not touched, and Dagster
    not needed: it is told later. The report is kept in the vault. Exit status 1 if anything came back
    different, too late for its objective, or too old.

    \b
    bookreader-backup drill
    bookreader-backup drill system --from 2025-10-24
    bookreader-backup drill --vault offsite --key-file /media/safe/passphrase
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    installation = replace(assemble(settings), watch=output.watch)
    read, folder = (vault, None) if vault in (LOCAL, *VAULTS) else (LOCAL, _folder(vault))
    with drill_ground(settings, installation, read=read, vault=folder, key_file=key_file) as ground:
        entry, report = drill(installation, ground, scenario, from_set)
    sys.exit(0 if print_drill(entry, report, as_json=as_json) else 1)


def print_drill(entry: Entry, report: DrillReport, *, as_json: bool) -> bool:
    """Print a report, and return whether it came back equal, in time and young enough."""
    checks = [report.check(name) for name in CHECKS]
    if as_json:
        document = {"report": entry.name, **asdict(report), "checks": [asdict(check) for check in checks]}
        output.say_json(document)
        return report.good
    output.say(f"\nrestore drill {report.scenario}, of the set {report.set}, from {report.vault}\n")
    rows = [
        [part.scenario, step.step, _took(step.seconds), output.size(step.bytes)]
        for part in report.parts
        for step in part.steps
    ]
    output.table(["scenario", "step", "took", "bytes"], rows, right=(2, 3))
    output.say()
    output.table(
        ["scenario", "took", "rto", "age", "rpo", "outcome"],
        [
            [
                one.scenario,
                _took(one.seconds),
                output.span(one.rto),
                output.span(one.age),
                output.span(one.rpo),
                "ok" if one.recovered and one.within_rto and one.within_rpo else "failed",
            ]
            for one in report.results
        ],
        right=(1, 2, 3, 4),
    )
    output.say()
    for check in checks:
        output.say(f"{check.check}: {check.verdict}: {output.printable(check.message)}")
    for note in report.notes:
        output.say(output.printable(note))
    output.say(f"\nthe report is {entry.name}")
    return report.good


def _took(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else output.span(seconds)


def _folder(vault: str) -> Path:
    folder = Path(vault).expanduser().absolute()
    if not (folder / "installation.json").exists():
        raise RefusedError(
            f"{vault} is not a vault: it has no installation.json",
            hint="name its top folder, the one that has postgresql/ and storage/ in it",
        )
    return folder
