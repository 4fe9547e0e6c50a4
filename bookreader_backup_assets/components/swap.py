"""Paths of a live folder swapped with new ones, by renames that can be made again after a crash.

Beside the live folder lie `new`, with what is to go in, `old`, which takes what was there, and `aside`,
for what nobody expected: nothing is ever deleted or overwritten. The live folder itself stays, since it
may be a mount point; only what is in it moves. What is to be done is written down first, and each rename
is made only if what is where says that it was not made yet.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.components.staging import is_ours
from bookreader_backup_assets.core.errors import DamagedError, SourceError
from bookreader_backup_assets.runners.tree import as_path, as_text

PLAN = b"moves.json"
"""The file beside `new` and `old` in which the moves are written down."""
NEW, OLD, ASIDE = b"new", b"old", b"aside"
_OURS = 0o700


class Move(NamedTuple):
    """A path below the live folder: whether something was there, and whether something is to go there."""

    path: bytes
    had: bool
    new: bool


class Attributes(NamedTuple):
    """Permission bits, owner, and nanoseconds since the epoch."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Touch(NamedTuple):
    """A path that stays where it is, and what it is given afterwards, and by undo; None is nothing."""

    path: bytes
    before: Attributes | None
    after: Attributes | None


@dataclass(frozen=True)
class Plan:
    """What a swap does. `whole`: what else is in the live folder goes aside; `made`: it was not there."""

    moves: Sequence[Move]
    touches: Sequence[Touch] = ()
    whole: bool = False
    made: bool = False


@dataclass(frozen=True)
class Swap:
    """The swap of paths of `root` with those that lie in `beside`, on the same disk."""

    root: bytes
    beside: bytes

    def plan(self) -> Plan | None:
        """Return what was written down, or None if nothing was. Raises `DamagedError`."""
        try:
            with open(os.path.join(self.beside, PLAN), "rb") as file:
                document = json.load(file)
            return Plan(
                [Move(as_path(path), had, new) for path, had, new in document["moves"]],
                [Touch(as_path(p), _attributes(b), _attributes(a)) for p, b, a in document["touches"]],
                document["whole"],
                document["made"],
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{as_text(self.beside)}/{as_text(PLAN)} is damaged: {error}") from None

    def begin(self, plan: Plan) -> None:
        """Write down what is to be done, for good, and touch nothing."""
        document = {
            "moves": [(as_text(path), had, new) for path, had, new in plan.moves],
            "touches": [(as_text(t.path), t.before, t.after) for t in (*plan.touches, *self._closed(plan))],
            "whole": plan.whole,
            "made": plan.made,
        }
        with _told(self.root):
            for name in (NEW, OLD, ASIDE):
                with suppress(FileExistsError):
                    os.mkdir(os.path.join(self.beside, name), _OURS)
            partial = os.path.join(self.beside, PLAN + b".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, os.path.join(self.beside, PLAN))
            os.sync()  # the new files with it, whoever wrote them

    def forward(self) -> None:
        """Put what is new in its place, and what was there into `old`. Raises `SourceError`."""
        plan = self._written()
        with _told(self.root):
            if plan.made:
                os.makedirs(self.root, exist_ok=True)
            with self._places() as places:
                for move in plan.moves:
                    if move.had and not places.has(OLD, move.path):
                        with suppress(FileNotFoundError):  # it went by itself
                            places.move(None, OLD, move.path)
                    if move.new and places.has(NEW, move.path):
                        if places.has(None, move.path):
                            places.put_aside(move.path)
                        places.move(NEW, None, move.path)
                if plan.whole:
                    placed = {move.path for move in plan.moves if move.new}
                    places.clear(placed)
                for touch in plan.touches:
                    places.touch(touch.path, touch.after)
            os.sync()

    def back(self) -> None:
        """Put what `old` has back in its place, and what is new into `new` again. Raises `SourceError`."""
        plan = self._written()
        with _told(self.root):
            if not os.path.isdir(self.root):
                if plan.made:
                    return
                os.makedirs(self.root)
            with self._places() as places:
                for move in plan.moves:
                    if move.new and not places.has(NEW, move.path):
                        if places.has(None, move.path):
                            places.move(None, NEW, move.path)
                        else:
                            places.mark(NEW, move.path)
                    if places.has(OLD, move.path):
                        if places.has(None, move.path):
                            places.put_aside(move.path)
                        places.move(OLD, None, move.path)
                if plan.whole:
                    places.clear({move.path for move in plan.moves if move.had})
                for touch in plan.touches:
                    places.touch(touch.path, touch.before)
            if plan.made:
                with suppress(OSError):  # somebody uses it by now
                    os.rmdir(self.root)
            os.sync()

    def put_aside(self) -> list[bytes]:
        """Return the paths of what nobody expected, as they lie in `aside`."""
        aside = os.path.join(self.beside, ASIDE)
        with suppress(FileNotFoundError):
            boxes = sorted(os.listdir(aside))
            return [os.path.join(box, n) for box in boxes for n in os.listdir(os.path.join(aside, box))]
        return []

    def _written(self) -> Plan:
        plan = self.plan()
        if plan is None:
            raise SourceError(f"{as_text(self.beside)} has no list of moves", hint="restore again")
        return plan

    def _closed(self, plan: Plan) -> Iterator[Touch]:
        """What an ordinary user moves only by opening it: its mode is to come back, also after a crash."""
        for move in plan.moves:
            for moves, place in ((move.had, self.root), (move.new, os.path.join(self.beside, NEW))):
                with suppress(OSError):
                    status = os.lstat(os.path.join(place, move.path)) if moves else None
                    if status and stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWUSR:
                        is_old = place is self.root
                        kept = attributes(status)
                        yield Touch(move.path, kept if is_old else None, None if is_old else kept)

    @contextmanager
    def _places(self) -> Iterator[_Places]:
        with ExitStack() as stack:
            opened: dict[bytes | None, int] = {}
            for name in (None, NEW, OLD, ASIDE):
                path = self.root if name is None else os.path.join(self.beside, name)
                opened[name] = os.open(path, extract.FOLDER)
                stack.callback(os.close, opened[name])
            yield _Places(opened)


@dataclass(frozen=True)
class _Places:
    """The open folders of a swap, by name; None is the live one."""

    opened: dict[bytes | None, int]

    def has(self, place: bytes | None, path: bytes) -> bool:
        """Whether there is anything at `path`."""
        with suppress(FileNotFoundError, NotADirectoryError), self._at(place, path) as (folder, name):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            return True
        return False

    def move(self, source: bytes | None, target: bytes | None, path: bytes) -> None:
        """Rename a path from one place to the other, where nothing has its name."""
        if target is not None:
            self._make_above(target, path)
        with self._at(source, path) as (here, name), self._at(target, path) as (there, _):
            _rename(here, name, there, name)

    def put_aside(self, path: bytes) -> None:
        """Rename a path of the live folder into a box of its own in `aside`."""
        for number in count():
            box = b"%d" % number
            try:
                os.mkdir(box, _OURS, dir_fd=self.opened[ASIDE])
                break
            except FileExistsError:
                continue
        with self._at(None, path) as (here, name), self._at(ASIDE, box + b"/" + name) as (there, _):
            _rename(here, name, there, name)

    def clear(self, staying: set[bytes]) -> None:
        """Put aside whatever else is in the live folder."""
        for name in sorted(os.fsencode(n) for n in os.listdir(self.opened[None])):
            if name not in staying and not is_ours(name):
                self.put_aside(name)

    def mark(self, place: bytes, path: bytes) -> None:
        """Leave an empty folder for what is not there any more, so that its turn does not come again."""
        self._make_above(place, path)
        with self._at(place, path) as (folder, name):
            os.mkdir(name, _OURS, dir_fd=folder)

    def touch(self, path: bytes, wanted: Attributes | None) -> None:
        """Give a path of the live folder what it is to have; one that has gone needs nothing."""
        if wanted is None:
            return
        with suppress(FileNotFoundError, NotADirectoryError), self._at(None, path) as (folder, name):
            extract.set_attributes(
                folder,
                name,
                mode=wanted.mode,
                owner=(wanted.uid, wanted.gid) if os.geteuid() == 0 else None,
                mtime_ns=wanted.mtime_ns,
            )

    def _make_above(self, place: bytes, path: bytes) -> None:
        above = b""
        for name in path.split(b"/")[:-1]:
            with self._at(place, above + name) as (folder, _), suppress(FileExistsError):
                os.mkdir(name, _OURS, dir_fd=folder)
            above += name + b"/"

    @contextmanager
    def _at(self, place: bytes | None, path: bytes) -> Iterator[tuple[int, bytes]]:
        above, _, name = path.rpartition(b"/")
        folder = extract.open_folder(self.opened[place], above)
        try:
            yield folder, name
        finally:
            os.close(folder)


def attributes(status: os.stat_result) -> Attributes:
    """Return what a path has now."""
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def _attributes(fields: Any) -> Attributes | None:
    return None if fields is None else Attributes(*fields)


def _rename(here: int, name: bytes, there: int, new_name: bytes) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=here, dst_dir_fd=there)
    except PermissionError:  # for an ordinary user, what is closed to writing is opened until the touches
        for folder, inner in ((here, b"."), (there, b"."), (here, name)):
            status = os.stat(inner, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & _OURS != _OURS:
                os.chmod(inner, stat.S_IMODE(status.st_mode) | _OURS, dir_fd=folder)
        os.rename(name, new_name, src_dir_fd=here, dst_dir_fd=there)


@contextmanager
def _told(root: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = as_text(root) if error.filename is None else f"{as_text(os.fsencode(error.filename))!r}"
        raise SourceError(
            f"{where} cannot be moved or changed: {error.strerror}",
            hint="run as the owner of the files, or as root; what was moved is in its folder beside,"
            " and the same command goes on",
        ) from None
