"""Files of storage, restored by reading only the parts of the archive that hold them.

They are staged on the disk of the live folder, compared, and swapped in by renames; what was there under
their names is kept beside until the restore is accepted. Nothing else is touched, and nothing stopped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from bookreader_backup_assets.codecs import archive_reader, extract, index
from bookreader_backup_assets.codecs.extract import Extractor
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.matching import Matching, Pair
from bookreader_backup_assets.components import displaced, staging, swap
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.file_choice import Choice, choose, parents
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.storage import INDEX
from bookreader_backup_assets.components.swap import Attributes, Move, Plan, Touch, attributes
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Progress
from bookreader_backup_assets.runners.base import Kind, Runner, TreeItem
from bookreader_backup_assets.runners.tree import as_path, as_text, read_tree

_SHOWN = 5


@dataclass(frozen=True)
class FileRestoration:
    """Implements `Restoration` for `options.paths` of the folder `path`, as `runner` sees it.

    With `options.into` they are put into that folder, under the same paths.
    """

    runner: Runner
    path: str
    stored: Stored
    options: Options

    quiet = False
    displaces = True
    keeps_old = True

    @property
    def target(self) -> str:
        """The folder, as the settings or the operator name it."""
        return self.path if self.options.into is None else self.options.into

    def preview(self) -> Preview:
        """See `Restoration.preview`. Refuses paths that are not in the archive, or whose place is taken."""
        folder, choice = self._folder, self._choice
        there = [as_text(row.path) for row, item in self._live(folder) if item and row.kind != "folder"]
        if self.options.into is not None and there:
            raise RefusedError(
                f"{self.options.into} has {there[0]!r} already", hint="name another folder, or move it away"
            )
        count = len(choice.rows) - sum(row.kind == "folder" for row in choice.rows)
        size = sum(row.size for row in choice.rows)
        place = staging.place_for(folder, "x")
        needed = size + staging.BLOCK * (len(choice.rows) + len(choice.above))
        reads, notes = archive_reader.span(choice.files), displaced.notes(self.stored, self.options)
        if self.stored.entry.codecs:
            reads = self.stored.entry.size
            notes += (f"the archive is encrypted: up to {reads} bytes are read and decrypted from its start",)
        named = ", ".join(repr(name) for name in there[:_SHOWN])
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        return Preview(
            replaces=f"{named}{more} in {self.target}" if there else f"nothing in {self.target}",
            present=bool(there),
            steps=(
                f"read {reads} of the {self.stored.entry.size} bytes of {self.stored.entry.name}",
                f"restore {count} files and links beside, and compare them with the archive's index",
                f"put them in their places in {self.target} by renames, and keep what was there",
            ),
            rooms=(Room(as_text(os.path.dirname(place)), needed, staging.free(place)),),
            seconds=round((reads + size) / displaced.RATE + 1),
            notes=notes,
            reads=reads,
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        return displaced.begun(self._folder, stamp)

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`: of the archive only what holds the files, each compared by its hash."""
        choice = self._choice
        new = staging.make(as_path(state["beside"]))
        with Extractor(new, outside_links=self.options.outside_links, inside=self._inside) as into:
            for row in choice.listing.rows():
                if row.kind == "folder":
                    into.put(row)
            with self._ranges(progress) as ranges:
                for row, content in archive_reader.read_some(ranges, choice.files):
                    write = into.open(row)
                    for piece in content:
                        if write is not None:
                            write(piece)
                    into.close()
            for row in choice.rows:
                if row.kind in ("symlink", "hardlink"):
                    into.put(row)
            into.finish()

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: every file is read again from where it lies."""
        items = read_tree(os.fsdecode(os.path.join(as_path(state["beside"]), swap.NEW))).items
        pairs = Matching(self._choice.listing, items, os.geteuid() == 0, lambda _: True)
        staged = (pair for pair in pairs if pair.path != b"." and not self._is_left_out(pair))
        return displaced.judged("files_equal", staged, self._left_out)

    def swap(self, state: State) -> None:
        """See `Restoration.swap`."""
        made = displaced.swap_of(state)
        if made.plan() is None:
            made.begin(self._plan(made.root))
        made.forward()

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`: every path that was wanted, its size, owner, mode, time and links."""
        made = displaced.swap_of(state)
        matching = Matching(self._choice.listing, iter(()), os.geteuid() == 0, lambda _: False)
        wanted = {row.path for row in self._choice.rows}
        pairs = (matching.pair(row, item) for row, item in self._live(made.root) if row.path in wanted)
        since = displaced.begun_ns(state)
        return displaced.judged(
            "swapped",
            (pair for pair in pairs if not self._is_left_out(pair) and not displaced.is_news(pair, since)),
            self._left_out,
            f"; what was there is kept in {state['beside']}",
        )

    def undo(self, state: State, safety: Stored | None) -> None:  # noqa: ARG002 - what was there is kept
        """See `Restoration.undo`."""
        displaced.undo(state)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        displaced.abandon(state)

    def accept(self, state: State) -> None:
        """See `Restoration.accept`."""
        displaced.accept(state)

    @cached_property
    def _folder(self) -> bytes:
        folder = displaced.live_folder(self.runner, self.path, self.options)
        displaced.require_movable(folder, [row.path for row in self._choice.rows])
        return folder

    @property
    def _inside(self) -> bytes:
        return b"" if self.options.into is not None else os.fsencode(self.path)

    @cached_property
    def _choice(self) -> Choice:
        choice = choose(
            lambda of: index.read(self.stored.companion(INDEX), of), self.options.paths, self.path
        )
        if choice.rows and all(displaced.is_left_out(row, self.options, self.path) for row in choice.rows):
            raise RefusedError(
                "all that is wanted are links that lead out of the folder", hint="make them: --outside-links"
            )
        return choice

    @property
    def _left_out(self) -> list[Row]:
        return [row for row in self._choice.rows if displaced.is_left_out(row, self.options, self.path)]

    def _is_left_out(self, pair: Pair) -> bool:
        return pair.row is not None and displaced.is_left_out(pair.row, self.options, self.path)

    @contextmanager
    def _ranges(self, progress: Progress) -> Iterator[Callable[[int, int], Iterable[bytes]]]:
        if not self.stored.entry.codecs:
            yield lambda offset, length: _told(self.stored.open_range(offset, length), progress)
            return
        with closing(archive_reader.Onward(_told(self.stored.plain(), progress))) as onward:
            yield onward.read

    def _live(self, root: bytes) -> Iterator[tuple[Row, TreeItem | None]]:
        """Yield what is wanted and the folders above, each with what is there now.

        Raises `RefusedError` where a folder above is none in the live folder: a link to one is not followed.
        """
        above = {row.path for row in self._choice.above}
        with _open(root) as top:
            firsts: dict[tuple[int, int], bytes] = {}
            for row in self._choice.listing.rows():
                item = None if top is None else _look(top, row.path, firsts)
                if row.path in above and item is not None and item.kind != "folder":
                    raise RefusedError(
                        f"{as_text(row.path)!r} is a {item.kind} in {self.target}, and was a folder",
                        hint="restore into another folder: --into FOLDER; or the whole storage",
                    )
                yield row, item

    def _plan(self, root: bytes) -> Plan:
        """Move the topmost paths that are not folders there; what they are put in keeps its time."""
        own = {row.path for row in self._choice.rows}
        moves: dict[bytes, Move] = {}
        folders: dict[bytes, Touch] = {}
        touched: set[bytes] = set()
        made = not os.path.isdir(root)
        top = self._choice.top
        folders[b"."] = Touch(b".", None, _of(top)) if made else Touch(b".", *[attributes(os.stat(root))] * 2)
        for row, item in self._live(root):
            if any(path in moves for path in parents(row.path)):
                continue
            if item is not None and item.kind == row.kind == "folder":
                folders[row.path] = Touch(row.path, _of(item), _of(row if row.path in own else item))
                touched |= {row.path} & own
            elif not displaced.is_left_out(row, self.options, self.path):
                moves[row.path] = Move(row.path, item is not None, new=True)
                touched.add(row.path.rpartition(b"/")[0] or b".")
        touches = sorted((folders[path] for path in touched), key=lambda touch: -_depth(touch.path))
        return Plan(list(moves.values()), touches, made=made)


def _told(chunks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for chunk in chunks:
        progress(len(chunk))
        yield chunk


@contextmanager
def _open(root: bytes) -> Iterator[int | None]:
    if not os.path.isdir(root):
        yield None
        return
    top = os.open(root, extract.FOLDER)
    try:
        yield top
    finally:
        os.close(top)


def _look(top: int, path: bytes, firsts: dict[tuple[int, int], bytes]) -> TreeItem | None:
    """Return what a path of an open folder is, following no link; None if it is not there."""
    above, _, name = path.rpartition(b"/")
    with suppress(FileNotFoundError, NotADirectoryError):
        folder = extract.open_folder(top, above)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else b""
        finally:
            os.close(folder)
        kind: Kind = "file"
        if stat.S_ISDIR(status.st_mode):
            kind = "folder"
        elif stat.S_ISLNK(status.st_mode):
            kind = "symlink"
        elif (first := firsts.setdefault((status.st_dev, status.st_ino), path)) != path:
            kind, target = "hardlink", first
        mode, uid, gid, mtime_ns = attributes(status)
        return TreeItem(path, kind, mode, uid, gid, mtime_ns, status.st_size, target)
    return None


def _of(what: Row | TreeItem) -> Attributes:
    return Attributes(what.mode, what.uid, what.gid, what.mtime_ns)


def _depth(path: bytes) -> int:
    return 0 if path == b"." else path.count(b"/") + 1
