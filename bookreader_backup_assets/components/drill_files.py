"""Storage brought back into a scratch folder, all of it or one file, and compared with the index."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from bookreader_backup_assets.codecs import archive_reader, index
from bookreader_backup_assets.codecs.archive import Totals
from bookreader_backup_assets.codecs.extract import FOLDER, Extractor, extract, open_folder
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.components.drill import COMPARE, READ, RESTORE, Steps, Whole
from bookreader_backup_assets.components.storage import INDEX
from bookreader_backup_assets.core import fingerprint
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError, SpaceError
from bookreader_backup_assets.runners.tree import as_text, read_tree

_SHOWN = 5
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


def whole(stored: Whole, folder: Path, steps: Steps) -> Outcome:
    """Unpack an archive into `folder`, and compare every path there with the index.

    Its bytes are hashed on their way, so that it is read once. Raises `DamagedError`, `SpaceError`.
    """
    with (
        steps.step(RESTORE, stored.entry.size),
        Extractor(os.fsencode(folder), outside_links=True) as into,
    ):
        extract(stored.plain(), index.read(stored.companion(INDEX)), into)
        if (found := stored.measured().sha256) != stored.entry.sha256:
            raise DamagedError(f"{stored.entry.name} is not what was captured: its sha256 is {found}")
    with steps.step(COMPARE):
        return compare(index.read(stored.companion(INDEX)), stored.entry.fingerprint, folder)


def sample(stored: Whole, folder: Path, steps: Steps, *, seed: int) -> Outcome:
    """Bring one file back into `folder`, chosen by `seed`, reading only what of the archive holds it.

    An encrypted archive is read from its start, as far as the file.
    """
    with steps.step(READ, stored.entry.companion(INDEX).size):
        row = _choose(index.read(stored.companion(INDEX)), seed)
    if row is None:
        return inconclusive("file_equal", "the archive holds no file")
    target, read = folder / "sample", 0

    def passing(chunks: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal read
        for chunk in chunks:
            read += len(chunk)
            yield chunk

    def open_range(offset: int, length: int) -> Iterator[bytes]:
        if not stored.entry.codecs:
            yield from passing(stored.open_range(offset, length))
            return
        with closing(archive_reader.Onward(passing(stored.plain()))) as onward:
            yield from onward.read(offset, length)

    reads = row.offset + row.length if stored.entry.codecs else row.length
    with steps.step(RESTORE, reads), _room_said(folder), target.open("xb") as written:
        for chunk in archive_reader.read_one(open_range, row):
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    with steps.step(COMPARE), target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    measured = {"path": as_text(row.path), "bytes": row.size, "bytes_read": read}
    if found != row.sha256:
        return failed("file_equal", f"{as_text(row.path)!r} is not what was captured", **measured)
    return passed("file_equal", f"{as_text(row.path)!r}, {row.size} bytes, as captured", **measured)


def compare(rows: Iterable[Row], expected: dict[str, Any], folder: Path) -> Outcome:
    """Compare a folder with the index of the archive unpacked there, and its totals with `expected`."""
    totals = Totals()
    wrong: list[str] = []
    differ = paths = 0
    with _Unpacked(folder) as unpacked:
        for row in rows:
            totals.count(row)
            paths += 1
            if said := unpacked.difference(row):
                differ += 1
                wrong += [f"{as_text(row.path)!r}: {said}"] if differ <= _SHOWN else []
    if differ > _SHOWN:
        wrong.append(f"and {differ - _SHOWN} more")
    extra = sum(1 for _ in read_tree(str(folder)).items) - paths
    if extra > 0:
        wrong.append(f"{extra} paths that the index does not have")
    if different := fingerprint.compare(expected, totals.fingerprint()):
        wrong.append(fingerprint.describe(different))
    if wrong:
        return failed("files_equal", "; ".join(wrong), differences=differ, **vars(totals))
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


class _Unpacked:
    """A folder that was unpacked, looked at one path at a time: of any depth, and following no link."""

    def __init__(self, folder: Path) -> None:
        self._top = os.open(folder, FOLDER)
        self._owners = os.geteuid() == 0  # only root can give a file away
        self._near = (b".", os.dup(self._top))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._near[1])
        os.close(self._top)

    def difference(self, row: Row) -> str:
        """Return in what a path differs from its row; nothing if in nothing. The top is the drill's own."""
        try:
            return self._difference(row) if row.path != b"." else ""
        except FileNotFoundError:
            return "not there"
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    def _difference(self, row: Row) -> str:
        folder, name = self._place(row.path)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "neither file, folder nor link")
        expected = "file" if row.kind == "hardlink" else row.kind
        if kind != expected:
            return f"a {kind}, not a {expected}"
        if row.kind == "hardlink":
            beside, first = self._place(row.target)
            same = os.path.samestat(status, os.stat(first, dir_fd=beside, follow_symlinks=False))
            return "" if same else f"not the same file as {as_text(row.target)!r}"
        pairs: dict[str, tuple[Any, Any]] = {"time": (status.st_mtime_ns, row.mtime_ns)}
        if self._owners:
            pairs["owner"] = ((status.st_uid, status.st_gid), (row.uid, row.gid))
        if kind == "symlink":
            pairs["target"] = (os.readlink(name, dir_fd=folder), row.target)
        else:
            pairs["mode"] = (stat.S_IMODE(status.st_mode), row.mode)
        if kind == "file":
            pairs["content"] = (_digest(name, folder), row.sha256)
        return ", ".join(f"its {what} differs" for what, (found, wanted) in pairs.items() if found != wanted)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        above, _, name = path.rpartition(b"/")
        if self._near[0] != (above or b"."):
            opened = open_folder(self._top, above)
            os.close(self._near[1])
            self._near = (above or b".", opened)
        return self._near[1], name


def _digest(name: bytes, folder: int) -> str:
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with open(opened, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _room_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpaceError(
            f"a drill cannot write to {folder}: {error.strerror}",
            hint="free space there, or set BACKUP_SCRATCH to a folder on a larger disk",
        ) from None
