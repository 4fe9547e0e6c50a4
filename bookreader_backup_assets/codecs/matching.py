"""An index laid beside a folder: path by path, what is on both sides, on one, and what differs.

Both are walked in one order, that of `runners.tree`, so that nothing is held but the hard links. An index
that was captured in another order is sorted first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.core.errors import DamagedError, SourceError
from bookreader_backup_assets.runners.base import Kind, TreeItem
from bookreader_backup_assets.runners.tree import as_text

Place = tuple[tuple[bool, bytes], ...]
"""Where a path stands in a walk: the files of a folder before the folders in it."""


class Pair(NamedTuple):
    """One path: its row, what is there, and in what words the two differ (`content`, `mode`, …)."""

    row: Row | None
    item: TreeItem | None
    differs: tuple[str, ...]

    @property
    def path(self) -> bytes:
        """The path of both."""
        there = self.row or self.item
        assert there is not None
        return there.path

    def __str__(self) -> str:
        """One clause for people."""
        where = repr(as_text(self.path))
        if self.item is None:
            return f"{where} is missing"
        if self.row is None:
            return f"{where} was not captured"
        return f"{where} differs in {', '.join(self.differs)}"


@dataclass(frozen=True)
class Listing:
    """The rows of an index in walking order; make one with `listed`.

    `twins` are the paths that are hard links, each with the path whose row has the content; `firsts` are
    those rows.
    """

    rows: Callable[[], Iterator[Row]]
    twins: Mapping[bytes, bytes]
    firsts: Mapping[bytes, Row]

    def group(self, path: bytes) -> bytes:
        """Return the path that stands for all those that are one file with `path`."""
        return self.twins.get(path, path)

    def content_of(self, row: Row) -> Row:
        """Return the row that has the content of a file or hard link."""
        return self.firsts[row.target] if row.kind == "hardlink" else row


def listed(read: Callable[[], Iterable[Row]]) -> Listing:
    """Return the listing of an index that `read` gives anew each time. Raises `DamagedError`."""
    twins: dict[bytes, bytes] = {}
    last: Place | None = None
    in_order = True
    for row in read():
        place = place_of(row.path, row.kind)
        in_order = in_order and (last is None or last < place)
        last = place
        if row.kind == "hardlink":
            twins[row.path] = row.target
    sought = set(twins.values())
    firsts = {row.path: row for row in read() if row.path in sought} if sought else {}
    if any(row.kind != "file" for row in firsts.values()) or len(firsts) != len(sought):
        raise DamagedError("the index has a hard link to what is no file of it")
    if in_order:
        return Listing(lambda: iter(read()), twins, firsts)
    rows = sorted(read(), key=lambda row: place_of(row.path, row.kind))
    if len({row.path for row in rows}) != len(rows):
        raise DamagedError("the index has a path twice")
    return Listing(lambda: iter(rows), twins, firsts)


def place_of(path: bytes, kind: Kind) -> Place:
    """Return where a path stands in a walk."""
    if path == b".":
        return ()
    *above, name = path.split(b"/")
    return (*((True, folder) for folder in above), (kind == "folder", name))


@dataclass
class Matching:
    """A listing and the items of a folder, to be iterated once.

    Owners are compared if `owners`. Contents are if `reads` says so of an item; else sizes are.
    """

    listing: Listing
    items: Iterator[TreeItem]
    owners: bool
    reads: Callable[[TreeItem], bool]
    _groups: dict[bytes, bytes] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Pair]:
        rows = self.listing.rows()
        row, item = next(rows, None), next(self.items, None)
        while row is not None or item is not None:
            at = None if row is None else place_of(row.path, row.kind)
            here = None if item is None else place_of(item.path, item.kind)
            if here is None or (at is not None and at < here):
                yield Pair(row, None, ())
                row = next(rows, None)
            elif at is None or here < at:
                yield Pair(None, item, ())
                item = next(self.items, None)
            else:
                assert row is not None
                yield self.pair(row, item)
                row, item = next(rows, None), next(self.items, None)

    def pair(self, row: Row, item: TreeItem | None) -> Pair:
        """Compare one path, with what is there."""
        return Pair(row, item, () if item is None else tuple(self._differences(row, item)))

    def _differences(self, row: Row, item: TreeItem) -> Iterator[str]:
        files = ("file", "hardlink")
        if row.kind != item.kind and not (row.kind in files and item.kind in files):
            yield "kind"
            return
        if item.kind in files:
            yield from self._of_files(row, item)
        elif row.target != item.target:
            yield "target"
        if row.kind != "symlink" and row.mode != item.mode:
            yield "mode"
        if self.owners and (row.uid, row.gid) != (item.uid, item.gid):
            yield "owner"
        if row.mtime_ns != item.mtime_ns:
            yield "time"

    def _of_files(self, row: Row, item: TreeItem) -> Iterator[str]:
        group, first = self.listing.group(row.path), item.target if item.kind == "hardlink" else item.path
        together = group in self.listing.firsts
        if self.listing.group(first) != group or (
            together and self._groups.setdefault(group, first) != first
        ):
            yield "links"
        content = self.listing.content_of(row)
        if content.size != item.size or (self.reads(item) and not _holds(item, content.sha256)):
            yield "content"


def _holds(item: TreeItem, sha256: str) -> bool:
    if item.kind == "hardlink":
        return True  # the path that it is one file with was read
    digest = hashlib.sha256()
    try:
        for chunk in item.chunks():
            digest.update(chunk)
    except SourceError:
        return False
    return digest.hexdigest() == sha256
