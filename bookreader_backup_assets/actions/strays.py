"""Strays: files that no entry names, and what was never written to its end. They count for nothing.

Whatever is being written looks the same, so only what has lain for a week is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.core.errors import NotFoundError
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


def strays(catalog: Catalog, now: datetime) -> list[Stray]:
    """Return the strays in the vault of a catalog, by name."""
    vault = catalog.vault
    found = []
    for name in catalog.strays():
        try:
            stays = _young(vault.stat(name).modified, now) or _locked(vault.locked_until(name), now)
            found.append(Stray(name, vault.stat(name).size, unfinished=False, stays=stays))
        except NotFoundError:
            continue  # gone since it was listed
    begun: dict[str, list[Stored]] = {}
    for stored in vault.unfinished():
        begun.setdefault(stored.name, []).append(stored)
    for name, attempts in begun.items():  # they are discarded together
        stays = next(filter(None, (_young(one.modified, now) for one in attempts)), "")
        found.append(Stray(name, sum(one.size for one in attempts), unfinished=True, stays=stays))
    return sorted(found, key=lambda stray: (stray.name, stray.unfinished))


def remove(vault: Vault, stray: Stray, now: datetime) -> bool:
    """Remove a stray, and return whether it was one still: an entry may have come to it."""
    if stray not in strays(Catalog(vault), now):
        return False
    (vault.discard if stray.unfinished else vault.delete)(stray.name)
    return True


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
