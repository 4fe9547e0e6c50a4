"""Strays: files that no entry names, and what was never written to its end. They count for nothing.

Whatever is being written looks the same, so only what has lain for a week is taken away. And only what this
program wrote: its vault may be the folder of the guide's script, whose backups have no entry until they are
adopted, and may be all there is. What was committed once has lost its entry, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.committed import Committed
from bookreader_backup_assets.core import guide_names
from bookreader_backup_assets.core.artifact import PROOF_INFIX, ArtifactName
from bookreader_backup_assets.core.errors import NotFoundError, RefusedError
from bookreader_backup_assets.core.prune_refusals import moment, spoken
from bookreader_backup_assets.vaults.base import Stored, Vault

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Stray:
    """A file that is in nobody's entry; `unfinished`, if not even that. `stays` says why, if it does."""

    name: str
    bytes: int
    unfinished: bool
    stays: str = ""


def strays(catalog: Catalog, committed: Committed, now: datetime, *, alone: bool) -> list[Stray]:
    """Return the strays in the vault of a catalog, by name.

    `committed` tells what had an entry; `alone` says that nobody else writes there.
    """
    vault = catalog.vault
    found = []
    for name in catalog.strays():
        try:
            stored = vault.stat(name)
            stays = _young(stored.modified, now) or _locked(vault.locked_until(name), now)
            if not committed.was_to_go(name):
                stays = _nameless(name) or stays or committed.said(name) or _guide(name, alone=alone)
            found.append(Stray(name, stored.size, unfinished=False, stays=stays))
        except NotFoundError:
            continue  # gone since it was listed
    begun: dict[str, list[Stored]] = {}
    for stored in vault.unfinished():
        begun.setdefault(stored.name, []).append(stored)
    for name, attempts in begun.items():  # they are discarded together
        young = next(filter(None, (_young(one.modified, now) for one in attempts)), "")
        stays = _nameless(name) or young
        found.append(Stray(name, sum(one.size for one in attempts), unfinished=True, stays=stays))
    return sorted(found, key=lambda stray: (stray.name, stray.unfinished))


def remove(vault: Vault, stray: Stray) -> None:
    """Remove a stray. Raises `VaultError`."""
    (vault.discard if stray.unfinished else vault.delete)(stray.name)


def _nameless(name: str) -> str:
    """Say that a file is somebody else's by its name, if it is."""
    if PROOF_INFIX in name:
        return ""
    try:
        ArtifactName.parse(name)
    except RefusedError:
        return "not a name of this program's: if nobody wants it, remove it by hand"
    return ""


def _guide(name: str, *, alone: bool) -> str:
    """Say that a file may be of the guide's script, if it may."""
    if not alone and guide_names.parse(name.rpartition("/")[2]) is not None:
        return "it may be a backup of the guide's script: adopt it, or remove it by hand"
    return ""


def _young(modified: datetime | None, now: datetime) -> str:
    if modified is None:
        return "the vault does not say when it was written"
    if modified > now:
        return f"written at {moment(modified)}, which is to come"
    if (age := now - modified) <= WEEK:
        return f"written {spoken(age)} ago: it may be in use"
    return ""


def _locked(until: datetime | None, now: datetime) -> str:
    return f"locked by the vault until {moment(until)}" if until is not None and until > now else ""
