"""A folder brought to what an index says by moving only what differs: what that is, and the moves.

Contents are compared by hash: an equal size and time prove nothing. The live folder is in use while it is
read, so the moves are made from a second look, when nobody writes to it; only what has changed since
(its ctime tells, which nobody can set) is read again.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.matching import Listing, Matching, Pair, place_of
from bookreader_backup_assets.components.displaced import without_ours
from bookreader_backup_assets.components.swap import Attributes, Move, Plan, Touch
from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.base import TreeItem
from bookreader_backup_assets.runners.tree import LEFT_OUT, as_path, as_text, read_tree

ATTRIBUTES = frozenset({"mode", "owner", "time"})
"""Differences that are mended where a file lies."""


@dataclass(frozen=True)
class InPlace:
    """A live folder, an index, and the links of it that are not to be made."""

    folder: bytes
    new: bytes
    listing: Listing
    left_out: Callable[[Row], bool]

    def differing(self) -> set[bytes]:
        """Return the paths that have to be staged, and the folders that they lie in. Reads every file."""
        staged: set[bytes] = set()
        groups: set[bytes] = set()
        for pair in self._pairs(lambda _: True):
            if pair.row is None or not _to_stage(pair) or self.left_out(pair.row):
                continue
            staged.add(pair.row.path)
            if pair.row.kind in ("file", "hardlink"):
                groups.add(self.listing.group(pair.row.path))
        staged |= groups & set(self.listing.firsts)
        staged |= {twin for twin, first in self.listing.twins.items() if first in groups}
        for path in list(staged):
            while path := path.rpartition(b"/")[0]:
                staged.add(path)
        return staged

    def together(self) -> Iterator[Pair]:
        """Compare what is to be: what was staged, and the rest of the live folder, all of it read.

        Yields no path that will be displaced, and no difference that will be mended in place.
        """
        lying = ((item, False) for item in _reopened(self.folder))
        waiting = ((item, True) for item in _reopened(self.new))
        merged = heapq.merge(lying, waiting, key=lambda pair: (place_of(pair[0].path, pair[0].kind), pair[1]))
        new: set[bytes] = set()

        def items() -> Iterator[TreeItem]:
            before: TreeItem | None = None
            for item, staged in merged:
                if before is not None and before.path != item.path:
                    yield before
                    before = None
                stays = before is not None and (not staged or item.kind == before.kind == "folder")
                if staged and not stays:
                    new.add(item.path)
                before = before if stays else item
            if before is not None:
                yield before

        for pair in Matching(self.listing, items(), os.geteuid() == 0, lambda _: True):
            if pair.row is None or (pair.item is None and self.left_out(pair.row)):
                continue
            mended = frozenset[str]() if pair.row.path in new else ATTRIBUTES
            yield pair._replace(differs=tuple(d for d in pair.differs if d not in mended))

    def plan(self, looked_ns: int) -> Plan:
        """Return the moves. Raises `SourceError` where something that was equal has changed since."""
        moves = _Moves(self)
        for pair in self._pairs(lambda item: self._changed(item, looked_ns), problems=moves.odd):
            moves.take(pair)
        return moves.plan()

    def _pairs(
        self, reads: Callable[[TreeItem], bool], problems: Callable[[bytes], None] | None = None
    ) -> Iterator[Pair]:
        if not os.path.isdir(self.folder):
            yield from (Pair(row, None, ()) for row in self.listing.rows())
            return
        tree = without_ours(read_tree(os.fsdecode(self.folder)))
        yield from Matching(self.listing, tree.items, os.geteuid() == 0, reads)
        for problem in tree.problems:
            if problem.what == LEFT_OUT and problems is not None:
                problems(as_path(problem.where))

    def _changed(self, item: TreeItem, looked_ns: int) -> bool:
        try:
            return os.lstat(os.path.join(self.folder, item.path)).st_ctime_ns >= looked_ns
        except OSError:  # gone, or its path is too long to be asked for at once
            return True


@dataclass
class _Moves:
    """The moves of an `InPlace`, collected as its pairs come: folders before what is in them."""

    of: InPlace
    moves: dict[bytes, list[bool]] = field(default_factory=dict)
    touches: dict[bytes, Touch] = field(default_factory=dict)
    folders: dict[bytes, Touch] = field(default_factory=dict)

    def take(self, pair: Pair) -> None:
        path = pair.path
        if self._is_moved(path):
            return
        if pair.row is None:
            self._move(path, had=True)
        elif path == b"." and pair.item is None:
            self.folders[path] = Touch(path, None, _of(pair.row))
        elif pair.item is None:
            if not self.of.left_out(pair.row):
                self._move(path, new=True)
        elif _to_stage(pair) or (pair.row.kind != "folder" and self._is_staged(path)):
            self._move(path, had=True, new=not self.of.left_out(pair.row))
        else:
            touch = Touch(path, _of(pair.item), _of(pair.row))
            if pair.row.kind == "folder":
                self.folders[path] = touch
            if pair.differs:
                self.touches[path] = touch

    def odd(self, path: bytes) -> None:
        """Displace a socket or the like."""
        if not self._is_moved(path) and path not in self.moves:
            self._move(path, had=True)

    def plan(self) -> Plan:
        for path in self.moves:
            above = path.rpartition(b"/")[0] or b"."
            if above in self.folders:
                self.touches[above] = self.folders[above]
        touches = sorted(self.touches.values(), key=lambda touch: -touch.path.count(b"/"))
        moves = [Move(path, had, new) for path, (had, new) in self.moves.items()]
        return Plan(moves, touches, made=not os.path.isdir(self.of.folder))

    def _move(self, path: bytes, *, had: bool = False, new: bool = False) -> None:
        if new and not self._is_staged(path):
            raise SourceError(
                f"{as_text(path)!r} has changed while this was being prepared",
                hint="nothing was replaced; stop what writes to the storage, and run it again",
            )
        known = self.moves.setdefault(path, [False, False])
        known[0], known[1] = known[0] or had, known[1] or new

    def _is_moved(self, path: bytes) -> bool:
        above = path
        while above := above.rpartition(b"/")[0]:
            if above in self.moves:
                return True
        return False

    def _is_staged(self, path: bytes) -> bool:
        return os.path.lexists(os.path.join(self.of.new, path))


def _reopened(folder: bytes) -> Iterator[TreeItem]:
    """Walk a folder, if it is there; its files can be read also after the next item was asked for."""
    if os.path.isdir(folder):
        for item in without_ours(read_tree(os.fsdecode(folder))).items:
            yield replace(item, chunks=partial(_read, folder, item.path))


def _read(folder: bytes, path: bytes) -> Iterator[bytes]:
    above, _, name = path.rpartition(b"/")
    try:
        with ExitStack() as stack:
            top = os.open(folder, extract.FOLDER)
            stack.callback(os.close, top)
            inner = extract.open_folder(top, above)
            stack.callback(os.close, inner)
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
            stack.callback(os.close, opened)
            while chunk := os.read(opened, CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(f"{as_text(path)!r} cannot be read: {error.strerror}") from None


def _to_stage(pair: Pair) -> bool:
    if pair.item is None:
        return True
    if pair.item.kind == "symlink":
        return bool(pair.differs)
    return not ATTRIBUTES.issuperset(pair.differs)


def _of(what: Row | TreeItem) -> Attributes:
    return Attributes(what.mode, what.uid, what.gid, what.mtime_ns)
