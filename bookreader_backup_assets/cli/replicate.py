"""`replicate`: bring what is proven here into the vaults away from this host, and prove it there."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import VAULTS
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.settings import load_settings


@click.command("replicate")
@click.argument("set_id", required=False, metavar="[SET]")
@click.option("--vault", "vaults", multiple=True, metavar="VAULT", help="Only into this one; repeatable.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be sent, and send nothing.")
@output.json_option
def command(set_id: str | None, vaults: tuple[str, ...], plan_only: bool, as_json: bool) -> None:
    """Bring what is missing into nas, offsite and git, as far as they are set up: all of it, or one SET.

    Only artifacts whose checks have passed here, and only those that the plan wants there. Each is compared
    there with what was captured; an upload that was interrupted goes on where it stopped. Dagster does the
    same by itself after each capture, and learns of this.

    \b
    bookreader-backup replicate                     all that is missing, everywhere
    bookreader-backup replicate --vault offsite     into the bucket only
    bookreader-backup replicate --plan              what that would be
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    installation = replace(assemble(settings), watch=output.watch)
    names = vaults or tuple(installation.outside)
    for name in vaults:
        installation.vault_outside(name)
    if not names:
        raise RefusedError("no vault away from this host is set up", hint="; or ".join(VAULTS.values()))
    catalog = Catalog(installation.vault)
    rows: list[dict[str, object]] = []
    for name in names:
        try:
            entries = waiting(installation, catalog, name, set_id or "")
        except BackupError as error:
            output.complain(error)
            rows.append({"vault": name, "artifact": None, "bytes": None, "found": error.message, "ok": False})
            continue
        for entry in entries:
            row: dict[str, object] = {"vault": name, "artifact": entry.name, "bytes": entry.size}
            try:
                if plan_only:
                    row |= {"found": "to be sent", "ok": True}
                else:
                    done = replicate(installation, entry, name, read_back=settings.offsite_read_back)
                    row |= {"found": done.outcome.message, "ok": done.outcome.passed}
            except BackupError as error:
                output.complain(error)
                row |= {"found": error.message, "ok": False}
            rows.append(row)
    if as_json:
        output.say_json({"replicas": rows})
    elif not rows:
        output.say(f"nothing is missing in {', '.join(names)}")
    else:
        output.table(
            ["vault", "artifact", "size", "found"],
            [[str(r["vault"]), str(r["artifact"] or "-"), _size(r["bytes"]), str(r["found"])] for r in rows],
            right=(2,),
        )
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


def _size(count: object) -> str:
    return output.size(count if isinstance(count, int) else None)
