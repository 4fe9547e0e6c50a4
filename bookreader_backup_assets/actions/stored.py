"""An artifact in a vault, read and compared with its entry as it passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.fetched import Fetched
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.codecs import gpg
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import DamagedError, KeyMissingError
from bookreader_backup_assets.core.streams import Meter, Progress, quiet


@dataclass
class StoredArtifact:
    """Implements `components.base.Stored` over an installation's vault.

    `meter` is that of the last reading, for the one who compares size and sha256 afterwards. With `fetched`,
    what was read whole is read from there the next time. `beside` are the siblings that were asked for.
    """

    installation: Installation
    entry: Entry
    progress: Progress = quiet
    meter: Meter | None = field(default=None, repr=False)
    fetched: Fetched | None = None
    beside: list[StoredArtifact] = field(default_factory=list, repr=False)

    @property
    def path(self) -> Path | None:
        """See `Stored.path`."""
        kept = self.fetched.path(self.entry) if self.fetched else None
        return kept or self.installation.vault.local_path(self.entry.name)

    def plain(self) -> Iterator[bytes]:
        """See `Stored.plain`."""
        self.meter = Meter(self._read(), self.progress)
        return self._opened(self.installation.codecs.decode(self.entry.codecs, self.meter))

    def open_range(self, offset: int, length: int) -> Iterator[bytes]:
        """See `Stored.open_range`."""
        return self._read(offset, length)

    def companion(self, role: str) -> Iterator[bytes]:
        """See `Stored.companion`."""
        companion = self.entry.companion(role)
        meter = Meter(self.installation.vault.open(companion.name))
        codecs = ("gpg",) if companion.name.endswith(gpg.SUFFIX) else ()
        yield from self._opened(self.installation.codecs.decode(codecs, meter))
        if meter.sha256 != companion.sha256:
            raise DamagedError(f"{companion.name} is not what was captured: its sha256 differs")

    def sibling(self, asset: str) -> StoredArtifact | None:
        """See `Stored.sibling`."""
        held = self._catalog.entries(asset=asset, set_id=self.entry.set)
        same = [entry for entry in held if entry.label == self.entry.label]
        if not same:
            return None
        self.beside.append(StoredArtifact(self.installation, same[-1], fetched=self.fetched))
        return self.beside[-1]

    def others(self) -> list[Entry]:
        """See `Stored.others`."""
        held = self._catalog.entries(asset=self.entry.asset)
        return [entry for entry in held if entry.name != self.entry.name]

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self.installation.vault)

    def measured(self) -> Meter:
        """Return a meter through which every stored byte has passed, reading them again only if need be."""
        if self.meter is None or not self.meter.ended:
            self.meter = Meter(self._read(), self.progress)
            for _ in self.meter:
                pass
        return self.meter

    def _read(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield stored bytes: from where they were kept, or out of the vault."""
        if self.fetched is not None:
            if (kept := self.fetched.path(self.entry)) is not None:
                return self.fetched.read(kept, offset, length)
            if offset == 0 and length in (None, self.entry.size):
                return self.fetched.keep(self.entry, self.installation.vault.open(self.entry.name))
        return self.installation.vault.open(self.entry.name, offset, length)

    def _opened(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what a codec yields; it sees bytes only, and the entry knows of which key they are."""
        try:
            yield from chunks
        except KeyMissingError as error:
            if (which := self.entry.source.get("key")) is None:
                raise
            hint = f"`bookreader-backup key list` says where that is; {error.hint}"
            raise KeyMissingError(f"{error.message}; it is of the key {which}", hint=hint) from None
