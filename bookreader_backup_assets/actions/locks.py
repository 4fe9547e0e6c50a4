"""Object locks offsite: what the plan keeps there is locked for as long as its row says, from now on.

A lock is set once, when a file is put there. What is kept longer than it lasts has to be locked anew, and so
has what was put there before the row of the plan asked for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import held, own_vault
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.pins import pins
from bookreader_backup_assets.actions.program_log import noted
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import BackupError, NotFoundError, RefusedError
from bookreader_backup_assets.core.retention import decide
from bookreader_backup_assets.vaults.s3 import S3Vault
from bookreader_backup_assets.vaults.s3_bucket import Reached, require_locks
from bookreader_backup_assets.vaults.s3_place import Bucket

OFFSITE = "offsite"
_AT_ONCE = 16
_LATELY = timedelta(hours=12)  # what was locked within them is not locked anew: a run a day renews each once


@dataclass(frozen=True)
class Lock:
    """An artifact that is to be locked for `days`, and until when (UTC) each of its files is, or None."""

    entry: Entry
    vault: S3Vault
    days: int
    files: dict[str, datetime | None]

    def lapsed(self, now: datetime) -> list[str]:
        """Return the names of its files that nothing holds now."""
        return [name for name, until in self.files.items() if until is None or until <= now]

    def short(self, until: datetime) -> list[str]:
        """Return the names of its files that are not held until then."""
        return [name for name, held_until in self.files.items() if held_until is None or held_until < until]


@dataclass(frozen=True)
class Renewed:
    """What became of one artifact's locks: until when its files are locked, how many, and what went wrong."""

    entry: Entry
    until: datetime
    files: int
    error: BackupError | None = None


def bucket(installation: Installation) -> Bucket:
    """Return the bucket of the vault `offsite`. Raises `RefusedError` where it is not set up."""
    place = installation.vault_outside(OFFSITE).place
    if not isinstance(place, Bucket):
        raise RefusedError(f"the vault {OFFSITE!r} is no bucket of S3, and has no rules and no locks")
    return place


def lock_rows(installation: Installation) -> list[str]:
    """Return the rows of the plan that ask for locks offsite."""
    return [row for row, terms in installation.vault_outside(OFFSITE).terms.items() if terms.lock_days]


def locks(installation: Installation) -> list[Lock]:
    """Return how what the plan keeps offsite is locked, oldest first, as far as its row asks for it.

    Raises `VaultError`, and `RefusedError` before the first capture.
    """
    outside = installation.vault_outside(OFFSITE)
    vault = own_vault(installation, OFFSITE)
    catalog, own = Catalog(vault), installation.known_id or ""
    outside = replace(outside, policy=outside.policy.with_fulls(catalog.entries()))
    kept = decide(
        held(installation, OFFSITE, catalog),
        outside.policy,
        installation.now(),
        installation=own,
        pins=[one.pin for one in pins(installation, vault)],
    )
    found = []
    for decision in kept.decisions:
        entry = decision.entry
        on_terms = outside.vault(own, entry)
        if (
            decision.kept
            and entry.installation == own
            and isinstance(on_terms, S3Vault)
            and on_terms.lock_days
        ):
            proofs = [proof.proof_name for proof in catalog.stored_proofs(entry)]
            names = [entry.name, *(one.name for one in entry.companions), entry.entry_name, *proofs]
            found.append((entry, on_terms, names))

    def ask(vault_and_name: tuple[S3Vault, str]) -> datetime | None:
        vault, name = vault_and_name
        try:
            return vault.locked_until(name)
        except NotFoundError:
            return datetime.max.replace(
                tzinfo=installation.now().tzinfo
            )  # a matter of `verify`, not of locks

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="locks") as pool:
        until = pool.map(ask, [(vault, name) for _, vault, names in found for name in names])
        return [
            Lock(entry, vault, vault.lock_days, {n: next(until) for n in names})
            for entry, vault, names in found
        ]


def renew(installation: Installation) -> Iterator[Renewed]:
    """Lock what the plan keeps offsite anew, for as long as its row says from now; yield each that needed it.

    What cannot be locked is yielded with its error, and the next gone on with. Raises `VaultError` before
    anything is locked where the bucket can lock nothing.
    """
    rows = lock_rows(installation)
    if not rows:
        raise RefusedError(
            "no row of the plan asks for locks offsite",
            hint="write lock_days into one: offsite = { days = 30, lock_days = 14 }",
        )
    require_locks(Reached.of(bucket(installation)), rows)
    for lock in locks(installation):
        until = installation.now() + timedelta(days=lock.days)
        if not (short := lock.short(until - _LATELY)):
            continue
        error = None
        try:
            with noted(installation.log, "lock", f"{lock.entry.name} in {OFFSITE}") as say:
                for name in short:
                    lock.vault.renew_lock(name, until)
                say(f"until {until:%Y-%m-%d %H:%M} UTC")
        except BackupError as caught:
            error = caught
        yield Renewed(lock.entry, until, len(short), error)
