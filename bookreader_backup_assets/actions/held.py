"""What a vault holds, as retention wants to know it: sets, proofs, what needs it, and where it is lacking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.codecs import index
from bookreader_backup_assets.core.artifact import PROOF_INFIX, ArtifactName, Entry
from bookreader_backup_assets.core.errors import (
    BackupError,
    DamagedError,
    KeyMissingError,
    NotFoundError,
    RefusedError,
)
from bookreader_backup_assets.core.manifest import is_whole, unchanged_sets
from bookreader_backup_assets.core.policy import Held
from bookreader_backup_assets.core.restore_plan import ABANDONED
from bookreader_backup_assets.core.retention import still_wanted
from bookreader_backup_assets.vaults.base import Vault

_INDEX = "index"


def own_vault(installation: Installation, name: str) -> Vault:
    """Return this installation's own vault of a name, whatever else is read there.

    Raises `RefusedError` for a vault that there is not, and before the first capture.
    """
    if name == LOCAL:
        return installation.vault
    outside = installation.vault_outside(name)
    if (own := installation.known_id) is None:
        raise RefusedError("nothing was captured here yet", hint="bookreader-backup backup")
    return outside.vault(own)


def held(installation: Installation, name: str, catalog: Catalog | None = None) -> list[Held]:
    """Return what the vault `name` holds, from a `catalog` of it or a fresh one; locks are not asked for.

    Raises `VaultError` where that vault cannot be read. Of any other that cannot, nobody can tell what
    copies it has: what the plan wants there lacks one.
    """
    catalog = catalog or Catalog(own_vault(installation, name))
    found = [held_of(installation, catalog, entry) for entry in catalog.entries()]
    undo = needed_by_restores(installation, name)
    found = [replace(o, held_by=(undo[o.entry.name],)) if o.entry.name in undo else o for o in found]
    if name != LOCAL:
        return found
    lacks: dict[str, list[str]] = {}
    for vault, outside in {**installation.outside, **installation.unset}.items():
        for lacking in _lacking(installation, outside, found):
            lacks.setdefault(lacking, []).append(vault)
    return [replace(one, lacks=tuple(lacks.get(one.entry.name, ()))) for one in found]


def held_of(installation: Installation, catalog: Catalog, entry: Entry) -> Held:
    """Return what the catalog of a vault tells of one artifact."""
    sets = frozenset({entry.set, *unchanged_sets(catalog.proofs(entry))})
    return Held(entry, proven(catalog, entry), sets, needs=_needs(installation, catalog, entry))


def proven(catalog: Catalog, entry: Entry) -> bool:
    """Whether an artifact stands verified, with no proof beside it that cannot be read.

    Of a manifest and of logs the bytes are enough; see `is_whole`.
    """
    if any(name.startswith(entry.name + PROOF_INFIX) for name in catalog.unreadable):
        return False
    return is_whole(entry, catalog.standing(entry))


def needed_by_restores(installation: Installation, name: str) -> Mapping[str, str]:
    """Return the artifacts in the vault `name` that a restore can still need, and why, by name."""
    why: dict[str, str] = {}
    for journal in journals(installation):
        report = journal.report()
        if report is not None and report["result"] == ABANDONED:
            continue
        if journal.is_undone or journal.is_accepted:
            continue
        read = journal.header["artifact"] if journal.header.get("vault", LOCAL) == name else ""
        safety = journal.last("safety", "") if name == LOCAL else ""
        said = "can still be undone" if report is not None else "was killed, and is to be finished"
        why |= dict.fromkeys((read, safety), f"the restore {journal.id} {said}")
    return why


def _lacking(installation: Installation, outside: Outside, found: Iterable[Held]) -> set[str]:
    """Return the names of what is wanted in a vault, and is not proven to be there."""
    wanted = [one for one in found if one.entry.installation == installation.id and outside.wants(one.entry)]
    policy = outside.policy.with_fulls(one.entry for one in wanted)
    kept = still_wanted(wanted, policy, installation.now(), installation=installation.id)
    if not kept:
        return set()
    try:
        there = Catalog(outside.vault(installation.id))
        copies = {entry.name: entry.sha256 for entry in there.entries() if proven(there, entry)}
    except BackupError:
        copies = {}
    here = {one.entry.name: one.entry.sha256 for one in wanted}
    return {name for name in kept if copies.get(name) != here[name]}


def _needs(installation: Installation, catalog: Catalog, entry: Entry) -> frozenset[str]:
    """Return the archives that an archive's index points to: only one of what has changed points anywhere.

    One that cannot be opened may point to any.
    """
    try:
        if ArtifactName.parse(entry.name).kind != "incr":
            return frozenset()
    except RefusedError:
        return frozenset()
    try:
        stored = StoredArtifact(replace(installation, vault=catalog.vault), entry)
        return frozenset(row.archive for row in index.read(stored.companion(_INDEX)) if row.archive)
    except (DamagedError, KeyMissingError, NotFoundError):
        return frozenset(other.name for other in catalog.entries(asset=entry.asset))
