"""Prune: what the plan does not keep any more goes, from one vault, and never the last good copy.

Written down first, then one artifact after the other, the oldest first, and of each its entry first: killed
anywhere, no entry is left without its artifact, and what is left is strays.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from bookreader_backup_assets.actions import prune_records
from bookreader_backup_assets.actions import strays as stray_files
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.committed import Committed
from bookreader_backup_assets.actions.growth import bytes_of
from bookreader_backup_assets.actions.held import held, own_vault
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.journal import alone
from bookreader_backup_assets.actions.pins import pins
from bookreader_backup_assets.actions.program_log import noted
from bookreader_backup_assets.actions.prune_records import Pruned, Removal, Trouble
from bookreader_backup_assets.actions.strays import Stray
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, PROOF_INFIX, Entry
from bookreader_backup_assets.core.errors import BackupError, NotFoundError, RefusedError, VaultError
from bookreader_backup_assets.core.policy import Held, Policy
from bookreader_backup_assets.core.prune_reasons import why_removed
from bookreader_backup_assets.core.retention import Verdict, decide
from bookreader_backup_assets.vaults.base import Vault


@dataclass(frozen=True)
class PrunePlan:
    """What would become of everything in a vault: of artifacts, oldest first, and of strays, by name."""

    vault: str
    at: datetime
    verdict: Verdict
    removals: tuple[Removal, ...] = ()
    strays: tuple[Stray, ...] = ()

    @property
    def bytes(self) -> int:
        """What would be free afterwards, and is not now."""
        goes = sum(stray.bytes for stray in self.strays if not stray.stays)
        return goes + sum(removal.bytes for removal in self.removals)


def plan_prune(installation: Installation, name: str, *, share: float | None = None) -> PrunePlan:
    """Return what a prune of the vault `name` would do. It touches nothing.

    `share` is the part of its artifacts that may go, instead of the plan's. Raises `RefusedError` for a
    vault that there is not, `VaultError` where it cannot be read, and `DamagedError` for a pin that cannot.
    """
    return _plan(installation, name, share)[0]


def prune(installation: Installation, name: str, *, share: float | None = None) -> Pruned:
    """Remove from the vault `name` what the plan does not keep, and return what went, on record.

    What cannot be removed is named in the result, and the next is gone on with. Raises what `plan_prune`
    does, `RefusedError` while a restore or another prune works here, and `VaultError` where the local vault
    takes no record: nothing was removed then.
    """
    if installation.known_id is None:  # no record of anything, and no folder for a lock
        return Pruned("", "", name, plan_prune(installation, name, share=share).at)
    with alone(installation, "prune"):
        planned, catalog = _plan(installation, name, share)
        going = [stray for stray in planned.strays if not stray.stays]
        pruned = Pruned(
            id="",
            installation=installation.known_id or "",
            vault=name,
            at=planned.at,
            host=installation.host,
            removed=planned.removals,
            strays=tuple(stray.name for stray in going),
            stray_bytes=sum(stray.bytes for stray in going),
            refusals=planned.verdict.refusals,
        )
        for refusal in pruned.refusals:
            installation.log.warning("prune %s refused: %s", name, refusal)
        if not (pruned.removed or going):
            return pruned
        begun = prune_records.begin(installation.vault, pruned)
        entries = {entry.name: entry for entry in catalog.entries()}
        removed: list[Removal] = []
        failed: list[Trouble] = []
        for removal in planned.removals:
            try:
                _remove(installation, catalog, entries[removal.artifact], removal)
                removed.append(removal)
            except BackupError as error:
                failed.append(Trouble(removal.artifact, error.message))
        left = _remove_strays(installation, catalog.vault, going)
        stay = {trouble.name for trouble in left}
        gone = sum(stray.bytes for stray in going if stray.name not in stay)
        return prune_records.end(installation.vault, begun, removed, [*failed, *left], gone)


def prunes(installation: Installation, since: datetime | None = None) -> list[Pruned]:
    """Return the prunes on record, of all vaults, oldest first; those `since` an instant, if asked."""
    return prune_records.recorded(installation.vault, since)


def _plan(installation: Installation, name: str, share: float | None) -> tuple[PrunePlan, Catalog]:
    if share is not None and not 0 < share <= 1:
        raise RefusedError(f"{share} is no part of a whole", hint="more than 0, at most 1: --share 0.9")
    policy = installation.policy if name == LOCAL else installation.vault_outside(name).policy
    if policy is None:
        raise RefusedError("no plan says what is kept here", hint="set BACKUP_PLAN")
    policy = replace(policy, share=policy.share if share is None else share)
    now = installation.now()
    own = installation.known_id
    if own is None:  # nothing was captured yet, and what may be there is not ours
        return PrunePlan(name, now, Verdict(())), Catalog(installation.vault)
    vault = own_vault(installation, name)
    catalog = Catalog(vault)
    policy = policy.with_fulls(catalog.entries())
    found = held(installation, name, catalog)
    kept = [one.pin for one in pins(installation, vault)]
    lying = _strays(installation, catalog, now)
    lone = len({one.name.partition(".")[0] for one in lying if not (one.stays or one.unfinished)})

    def judged(some: Sequence[Held]) -> Verdict:
        return decide(some, policy, now, installation=own, pins=kept, strays=lone)

    going = {one.entry.name for one in judged(found).decisions if not one.kept}
    verdict = judged([_asked(vault, one) if one.entry.name in going else one for one in found])
    verdict = replace(verdict, refusals=(*_unreadable(catalog), *verdict.refusals))
    sets = {one.entry.name: one.sets for one in found}
    if verdict.refusals:
        lying = [replace(stray, stays=stray.stays or "nothing is removed now") for stray in lying]
    plan = PrunePlan(
        vault=name,
        at=now,
        verdict=verdict,
        removals=tuple(_removal(entry, sets[entry.name], policy) for entry in verdict.removed),
        strays=tuple(lying),
    )
    return plan, catalog


def _asked(vault: Vault, one: Held) -> Held:
    """Return what would go with its lock: the longest of those of its files."""
    entry = one.entry
    locks = []
    for name in (entry.entry_name, *_files(entry)):
        with suppress(NotFoundError):
            locks.append(vault.locked_until(name))
    return replace(one, locked_until=max((lock for lock in locks if lock is not None), default=None))


def _unreadable(catalog: Catalog) -> list[str]:
    lost = [name for name in catalog.unreadable if name.endswith(ENTRY_SUFFIX)]
    if not lost:
        return []
    said = (
        "nobody can tell what that is of, and what it needs; mend it from a copy, or add .damaged to its"
        " name: what it is of stays, and does not count"
    )
    return [f"{', '.join(lost)} cannot be read: {said}"]


def _removal(entry: Entry, sets: frozenset[str], policy: Policy) -> Removal:
    return Removal(
        artifact=entry.name,
        asset=entry.asset,
        sets=tuple(sorted(sets)),
        bytes=bytes_of(entry),
        captured_at=entry.captured_at,
        why=why_removed(entry, sets, policy),
    )


def _remove(installation: Installation, catalog: Catalog, entry: Entry, removal: Removal) -> None:
    """Remove an artifact, its entry first: that un-commits it. Raises `VaultError`."""
    vault = catalog.vault
    with noted(installation.log, "prune", f"{entry.name} of {vault.name}") as say:
        proofs = {stored.name for stored in vault.list(entry.name + PROOF_INFIX)}
        known = {proof.proof_name for proof in catalog.stored_proofs(entry)} | set(catalog.unreadable)
        there = Entry.from_json(b"".join(vault.open(entry.entry_name)), name=entry.entry_name)
        if there != entry or not proofs <= known:
            raise VaultError(f"{entry.name} is not what it was when this prune was planned: it stays")
        vault.delete(entry.entry_name)
        for name in _files(entry):
            with suppress(NotFoundError):
                vault.delete(name)
        for name in sorted(proofs):
            with suppress(NotFoundError):
                if vault.locked_until(name) is None:  # one that was locked later is a stray for so long
                    vault.delete(name)
        say(f"{removal.bytes} bytes: {removal.why}")


def _strays(installation: Installation, catalog: Catalog, now: datetime) -> list[Stray]:
    name = catalog.vault.name
    own = [one for one in prunes(installation) if (one.vault, one.installation) == (name, installation.id)]
    pinned = [one.pin for one in pins(installation, catalog.vault)]
    committed = Committed(installation, catalog, own, pinned)
    return stray_files.strays(catalog, committed, now, alone=name != LOCAL)


def _remove_strays(installation: Installation, vault: Vault, going: Sequence[Stray]) -> list[Trouble]:
    """Remove what still is a stray, and return what could not be: an entry may have come to it meanwhile."""
    failed = []
    still = _strays(installation, Catalog(vault), installation.now()) if going else []
    for stray in going:
        try:
            with noted(installation.log, "prune", f"{stray.name} of {vault.name}") as say:
                if stray not in still:
                    raise VaultError(f"{stray.name} is no stray any more: it stays")
                stray_files.remove(vault, stray)
                say(f"{stray.bytes} bytes: it has no entry")
        except BackupError as error:
            failed.append(Trouble(stray.name, error.message))
    return failed


def _files(entry: Entry) -> list[str]:
    """Return an artifact's own names: an entry that names another's file takes nothing from it."""
    return [entry.name, *(one.name for one in entry.companions if one.name.startswith(f"{entry.name}."))]
