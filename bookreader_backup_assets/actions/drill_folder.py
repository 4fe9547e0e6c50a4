"""A folder for the length of a drill: held by a lock that the kernel lets go of, however its holder ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bookreader_backup_assets.actions.examine import Finding
from bookreader_backup_assets.core.errors import SpaceError

PREFIX = "bookreader-drill-"
_TRIES = 10


@contextmanager
def drill_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent`, for this user only, and remove it, whatever is in it, on leaving.

    What a killed drill left there is removed first. Raises `SpaceError` where no folder can be made.
    """
    for stray in strays(parent):
        _remove(stray)
    folder, held = _make(parent)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(held)


def strays(parent: Path) -> list[Path]:
    """Return the folders of drills that were killed: nobody holds them."""
    found = []
    with suppress(OSError):
        for folder in sorted(parent.glob(f"{PREFIX}*")):
            with suppress(OSError):
                held = _hold(folder)
                if held is not None:
                    os.close(held)
                    found.append(folder)
    return found


def stray_findings(parents: Iterable[Path]) -> Iterator[Finding]:
    """Yield a finding for what killed drills left in folders, some of it perhaps in clear, if anything."""
    found = [str(folder) for parent in dict.fromkeys(parents) for folder in strays(parent)]
    if found:
        seen = f"a drill was killed, and left {', '.join(found)}"
        yield Finding("drill", good=False, seen=seen, hint="`bookreader-backup drill` removes it, or rm -r")


def _make(parent: Path) -> tuple[Path, int]:
    for _ in range(_TRIES):
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise SpaceError(
                f"a drill has no place in {parent}: {error.strerror}",
                hint="set BACKUP_SCRATCH to a folder on a disk with room, that this user can write",
            ) from None
        with suppress(FileNotFoundError):  # taken for a stray before it was held
            held = _hold(folder)
            if held is not None and os.path.exists(folder):
                return folder, held
    raise SpaceError(f"a drill has no place in {parent}: its folders are removed", hint="see who does that")


def _hold(folder: Path) -> int | None:
    """Return a descriptor that holds the folder, or None while another does."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _remove(folder: Path) -> None:
    """Remove a folder and what was unpacked in it, also what nobody may enter."""
    pending = [os.fsencode(folder)]
    while pending:
        at = pending.pop()
        with suppress(OSError):
            os.chmod(at, stat.S_IRWXU)
            with os.scandir(at) as found:
                pending += [one.path for one in found if one.is_dir(follow_symlinks=False)]
    shutil.rmtree(folder, ignore_errors=True)
