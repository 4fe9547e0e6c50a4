"""The seekable `.tar.gz`, read: in one pass as the rows its index should have, or one file alone."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from isal import isal_zlib

from bookreader_backup_assets.codecs import gzip, tar
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.runners.base import TreeItem
from bookreader_backup_assets.runners.tree import as_text

_LARGEST = 4 * gzip.MEMBER  # of a member, decompressed: none that we wrote reaches it
_GZIP = 31  # zlib's window bits for a gzip header
_HEAD = 10
_HEADS = (
    gzip.member(b"")[:_HEAD],
    zlib.compress(b"", 0, _GZIP)[:_HEAD],
)  # no CRC covers them: ours are fixed

Thing = TypeVar("Thing")
Write = Callable[[bytes | memoryview], object]
"""Takes the next bytes of a file."""


def _to_nobody(_item: TreeItem) -> Write | None:
    return None


def read(chunks: Iterable[bytes], sink: Callable[[TreeItem], Write | None] = _to_nobody) -> Iterator[Row]:
    """Yield every path of an archive as its index should have it, but with times in whole seconds.

    All of it is read: every CRC, header and content. Before a path's content is read, `sink` is told of
    it, and returns who takes the content, if anybody. Raises `DamagedError` where it is not an archive
    that this program wrote, or is cut short, or goes on after its end.
    """
    source = _Source(_ahead(_members(chunks)), sink)
    while (row := source.row()) is not None:
        yield row
    source.finish()


def read_one(open_range: Callable[[int, int], Iterable[bytes]], row: Row) -> Iterator[bytes]:
    """Yield one file's content, by one read of its range of the archive: `open_range(offset, length)`.

    A hard link's content is that of the row at its target. Raises `DamagedError`, at the latest after
    the last chunk, unless it is what was archived.
    """
    if row.kind != "file":
        raise RefusedError(f"{as_text(row.path)!r} is a {row.kind}: it has no content of its own")
    skip, left = row.inside, row.size
    digest = hashlib.sha256()
    for plain in gzip.decode(open_range(row.offset, row.length)):
        piece = plain[skip : skip + left]
        skip = max(0, skip - len(plain))
        left -= len(piece)
        digest.update(piece)
        if piece:
            yield piece
    if left or digest.hexdigest() != row.sha256:
        raise DamagedError(f"{as_text(row.path)!r} is not what was archived")


def read_some(
    open_range: Callable[[int, int], Iterable[bytes]], rows: Iterable[Row]
) -> Iterator[tuple[Row, Iterator[bytes]]]:
    """Yield some files, given in the archive's order, each with its content, reading only their members.

    Members that lie together are read at once. A content is read before the next file is asked for, and
    raises `DamagedError` unless it is what was archived.
    """
    for group in _together(rows):
        start = group[0].offset
        members = _members(open_range(start, max(row.offset + row.length for row in group) - start))
        member = next(members, None)
        for row in group:
            while member is not None and start + member.begin < row.offset:
                member = next(members, None)
            taken = _Taken(row, member, members)
            yield row, taken.content()
            member = taken.member


def span(rows: Iterable[Row]) -> int:
    """Return how many bytes of the archive `read_some` reads for some files."""
    return sum(max(row.offset + row.length for row in group) - group[0].offset for group in _together(rows))


class Onward:
    """A stream that can only be read from its start, as ranges of it that are asked for in its order."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._at = 0

    def close(self) -> None:
        """Let go of the stream, of which the rest is not wanted: the program that decrypts it ends now."""
        if isinstance(self._chunks, Generator):
            self._chunks.close()

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield the bytes from `offset`, having passed over those before."""
        end = offset + length
        while self._at < end:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            self._rest = chunk[max(end - self._at, 0) :]
            piece = chunk[max(offset - self._at, 0) : end - self._at]
            self._at += len(chunk) - len(self._rest)
            if piece:
                yield piece


def _together(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    end = 0
    for row in rows:
        if group and row.offset > end:
            yield group
            group = []
        group.append(row)
        end = max(end, row.offset + row.length) if len(group) > 1 else row.offset + row.length
    if group:
        yield group


class _Member(NamedTuple):
    begin: int
    end: int
    plain: bytes


class _Taken:
    """The content of one row, from `member` on; `member` is then the one that its end lies in."""

    def __init__(self, row: Row, member: _Member | None, members: Iterator[_Member]) -> None:
        self.row = row
        self.member = member
        self._members = members

    def content(self) -> Iterator[bytes]:
        at, left = self.row.inside, self.row.size
        digest = hashlib.sha256()
        while left and self.member is not None:
            piece = self.member.plain[at : at + left]
            digest.update(piece)
            left -= len(piece)
            if piece:
                yield piece
            if left:
                self.member, at = next(self._members, None), 0
        if left or digest.hexdigest() != self.row.sha256:
            raise DamagedError(f"{as_text(self.row.path)!r} is not what was archived")


class _Source:
    """The tar inside the members, and where in them it stands."""

    def __init__(self, members: Iterator[_Member], sink: Callable[[TreeItem], Write | None]) -> None:
        self._members = members
        self._sink = sink
        self._member = _Member(0, 0, b"")
        self._at = 0

    def row(self) -> Row | None:
        self._move_on()
        begin = self._member.begin
        item = tar.read_header(self._take)
        if item is None:
            return None
        inside = self._at
        if item.kind != "file" and item.size:
            raise DamagedError(f"a tar header is damaged: a {item.kind} with content")
        return Row(
            path=item.path,
            kind=item.kind,
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            mtime_ns=item.mtime_ns,
            inside=inside,
            offset=begin,
            size=item.size,
            sha256=self._content(item.size, self._sink(item)) if item.kind == "file" else "",
            length=self._member.end - begin,
            target=item.target,
        )

    def finish(self) -> None:
        if self._at != len(self._member.plain) or next(self._members, None) is not None:
            raise DamagedError("the archive goes on after its end")

    def _content(self, size: int, write: Write | None) -> str:
        digest = hashlib.sha256()
        left = size
        while left:
            self._move_on()
            piece = memoryview(self._member.plain)[self._at : self._at + left]
            digest.update(piece)
            if write is not None:
                write(piece)
            self._at += len(piece)
            left -= len(piece)
        padding = tar.padding(size)
        if self._take(len(padding)) != padding:
            raise DamagedError("the tar archive has something between its files")
        return digest.hexdigest()

    def _take(self, count: int) -> bytes:
        taken = self._member.plain[self._at : self._at + count]
        if len(taken) != count:
            raise DamagedError("a member of the archive ends in the middle of a header")
        self._at += count
        return taken

    def _move_on(self) -> None:
        while self._at == len(self._member.plain):
            member = next(self._members, None)
            if member is None:
                raise DamagedError("the archive is cut short")
            self._member, self._at = member, 0


def _members(chunks: Iterable[bytes]) -> Iterator[_Member]:
    begin = given = held = 0
    head = b""
    plain: list[bytes] = []
    inflate = isal_zlib.decompressobj(wbits=_GZIP)
    for chunk in chunks:
        rest = chunk
        given += len(chunk)
        while rest:
            head += rest[: _HEAD - len(head)]
            try:
                plain.append(inflate.decompress(rest, _LARGEST))
            except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub forgets what it derives from
                raise DamagedError(f"the gzip stream is damaged: {error}") from None
            held += len(plain[-1])
            if held >= _LARGEST:
                raise DamagedError("a gzip member is larger than any of this program's")
            if not inflate.eof:
                break
            if head not in _HEADS:
                raise DamagedError("the head of a gzip member is damaged")
            rest = inflate.unused_data
            yield _Member(begin, given - len(rest), b"".join(plain))
            begin, held, head = given - len(rest), 0, b""
            plain.clear()
            inflate = isal_zlib.decompressobj(wbits=_GZIP)
    if begin != given:
        raise DamagedError("the gzip stream is cut short")


def _ahead(things: Iterator[Thing]) -> Iterator[Thing]:
    """Yield `things`, the next of them made in a thread meanwhile: decompressed while one is hashed."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, things, None)
        while (thing := coming.result()) is not None:
            coming = pool.submit(next, things, None)
            yield thing
