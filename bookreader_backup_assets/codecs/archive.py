"""The seekable `.tar.gz`, written: an ordinary one, made of gzip members cut at file boundaries.

Members hold about 1 MB of tar, or up to 8 MB of one larger file, and are hashed and compressed side by
side. `tar -xzf` reads the archive from its start; with the index one file comes back by reading only the
members it lies in. The bytes depend on the tree alone, not on the number of threads.

A header says its file's size, so a file of up to one member is read whole before its header is
written. A larger one is held to the size it was listed with: cut if it grew, padded with zeros if it
shrank, and named either way.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bookreader_backup_assets.codecs import gzip, tar
from bookreader_backup_assets.codecs.index import IndexWriter, Row
from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.runners.base import Tree, TreeItem
from bookreader_backup_assets.runners.tree import CHANGED, as_text

SUFFIX = ".tar.gz"
_SHARED = 8  # files share a member of this part of the largest: 1 MB is fetched for one of them, not 8
_GZIP = 31  # zlib's window bits for a gzip header
_SAMPLES, _SAMPLE = 16, 8192  # 1.6 % of a member


@dataclass
class Totals:
    """What an archive holds: files, folders (its root included), links of both kinds, bytes of files."""

    files: int = 0
    folders: int = 0
    links: int = 0
    bytes: int = 0

    def count(self, row: Row) -> None:
        """Add one path."""
        self.files += row.kind == "file"
        self.folders += row.kind == "folder"
        self.links += row.kind in ("symlink", "hardlink")
        self.bytes += row.size

    def fingerprint(self) -> dict[str, Any]:
        """The totals as an entry's fingerprint."""
        return {"kind": "files", **vars(self)}


@dataclass(eq=False)
class _Placed:
    """A path put into a block. `offset` comes when its first member's place is known."""

    item: TreeItem
    inside: int
    size: int = 0
    sha256: str = ""
    offset: int = 0


@dataclass(eq=False)
class _Block:
    """The content of one member: `whole` files are hashed with it; `ends` are the paths to index."""

    plain: bytearray = field(default_factory=bytearray)
    begins: list[_Placed] = field(default_factory=list)
    whole: list[_Placed] = field(default_factory=list)
    ends: list[_Placed] = field(default_factory=list)
    packed: bytes = b""


class Archiver:
    """Turns a tree into an archive: iterate it once for the bytes, then ask for `totals` and `index`.

    What cannot be read is left out and named in the tree's `problems`; anything else that goes wrong
    is raised, and the bytes so far are no archive.
    """

    def __init__(self, tree: Tree) -> None:
        self.totals = Totals()
        self._tree = tree
        self._index = IndexWriter()
        self._left_out: set[bytes] = set()
        self._block = _Block()

    def __iter__(self) -> Iterator[bytes]:
        offset = 0
        try:
            for block in gzip.in_parallel(_pack, self._blocks()):
                for placed in block.begins:
                    placed.offset = offset
                offset += len(block.packed)
                for placed in block.ends:
                    self._record(placed, offset)
                yield block.packed
        except BaseException:
            self.close()
            raise

    def index(self) -> Iterator[bytes]:
        """Yield the bytes of the index."""
        return self._index.chunks()

    def close(self) -> None:
        """Let go of what the index was kept in."""
        self._index.close()

    def _record(self, placed: _Placed, end: int) -> None:
        item = placed.item
        row = Row(
            path=item.path,
            kind=item.kind,
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            mtime_ns=item.mtime_ns,
            offset=placed.offset,
            length=end - placed.offset,
            inside=placed.inside,
            size=placed.size,
            sha256=placed.sha256,
            target=item.target,
        )
        self.totals.count(row)
        self._index.add(row)

    def _blocks(self) -> Iterator[_Block]:
        for item in self._tree.items:
            if item.kind == "hardlink" and item.target in self._left_out:
                yield from self._file(replace(item, kind="file", target=b""))
            elif item.kind == "file":
                yield from self._file(item)
            else:
                yield from self._room(0)
                self._block.ends.append(self._begin(item, 0))
        self._block.plain += tar.END
        yield self._block

    def _file(self, item: TreeItem) -> Iterator[_Block]:
        yield from self._room(item.size)
        try:
            if item.size > gzip.MEMBER:
                yield from self._large(item)
            else:
                self._small(item)
        except SourceError as error:
            self._name(item, error.message)
            self._left_out.add(item.path)

    def _small(self, item: TreeItem) -> None:
        plain = self._block.plain
        start = len(plain)
        plain += tar.header(item, item.size)
        inside = len(plain)
        try:
            for chunk in item.chunks():
                plain += chunk
                if len(plain) - inside > 2 * gzip.MEMBER:
                    self._name(item, f"{CHANGED}: it grew, and is cut at {item.size} bytes")
                    del plain[inside + item.size :]
                    break
        except SourceError:
            del plain[start:]
            raise
        size = len(plain) - inside
        plain += tar.padding(size)
        if size != item.size:
            plain[start:inside] = tar.header(item, size)  # as long as before: only names make it longer
        placed = _Placed(item, inside, size)
        self._block.begins.append(placed)
        self._block.whole.append(placed)
        self._block.ends.append(placed)

    def _large(self, item: TreeItem) -> Iterator[_Block]:
        chunks = item.chunks()
        chunk = next(chunks, b"")  # before the header: what cannot be opened leaves no trace
        placed = self._begin(item, item.size)
        digest = hashlib.sha256()
        left = item.size
        short = f"{CHANGED}: it shrank"
        try:
            while chunk and left:
                digest.update(chunk[:left])
                yield from self._fill(chunk[:left])
                left -= len(chunk[:left])
                chunk = next(chunks, b"")
            if chunk:
                self._name(item, f"{CHANGED}: it grew, and is cut at {item.size} bytes")
        except SourceError as error:
            short = error.message
        if left:
            self._name(item, f"{short}, and its last {left} bytes are zeros")
        while left:
            zeros = bytes(min(left, gzip.MEMBER))
            digest.update(zeros)
            yield from self._fill(zeros)
            left -= len(zeros)
        self._block.plain += tar.padding(item.size)
        placed.sha256 = digest.hexdigest()
        self._block.ends.append(placed)

    def _begin(self, item: TreeItem, size: int) -> _Placed:
        self._block.plain += tar.header(item, size)
        placed = _Placed(item, len(self._block.plain), size)
        self._block.begins.append(placed)
        return placed

    def _room(self, size: int) -> Iterator[_Block]:
        """End the block unless it is new, or takes so many more bytes."""
        if self._block.plain and len(self._block.plain) + tar.BLOCK + size > gzip.MEMBER // _SHARED:
            yield self._block
            self._block = _Block()

    def _fill(self, data: bytes) -> Iterator[_Block]:
        rest = memoryview(data)
        while rest:
            if len(self._block.plain) >= gzip.MEMBER:
                yield self._block
                self._block = _Block()
            room = gzip.MEMBER - len(self._block.plain)
            self._block.plain += rest[:room]
            rest = rest[room:]

    def _name(self, item: TreeItem, what: str) -> None:
        self._tree.problems.append(Problem(what, as_text(item.path)))


def _pack(block: _Block) -> _Block:
    with memoryview(block.plain) as plain:
        for placed in block.whole:
            content = plain[placed.inside : placed.inside + placed.size]
            placed.sha256 = hashlib.sha256(content).hexdigest()
    block.packed = _compressed(block.plain)
    block.plain = bytearray()
    return block


def _compressed(plain: bytearray) -> bytes:
    """Return `plain` as a gzip member: stored if samples of it do not shrink, in a third of the time.

    Images and books are compressed already: 8 MB of them took isal 12.5 ms, and are stored in 4.
    """
    step = max(_SAMPLE, len(plain) // _SAMPLES)
    sample = b"".join(plain[at : at + _SAMPLE] for at in range(0, len(plain), step))
    if len(gzip.member(sample)) < len(sample) * 0.98:
        return gzip.member(plain)
    return zlib.compress(plain, 0, _GZIP)
