"""Codecs in a row: the suffix chain of a name is the recipe for reading it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bookreader_backup_assets.core.errors import DamagedError

Step = Callable[[Iterable[bytes]], Iterator[bytes]]


@dataclass(frozen=True)
class Codec:
    """One reversible step on a byte stream, with the suffix it leaves on a name."""

    name: str
    suffix: str
    encode: Step
    decode: Step


@dataclass(frozen=True)
class Codecs:
    """The codecs of this installation, by name."""

    known: dict[str, Codec]

    def encode(self, names: Iterable[str], chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks` with the codecs applied in order."""
        for name in names:
            chunks = self._codec(name).encode(chunks)
        return iter(chunks)

    def decode(self, names: Iterable[str], chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks` with the codecs undone, the last first."""
        for name in reversed(list(names)):
            chunks = self._codec(name).decode(chunks)
        return iter(chunks)

    def suffix(self, names: Iterable[str]) -> str:
        """What the codecs add to a name."""
        return "".join(self._codec(name).suffix for name in names)

    def _codec(self, name: str) -> Codec:
        if name not in self.known:
            raise DamagedError(f"there is no codec {name!r}", hint=f"known: {', '.join(self.known)}")
        return self.known[name]
