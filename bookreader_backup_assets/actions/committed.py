"""What tells of a file without an entry that it had one: then the entry was lost, and nothing may go.

The entry is the commit, but a disk, or a hand, can lose it. A proof is only put beside what is committed, a
manifest only names what is, and another vault only has the entry of what is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import needed_by_restores, own_vault
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.prune_records import Pruned
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, PROOF_INFIX, ArtifactName
from bookreader_backup_assets.core.errors import BackupError, NotFoundError, RefusedError
from bookreader_backup_assets.core.plan_reasons import MANIFESTS
from bookreader_backup_assets.core.policy import Pin
from bookreader_backup_assets.core.set_id import label_of

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Committed:
    """What is known of the files in one vault that have no entry. Each source is asked once, and late.

    `prunes` are those on record of this vault: what they were to remove has lost its entry to them.
    """

    installation: Installation
    catalog: Catalog
    prunes: Sequence[Pruned]
    pins: Sequence[Pin]

    def was_to_go(self, name: str) -> bool:
        """Whether a prune on record was to remove the artifact that a file is of, and nothing came later.

        A later proof, or a pin, says that it was wanted again.
        """
        told = [self._going[one] for one in _artifacts(name) if one in self._going]
        if not told:
            return False
        at, sets = told[0]
        last = f"{PROOF_INFIX}{at.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z.json"
        proofs = [proof[proof.index(PROOF_INFIX) :] for proof in self._proofs_of(name)]
        return all(proof <= last for proof in proofs) and not {pin.set for pin in self._standing} & {*sets}

    def said(self, name: str) -> str:
        """Return what tells that a file was committed, and what to do now; "" where nothing does."""
        for one in _artifacts(name):
            if vault := self._elsewhere.get(one + ENTRY_SUFFIX):
                again = ", or replicate again" if vault == LOCAL else ""
                return f"its entry is lost: copy {one}{ENTRY_SUFFIX} from {vault}{again}"
        why = next(self._signs(name), "")
        return why and f"its entry is lost, and {why}: copy the entry from wherever there is one; it stays"

    def _signs(self, name: str) -> Iterator[str]:
        if self._proofs_of(name):
            yield "it was proven"
        if any(lying.startswith(f"{one}{ENTRY_SUFFIX}") for one in _artifacts(name) for lying in self._lying):
            yield "something is left of that"
        if pinned := self._pinned(name):
            yield f"the set {pinned} is pinned"
        for one in _artifacts(name):
            if needed := self._needed.get(one):
                yield needed
        for manifest, text in self._manifests.items():
            if any(one.encode() in text for one in _artifacts(name)):
                yield f"{manifest} names it"

    def _proofs_of(self, name: str) -> list[str]:
        of = tuple(f"{one}{PROOF_INFIX}" for one in _artifacts(name))
        return [proof for proof in self._proofs if proof.startswith(of)]

    def _pinned(self, name: str) -> str:
        """Return the pinned set that a file can be of by its name: of that day, and with that label."""
        try:
            parsed = ArtifactName.parse(name.partition(PROOF_INFIX)[0])
        except RefusedError:
            return ""
        for pin in self._standing:
            with suppress(ValueError):
                apart = abs(parsed.taken.date() - date.fromisoformat(pin.set[: len("2025-10-24")]))
                if apart <= _DAY and label_of(pin.set) in (None, parsed.label):
                    return pin.set
        return ""

    @cached_property
    def _standing(self) -> list[Pin]:
        today = date.fromisoformat(self.installation.today())
        return [pin for pin in self.pins if today <= pin.until]

    @cached_property
    def _going(self) -> dict[str, tuple[datetime, tuple[str, ...]]]:
        """What prunes were to remove, when, and the sets that it was in."""
        going: dict[str, tuple[datetime, tuple[str, ...]]] = {}
        for prune in self.prunes:  # oldest first
            going |= {one.artifact: (prune.at, one.sets) for one in prune.removed}
            going |= {one.name: (prune.at, ()) for one in prune.failed}
        return going

    @cached_property
    def _lying(self) -> list[str]:
        return [*self.catalog.strays(), *self.catalog.unreadable]

    @cached_property
    def _proofs(self) -> list[str]:
        return [name for name in self._lying if PROOF_INFIX in name]

    @cached_property
    def _needed(self) -> dict[str, str]:
        return dict(needed_by_restores(self.installation, self.catalog.vault.name))

    @cached_property
    def _elsewhere(self) -> dict[str, str]:
        """The names of the entries in the other vaults that can be asked, and where each is."""
        found: dict[str, str] = {}
        for name in (*self.installation.outside, LOCAL):
            if name != self.catalog.vault.name:
                with suppress(BackupError):
                    stored = own_vault(self.installation, name).list()
                    found |= {one.name: name for one in stored if one.name.endswith(ENTRY_SUFFIX)}
        return found

    @cached_property
    def _manifests(self) -> dict[str, bytes]:
        vault, found = self.catalog.vault, {}
        for stored in list(vault.list(f"{MANIFESTS}/")):
            if not stored.name.endswith(ENTRY_SUFFIX) and PROOF_INFIX not in stored.name:
                with suppress(NotFoundError):
                    found[stored.name] = b"".join(vault.open(stored.name))
        return found


def _artifacts(name: str) -> list[str]:
    """Return what the artifact can be called that a file is, or belongs to: companions add to its name."""
    file = name.partition(PROOF_INFIX)[0]
    folder, slash, last = file.rpartition("/")
    parts = last.split(".")
    return [
        folder + slash + ".".join(parts[:count]) for count in range(len(parts), min(1, len(parts) - 1), -1)
    ]
