"""`backup`: capture components now, check them, and seal the day, or a labelled set."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets.actions.back_up import (
    back_up_labelled,
    back_up_today,
    labelled_assets,
    unproven,
)
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.report import Line, day_report
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.set_id import label_of
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation


@click.command("backup")
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@click.option(
    "--label",
    metavar="LABEL",
    help="Make a set of its own, such as pre-deploy or post-update, now; code and logs are in it, too.",
)
@click.option(
    "--without-dagster",
    is_flag=True,
    help="Work with Dagster's storage gone; Dagster is told later, by its reconcile sensor.",
)
@output.json_option
def command(components: tuple[str, ...], label: str | None, without_dagster: bool, as_json: bool) -> None:
    """Capture COMPONENTs (default: all that the plan names) now, check them, and seal the set.

    Runs the same Dagster jobs as the schedules, in this process, so that the UI shows them. A component
    that fails does not stop the others. A labelled set needs no Dagster, which is told of it afterwards:
    a deployment waits for nothing else.

    \b
    bookreader-backup backup                      everything, into today's set
    bookreader-backup backup postgresql config    two components
    bookreader-backup backup --label pre-deploy   everything, as a set of its own
    """  # noqa: D301 - click's mark for a block that keeps its lines
    installation = replace(assemble(load_settings()), watch=output.watch)
    chosen = choose(installation, components, labelled=label is not None)
    assets = tuple(asset for asset in installation.components if asset.split("/")[0] in chosen)
    if label is not None:
        set_id, fine = back_up_labelled(installation, label, assets, output.complain)
        good = print_set(installation, set_id, (*assets, LABELLED), as_json=as_json)
        sys.exit(0 if good and fine else 1)
    if without_dagster:
        fine = back_up_today(installation, assets, output.complain)
    else:
        from bookreader_backup_assets.cli.dagster_runs import with_dagster

        fine = with_dagster(installation, chosen)
    good = print_set(installation, installation.today(), (*assets, MANIFEST), as_json=as_json)
    sys.exit(0 if good and fine else 1)


def choose(
    installation: Installation, components: tuple[str, ...], *, labelled: bool = False
) -> tuple[str, ...]:
    """Return the components to capture. Raises `RefusedError` for one there is not."""
    known = tuple(dict.fromkeys(asset.split("/")[0] for asset in installation.components))
    wanted = labelled_assets(installation) if labelled else installation.planned
    for component in components:
        if component not in known:
            raise RefusedError(f"there is no component {component!r}", hint=f"there are: {', '.join(known)}")
    return components or tuple(dict.fromkeys(asset.split("/")[0] for asset in wanted))


def print_set(installation: Installation, set_id: str, assets: tuple[str, ...], *, as_json: bool) -> bool:
    """Print what a set has of `assets`, its manifest the last, and return whether the others are verified."""
    catalog, lines = Catalog(installation.vault), []
    for asset in assets:
        of = set_id if assets[-1] == LABELLED else installation.set_of(asset)
        lines += day_report(catalog, of, (asset,))
    if as_json:
        output.say_json({"set": set_id, "assets": [_document(line) for line in lines]})
    else:
        output.say(f"\nbackup set {set_id}\n")
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
    label = label_of(set_id)
    return all(line.good or (label and _whole(line, label)) for line in lines[:-1])


def _whole(line: Line, label: str) -> bool:
    """Whether all checks of an artifact were made, and those passed that count; see `unproven`."""
    made = line.entry is not None and len(line.outcomes) == len(line.entry.checks)
    return made and not unproven(line.outcomes, label)


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
