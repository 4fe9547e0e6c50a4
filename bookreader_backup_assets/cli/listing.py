"""`list`: what the vault holds, read from the vault."""

from __future__ import annotations

import sys

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import LOCAL
from bookreader_backup_assets.assembly import assemble, local_vault
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.hour import is_hour
from bookreader_backup_assets.settings import load_settings


@click.command("list")
@click.argument("set_id", required=False, metavar="[SET]")
@click.option("--label", metavar="LABEL", help="Only artifacts with this label.")
@output.vault_option
@output.json_option
def command(set_id: str | None, label: str | None, vault: str, as_json: bool) -> None:
    """List the artifacts in a vault, or those of one SET: 2025-10-24, or 2025-10-24_14-05-00_pre-deploy.

    An artifact is listed only if it was stored whole and read back. `standing` says what its checks found:
    verified, failed, inconclusive (could not be told here), or unverified (not made yet).
    """
    settings = load_settings()
    looked_at = (
        local_vault(settings) if vault == LOCAL else assemble(settings, quick=True).reading(vault).vault
    )
    catalog = Catalog(looked_at)
    entries = catalog.entries(set_id=set_id or "")
    if set_id and not entries:
        sets = catalog.sets()
        raise RefusedError(
            f"there is no set {set_id!r}", hint=f"there are: {', '.join(sets[-5:]) or 'none yet'}"
        )
    if label is not None:
        labels = sorted({entry.label for entry in entries if entry.label})
        entries = [entry for entry in entries if entry.label == label]
        if not entries:
            there = f"there are: {', '.join(labels)}" if labels else "`backup --label` makes one"
            raise RefusedError(f"there is nothing with the label {label!r}", hint=there)
    rows = [(entry, str(catalog.standing(entry))) for entry in entries]
    hours: list[tuple[Entry, str]] = []
    if not (set_id or label or as_json):  # a month has 720 of them
        hours = [row for row in rows if is_hour(row[0].set) and row[1] == "verified"]
        rows = [row for row in rows if row not in hours]
    if as_json:
        output.say_json(
            [
                {
                    "set": entry.set,
                    "asset": entry.asset,
                    "artifact": entry.name,
                    "bytes": entry.size,
                    "sha256": entry.sha256,
                    "captured_at": entry.captured_at,
                    "label": entry.label,
                    "late": entry.late,
                    "standing": standing,
                }
                for entry, standing in rows
            ]
        )
    elif not rows and not hours:
        where = settings.vault if settings.vault.exists() else f"{settings.vault}, which is not there,"
        said = f"{where} is empty: `bookreader-backup backup` makes the first backup"
        elsewhere = f"{vault} is empty: `bookreader-backup replicate` fills it"
        output.say(f"the vault {said if vault == LOCAL else elsewhere}")
    else:
        output.table(
            ["set", "asset", "artifact", "size", "captured (UTC)", "label", "standing"],
            [
                [
                    e.set,
                    e.asset,
                    e.name,
                    output.size(e.size),
                    f"{e.captured_at:%Y-%m-%d %H:%M:%S}",
                    e.label or "",
                    standing,
                ]
                for e, standing in rows
            ],
            right=(3,),
        )
    if hours:
        output.say(
            f"\nand hours of logs, verified: {len(hours)}, from {hours[0][0].set} "
            f"to {hours[-1][0].set} UTC: `bookreader-backup list {hours[-1][0].set}`"
        )
    whose = {entry.installation for entry, _ in rows}
    if vault != LOCAL and not as_json and whose and settings.offsite_installation not in whose:
        own = assemble(settings).known_id
        if own is not None and own not in whose:
            output.say(f"\nthis host is installation {own}; this was captured by {', '.join(sorted(whose))}")
    for name in catalog.unreadable:
        click.echo(f"unreadable: {name}", err=True)
    sys.exit(1 if catalog.unreadable else 0)
