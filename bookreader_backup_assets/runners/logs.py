"""The logs seam: who has logged here, what, and what of it is still kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

JOINED = 1 << 20
"""Bytes of a message that are held to be joined; what is longer goes on in another line of the same stamp."""


class Line(NamedTuple):
    """One line: when it was logged (a stamp of `core.hour`, as bytes), to which stream, and its bytes.

    `message` has no newline at its end.
    """

    stamp: bytes
    stream: bytes
    message: bytes


@dataclass(frozen=True)
class Source:
    """Something that logs. `name` stands before each of its lines, and has no blank in it.

    `id` is the same as long as it is the same one: a container that was made anew has another. `about`
    is what else there is to record.
    """

    name: str
    id: str
    about: dict[str, Any]


class Logs(Protocol):
    """Where lines come from: an engine's containers, or the log file of this program."""

    def sources(self) -> list[Source]:
        """Return who logs here, by name. Raises `SourceError` where nobody can tell."""
        ...

    def lines(self, source: Source, since: str, until: str) -> Iterator[Line]:
        """Yield what was logged from `since` (a stamp, included) to `until` (excluded).

        In the order in which it was logged, which is nearly that of the stamps. Raises `SourceError` if
        what is kept cannot be read, `SourceAbsentError` if the source has gone.
        """
        ...

    def oldest(self, source: Source) -> str | None:
        """Return the stamp of the oldest line that is kept, or None. Raises like `lines`."""
        ...

    def is_whole(self, source: Source) -> bool:
        """Whether nothing can have been rotated away; False where that cannot be told."""
        ...
