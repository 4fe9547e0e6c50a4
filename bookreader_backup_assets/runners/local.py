"""The runner for what this machine reaches directly: programs on PATH, folders on its disks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners import child, process
from bookreader_backup_assets.runners.base import NO_ENV, STALL, Kind, Result, Session, Tree, TreeItem


@dataclass(frozen=True)
class LocalRunner:
    """Runs programs on this machine.

    `env` is added to every call; `programs` is the folder to look for programs in, before PATH.
    """

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    programs: Path | None = None

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        stall: float = STALL,
    ) -> Iterator[bytes]:
        """See `Runner.stream`."""
        return process.stream(self._found(argv), env={**self.env, **env}, stdin=stdin, stall=stall)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        timeout: float = STALL,
    ) -> Result:
        """See `Runner.run`."""
        program = process.Process(self._found(argv), env={**self.env, **env}, stdin=stdin is not None)
        return child.gather(program, stdin, timeout)

    @contextmanager
    def session(self, argv: Sequence[str], *, env: Mapping[str, str] = NO_ENV) -> Iterator[Session]:
        """See `Runner.session`."""
        program = process.Process(self._found(argv), env={**self.env, **env}, stdin=True)
        try:
            yield child.Talk(program)
        finally:
            program.close()

    def read_tree(self, path: str) -> Tree:
        """See `Runner.read_tree`."""
        root = os.fsencode(path)
        if not os.path.isdir(root):
            raise SourceAbsentError(f"{path} is not a folder here", hint="mount it, or correct its path")
        problems: list[Problem] = []
        return Tree(_walk(root, problems), problems)

    def describe(self) -> dict[str, str]:
        """See `Runner.describe`."""
        return {"runner": "local"}

    def _found(self, argv: Sequence[str]) -> Sequence[str]:
        if self.programs is not None and (self.programs / argv[0]).exists():
            return [str(self.programs / argv[0]), *argv[1:]]
        return argv


def _walk(root: bytes, problems: list[Problem]) -> Iterator[TreeItem]:
    """Yield everything under `root`, sorted by name, folders before their content, no recursion."""
    seen: dict[tuple[int, int], bytes] = {}
    top = os.stat(root)
    yield _item(b".", top, "folder")
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as listing:
                names = sorted(entry.name for entry in listing)
        except OSError as error:
            problems.append(_problem(folder, error))
            continue
        folders: list[bytes] = []
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = _look(root, path, seen)
            except OSError as error:
                problems.append(_problem(path, error))
                continue
            if found is None:
                problems.append(Problem("not a file, folder or link: left out", os.fsdecode(path)))
                continue
            if found.kind == "folder":
                folders.append(path)
            yield found
        pending += reversed(folders)


def _look(root: bytes, path: bytes, seen: dict[tuple[int, int], bytes]) -> TreeItem | None:
    full = os.path.join(root, path)
    status = os.lstat(full)
    if stat.S_ISDIR(status.st_mode):
        return _item(path, status, "folder")
    if stat.S_ISLNK(status.st_mode):
        return _item(path, status, "symlink", target=os.readlink(full))
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_nlink > 1:
        first = seen.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            return _item(path, status, "hardlink", target=first)
    return TreeItem(
        path=path,
        kind="file",
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size,
        chunks=lambda: _read(full),
    )


def _item(path: bytes, status: os.stat_result, kind: Kind, target: bytes = b"") -> TreeItem:
    return TreeItem(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        target=target,
    )


def _read(full: bytes) -> Iterator[bytes]:
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while chunk := os.read(descriptor, CHUNK):
            yield chunk
    finally:
        os.close(descriptor)


def _problem(path: bytes, error: OSError) -> Problem:
    vanished = isinstance(error, FileNotFoundError)
    return Problem(
        "vanished while being read" if vanished else f"cannot be read: {error.strerror}",
        os.fsdecode(path) or ".",
    )
