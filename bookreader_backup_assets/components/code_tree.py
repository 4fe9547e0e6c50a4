"""The files that a commit has, held against those of a folder: byte by byte, without git's filters."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.components.code_git import Git
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.tree import as_text

MISSING = "is not there"
_LINK, _PROGRAM, _SUBMODULE = "120000", "100755", "160000"
_LINES = 16 << 20  # bytes of a file up to which other line ends are looked for


@dataclass(frozen=True)
class Tracked:
    """One file or link of a commit: its path from the top, git's mode, and the name of its content."""

    path: str
    mode: str
    identity: str
    size: int

    @property
    def permissions(self) -> int:
        """The permission bits that git gives a file."""
        return 0o755 if self.mode == _PROGRAM else 0o644


@dataclass(frozen=True)
class Files:
    """What a commit has: its files and links, and the paths of its submodules, whose files it has not."""

    files: tuple[Tracked, ...]
    submodules: tuple[str, ...]


def files_of(git: Git, commit: str) -> Files:
    """Return what is in a commit. Raises `DamagedError` if the repository lacks some of it."""
    files, submodules = [], []
    for row in git.run("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0")[:-1]:
        about, path = as_text(row).split("\t", 1)
        mode, _, identity, size = about.split()
        if mode == _SUBMODULE:
            submodules.append(path)
        elif not size.isdigit():
            raise DamagedError(
                f"{path} of the commit {commit[:12]} is not in the repository {git.folder}",
                hint=f"git --git-dir {git.folder} fsck --full says what else",
            )
        else:
            files.append(Tracked(path, mode, identity, int(size)))
    return Files(tuple(files), tuple(submodules))


def differences(files: Iterable[Tracked], root: Path) -> Iterator[tuple[Tracked, str]]:
    """Yield the files that are not in the folder as they are in the commit, and what is different.

    A text file whose lines end in CR LF is no other: git may have been told to write it so.
    """
    plain = {"": True}
    for file in files:
        if said := _difference(file, root) if _is_plain(root, file.path, plain) else "lies behind a link":
            yield file, said


def in_the_way(path: str, root: Path) -> bool:
    """Whether something above `path` in the folder is no folder, so that nothing can be put there."""
    for above in Path(path).parents:
        at = root / above
        if os.path.lexists(at) and (at.is_symlink() or not at.is_dir()) and above != Path():
            return True
    return os.path.lexists(root / path)


def _is_plain(root: Path, path: str, known: dict[str, bool]) -> bool:
    """Whether no folder above a path is a link."""
    above = path.rpartition("/")[0]
    if above not in known:
        known[above] = _is_plain(root, above, known) and not os.path.islink(root / above)
    return known[above]


def _difference(file: Tracked, root: Path) -> str:
    path = root / file.path
    try:
        status = path.lstat()
        if file.mode == _LINK and stat.S_ISLNK(status.st_mode):
            return "" if _named([os.fsencode(os.readlink(path))], file) else "leads elsewhere"
        if file.mode == _LINK or not stat.S_ISREG(status.st_mode):
            return "is something else"
        if not _is_same(path, status.st_size, file):
            return "has other content"
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    runs = bool(status.st_mode & stat.S_IXUSR)
    return "" if runs == (file.mode == _PROGRAM) else "has another mode"


def _is_same(path: Path, size: int, file: Tracked) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as opened:
        if size == file.size:
            return _named(iter(lambda: opened.read(CHUNK), b""), file)
        if size < file.size or size > _LINES:
            return False
        return _named([opened.read().replace(b"\r\n", b"\n")], file)


def _named(chunks: Iterable[bytes], file: Tracked) -> bool:
    """Whether this content has the name that git gave to the file's."""
    named = hashlib.new("sha1" if len(file.identity) == 40 else "sha256", usedforsecurity=False)
    named.update(b"blob %d\0" % file.size)
    for chunk in chunks:
        named.update(chunk)
    return named.hexdigest() == file.identity
