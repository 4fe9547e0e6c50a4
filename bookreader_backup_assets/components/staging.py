"""Where files wait beside a live folder: on its disk, so that a rename puts them in its place.

Beside the folder if it may be, else inside it: a mount point, or a folder whose parent we may not write,
has nothing beside it on its own disk. Captures leave out what begins with `PREFIX`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.runners.tree import as_text

PREFIX = b".bookreader-restore-"
"""What the names of our own folders begin with, beside a target and in it."""
BLOCK = 4096
"""Bytes that a path takes on a disk besides its content, about."""
_OURS = 0o700
_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def is_ours(path: bytes) -> bool:
    """Whether a path of a tree is, or lies in, a folder of ours at its top."""
    return path.startswith(PREFIX)


def place_for(folder: bytes, stamp: str) -> bytes:
    """Return the name of a new folder on the disk of `folder`, which may not be there itself."""
    name = PREFIX + stamp.encode("ascii")
    parent = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return os.path.join(parent, name)
    apart = os.stat(folder).st_dev != os.stat(parent).st_dev or folder in mounts()
    writable = os.access(parent, os.W_OK | os.X_OK, effective_ids=True)
    return os.path.join(folder if apart or not writable else parent, name)


def mounts() -> set[bytes]:
    """Return the places where something is mounted; none where the system does not say."""
    with suppress(OSError), open(_MOUNTS, "rb") as file:
        return {_ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), line.split(b" ")[4]) for line in file}
    return set()


def mounted_below(folder: bytes) -> list[bytes]:
    """Return what is mounted below `folder`: a rename cannot move that."""
    return sorted(place for place in mounts() if place.startswith(folder.rstrip(b"/") + b"/"))


def free(place: bytes) -> int:
    """Return the bytes that fit where `place` is, or would be made."""
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def make(beside: bytes) -> bytes:
    """Make the folder `beside`, and in it the one that is returned, where the new files go.

    Nobody else may enter. The time of the folder that it is in stays. Raises `SourceError`.
    """
    new = os.path.join(beside, b"new")
    try:
        parent = os.path.dirname(beside)
        os.makedirs(parent, exist_ok=True)
        if not os.path.isdir(beside):
            _leaving_its_time(parent, lambda: os.mkdir(beside, _OURS))
        with suppress(FileExistsError):
            os.mkdir(new, _OURS)
    except OSError as error:
        raise SourceError(
            f"{as_text(beside)} cannot be made: {error.strerror}", hint="run as a user who may write there"
        ) from None
    return new


def remove(beside: bytes, *, but_for: bytes = b"") -> None:
    """Remove the folder `beside`, if it is there; a child `but_for` stays if there is anything in it.

    Raises `SourceError` if it cannot be removed.
    """
    try:
        kept = but_for and os.path.isdir(os.path.join(beside, but_for))
        if kept and os.listdir(os.path.join(beside, but_for)):
            for name in os.listdir(beside):
                if name != but_for:
                    _remove(os.path.join(beside, name))
        elif os.path.isdir(beside):
            _leaving_its_time(os.path.dirname(beside), lambda: _remove(beside))
    except OSError as error:
        raise SourceError(
            f"{as_text(beside)} cannot be removed: {error.strerror}", hint="remove it by hand"
        ) from None


def _remove(path: bytes) -> None:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return

    def again(_function: Any, at: Any, found: Any) -> None:
        """Open a read-only folder, which an ordinary user cannot empty, and remove what stopped there."""
        for place in (os.path.dirname(at), at):
            with suppress(OSError):
                if not os.path.islink(place):
                    os.chmod(place, _OURS)
        if os.path.realpath(at) == os.path.realpath(path) or not os.path.lexists(at):
            raise found[1]
        _remove(at)

    shutil.rmtree(path, onerror=again)


def _leaving_its_time(folder: bytes, change: Callable[[], None]) -> None:
    status = os.stat(folder)
    change()
    with suppress(PermissionError):  # not ours: its time was never to be kept
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
