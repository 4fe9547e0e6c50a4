"""Redis's dump format (RDB) skimmed as it passes: keys counted, the end found, no value decoded.

The format is a magic of nine bytes, then records: an opcode or a value type in one byte, and what
belongs to it; the end is opcode 255 with a CRC64 behind it. `redis-cli --rdb -` appends a mark of 40
hex digits to what a diskless server sent, which is no part of the dump.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bookreader_backup_assets.components.rdb_format import (
    BLOBS,
    BYTE,
    LENGTH,
    OPCODES,
    TEXT,
    VALUES,
    Program,
    UnknownTypeError,
)
from bookreader_backup_assets.core.errors import DamagedError

MAGIC = re.compile(rb"(?:REDIS|VALKEY)(\d{3,4})")
MAGIC_BYTES = 9
_MARK, _MARK_BYTES = re.compile(rb"[0-9a-f]{40}"), 40
_HEAD = 19
"""Bytes of the longest head of a string: one of kind, and two lengths of nine."""
_AUX, _SELECTDB, _EOF = 250, 254, 255
_EXPIRY = {252: (8, 1), 253: (4, 1000)}  # bytes, and milliseconds of its unit
_CRC = 8
_TAIL = 1 + _CRC + _MARK_BYTES


class Skim:
    """Passes a dump on, without what `redis-cli` appends, and knows about it once it is exhausted.

    `databases` counts keys by logical database, those included whose time has run out; a count that
    could not be finished, because a newer Redis wrote a type unknown here, is None, and databases
    after that one are not in it. `aux` holds what the server says about itself: `redis-ver`, `ctime`
    (seconds since the epoch, at the fork). `version` is the format's. Memory is one chunk. With `at_ms`,
    milliseconds since the epoch, `expired` counts the keys whose time has run out by then.

    Iterating raises `DamagedError` if it is no dump, or after the last chunk if it is cut short.
    """

    def __init__(self, chunks: Iterable[bytes], at_ms: int | None = None) -> None:
        self._chunks = chunks
        self._at_ms = at_ms
        self._program = self._records()
        self._asked: Any = None  # what the program waits for; None before its start
        self._walk: Callable[[bytes, int], int] = self._begin
        self._database = "0"
        self.databases: dict[str, int | None] = {}
        self.expired: dict[str, int] = {}
        self.aux: dict[str, str] = {}
        self.version = 0

    def __iter__(self) -> Iterator[bytes]:
        held, at = b"", 0  # `at` runs ahead of what is held while a long value is being skipped
        for chunk in self._chunks:
            if at < len(held):
                held, at = held[at:] + chunk, 0
            else:
                held, at = chunk, at - len(held)
            at = self._walk(held, at)
            if at and held:
                yield held[:at]
        held, at = held[at:], max(0, at - len(held))
        if at == 0 and self._walk == self._run:
            at = self._run(held + bytes(2 * _HEAD), 0)  # room to look ahead of the last records
        yield self._last(held, at)

    def _last(self, held: bytes, at: int) -> bytes:
        if self._walk == self._pass_all:
            marked = _MARK.fullmatch(held[-_MARK_BYTES:]) and held[:-_MARK_BYTES][-9:-8] == b"\xff"
            at = len(held) - _MARK_BYTES if marked else len(held)
            whole = held[:at][-9:-8] == b"\xff"
        else:
            whole = self._walk == self._after_end and at <= len(held)
        if not whole:
            raise DamagedError(
                "the dump is cut short",
                hint="the connection broke or Redis stopped: look at its log, then capture again",
            )
        if at < len(held) and not _MARK.fullmatch(held[at:]):
            raise DamagedError(f"{len(held) - at} bytes follow the end of the dump, and are no part of it")
        return held[:at]

    def _begin(self, buffer: bytes, at: int) -> int:
        if len(buffer) < MAGIC_BYTES:
            return at
        self.version = rdb_version(buffer)
        self._walk = self._run
        self._asked = next(self._program)
        return self._run(buffer, MAGIC_BYTES)

    def _run(self, buffer: bytes, at: int) -> int:
        """Serve the program from `buffer` as far as that goes; return the position reached."""
        send, asked, limit = self._program.send, self._asked, len(buffer) - _HEAD
        start = at
        try:
            while at <= limit:
                answer: Any = None
                if asked is BYTE:
                    answer = buffer[at]
                    at += 1
                elif asked is LENGTH:
                    answer, at = _length(buffer, at)
                elif asked is TEXT:
                    if buffer[at] < 64 and at + 1 + buffer[at] > len(buffer):
                        break
                    answer, at = _text(buffer, at)
                elif asked < 0:
                    at -= asked
                else:
                    while asked and at <= limit:
                        head = buffer[at]
                        at = at + 1 + head if head < 64 else _after_string(buffer, at)
                        asked -= 1
                    if asked:
                        break
                asked = send(answer)
        except StopIteration:
            self._walk = self._after_end
            return at + (_CRC if self.version >= 5 else 0)
        except UnknownTypeError:
            self.databases[self._database] = None
            self._walk = self._pass_all
            return max(start, self._pass_all(buffer, start))
        self._asked = asked
        return at

    def _after_end(self, buffer: bytes, at: int) -> int:
        if len(buffer) - at > _MARK_BYTES:
            raise DamagedError("more bytes follow the end of the dump, and are no part of it")
        return at

    def _pass_all(self, buffer: bytes, at: int) -> int:
        return max(at, len(buffer) - _TAIL)

    def _records(self) -> Program:
        counts: dict[str, Any] = self.databases
        database = self._database
        while (kind := (yield BYTE)) != _EOF:
            if kind in BLOBS or kind in VALUES:
                counts[database] = counts.get(database, 0) + 1
                if kind in BLOBS:
                    yield 2  # the key, the value
                else:
                    yield 1
                    yield from VALUES[kind]()
            elif kind == _AUX:
                name, value = (yield TEXT), (yield TEXT)
                if len(self.aux) < 64:
                    self.aux[name] = value
            elif kind == _SELECTDB:
                database = self._database = str((yield LENGTH))
            elif kind in _EXPIRY and self._at_ms is not None:
                size, unit = _EXPIRY[kind]
                value = 0
                for place in range(size):
                    value |= (yield BYTE) << 8 * place
                self.expired[database] = self.expired.get(database, 0) + (value * unit <= self._at_ms)
            elif kind in OPCODES:
                yield from OPCODES[kind]()
            else:
                raise UnknownTypeError


def rdb_version(head: bytes) -> int:
    """Return the format version in a dump's first nine bytes. Raises `DamagedError` if it is no dump."""
    magic = MAGIC.fullmatch(head[:MAGIC_BYTES])
    if magic is None:
        raise DamagedError("this is no Redis dump: it does not begin with REDIS and a version")
    return int(magic[1])


def _length(buffer: bytes, at: int) -> tuple[int, int]:
    head = buffer[at]
    if head < 0x40:
        return head, at + 1
    if head < 0x80:
        return (head & 0x3F) << 8 | buffer[at + 1], at + 2
    if head == 0x80:
        return int.from_bytes(buffer[at + 1 : at + 5], "big"), at + 5
    if head == 0x81:
        return int.from_bytes(buffer[at + 1 : at + 9], "big"), at + 9
    raise UnknownTypeError


def _after_string(buffer: bytes, at: int) -> int:
    head = buffer[at]
    if head < 0xC0:
        size, at = _length(buffer, at)
        return at + size
    if head < 0xC3:
        return at + 1 + (1 << (head & 3))  # an integer of 1, 2 or 4 bytes
    if head == 0xC3:
        compressed, at = _length(buffer, at + 1)
        _, at = _length(buffer, at)
        return at + compressed
    raise UnknownTypeError


def _text(buffer: bytes, at: int) -> tuple[str, int]:
    """Read a short text or a number; what is longer than 63 bytes comes back empty."""
    head, after = buffer[at], _after_string(buffer, at)
    if head < 0x40:
        return buffer[at + 1 : after].decode("utf-8", "replace"), after
    if 0xC0 <= head < 0xC3:
        return str(int.from_bytes(buffer[at + 1 : after], "little", signed=True)), after
    return "", after
