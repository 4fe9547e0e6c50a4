"""The lines of a logs archive: `<source> <stamp> <stream> <message>`, written, counted, and counted again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.runners.logs import JOINED, Line

_CHUNK = 256 * 1024
_LONGEST = 2 * JOINED  # a message as long as they are joined, and one part more
_STAMP = 30


@dataclass
class Tally:
    """What one source has in an archive: lines, `size` (bytes) of their messages, first and last stamp."""

    lines: int = 0
    size: int = 0
    first: str | None = None
    last: str | None = None

    def add(self, stamp: bytes, size: int) -> None:
        """Count a line. Lines need not be in the order of their stamps."""
        said = stamp.decode("ascii")
        self.lines += 1
        self.size += size
        self.first = said if self.first is None or said < self.first else self.first
        self.last = said if self.last is None or said > self.last else self.last

    def counted(self) -> dict[str, Any]:
        """The tally as a fingerprint has it."""
        return {"lines": self.lines, "bytes": self.size, "first": self.first, "last": self.last}


def written(name: str, lines: Iterable[Line], tally: Tally) -> Iterator[bytes]:
    """Yield the text of a source's lines, some hundred kilobytes at a time, and count them."""
    before = name.encode("utf-8")
    held: list[bytes] = []
    size = 0
    try:
        for stamp, stream, message in lines:
            tally.add(stamp, len(message))
            held.append(b"%b %b %b %b\n" % (before, stamp, stream, message))
            size += len(held[-1])
            if size >= _CHUNK:
                yield b"".join(held)
                held.clear()
                size = 0
    except GeneratorExit:
        raise
    except BaseException:
        if held:  # what has been counted is there
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def recount(chunks: Iterable[bytes]) -> dict[str, Tally]:
    """Return the tallies of an archive, by source. Raises `DamagedError` for what is no line of one."""
    tallies: dict[str, Tally] = {}
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise DamagedError("it has a line that is longer than any that was written")
        for line in lines:
            name, _, said = line.partition(b" ")
            stamp, stream, _ = said[:_STAMP], *said[_STAMP + 1 :].partition(b" ")[:2]
            if not name or stamp[-1:] != b"Z" or len(stamp) != _STAMP or not stream:
                raise DamagedError(f"it has a line that is none of a log: {line[:80]!r}")
            size = len(said) - _STAMP - len(stream) - 2
            try:
                tallies.setdefault(name.decode("utf-8"), Tally()).add(stamp, size)
            except UnicodeDecodeError:
                raise DamagedError(f"it has a line that is none of a log: {line[:80]!r}") from None
    if rest:
        raise DamagedError("its last line is cut short")
    return tallies
