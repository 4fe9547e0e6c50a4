"""An archive's paths put into a folder, safely: nothing leaves it, whatever the archive says.

Folders are opened one name at a time from the target, and no link is followed: a path through a link,
with `..` in it, or from the root is refused. Devices are no part of the format. A file gets its time last,
so that one with the size and time of its row is whole: extraction that was ended can be made again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from bookreader_backup_assets.codecs import archive_reader
from bookreader_backup_assets.codecs.archive_reader import Write
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.tar import SECOND
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError, SpaceError
from bookreader_backup_assets.runners.base import TreeItem
from bookreader_backup_assets.runners.tree import as_text

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened where a link must not lead elsewhere."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = 0o700


def everything(_row: Row) -> bool:
    """Want every path."""
    return True


def extract(
    chunks: Iterable[bytes],
    rows: Iterable[Row],
    into: Extractor,
    wanted: Callable[[Row], bool] = everything,
) -> None:
    """Read a whole archive beside its index, and put the paths that are `wanted` into a folder.

    Raises `DamagedError` at the first path that is not in the archive as its index says, and where a
    path would leave the folder; `SpaceError` and `SourceError` where the folder does not take it.
    """
    beside = iter(rows)
    row: Row | None = None

    def take(item: TreeItem) -> Write | None:
        nonlocal row
        row = _expected(beside, item.path)
        if (row.kind, row.size) != (item.kind, item.size):
            raise DamagedError(f"{as_text(item.path)!r} is not in the archive as its index says")
        return into.open(row) if wanted(row) else None

    for found in archive_reader.read(chunks, take):
        expected = row if row is not None else _expected(beside, found.path)
        row = None
        if replace(expected, mtime_ns=expected.mtime_ns // SECOND * SECOND) != found:
            raise DamagedError(f"{as_text(found.path)!r} is not in the archive as its index says")
        if expected.kind == "file":
            into.close()
        elif wanted(expected):
            into.put(expected)
    if (more := next(beside, None)) is not None:
        raise DamagedError(f"the archive ends where its index has {as_text(more.path)!r}")
    into.finish()


def leads_out(row: Row, inside: bytes = b"") -> bool:
    """Whether a symlink leads, or may lead, out of the folder that it is restored into.

    `inside` is that folder's own path, for links that say it whole. After a name, which may be a link
    itself, `..` may lead anywhere.
    """
    target, depth = row.target, row.path.count(b"/")
    if inside and (target + b"/").startswith(inside.rstrip(b"/") + b"/"):
        target, depth = target[len(inside.rstrip(b"/")) :].lstrip(b"/"), 0
    if target.startswith(b"/"):
        return True
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    up = next((at for at, name in enumerate(names) if name != b".."), len(names))
    return up > depth or b".." in names[up:]


class Extractor:
    """Puts rows into the folder `target`, which is there; use it as a context. `finish` sets folders' times.

    Symlinks that lead out are left out, and named in `left_out`, unless `outside_links`; see `leads_out`
    for `inside`. Owners are set only by root. The folder's own mode and time are left as they are.
    `written` counts bytes of files; a file that is there already, whole, is not written again.
    """

    def __init__(self, target: bytes, *, outside_links: bool = False, inside: bytes = b"") -> None:
        with _told(target):
            self._top = os.open(target, FOLDER)
        self._outside_links = outside_links
        self._inside = inside
        self._owners = os.geteuid() == 0
        self._folders: list[Row] = []
        self._near: tuple[bytes, int] | None = None
        self._file: tuple[Row, int] | None = None
        self.left_out: list[bytes] = []
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (self._file, self._near):
            if opened is not None:
                os.close(opened[1])
        os.close(self._top)

    def put(self, row: Row) -> None:
        """Make a folder or a link."""
        check_path(row)
        if row.path == b".":
            return
        with _told(row.path):
            folder, name = self._place(row.path)
            if row.kind == "folder":
                self._make_folder(folder, name, row)
            elif row.kind == "symlink":
                self._make_symlink(folder, name, row)
            else:
                self._make_hardlink(folder, name, row)

    def open(self, row: Row) -> Write | None:
        """Begin a file, and return what takes its content; None if it is there. End it with `close`."""
        check_path(row)
        with _told(row.path):
            folder, name = self._place(row.path)
            there = _status(folder, name)
            if there is not None and _is_whole(there, row):
                self._set(folder, name, row)
                return None
            self._clear(folder, name, there, row)
            self._file = (row, os.open(name, _NEW, 0o600, dir_fd=folder))
        return self._write

    def close(self) -> None:
        """End the file that was begun: owner, mode, and its time last."""
        if self._file is None:
            return
        row, opened = self._file
        with _told(row.path):
            if self._owners:
                os.fchown(opened, row.uid, row.gid)
            os.fchmod(opened, row.mode)
            os.utime(opened, ns=(row.mtime_ns, row.mtime_ns))
        self._file = None
        os.close(opened)

    def finish(self) -> None:
        """Give every folder its owner, mode and time, now that nothing is put into it any more."""
        for row in reversed(self._folders):
            with _told(row.path):
                folder, name = self._place(row.path)
                self._set(folder, name, row)

    def _write(self, piece: bytes | memoryview) -> None:
        assert self._file is not None
        row, opened = self._file
        rest = memoryview(piece)
        with _told(row.path):
            while rest:
                rest = rest[os.write(opened, rest) :]
        self.written += len(piece)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        above, _, name = path.rpartition(b"/")
        if self._near is None or self._near[0] != above:
            opened = open_folder(self._top, above)
            if self._near is not None:
                os.close(self._near[1])
            self._near = (above, opened)
        return self._near[1], name

    def _make_folder(self, folder: int, name: bytes, row: Row) -> None:
        there = _status(folder, name)
        if there is None:
            os.mkdir(name, _OURS, dir_fd=folder)
        elif not stat.S_ISDIR(there.st_mode):
            raise DamagedError(f"the archive has {as_text(row.path)!r} twice")
        elif stat.S_IMODE(there.st_mode) & _OURS != _OURS:  # finished by an extraction that was ended
            os.chmod(name, _OURS, dir_fd=folder)
        self._folders.append(row)

    def _make_symlink(self, folder: int, name: bytes, row: Row) -> None:
        if not self._outside_links and leads_out(row, self._inside):
            self.left_out.append(row.path)
            return
        self._clear(folder, name, _status(folder, name), row)
        os.symlink(row.target, name, dir_fd=folder)
        self._set(folder, name, row)

    def _make_hardlink(self, folder: int, name: bytes, row: Row) -> None:
        check_path(replace(row, path=row.target))
        above, _, first = row.target.rpartition(b"/")
        beside = open_folder(self._top, above)
        try:
            status = _status(beside, first)
            if status is None or not stat.S_ISREG(status.st_mode):
                raise DamagedError(f"{as_text(row.path)!r} is a link to what is no file")
            there = _status(folder, name)
            if there is None or there.st_ino != status.st_ino:
                self._clear(folder, name, there, row)
                os.link(first, name, src_dir_fd=beside, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(beside)

    def _clear(self, folder: int, name: bytes, there: os.stat_result | None, row: Row) -> None:
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise DamagedError(f"the archive has {as_text(row.path)!r} twice")
        if there is not None:
            os.unlink(name, dir_fd=folder)

    def _set(self, folder: int, name: bytes, row: Row) -> None:
        set_attributes(
            folder,
            name,
            mode=None if row.kind == "symlink" else row.mode,
            owner=(row.uid, row.gid) if self._owners else None,
            mtime_ns=row.mtime_ns,
        )


def set_attributes(
    folder: int, name: bytes, *, mode: int | None, owner: tuple[int, int] | None, mtime_ns: int
) -> None:
    """Set owner, mode and time of what `name` is in an open folder, following no link: OSError if not."""
    if owner is not None:  # before the mode: it takes away set-user-id
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
    if mode is not None:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        os.chmod(name, mode, dir_fd=folder)
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)


def open_folder(top: int, path: bytes) -> int:
    """Open the folder `path` under the open folder `top`, one name at a time: OSError at a link."""
    opened = os.open(b".", FOLDER, dir_fd=top)
    for name in path.split(b"/") if path not in (b"", b".") else ():
        above = opened
        try:
            opened = os.open(name, FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return opened


def check_path(row: Row) -> None:
    """Raise `DamagedError` for a path that is not plainly one below the target."""
    if row.path == b"." and row.kind == "folder":
        return
    if any(name in (b"", b".", b"..") or b"\0" in name for name in row.path.split(b"/")):
        raise DamagedError(f"the archive has a path that would leave its folder: {as_text(row.path)!r}")


def _expected(rows: Iterator[Row], path: bytes) -> Row:
    row = next(rows, None)
    if row is None or row.path != path:
        there = "its end" if row is None else repr(as_text(row.path))
        raise DamagedError(f"the archive has {as_text(path)!r} where its index has {there}")
    if row.archive is not None:
        raise RefusedError(f"{as_text(path)!r} lies in another archive, {row.archive}")
    return row


def _is_whole(there: os.stat_result, row: Row) -> bool:
    return (there.st_size, there.st_mtime_ns) == (row.size, row.mtime_ns) and stat.S_ISREG(there.st_mode)


def _status(folder: int, name: bytes) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


@contextmanager
def _told(path: bytes) -> Iterator[None]:
    """Say in this project's errors what the system says of `path`."""
    try:
        yield
    except OSError as error:
        where = repr(as_text(path))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(f"there is no room for {where}", hint="free space, and run it again") from None
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
            raise DamagedError(f"{where} lies below something that is no folder in the archive") from None
        raise SourceError(
            f"{where} cannot be written: {error.strerror}", hint="run as a user who may write there"
        ) from None
