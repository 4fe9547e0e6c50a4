"""`replicate`: bring what is proven here into the vaults away from this host, and prove it there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import VAULTS
from bookreader_backup_assets.actions.replicas import in_clear, of_set, waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import BackupError, NameTakenError, RefusedError
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation
    from bookreader_backup_assets.core.artifact import Entry


@click.command("replicate")
@click.argument("set_id", required=False, metavar="[SET]")
@click.option("--vault", "vaults", multiple=True, metavar="VAULT", help="Only into this one; repeatable.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be sent, and send nothing.")
@output.json_option
def command(set_id: str | None, vaults: tuple[str, ...], plan_only: bool, as_json: bool) -> None:
    """Bring what is missing into nas, offsite and git, as far as they are set up: all of it, or one SET.

    Only artifacts whose checks have passed here, and only those that the plan wants there. Each is compared
    there with what was captured; an upload that was interrupted goes on where it stopped. What is there and
    does not stand whole is replaced. Dagster brings what is missing by itself after each capture, and learns
    of this.

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
    rows = bring(installation, names, set_id or "", read_back=settings.offsite_read_back, plan_only=plan_only)
    if as_json:
        output.say_json({"replicas": rows})
    else:
        print_rows(rows, names)
        catalog = Catalog(installation.vault)
        if clear := {one for name in names for one in in_clear(installation, catalog, name)}:
            output.say(
                f"\n{len(clear)} artifacts stay here: they were captured before their kind was encrypted"
            )
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


def bring(
    installation: Installation,
    names: Sequence[str],
    set_id: str = "",
    *,
    read_back: bool = False,
    plan_only: bool = False,
) -> list[dict[str, Any]]:
    """Bring what is missing into vaults, and return a row for each artifact: what became of it, and if well.

    What goes wrong with one is in its row, and on stderr; the others are brought all the same. What another
    process is at is looked at again in the end. Raises `RefusedError` for a set that there is not.
    """
    catalog = Catalog(installation.vault)
    if set_id and not of_set(catalog, set_id):
        sets = catalog.sets()
        there = f"there are: {', '.join(sets[-5:])}" if sets else "nothing was captured yet"
        raise RefusedError(f"there is no set {set_id!r}", hint=there)
    rows: list[dict[str, Any]] = []
    others: list[tuple[dict[str, Any], Entry]] = []
    for name in names:
        try:
            entries = waiting(installation, catalog, name, set_id, thorough=True)
        except BackupError as error:
            output.complain(error)
            rows.append({"vault": name, "artifact": None, "bytes": None, "found": error.message, "ok": False})
            continue
        for entry in entries:
            row: dict[str, Any] = {"vault": name, "artifact": entry.name, "bytes": entry.size}
            rows.append(row)
            if plan_only:
                row |= {"found": "to be sent", "ok": True}
                continue
            try:
                row.update(_brought(installation, entry, name, read_back=read_back))
            except NameTakenError:
                others.append((row, entry))
            except BackupError as error:
                row.update(_in_vain(error))
    for row, entry in others:
        try:
            row.update(_brought(installation, entry, row["vault"], read_back=read_back))
        except BackupError as error:
            row.update(_in_vain(error))
    return rows


def _brought(installation: Installation, entry: Entry, name: str, *, read_back: bool) -> dict[str, Any]:
    done = replicate(installation, entry, name, read_back=read_back)
    return {"found": done.outcome.message, "ok": done.outcome.passed}


def _in_vain(error: BackupError) -> dict[str, Any]:
    output.complain(error)
    return {"found": error.message, "ok": False}


def print_rows(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print what `bring` returned for the vaults `names`."""
    if not rows:
        output.say(f"nothing is missing in {', '.join(names)}")
        return
    output.table(
        ["vault", "artifact", "size", "found"],
        [[row["vault"], row["artifact"] or "-", output.size(row["bytes"]), row["found"]] for row in rows],
        right=(2,),
    )
