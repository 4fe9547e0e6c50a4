"""`backup`: capture components now, check them, and seal the day."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.report import Line, day_report
from bookreader_backup_assets.actions.seal import ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation

MANIFEST = "backup_set/manifest"


@click.command("backup")
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@click.option(
    "--without-dagster",
    is_flag=True,
    help="Work with Dagster's storage gone; Dagster is told later, by its reconcile sensor.",
)
@output.json_option
def command(components: tuple[str, ...], without_dagster: bool, as_json: bool) -> None:
    """Capture COMPONENTs (default: all that the plan names) now, check them, and seal the day's set.

    Runs the same Dagster jobs as the schedules, in this process, so that the UI shows them. A component
    that fails does not stop the others.

    \b
    bookreader-backup backup                      everything
    bookreader-backup backup postgresql config    two components
    """  # noqa: D301 - click's mark for a block that keeps its lines
    installation = replace(assemble(load_settings()), watch=output.watch)
    chosen = choose(installation, components)
    if without_dagster:
        fine = without(installation, chosen)
    else:
        from bookreader_backup_assets.cli.dagster_runs import with_dagster

        fine = with_dagster(installation, chosen)
    sys.exit(0 if print_day(installation, chosen, as_json=as_json) and fine else 1)


def choose(installation: Installation, components: tuple[str, ...]) -> tuple[str, ...]:
    """Return the components to capture. Raises `RefusedError` for one there is not."""
    known = tuple(dict.fromkeys(asset.split("/")[0] for asset in installation.components))
    planned = tuple(dict.fromkeys(asset.split("/")[0] for asset in installation.planned))
    for component in components:
        if component not in known:
            raise RefusedError(f"there is no component {component!r}", hint=f"there are: {', '.join(known)}")
    return components or planned


def without(installation: Installation, components: tuple[str, ...]) -> bool:
    """Capture and check without Dagster, roles before the dump that needs them, and say if all was well."""
    day = installation.today()
    fine = True
    captured = []
    for component in installation.components.values():
        if component.component in components:
            try:
                captured.append((component, capture(installation, component, day)[0]))
            except BackupError as error:
                output.complain(error)
                fine = False
    for component, entry in captured:
        proof = verify(installation, component, entry)
        fine = fine and all(outcome.passed for outcome in proof.checks)
    verify(installation, ManifestComponent(), seal(installation, day))
    return fine


def print_day(installation: Installation, components: tuple[str, ...], *, as_json: bool) -> bool:
    """Print what the day's set has of `components`, and return whether all of it is verified."""
    day = installation.today()
    assets = tuple(a for a in installation.components if a.split("/")[0] in components)
    lines = day_report(Catalog(installation.vault), day, (*assets, MANIFEST))
    made = [line for line in lines if line.asset != MANIFEST]
    if as_json:
        output.say_json({"set": day, "assets": [_document(line) for line in lines]})
    else:
        output.say(f"\nbackup set {day}\n")
        output.table(
            ["asset", "artifact", "size", "seconds", "checks", "standing"],
            [_cells(line) for line in lines],
            right=(2, 3),
        )
        for line in lines:
            if line.why:
                output.say(f"\n{line.asset}: {line.why}")
            for problem in line.entry.problems if line.entry else ():
                output.say(f"{line.asset}: {output.printable(problem.where)}: {problem.what}")
    return all(line.good for line in made)


def _cells(line: Line) -> list[str]:
    if line.entry is None:
        return [line.asset, "-", "-", "-", "-", line.standing]
    passed = sum(outcome.passed for outcome in line.outcomes)
    name = line.entry.name + (" (unchanged)" if line.unchanged else "")
    seconds = f"{line.entry.seconds:.1f}"
    checks = f"{passed}/{len(line.entry.checks)}"
    return [line.asset, name, output.size(line.entry.size), seconds, checks, line.standing]


def _document(line: Line) -> dict[str, object]:
    entry = line.entry
    return {
        "asset": line.asset,
        "artifact": entry.name if entry else None,
        "bytes": entry.size if entry else None,
        "seconds": entry.seconds if entry else None,
        "sha256": entry.sha256 if entry else None,
        "captured_at": entry.captured_at if entry else None,
        "unchanged": line.unchanged,
        "standing": line.standing,
        "checks": [asdict(outcome) for outcome in line.outcomes],
        "why": line.why,
    }
