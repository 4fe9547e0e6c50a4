"""A folder of this machine read as a `Tree`: names of any bytes, any depth, no link followed.

Folders are opened one name at a time from the root: a path may be longer than the system takes (4096
bytes), and a folder swapped for a link while it is read leads nowhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import SourceAbsentError, SourceError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.base import Kind, Tree, TreeItem

VANISHED = "vanished while being read"
"""It was listed and then gone: what BookReader deletes on a normal day."""
CHANGED = "changed while being read"
"""It was written to: what was kept may be half old, half new."""
UNREADABLE = "cannot be read"
"""Followed by the reason: a backup without it is not complete."""
LEFT_OUT = "not a file, folder or link: left out"
"""A socket, pipe or device: there is nothing in it to keep."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place must not block
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)  # gone, or another thing now


def as_text(path: bytes) -> str:
    """Return `path` as text; bytes that are no UTF-8 become surrogate escapes."""
    return path.decode("utf-8", "surrogateescape")


def as_path(text: str) -> bytes:
    """Return the bytes that `as_text` was given."""
    return text.encode("utf-8", "surrogateescape")


def read_tree(path: str) -> Tree:
    """Read the folder `path` of this machine; see `Runner.read_tree`.

    Raises `SourceAbsentError` if it is no folder here, `SourceError` if it may not be listed.
    """
    root = os.fsencode(path)
    os.close(_open_root(root))
    problems: list[Problem] = []
    return Tree(_Walk(root, problems).items(), problems)


@dataclass
class _Walk:
    root: bytes
    problems: list[Problem]
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def items(self) -> Iterator[TreeItem]:
        """Yield everything: a folder, the files in it by name, then each folder in it whole.

        GNU tar takes a folder for finished when something from outside follows: it then sets its mode
        and time, and cannot put more into a read-only one.
        """
        top = _open_root(self.root)
        try:
            pending = [_item(b".", os.fstat(top), "folder")]
            while pending:
                folders: list[TreeItem] = []
                yield from self._folder(top, pending.pop(), folders)
                pending += reversed(folders)
        finally:
            os.close(top)

    def _folder(self, top: int, folder: TreeItem, folders: list[TreeItem]) -> Iterator[TreeItem]:
        """Yield a folder and what is in it, but for the folders: those are added to `folders`."""
        try:
            opened = _open_folder(top, folder.path)
        except OSError as error:
            self._name(folder.path, error)
            if error.errno not in _GONE:
                yield folder
            return
        yield folder
        try:
            for name in sorted(os.fsencode(name) for name in os.listdir(opened)):
                path = name if folder.path == b"." else folder.path + b"/" + name
                try:
                    item = self._look(opened, path, name)
                except OSError as error:
                    self._name(path, error)
                    continue
                if item is None:
                    self.problems.append(Problem(LEFT_OUT, as_text(path)))
                elif item.kind == "folder":
                    folders.append(item)
                else:
                    yield item
        except OSError as error:
            self._name(folder.path, error)
        finally:
            os.close(opened)

    def _look(self, folder: int, path: bytes, name: bytes) -> TreeItem | None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return _item(path, status, "folder")
        if stat.S_ISLNK(status.st_mode):
            return _item(path, status, "symlink", target=os.readlink(name, dir_fd=folder))
        if not stat.S_ISREG(status.st_mode):
            return None
        first = path
        if status.st_nlink > 1:
            first = self.seen.setdefault((status.st_dev, status.st_ino), path)
        return TreeItem(
            path=path,
            kind="file" if first == path else "hardlink",
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size,
            target=b"" if first == path else first,
            chunks=lambda: self._read(folder, path, name, status),
        )

    def _read(self, folder: int, path: bytes, name: bytes, listed: os.stat_result) -> Iterator[bytes]:
        try:
            descriptor = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            raise _trouble(error) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceError(VANISHED)
            while chunk := os.read(descriptor, CHUNK):
                yield chunk
            now = os.fstat(descriptor)
        except OSError as error:
            raise _trouble(error) from None
        finally:
            os.close(descriptor)
        if (now.st_size, now.st_mtime_ns) != (listed.st_size, listed.st_mtime_ns):
            self.problems.append(Problem(CHANGED, as_text(path)))

    def _name(self, path: bytes, error: OSError) -> None:
        self.problems.append(Problem(_trouble(error).message, as_text(path)))


def _open_root(root: bytes) -> int:
    try:
        return os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceAbsentError(
            f"{as_text(root)} is not a folder here", hint="mount it, or correct its path"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{as_text(root)} cannot be read: {error.strerror}", hint="run as a user who may read it"
        ) from None


def _open_folder(top: int, path: bytes) -> int:
    opened = os.open(b".", _FOLDER, dir_fd=top)
    for name in path.split(b"/"):
        above = opened
        try:
            opened = os.open(name, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return opened


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


def _trouble(error: OSError) -> SourceError:
    return SourceError(VANISHED if error.errno in _GONE else f"{UNREADABLE}: {error.strerror}")
