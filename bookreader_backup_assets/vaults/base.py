"""The vault seam: a place that keeps files under names, each written once and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Stored:
    """A file in a vault: its name, and its size in bytes."""

    name: str
    size: int


class Vault(Protocol):
    """Names are relative paths of plain characters; a bad one is refused, on writing and on listing."""

    @property
    def name(self) -> str:
        """What this vault is called in the plan and in messages."""
        ...

    def put(self, name: str, chunks: Iterable[bytes]) -> Stored:
        """Keep `chunks` under `name`, atomically and for good: after a return it survives a power cut,
        and after any error nothing is under that name.

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

    def free(self) -> int | None:
        """Bytes that still fit, or None where nobody can tell. Raises `VaultError` if it takes nothing."""
        ...

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine, for programs that need to seek; None if it does not."""
        ...
