"""What a vault holds, read from its entries: never a database, so never out of date."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bookreader_backup_assets.core.artifact import (
    ENTRY_SUFFIX,
    PROOF_INFIX,
    Entry,
    Proof,
    load_document,
    parse_utc,
)
from bookreader_backup_assets.core.check import Verdict, failed
from bookreader_backup_assets.core.errors import DamagedError, NotFoundError
from bookreader_backup_assets.core.manifest import (
    UNCHANGED,
    Failure,
    Standing,
    failures_folder,
    standing,
    unchanged_on,
    unchanged_sets,
)
from bookreader_backup_assets.core.set_id import is_set, label_of
from bookreader_backup_assets.vaults.base import Vault

_OTHERS = ("failures/", "restores/", "sets/", "pins/", "prunes/")  # kept in a vault, and no artifacts
_AT_ONCE = 16
CLOCKS_DIFFER = timedelta(minutes=5)
"""How far ahead of this clock an artifact may be."""


@dataclass
class Catalog:
    """A reading of the vault. Each entry and proof is read once; make a new one to see what is new.

    Files that are no entries are passed over. An entry that cannot be read is in `unreadable`, since
    one damaged entry must not hide the others.
    """

    vault: Vault
    unreadable: list[str] = field(default_factory=list)
    _entries: dict[str, Entry] = field(default_factory=dict, repr=False)
    _proofs: dict[str, list[Proof]] = field(default_factory=dict, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)
    _read: bool = field(default=False, repr=False)
    _now: datetime | None = field(default=None, repr=False)

    def at(self, now: datetime | None) -> Catalog:
        """Return the same reading as of an instant: what claims to be from later than that is `ahead`.

        A clock that was ahead once must not have its artifacts count as the newest ever after. Of no instant
        (None), nothing is.
        """
        self._load()
        return replace(self, _now=now)

    def entries(self, *, component: str = "", asset: str = "", set_id: str = "") -> list[Entry]:
        """Return the entries, oldest first, of one component, asset or set if asked."""
        self._load()
        found = [
            entry
            for entry in self._entries.values()
            if (not component or entry.component == component)
            and (not asset or entry.asset == asset)
            and (not set_id or entry.set == set_id)
        ]
        return sorted(found, key=lambda entry: (entry.captured_at, entry.name))

    def proofs(self, entry: Entry) -> list[Proof]:
        """Return what was found out about an entry later, oldest first.

        The last is this reading's own, where a file of the artifact is gone or has another size: a
        listing tells that much, and nothing that is not there may stand as verified.
        """
        proofs = self.stored_proofs(entry)
        captured = {entry.name: entry.size, **{one.name: one.size for one in entry.companions}}
        wrong = [
            f"{name} has {self._sizes[name]} bytes, {size} were captured"
            if name in self._sizes
            else f"no {name}"
            for name, size in captured.items()
            if self._sizes.get(name) != size
        ]
        if wrong:
            at = max([entry.captured_at, *(proof.at for proof in proofs)])
            seen = failed("not_empty", "; ".join(wrong))
            proofs.append(Proof(entry.installation, entry.name, entry.sha256, at, (seen,)))
        return proofs

    def stored_proofs(self, entry: Entry) -> list[Proof]:
        """Return the proofs that lie beside an entry, oldest first, and nothing of this reading's own."""
        self._load()
        return sorted(self._proofs.get(entry.name, []), key=lambda proof: proof.at)

    def standing(self, entry: Entry) -> Standing:
        """Return where an entry stands with its checks."""
        return standing(entry, self.proofs(entry))

    def newest(self, asset: str, *, set_id: str = "", verified: bool = False) -> Entry | None:
        """Return the regular entry of an asset with the latest `captured_at`, or None.

        With `verified`, only those that every check of theirs passed. Of a reading `at` an instant, the one
        that was last known to be what its source held, and none that is `ahead`.
        """
        held = self.entries(asset=asset, set_id=set_id)
        if self._now is not None:
            known = {entry.name: self.moments(entry) for entry in held if entry.regular}
            held = sorted((e for e in held if known.get(e.name)), key=lambda e: max(known[e.name]))
        for entry in reversed(held):
            if not entry.regular:
                continue
            if not verified or self.standing(entry).verdict is Verdict.PASSED:
                return entry
        return None

    def moments(self, entry: Entry) -> list[datetime]:
        """Return the instants at which the source held what an entry has: captured, or found unchanged.

        Of a reading `at` an instant none that is later: those of an entry that is `ahead` are none.
        """
        unchanged = [p.at for p in self.proofs(entry) if any(o.check == UNCHANGED for o in p.checks)]
        return [moment for moment in (entry.captured_at, *unchanged) if not self._is_later(moment)]

    def ahead(self, asset: str = "") -> list[Entry]:
        """Return the regular entries, oldest first, that cannot be as young as they say."""
        return [entry for entry in self.entries(asset=asset) if entry.regular and not self.moments(entry)]

    def sets_ahead(self) -> set[str]:
        """Return the ids of the sets that were captured, or looked at, while the clock was ahead."""
        looked = [proof for proofs in self._proofs.values() for proof in proofs if self._is_later(proof.at)]
        return {entry.set for entry in self.ahead()} | unchanged_sets(looked)

    def of_day(self, asset: str, day: str) -> Entry | None:
        """Return what a set has of an asset: its own newest, one filed later only if there is no other, or
        the one found unchanged on that day.
        """
        labelled = label_of(day) is not None
        own = [entry for entry in self.entries(asset=asset, set_id=day) if entry.regular or labelled]
        own.sort(key=lambda entry: not entry.late)
        still = [
            e for e in self.entries(asset=asset) if e.label is None and unchanged_on(day, self.proofs(e))
        ]
        found = own or still
        return found[-1] if found else None

    def sets_of(self, asset: str) -> set[str]:
        """Return the ids of the sets that have something of an asset; see `of_day`."""
        held = self.entries(asset=asset)
        own = {entry.set for entry in held if entry.regular or label_of(entry.set)}
        return own.union(*(unchanged_sets(self.proofs(entry)) for entry in held if entry.label is None))

    def sets(self, asset: str = "") -> list[str]:
        """Return the ids of sets, of an asset if asked, oldest first; hours of logs and drills are none."""
        return sorted({e.set for e in self.entries(asset=asset) if is_set(e.set)})

    def strays(self) -> dict[str, int]:
        """Return files of artifacts without an entry, proofs too, and their sizes: what was killed left them.

        What belongs to an entry that cannot be read is none: nobody can tell what that is of.
        """
        self._load()
        known = {"installation.json", *self.unreadable}
        for entry in self._entries.values():
            known |= {entry.name, entry.entry_name, *(companion.name for companion in entry.companions)}
        closed = tuple(n.removesuffix(ENTRY_SUFFIX) for n in self.unreadable if n.endswith(ENTRY_SUFFIX))
        return {
            name: size
            for name, size in self._sizes.items()
            if name not in known
            and name.partition(PROOF_INFIX)[0] not in self._entries
            and not name.startswith((*_OTHERS, *closed))
        }

    def failures(self, set_id: str) -> list[Failure]:
        """Return the captures of a set that ended in no artifact, oldest first."""
        found = []
        for stored in self.vault.list(failures_folder(set_id)):
            try:
                document = load_document(b"".join(self.vault.open(stored.name)), stored.name)
                found.append(Failure(**{**document, "at": parse_utc(document["at"])}))
            except (DamagedError, KeyError, TypeError, ValueError):
                self.unreadable.append(stored.name)
        return sorted(found, key=lambda failure: failure.at)

    def _is_later(self, moment: datetime) -> bool:
        return self._now is not None and moment > self._now + CLOCKS_DIFFER

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        for stored in self.vault.list():
            self._sizes[stored.name] = stored.size
        documents = [name for name in self._sizes if name.endswith(ENTRY_SUFFIX) or PROOF_INFIX in name]
        for name, data in self._read_all(documents):
            try:
                if name.endswith(ENTRY_SUFFIX):
                    entry = Entry.from_json(data, name=name)
                    if entry.entry_name != name:
                        raise DamagedError(f"{name} is the entry of another file")
                    self._entries[entry.name] = entry
                else:
                    proof = Proof.from_json(data, name=name)
                    self._proofs.setdefault(proof.artifact, []).append(proof)
            except DamagedError:
                self.unreadable.append(name)

    def _read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and what is in them; many at once where each is a journey to another host."""

        def read(name: str) -> bytes | None:
            try:
                return b"".join(self.vault.open(name))
            except NotFoundError:
                return None  # pruned since it was listed

        if self.vault.local_path("x") is not None:
            found = zip(names, map(read, names), strict=True)
            yield from ((name, data) for name, data in found if data is not None)
            return
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="catalog") as pool:
            found = zip(names, pool.map(read, names), strict=True)
            yield from ((name, data) for name, data in found if data is not None)
