"""The vault on a NAS: a folder like the local one, and refused while what should be mounted is not.

A folder where nothing is mounted takes every write, onto the disk that the copy is to survive. So there is
a file on the NAS itself without which nothing is read or written: made by hand, once, where it is mounted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.vaults.base import Stored, Terms
from bookreader_backup_assets.vaults.local import LocalVault
from bookreader_backup_assets.vaults.names import IDENTITY

MARKER = ".bookreader-nas"
FOLDER = "bookreader-backups"
_ANSWERS = 20.0  # seconds; a disk that slept needs some


@dataclass(frozen=True)
class Nas:
    """Implements `Place` in a folder where a NAS is mounted."""

    mount: Path
    name: str = "nas"

    def vault(self, installation: str, terms: Terms | None = None) -> NasVault:  # noqa: ARG002 - it has none
        """See `Place.vault`."""
        return NasVault(self.mount, LocalVault(self.mount / FOLDER / installation, self.name))

    def installations(self) -> list[str]:
        """See `Place.installations`."""
        require_mounted(self.mount)
        folder = self.mount / FOLDER
        return sorted(found.parent.name for found in folder.glob(f"*/{IDENTITY}"))

    def shares_disk(self, folder: Path) -> bool:
        """Whether it lies on the disk of a folder of this host. Raises `VaultError` where nobody can tell."""
        require_mounted(self.mount)
        while not folder.exists():
            folder = folder.parent
        return self.mount.stat().st_dev == folder.stat().st_dev


@dataclass(frozen=True)
class NasVault:
    """A `LocalVault` behind the marker, which is looked for before each use, and after each write."""

    mount: Path
    folder: LocalVault

    @property
    def name(self) -> str:
        """See `Vault.name`."""
        return self.folder.name

    def put(self, name: str, chunks: Iterable[bytes], *, size: int | None = None) -> Stored:
        """See `Vault.put`. What was written while the NAS went away is not there, and not reported so."""
        require_mounted(self.mount)
        stored = self.folder.put(name, self._mounted(chunks), size=size)
        require_mounted(self.mount)
        return stored

    def open(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Vault.open`."""
        require_mounted(self.mount)
        yield from self.folder.open(name, offset, length)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `Vault.list`."""
        require_mounted(self.mount)
        yield from self.folder.list(prefix)

    def stat(self, name: str) -> Stored:
        """See `Vault.stat`."""
        require_mounted(self.mount)
        return self.folder.stat(name)

    def digest(self, name: str) -> str:
        """See `Vault.digest`."""
        require_mounted(self.mount)
        return self.folder.digest(name)

    def delete(self, name: str) -> None:
        """See `Vault.delete`."""
        require_mounted(self.mount)
        self.folder.delete(name)

    def locked_until(self, name: str) -> datetime | None:
        """See `Vault.locked_until`."""
        require_mounted(self.mount)
        return self.folder.locked_until(name)

    def unfinished(self) -> Iterator[Stored]:
        """See `Vault.unfinished`."""
        require_mounted(self.mount)
        yield from self.folder.unfinished()

    def discard(self, name: str) -> None:
        """See `Vault.discard`."""
        require_mounted(self.mount)
        self.folder.discard(name)

    def free(self) -> int | None:
        """See `Vault.free`."""
        require_mounted(self.mount)
        return self.folder.free()

    def local_path(self, name: str) -> Path | None:
        """See `Vault.local_path`."""
        return self.folder.local_path(name)

    def _mounted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield chunks, and end badly if the NAS is gone after the last one: nothing is committed then."""
        yield from chunks
        require_mounted(self.mount)


def require_mounted(mount: Path) -> None:
    """Raise `VaultError` unless the marker is in the folder where the NAS should be mounted.

    One whose server is gone leaves whoever asks it waiting for good: it is asked in a thread.
    """
    seen: list[bool | OSError] = []

    def look() -> None:
        try:
            seen.append((mount / MARKER).is_file())
        except OSError as error:
            seen.append(error)

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(_ANSWERS)
    answer = seen[0] if seen else None
    if not isinstance(answer, bool):
        why = f"cannot be asked: {answer.strerror}" if answer else f"did not answer within {_ANSWERS:.0f} s"
        raise VaultError(f"the NAS at {mount} {why}", hint="is it on, and reachable? then mount it anew")
    if not answer:
        raise VaultError(
            f"the NAS is not mounted at {mount}: there is no {MARKER}",
            hint=f"mount it. At its first use, and only if `findmnt {mount}` says that it is really mounted "
            f"there: touch {mount / MARKER}",
        )
