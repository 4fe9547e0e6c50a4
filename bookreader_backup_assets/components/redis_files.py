"""A Redis server's data replaced by its files, in a container that is stopped for it.

With `appendonly yes` a dump.rdb is ignored, however it got there. From Redis 7 on what counts is the
manifest: it is replaced, last, by one that names the dump as base and an empty file for what comes after.
One that named only a base would be right until the next restart, which takes up the old commands again.
The files from before stay, under numbers that Redis does not come back to: putting their manifest back is
the undo. Before Redis 7, or without append-only files, the one file that counts is copied aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.redis_config import Place, of_command_line
from bookreader_backup_assets.components.redis_talk import Talk
from bookreader_backup_assets.components.redis_way import Dump, Live, judged, numbers
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.errors import BackupError, CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.restore_plan import Room
from bookreader_backup_assets.runners.base import TreeItem

EMPTY = b"REDIS0006\xff" + bytes(8)
"""A dump without keys that every Redis reads; its checksum is switched off."""
_KEEPS = 2  # the dump, and a copy of what it replaces


class Contained(Protocol):
    """A server's container: its files are reached whether it runs or not. See `DockerFiles`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    def argv(self) -> Sequence[str]: ...  # noqa: D102
    def working_folder(self) -> str: ...  # noqa: D102
    def is_running(self) -> bool: ...  # noqa: D102
    def ended(self) -> str: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102
    def find(self, path: str) -> TreeItem | None: ...  # noqa: D102
    def put(self, path: str, size: int, chunks: Iterable[bytes], like: TreeItem) -> None: ...  # noqa: D102
    def copy(self, path: str, to: str) -> None: ...  # noqa: D102
    def make_folder(self, path: str, like: TreeItem) -> None: ...  # noqa: D102
    def remove(self, paths: Iterable[str]) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class FilesWay:
    """Implements `Way` for the server in a container."""

    talk: Talk
    container: Contained

    keeps_old = True

    @property
    def target(self) -> str:
        """The container's name."""
        return self.container.name

    @property
    def displaces(self) -> bool:
        """See `Restoration.displaces`: what does not answer cannot be captured; its files are kept."""
        return not self._answers() and self._holds(self._place())

    def look(self, needed: int) -> Live:
        """See `Way.look`."""
        place, name = self._place(), self.container.name
        version, keys = None, None
        if self._answers():
            version, keys = self.talk.info("server")["redis_version"], self.talk.keys()
        kind = "append-only files, which would shadow a dump" if place.appendonly else f"{place.dump}"
        return Live(
            version,
            keys,
            present=self._holds(place) if keys is None else any(count.all for count in keys.values()),
            rooms=(
                Room(f"{place.folder} in container {name}", _KEEPS * needed, self.talk.free(place.folder)),
            ),
            how=(
                f"stop container {name}",
                f"in {place.folder}, replace its {kind}, and keep what was there",
                f"start container {name}",
            ),
            notes=() if keys is not None else (f"container {name} does not answer: it is started",),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        return {**self._place().as_state(), "ran": self._answers(), "kept": f"bookreader-restore-{stamp}"}

    def require_fit(self, version: str) -> None:
        """See `Way.require_fit`: the scratch server is of the container's own image."""

    def replace(self, state: State, dump: Dump) -> None:
        """See `Restoration.swap`. Raises `SourceError` with the end of its log if it does not come back."""
        self.container.stop()
        self._keep(state)
        self._fill(state, dump.size, dump.chunks())
        self._start()

    def confirm(self, state: State, dump: Dump) -> Outcome:
        """See `Restoration.confirm`."""
        return judged(self.talk.keys(), self.talk, state, dump)

    def undo(self, state: State, safety: Stored | None) -> None:  # noqa: ARG002 - the files are there
        """See `Restoration.undo`: it runs again if it ran before."""
        kept = self._kept(state)
        if kept is not None:
            self.container.stop()
            if not kept["held"]:
                self._fill(state, len(EMPTY), [EMPTY])
            else:
                self.container.copy(kept["before"], kept["file"])
        if state["ran"]:
            self._start()
            with suppress(BackupError):  # it is back, and what is left is in nobody's way
                self._remove(state, first=True)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`: nothing was made."""

    def accept(self, state: State) -> None:
        """See `Restoration.accept`. Raises `SourceAbsentError` if the container does not run."""
        self._remove(state, first=False)

    def _answers(self) -> bool:
        """Whether the server answers. Raises `SourceError` where it refuses us."""
        if not self.container.is_running():
            return False
        try:
            self.talk.info("server")
        except SourceAbsentError:
            return False
        return True

    def _place(self) -> Place:
        """Where the data is: as the server says, or as its command line does."""
        place = of_command_line(self.container.argv(), self.container.working_folder(), self._read)
        if self._answers():
            with suppress(CommandError):  # CONFIG may have been renamed
                place = place.told_by(self.talk.config)
        return place

    def _read(self, path: str) -> bytes:
        found = self.container.find(path)
        return b"" if found is None else b"".join(found.chunks())

    def _holds(self, place: Place) -> bool:
        return any(self.container.find(path) is not None for path in place.files())

    def _start(self) -> None:
        self.container.start()
        self.talk.await_loaded(self.container.ended)

    def _keep(self, state: State) -> None:
        """Keep the one file that counts, unless that was done before; then say so, in a file."""
        if self._kept(state) is not None:
            return
        place = Place.of_state(state)
        held = self.container.find(path := _file(state))
        if held is not None:
            self.container.copy(path, _before(state))
        said = json.dumps({"held": held is not None, "file": path, "before": _before(state)}).encode()
        self.container.put(_mark(state), len(said), [said], held or self._owner(place))

    def _kept(self, state: State) -> dict[str, str] | None:
        said = self._read(_mark(state))
        try:
            found: dict[str, str] = json.loads(said)
        except ValueError:  # not there, or not all of it: nothing was replaced yet
            return None
        return found

    def _owner(self, place: Place) -> TreeItem:
        found = self.container.find(place.folder)
        if found is None:
            raise SourceError(
                f"container {self.container.name} has no folder {place.folder} for its data",
                hint="make the container anew (docker compose up --detach), and restore again",
            )
        return found

    def _fill(self, state: State, size: int, chunks: Iterable[bytes]) -> None:
        """Have the server load these bytes when it starts, and nothing after them."""
        place, path, put = Place.of_state(state), _file(state), self.container.put
        like = self.container.find(path) or self._owner(place)
        if not _numbered(state):
            put(path, size, chunks, like)
            return
        self.container.make_folder(place.aof_folder, like)
        base, after = self._made(state)
        put(f"{place.aof_folder}/{base}", size, chunks, like)
        put(f"{place.aof_folder}/{after}", 0, (), like)
        number = base.split(".")[-3]
        manifest = f"file {base} seq {number} type b\nfile {after} seq {number} type i\n".encode()
        put(path, len(manifest), [manifest], like)

    def _made(self, state: State) -> tuple[str, str]:
        """The names of our two files: of a number after those of the manifest from before."""
        before = self._read(_before(state)).decode("utf-8", "replace")
        number = max(map(int, re.findall(r"\bseq (\d+)\b", before)), default=0) + 1
        name = Place.of_state(state).aof
        return f"{name}.{number}.base.rdb", f"{name}.{number}.incr.aof"

    def _remove(self, state: State, *, first: bool) -> None:
        """Remove what was kept and is not in use, the mark `first` or last."""
        if "version" not in state or self._kept(state) is None:  # it never came to the swap
            return
        others = [_before(state)]
        if _numbered(state):
            place = Place.of_state(state)
            used = set(_named(self._read(_file(state))))
            ours = {*_named(self._read(_before(state))), *self._made(state)}
            others += [f"{place.aof_folder}/{name}" for name in sorted(ours - used)]
        mark = [_mark(state)]
        self.container.remove([*mark, *others] if first else [*others, *mark])


def _numbered(state: State) -> bool:
    """Whether the server keeps a folder of append-only files, with a manifest."""
    return bool(state["appendonly"]) and numbers(state["version"]) >= (7, 0)


def _file(state: State) -> str:
    """The one file that says what the server loads."""
    place = Place.of_state(state)
    if not place.appendonly:
        return f"{place.folder}/{place.dump}"
    return place.manifest if _numbered(state) else f"{place.folder}/{place.aof}"


def _before(state: State) -> str:
    return f"{state['folder']}/{state['kept']}.before"


def _mark(state: State) -> str:
    return f"{state['folder']}/{state['kept']}.kept"


def _named(manifest: bytes) -> Iterator[str]:
    """Yield the names of files in a manifest."""
    for name in re.findall(r'^file ("[^"]*"|\S+) ', manifest.decode("utf-8", "replace"), re.MULTILINE):
        yield name.strip('"')
