"""The vault seam: a place that keeps files under names, each written once and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Stored:
    """A file in a vault: its name, its size in bytes, and when the vault says that it was last written.

    `modified` (UTC) is the vault's word, or that of whoever copied the vault: it tells how long something
    half-written has lain there, and never the age of an artifact. `sha256` (hex) is of all its bytes, where
    the vault itself computed one of what it received in `put`, and it was the right one; `parts` are then
    the SHA-256 of each part that was sent, all of `part_size` bytes but the last.
    """

    name: str
    size: int
    modified: datetime | None = field(default=None, compare=False)
    sha256: str | None = field(default=None, compare=False)
    parts: tuple[str, ...] = field(default=(), compare=False)
    part_size: int = field(default=0, compare=False)


class Vault(Protocol):
    """Names are relative paths of plain characters; a bad one is refused, on writing and on listing."""

    @property
    def name(self) -> str:
        """What this vault is called in the plan and in messages."""
        ...

    def put(self, name: str, chunks: Iterable[bytes], *, size: int | None = None) -> Stored:
        """Keep `chunks` under `name`, atomically and for good: after a return it survives a power cut,
        and after any error nothing is under that name.

        `size` is how many bytes will come, where that is known: a vault that sends in parts sizes them by
        it, and goes on at the first missing part of an upload of the same bytes that was interrupted.

        Raises `NameTakenError` if the name is in use or being written, before the first chunk is asked
        for; `SpaceError` if there is no room; and whatever `chunks` raises.
        """
        ...

    def open(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `offset`, `length` of them or all. Raises `NotFoundError`."""
        ...

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield what is kept under names that begin with `prefix`, sorted; nothing half-written."""
        ...

    def stat(self, name: str) -> Stored:
        """Return what is kept under `name`. Raises `NotFoundError`."""
        ...

    def digest(self, name: str) -> str:
        """Return the SHA-256 (hex) of what is kept, read back from where it is kept."""
        ...

    def delete(self, name: str) -> None:
        """Remove what is kept under `name`, and nothing else. Raises `NotFoundError`."""
        ...

    def locked_until(self, name: str) -> datetime | None:
        """Return until when (UTC) the vault itself refuses to remove `name`; None if it does not.

        Raises `NotFoundError`.
        """
        ...

    def unfinished(self) -> Iterator[Stored]:
        """Yield what was begun and never ended, sorted, with the names it was meant for: no file of `list`.

        What somebody is writing now is among them where the vault cannot tell.
        """
        ...

    def discard(self, name: str) -> None:
        """Remove what `unfinished` yields under `name`; what somebody is seen to write stays."""
        ...

    def free(self) -> int | None:
        """Bytes that still fit, or None where nobody can tell. Raises `VaultError` if it takes nothing."""
        ...

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine, for programs that need to seek; None if it does not."""
        ...


@dataclass(frozen=True)
class Terms:
    """On what terms a vault keeps a file, where it has any: its class, and for how many days it is locked."""

    storage_class: str = "STANDARD"
    lock_days: int = 0


class Place(Protocol):
    """Somewhere away from this host where vaults lie, one for each installation."""

    @property
    def name(self) -> str:
        """What its vaults are called in the plan and in messages: `nas`, `offsite`, `git`."""
        ...

    def vault(self, installation: str, terms: Terms | None = None) -> Vault:
        """Return the vault of an installation, which may be empty. Contacts nothing."""
        ...

    def installations(self) -> list[str]:
        """Return the ids of the installations that have a vault there, sorted.

        Raises `VaultError` where nobody can tell.
        """
        ...
