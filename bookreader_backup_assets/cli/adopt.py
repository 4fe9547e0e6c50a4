"""`adopt`: what the guide's script has left behind, taken into the vault, and proven as far as it can be."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import click

from bookreader_backup_assets.actions.adopt import READY, Line, adopt
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.settings import load_settings


@click.command("adopt")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--plan", is_flag=True, help="Read everything and say what would be done; write nothing.")
@output.json_option
def command(folder: Path, plan: bool, as_json: bool) -> None:
    """Take the backups that the guide's script left in DIR into the vault, after proving them.

    Each file is compared with the script's manifest, read to its end, written into the vault under the day
    that it is of, and restored into a scratch server. What is cut short, empty or changed is named and not
    taken; what is nobody's backup is passed over; what was taken before is not taken again. Nothing in DIR
    is moved, changed or removed. Configuration is encrypted on its way.

    Exit status 1 if anything was damaged, refused, or could not be proven.

    \b
    bookreader-backup adopt /var/backups/bookreader --plan
    bookreader-backup adopt /var/backups/bookreader
    bookreader-backup restore postgresql --from 2025-10-24 --plan
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    installation = replace(assemble(settings), watch=output.watch)
    lines = list(adopt(installation, folder, plan=plan))
    warning = _warning(folder, settings.vault.expanduser())
    if as_json:
        output.say_json(
            {
                "folder": str(folder),
                "plan": plan,
                "files": [asdict(line) for line in lines],
                "warning": warning,
            }
        )
    else:
        _print(lines, warning)
    sys.exit(1 if any(line.bad for line in lines) else 0)


def _print(lines: list[Line], warning: str) -> None:
    rows = [
        [line.file, line.asset or "-", line.set or "-", line.verdict, line.artifact or "-", line.why]
        for line in lines
    ]
    output.table(
        ["file", "is", "set", "verdict", "artifact", "why"],
        [[output.printable(cell) for cell in row] for row in rows],
    )
    counts = Counter(line.verdict for line in lines)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    output.say(f"\n{said or 'there is no file'}; nothing there was changed")
    if counts[READY]:
        needed = output.size(sum(line.bytes for line in lines if line.verdict == READY))
        output.say(f"the vault would take about {needed}")
    if warning:
        output.say(warning)


def _warning(folder: Path, vault: Path) -> str:
    """Say so where the script's clean-up would reach the vault."""
    if not vault.resolve().is_relative_to(folder.resolve()):
        return ""
    return (
        f"the vault {vault} lies in {folder}: the script's clean-up removes what is older than 30 days there,"
        " artifacts too; take the script out of cron before anything else"
    )
