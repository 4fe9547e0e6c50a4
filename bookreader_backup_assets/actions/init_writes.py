"""Files that `init` and `key rotate` write: whole or not at all, for this user only, nothing overwritten."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bookreader_backup_assets.core.errors import RefusedError, SourceError

_PARTIAL = ".bookreader-backup.partial"
"""What a file is called in its folder until it is whole: the next one removes what a kill has left."""
_IGNORE = ".gitignore"
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_~-]*")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write in a folder, which is made. Raises `RefusedError` for the second."""
    make_folder(folder)
    with told(folder):
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"another init or key rotate is at work in {folder}", hint="wait until it has ended"
            ) from None
        yield
    finally:
        os.close(held)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each 0700 and durable. One that is there stays as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with told(folder):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _sync_folder(folder.parent)


def write_new(path: Path, text: str) -> bool:
    """Write a file that is not there, 0600, and leave one alone that is. Return whether it was written."""
    make_folder(path.parent)
    if path.exists():
        return False
    _put(path, text, 0o600)
    return True


def rewrite(path: Path, text: str) -> None:
    """Replace a file's content in one step; who may read it stays as it is. A link stays a link."""
    path = path.resolve()
    with told(path):
        status = path.stat()
    _put(path, text, status.st_mode & 0o777, (status.st_uid, status.st_gid))


def ignore(paths: Iterable[Path]) -> list[Path]:
    """Have git ignore the paths that lie in a git tree, each once; return the `.gitignore` files written."""
    wanted: dict[Path, list[str]] = {}
    for path in paths:
        if (top := git_top(path.parent)) is not None:
            wanted.setdefault(top / _IGNORE, []).append(_pattern(path, top))
    written = []
    for file, patterns in wanted.items():
        with told(file):
            text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
        missing = [line for line in dict.fromkeys(patterns) if line not in text.splitlines()]
        if not missing:
            continue
        text += ("" if not text or text.endswith("\n") else "\n") + "".join(f"{line}\n" for line in missing)
        if file.exists():
            rewrite(file, text)
        else:
            _put(file, text, 0o644)
        written.append(file)
    return written


def git_top(path: Path) -> Path | None:
    """Return the top of the git tree that a path lies in, there or not yet; None outside of one."""
    return next((folder for folder in (path, *path.parents) if (folder / ".git").exists()), None)


def line(variable: str, value: str) -> str:
    """Return a line of a settings file. Raises `RefusedError` for a value that has several lines."""
    if "\n" in value or "\r" in value:
        raise RefusedError(f"the value of {variable} has several lines", hint="a settings file takes none")
    if _PLAIN.fullmatch(value):
        return f"{variable}={value}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{variable}='{escaped}'"


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say in this project's errors what the system says of a file."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path} cannot be written: {error.strerror}",
            hint="run as a user who may write there, or name another place: bookreader-backup init --help",
        ) from None


def _pattern(path: Path, top: Path) -> str:
    inside = re.sub(r"([\\*?\[\] ])", r"\\\1", path.relative_to(top).as_posix())
    return f"/{inside}"


def _put(path: Path, text: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    partial = path.with_name(_PARTIAL)
    with told(path):
        with suppress(FileNotFoundError):
            partial.unlink()
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                if owner is not None and owner != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), *owner)
                os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
