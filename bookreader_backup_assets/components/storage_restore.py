"""Storage, restored on the disk of the live folder, compared, and swapped by renames of what is in it.

What was there is kept beside it until the restore is accepted: that is the undo, and no other copy is
made. `in_place` stages only the files whose content differs, and gives the others their owner, mode and
time again where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from bookreader_backup_assets.codecs import extract, index
from bookreader_backup_assets.codecs.extract import Extractor
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.matching import Listing, Matching, Pair, listed
from bookreader_backup_assets.components import displaced, staging, swap
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.storage import INDEX
from bookreader_backup_assets.components.storage_in_place import InPlace
from bookreader_backup_assets.components.swap import Attributes, Move, Plan, Touch, attributes
from bookreader_backup_assets.core.check import Outcome, failed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Meter, Progress
from bookreader_backup_assets.runners.base import Runner
from bookreader_backup_assets.runners.tree import as_path, as_text, read_tree


@dataclass(frozen=True)
class StorageRestoration:
    """Implements `Restoration` for the folder `path`, as `runner` sees it, or for `options.into`."""

    runner: Runner
    path: str
    stored: Stored
    options: Options

    displaces = True
    keeps_old = True

    @property
    def target(self) -> str:
        """The folder, as the settings or the operator name it."""
        return self.path if self.options.into is None else self.options.into

    @property
    def quiet(self) -> bool:
        """See `Restoration.quiet`: a folder that BookReader does not use stops nothing."""
        return self.options.into is None

    def preview(self) -> Preview:
        """See `Restoration.preview`. Refuses a folder that cannot be written to, or that is not empty
        if it is `options.into`.
        """
        folder = self._folder
        displaced.require_movable(folder)
        there = displaced.names(folder)
        if self.options.into is not None and (there or self.options.in_place):
            why = "is to be made, so nothing in it differs" if self.options.in_place else "is not empty"
            raise RefusedError(f"{self.options.into} {why}", hint="name another folder, or leave --in-place")
        held = self.stored.entry.fingerprint
        count = held["files"] + held["folders"] + held["links"]
        needed = (
            self._differing_bytes(folder) if self.options.in_place else held["bytes"] + count * staging.BLOCK
        )
        place = staging.place_for(folder, "x")
        where = "in it" if os.path.dirname(place) == folder else "beside it"
        how = "only the files that differ" if self.options.in_place else f"{held['files']} files"
        notes = displaced.notes(self.stored, self.options)
        if self.options.in_place:
            notes += ("how much differs is known when every file was read: the room is a guess",)
        return Preview(
            replaces=f"folder {self.target} ({len(there)} names in it)" if there else f"folder {self.target}",
            present=bool(there),
            steps=(
                f"restore {how} of {self.stored.entry.name} {where}",
                "compare every path with its index: content, owner, mode, time, links",
                f"swap what is in {self.target} by renames, and keep what was there {where}",
            ),
            rooms=(Room(as_text(os.path.dirname(place)), needed, staging.free(place)),),
            seconds=round(held["bytes"] / displaced.RATE + 1),
            notes=notes,
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        return displaced.begun(self._folder, stamp)

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`. Raises `SpaceError`, `DamagedError`, `SourceError`."""
        new = staging.make(as_path(state["beside"]))
        differing = self._in_place(state).differing() if self.options.in_place else None
        entry = self.stored.entry
        meter = Meter(self.stored.plain(), progress)
        with Extractor(new, outside_links=self.options.outside_links, inside=self._inside) as into:
            rows = index.read(self.stored.companion(INDEX))
            extract.extract(meter, rows, into, lambda row: differing is None or row.path in differing)
        if not entry.codecs and meter.sha256 != entry.sha256:
            raise DamagedError(
                f"{entry.name} has changed since it was captured",
                hint="take another set: `bookreader-backup list` shows which are verified",
            )

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: every file is read again from where it lies."""
        if self.options.in_place:
            state["looked_ns"] = _instant(as_path(state["beside"]))
            pairs = self._in_place(state).together()
        else:
            pairs = self._pairs(os.path.join(as_path(state["beside"]), swap.NEW), reads=True)
        return displaced.judged("files_equal", (p for p in pairs if p.path != b"."), self._left_out())

    def swap(self, state: State) -> None:
        """See `Restoration.swap`. Raises `SourceError` where a file changed since it was compared."""
        made = displaced.swap_of(state)
        if made.plan() is None:
            if self.options.in_place:
                made.begin(self._in_place(state).plan(state["looked_ns"]))
            else:
                made.begin(self._whole(made.root, os.path.join(made.beside, swap.NEW)))
        made.forward()

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`: every path, its size, owner, mode, time and links, and none besides.

        Files that were written since the swap began are somebody's, and no fault of it.
        """
        made = displaced.swap_of(state)
        if self.options.into is None:
            seen = self.runner.local_folder(self.path)
            if seen is None or os.path.realpath(os.fsencode(seen)) != made.root:
                return failed("swapped", f"{self.path} is not the folder that was written to any more")
        since = displaced.begun_ns(state)
        pairs = self._pairs(made.root, reads=False)
        aside = len(made.put_aside())
        said = f"; {aside} paths that nobody expected were put aside" if aside else ""
        kept = f"; what was there is kept in {state['beside']}"
        return displaced.judged(
            "swapped",
            (pair for pair in pairs if not displaced.is_news(pair, since)),
            self._left_out(),
            said + kept,
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

    @property
    def _folder(self) -> bytes:
        return displaced.live_folder(self.runner, self.path, self.options)

    @property
    def _inside(self) -> bytes:
        return b"" if self.options.into is not None else os.fsencode(self.path)

    @cached_property
    def _listing(self) -> Listing:
        return listed(lambda: index.read(self.stored.companion(INDEX)))

    def _in_place(self, state: State) -> InPlace:
        new = os.path.join(as_path(state["beside"]), swap.NEW)
        return InPlace(as_path(state["folder"]), new, self._listing, self._is_left_out)

    def _is_left_out(self, row: Row) -> bool:
        return displaced.is_left_out(row, self.options, self.path)

    def _left_out(self) -> Iterator[Row]:
        return filter(self._is_left_out, self._listing.rows())

    def _pairs(self, folder: bytes, *, reads: bool) -> Iterator[Pair]:
        items = displaced.without_ours(read_tree(os.fsdecode(folder))).items
        for pair in Matching(self._listing, items, os.geteuid() == 0, lambda _: reads):
            if pair.item is not None or pair.row is None or not self._is_left_out(pair.row):
                yield pair

    def _whole(self, root: bytes, new: bytes) -> Plan:
        before, after = displaced.names(root), displaced.names(new)
        moves = [Move(n, n in before, n in after) for n in sorted({*before, *after})]
        made = not os.path.isdir(root)
        own = next(row for row in self._listing.rows() if row.path == b".")
        touch = Touch(
            b".",
            None if made else attributes(os.stat(root)),
            Attributes(own.mode, own.uid, own.gid, own.mtime_ns),
        )
        return Plan(moves, (touch,), whole=True, made=made)

    def _differing_bytes(self, folder: bytes) -> int:
        """Guess what in-place has to stage, by sizes and times: reading everything is for later."""
        if not os.path.isdir(folder):
            return int(self.stored.entry.fingerprint["bytes"])
        needed = 0
        for pair in self._pairs(folder, reads=False):
            if pair.row is not None and (pair.item is None or {"content", "time"} & {*pair.differs}):
                needed += pair.row.size + staging.BLOCK
        return needed


def _instant(beside: bytes) -> int:
    """Return what time it is for the disk that `beside` is on."""
    mark = os.path.join(beside, b"looked")
    try:
        with open(mark, "wb") as file:
            file.write(b"1")
        return os.stat(mark).st_ctime_ns
    except OSError as error:
        raise SourceError(f"{as_text(mark)} cannot be written: {error.strerror}") from None
