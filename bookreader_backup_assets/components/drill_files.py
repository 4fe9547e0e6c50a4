"""Storage brought back into a scratch folder, all of it or one file, and compared with the index."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bookreader_backup_assets.codecs import archive_reader, gzip, index
from bookreader_backup_assets.codecs.archive import Totals
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.tar import SECOND
from bookreader_backup_assets.components.drill import COMPARE, READ, RESTORE, Steps, Whole
from bookreader_backup_assets.components.storage import INDEX
from bookreader_backup_assets.core import fingerprint
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError, SpaceError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.tree import as_text

OpenRange = Callable[[int, int], Iterable[bytes]]
"""Reads bytes of an archive in the vault: offset, length."""
_SHOWN = 5
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


def whole(stored: Whole, folder: Path, steps: Steps) -> Outcome:
    """Unpack an archive into `folder`, and compare every path there with the index.

    Its bytes are hashed on their way, so that it is read once. Raises `DamagedError`, `SpaceError`.
    """
    with steps.step(RESTORE, stored.entry.size):
        unpack(stored.plain(), folder)
        if (found := stored.measured().sha256) != stored.entry.sha256:
            raise DamagedError(f"{stored.entry.name} is not what was captured: its sha256 is {found}")
    with steps.step(COMPARE):
        return compare(index.read(stored.companion(INDEX)), stored.entry.fingerprint, folder)


def sample(stored: Whole, open_range: OpenRange, folder: Path, steps: Steps, *, seed: int) -> Outcome:
    """Bring one file back into `folder`, chosen by `seed`, reading only what of the archive holds it."""
    with steps.step(READ, stored.entry.companion(INDEX).size):
        row = _choose(index.read(stored.companion(INDEX)), seed)
    if row is None:
        return inconclusive("file_equal", "the archive holds no file")
    target = folder / "sample"
    with steps.step(RESTORE, row.length), _room_said(folder), target.open("xb") as file:
        for chunk in archive_reader.read_one(open_range, row):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    with steps.step(COMPARE):
        found = _digest(os.fsencode(target))
    measured = {"path": as_text(row.path), "bytes": row.size, "bytes_read": row.length}
    if found != row.sha256:
        return failed("file_equal", f"{as_text(row.path)!r} is not what was captured", **measured)
    return passed("file_equal", f"{as_text(row.path)!r}, {row.size} bytes, as captured", **measured)


def unpack(chunks: Iterable[bytes], folder: Path) -> None:
    """Unpack a `.tar.gz` into a folder that is empty: nothing leaves it, through no path and no link."""
    source = io.BufferedReader(_Reader(gzip.decode(chunks)))
    with _room_said(folder):
        try:
            with tarfile.open(fileobj=source, mode="r|", errors="surrogateescape") as tar:
                tar.extractall(folder, _streamed(tar), numeric_owner=True, filter=_inside)  # noqa: S202 - filtered
            while source.read(CHUNK):  # what follows its end is hashed, too
                pass
        except tarfile.TarError as error:
            raise DamagedError(f"the archive does not unpack: {error}") from None


def compare(rows: Iterable[Row], expected: dict[str, Any], folder: Path) -> Outcome:
    """Compare a folder with the index of the archive unpacked there, and its totals with `expected`."""
    totals = Totals()
    wrong: list[str] = []
    paths = 0
    for row in rows:
        totals.count(row)
        paths += 1
        if said := _different(row, folder):
            wrong.append(f"{as_text(row.path)!r}: {said}")
    extra = _count(os.fsencode(folder)) - paths
    if extra > 0:
        wrong.append(f"{extra} paths that the index does not have")
    if different := fingerprint.compare(expected, totals.fingerprint()):
        wrong.append(fingerprint.describe(different))
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        return failed("files_equal", "; ".join(wrong[:_SHOWN]) + more, **vars(totals))
    return passed("files_equal", f"{totals.files} files equal the index", **vars(totals))


def _choose(rows: Iterable[Row], seed: int) -> Row | None:
    """Return one of the files, each as likely as any other, without holding them all."""
    chance = random.Random(seed)  # noqa: S311 - a choice to be made again, not a secret
    chosen = None
    files = (row for row in rows if row.kind == "file" and row.archive is None)
    for number, row in enumerate(files, 1):
        if chance.random() * number < 1:
            chosen = row
    return chosen


def _different(row: Row, folder: Path) -> str:
    """Return in what a path that was unpacked differs from its row; nothing if in nothing.

    The archive has whole seconds, and only root can give a file away.
    """
    path = os.path.join(os.fsencode(folder), row.path)
    try:
        status = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "neither file, folder nor link")
        expected = "file" if row.kind == "hardlink" else row.kind
        if kind != expected:
            return f"a {kind}, not a {expected}"
        if row.kind == "hardlink":
            first = os.lstat(os.path.join(os.fsencode(folder), row.target))
            return "" if os.path.samestat(status, first) else f"not the same file as {as_text(row.target)!r}"
        found: dict[str, Any] = {"seconds": int(status.st_mtime_ns // SECOND)}
        wanted: dict[str, Any] = {"seconds": row.mtime_ns // SECOND}
        if os.geteuid() == 0:
            found["owner"], wanted["owner"] = (status.st_uid, status.st_gid), (row.uid, row.gid)
        if kind == "symlink":
            found["target"], wanted["target"] = os.readlink(path), row.target
        else:
            found["mode"], wanted["mode"] = stat.S_IMODE(status.st_mode), row.mode
        if kind == "file":
            found["content"], wanted["content"] = _digest(path), row.sha256
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ", ".join(f"{name} differs" for name in wanted if found[name] != wanted[name])


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count(folder: bytes) -> int:
    """Return how many paths there are, the folder itself included."""
    links = 0
    paths = 0
    for at, folders, files in os.walk(folder):
        paths += 1 + len(files)
        links += sum(os.path.islink(os.path.join(at, name)) for name in folders)
    return paths + links


def _streamed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # it would keep every one
        yield member


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Return a member as it is, if it stays in the folder and is a file, folder or link."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise DamagedError(f"the archive holds something that storage never holds: {member.name!r}")
    tarfile.tar_filter(member, folder)  # raises for what would leave the folder; the mode stays ours
    return member


@contextmanager
def _room_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpaceError(
            f"a drill cannot write to {folder}: {error.strerror}",
            hint="free space there, or set BACKUP_SCRATCH to a folder on a larger disk",
        ) from None


class _Reader(io.RawIOBase):
    """A file object over chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
