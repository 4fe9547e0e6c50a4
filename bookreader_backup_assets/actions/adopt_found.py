"""What lies in a folder that the guide's script wrote to: by name, by checksum, and what is already kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.components.base import Capture
from bookreader_backup_assets.core import guide_names
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, PROOF_INFIX, Entry, Problem
from bookreader_backup_assets.core.errors import RefusedError, SourceError
from bookreader_backup_assets.core.guide_names import SUMS, GuideName
from bookreader_backup_assets.core.streams import Meter, Progress, quiet

ADOPTED = "adopted"
"""The label of an artifact that was made by the guide's script, and taken into the vault later."""
_CHUNK = 256 << 10  # bytes: what they decompress to is held, and may be a thousand times as much
_LARGEST_SUMS = 16 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Item:
    """A path below the folder: `shown` relative to it, `named` if its name is one of the guide's, and
    `why` it is passed over if it is.
    """

    path: Path
    shown: str
    named: GuideName | None = None
    size: int = 0
    written: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    why: str = ""


@dataclass(frozen=True)
class Found:
    """A file of the script's: its bytes have `sha256`, and its name says that it is of the instant `at`.

    `host` is the one that its manifest names; `listed` whether a manifest, or a list of checksums, has it.
    """

    item: Item
    named: GuideName
    at: datetime
    sha256: str
    host: str = ""
    listed: bool = False

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes. Raises `SourceError`, at the latest after the last, if they are others by now."""
        meter = Meter(read(self.item.path))
        yield from meter
        if meter.sha256 != self.sha256:
            raise SourceError(
                f"{self.item.shown} changed while it was read", hint="when the script has ended, adopt again"
            )

    def decompressed(self) -> Iterator[bytes]:
        """Yield its bytes with gzip undone, if its name says so. Raises `DamagedError`."""
        return gzip.decode(self.chunks()) if "gzip" in self.named.codecs else self.chunks()

    def source(self) -> dict[str, str]:
        """Where it comes from, for its entry."""
        return {
            "runner": "the guide's script",
            "path": str(self.item.path),
            "sha256": self.sha256,
            "checksum": "as its manifest has it" if self.listed else "in no manifest",
            "fingerprint": "taken at adoption",
        }


@dataclass(frozen=True)
class Seen:
    """What reading a file found: the instant its content is of, what there is to say, and how to read it
    again as a capture.
    """

    captured_at: datetime
    capture: Callable[[], AbstractContextManager[Capture]]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Sums:
    """The checksums that lie in a folder, by file name, and the hosts of manifests, by stamp.

    `said` is what there is to say of a manifest that helps nobody, by what it is shown as.
    """

    of: Mapping[str, str]
    hosts: Mapping[tuple[str, str | None], str]
    said: Mapping[str, str]

    @classmethod
    def read(cls, items: Iterable[Item]) -> Sums:
        """Read every manifest and list of checksums that can be read."""
        of: dict[str, str] = {}
        hosts: dict[tuple[str, str | None], str] = {}
        said: dict[str, str] = {}
        for item in items:
            if item.named is None or item.named.kind != SUMS:
                continue
            try:
                text = _text(item)
            except SourceError as error:
                said[item.shown] = error.message
                continue
            known = guide_names.sums(text)
            known.pop(item.path.name, None)  # it was being written when it was hashed
            of |= known
            hosts[item.named.day, item.named.time] = guide_names.hostname(text)
            if not known:
                said[item.shown] = "it has no checksum of another file"
        return cls(of, hosts, said)


def walk(folder: Path) -> list[Item]:
    """Return every file below a folder, those of the newest names first, and what is no file.

    No link is followed, and nothing is read. Raises `SourceError` for a folder that may not be listed.
    """

    def stop(error: OSError) -> None:
        raise SourceError(
            f"{error.filename} cannot be listed: {error.strerror}", hint="run as a user that may read it"
        ) from None

    if not folder.is_dir():
        raise RefusedError(f"{folder} is no folder", hint="name the script's BACKUP_DIR")
    items = []
    for above, folders, files in os.walk(folder, onerror=stop):
        linked = [name for name in folders if os.path.islink(os.path.join(above, name))]
        there = {*files}
        items += [_item(Path(above, name), folder, there) for name in sorted([*files, *linked])]
    return sorted(items, key=_newest_first)


def read(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, without following a link. Raises `SourceError`."""
    try:
        with os.fdopen(os.open(path, _FILE), "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {os.strerror(error.errno or errno.EIO)}",
            hint="run as a user that may read it",
        ) from None


def digest(path: Path, progress: Progress = quiet) -> str:
    """Return a file's SHA-256. Raises `SourceError`."""
    meter = Meter(read(path), progress)
    for _ in meter:
        pass
    return meter.sha256


def kept(catalog: Catalog) -> dict[str, Entry]:
    """Return the entries by the SHA-256 of the files that they hold, adopted ones by that of their source."""
    found: dict[str, Entry] = {}
    for entry in catalog.entries():
        found[entry.sha256] = entry
        if entry.label == ADOPTED:
            found[entry.source.get("sha256", entry.sha256)] = entry
    return found


def _text(item: Item) -> str:
    if item.size > _LARGEST_SUMS:
        raise SourceError(f"{item.shown} is too large for a manifest")
    return b"".join(read(item.path)).decode("utf-8", "replace")


def _item(path: Path, folder: Path, there: set[str]) -> Item:
    shown = str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode()
    try:
        status = path.lstat()
    except OSError as error:
        return Item(path, shown, why=f"cannot be looked at: {error.strerror}")
    if path.is_symlink():
        return Item(path, shown, why="a link: not followed")
    if not path.is_file():
        return Item(path, shown, why="no file")
    if _is_ours(path.name, there):
        return Item(path, shown, why="an artifact of this program, or of it")
    named = guide_names.parse(path.name)
    why = "" if named else "not a name of the guide's script"
    written = datetime.fromtimestamp(status.st_mtime, UTC)
    return Item(path, shown, named, status.st_size, written, why)


def _is_ours(name: str, there: set[str]) -> bool:
    """Whether a file has an entry beside it, or is an entry, a proof, or a companion of what has one."""
    if name.endswith(ENTRY_SUFFIX) or PROOF_INFIX in name or name == "installation.json":
        return True
    parts = name.split(".")
    return any(".".join(parts[: count + 1]) + ENTRY_SUFFIX in there for count in range(len(parts)))


def _newest_first(item: Item) -> tuple[bool, tuple[int, ...], str]:
    if item.named is None:
        return True, (), item.shown
    stamp = f"{item.named.day}-{item.named.time or '00-00-00'}"
    return False, tuple(-int(number) for number in stamp.split("-")), item.shown
