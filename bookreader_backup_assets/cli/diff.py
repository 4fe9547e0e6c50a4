"""`diff`: what changed in the configuration. Names and sizes, and no value of anything."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bookreader_backup_assets.actions.diff import LIVE, Diff, diff
from bookreader_backup_assets.actions.restore_source import LATEST
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.components.config_diff import Change
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.settings import load_settings

TROUBLE = 2


@click.command("diff")
@click.argument("older", default=LATEST, metavar="[OLDER]")
@click.argument("newer", default=LIVE, metavar="[NEWER]")
@output.json_option
def command(older: str, newer: str, as_json: bool) -> None:
    """Say what changed in the configuration since it was backed up, or between two versions of it.

    A version is a set, such as 2025-10-24, the name of an artifact (`bookreader-backup list`), `latest`,
    or `live`, what lies there now. Shown are paths, sizes, modes, and of `.env` files the names of
    variables; never a value. Without the key, only names and sizes are compared.

    \b
    bookreader-backup diff                           what a restore of the latest would take back
    bookreader-backup diff 2025-10-24                what has changed since that day
    bookreader-backup diff 2025-10-24 2025-10-31     what changed between these two

    Exit status: 0 the same, 1 different, 2 trouble, or not to be told without the key.
    """  # noqa: D301 - click's mark for a block that keeps its lines
    try:
        found = diff(assemble(load_settings()), older, newer)
    except BackupError as error:
        error.exit_code = TROUBLE
        raise
    if as_json:
        output.say_json(_document(found))
    else:
        _print(found)
    sys.exit(TROUBLE if found.same is None else 0 if found.same else 1)


def _print(found: Diff) -> None:
    output.say(f"older  {_version(found.older, found.root)}")
    output.say(f"newer  {_version(found.newer, found.root)}")
    output.say()
    if found.changes:
        output.table(
            ["what", "path", "older", "newer", ""],
            [_cells(change) for change in found.changes],
            right=(2, 3),
        )
    elif found.same:
        output.say("the same: no content, mode or link differs")
    else:
        output.say("the same names and sizes; whether the contents are the same is not known")
    if found.why and not (found.same and not found.changes):
        output.say(f"\nonly names and sizes were compared: {found.why}")


def _version(entry: Entry | None, root: str) -> str:
    if entry is None:
        return f"what lies in {root} now"
    return f"{entry.name}, captured {entry.captured_at:%Y-%m-%d %H:%M:%S} UTC"


def _cells(change: Change) -> list[str]:
    variables = [str(change.variables)] if change.variables else []
    said = "; ".join([*([change.said] if change.said else []), *variables])
    sizes = (output.size(change.older_size), output.size(change.newer_size))
    return [change.what, output.printable(change.path), *sizes, output.printable(said)]


def _document(found: Diff) -> dict[str, object]:
    sides = {
        name: {"artifact": entry.name, "set": entry.set, "captured_at": entry.captured_at} if entry else LIVE
        for name, entry in (("older", found.older), ("newer", found.newer))
    }
    return {
        **sides,
        "same": found.same,
        "complete": not found.why,
        "why": found.why,
        "changes": [
            {
                **{name: value for name, value in asdict(change).items() if value is not None},
                "path": output.printable(change.path),
            }
            for change in found.changes
        ],
    }
