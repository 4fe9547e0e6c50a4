"""Configuration: exactly the paths configured, always encrypted, a new artifact only for new content.

Nothing is ever in clear on a disk: the archive is small, made in memory as it is read, and encrypted on
its way. The content's hash is keyed with the passphrase, so that an entry tells nobody what a short
`.env` holds.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components import config_members
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.config_members import Member
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, SourceAbsentError, SourceError

RESTORING = ".bookreader-restore-"
"""What the name of a restore's own folder begins with: it has what was replaced, and is never captured."""
_ABSENT = "configured, and not there"


@dataclass(frozen=True)
class ConfigArchive:
    """The files and folders `paths`, relative to `root`, as one encrypted `.tar.gz`."""

    root: Path
    paths: tuple[str, ...]
    gpg: Gpg = field(repr=False)
    component: str = "config"
    artifact: str = "archive"
    stem: str = "config"
    suffix: str = ".tar"
    kind: str | None = None
    codecs: tuple[str, ...] = ("gzip", "gpg")

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            "decrypts": "the key opens it and it unpacks to its end",
            "paths_present": "each configured path was there and is in it",
        }

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        self.gpg.require()
        problems: list[Problem] = []
        list(self._listed(problems))
        absent = [problem.where for problem in problems]
        if absent or not self.root.is_dir():
            raise SourceAbsentError(
                f"{self.root} has no {', '.join(absent) or 'folder'}",
                hint="set BACKUP_CONFIG_ROOT to the folder of BookReader's compose file, "
                "and BACKUP_CONFIG_PATHS to what is in it",
            )
        return {}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. Raises `KeyMissingError` before anything is read."""
        key = self.gpg.require()
        captured_at = datetime.now(UTC)
        content = hmac.new(key.reveal().encode(), digestmod=hashlib.sha256)
        sizes: dict[str, int] = {}
        problems: list[Problem] = []

        def facts() -> Facts:
            return Facts(
                captured_at=captured_at,
                fingerprint=self._fingerprint(content.hexdigest(), sizes),
                source={"runner": "local", "root": str(self.root)},
                problems=tuple(problems),
            )

        yield Capture(self._archive(content, sizes, problems), facts)

    def unchanged_since(self, newest: Entry) -> bool:
        """See `Component.unchanged_since`: the content's hash is the same."""
        return newest.fingerprint == self.fingerprint()

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint that a capture would have now. Raises as a capture would."""
        key = self.gpg.require()
        content = hmac.new(key.reveal().encode(), digestmod=hashlib.sha256)
        sizes: dict[str, int] = {}
        for _ in self._archive(content, sizes, []):
            pass
        return self._fingerprint(content.hexdigest(), sizes)

    def members(self) -> tuple[Member, ...]:
        """Return what is there now, as an artifact's would be read; in memory, and without the key."""
        nothing = hmac.new(b"", digestmod=hashlib.sha256)
        return config_members.unpack(b"".join(self._archive(nothing, {}, [])))[0]

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`."""
        expected = stored.entry.fingerprint
        try:
            files, held = _unpack(stored.plain())
        except tarfile.TarError as error:
            raise DamagedError(f"it does not unpack: {error}") from None
        if "decrypts" in names:
            if files == expected["files"]:
                yield passed("decrypts", f"{len(files)} files unpack from it", files=len(files))
            else:
                yield failed("decrypts", "it unpacks to other files than were captured", files=len(files))
        if "paths_present" in names:
            yield _paths_present(expected["configured"], held)

    def _archive(self, content: hmac.HMAC, sizes: dict[str, int], problems: list[Problem]) -> Iterator[bytes]:
        """Yield the tar, adding names, modes and bytes to `content` as they pass."""
        with _readable(self.root):
            there = self.root.is_dir()
        if not there:
            raise SourceAbsentError(
                f"the configuration's folder {self.root} is not there",
                hint="set BACKUP_CONFIG_ROOT to the folder of BookReader's compose file",
            )
        for path in self._listed(problems):
            inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
            name = posixpath.normpath(str(inside)).lstrip("/")
            found = _read(path, name)
            if found is None:
                problems.append(Problem("not a file, folder or link: left out", name))
                continue
            member, data = found
            digest = hashlib.sha256(data).hexdigest()
            said = f"{name}\0{member.mode:o}\0{member.linkname}\0{digest}\n"
            content.update(said.encode("utf-8", "surrogateescape"))
            if not member.isdir():
                sizes[name] = len(data)
            yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + _padding(len(data))
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _listed(self, problems: list[Problem]) -> Iterator[Path]:
        for configured in self.paths:
            path = self.root / configured
            with _readable(path):
                there = path.exists() or path.is_symlink()
                inside = sorted(_below(path)) if path.is_dir() and not path.is_symlink() else []
            if not there:
                problems.append(Problem(_ABSENT, configured))
                continue
            yield path
            yield from (one for one in inside if not _is_kept(path, one))

    def _fingerprint(self, content: str, sizes: dict[str, int]) -> dict[str, Any]:
        return {"kind": "paths", "configured": list(self.paths), "content": content, "files": dict(sizes)}


def _is_kept(top: Path, path: Path) -> bool:
    return any(name.startswith(RESTORING) for name in path.relative_to(top).parts)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{error.filename or path} cannot be read: {error.strerror}",
            hint="run as a user that may read it",
        ) from None


def _below(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder; `rglob` would pass over what may not be listed."""

    def stop(error: OSError) -> NoReturn:
        raise error

    for above, folders, files in os.walk(folder, onerror=stop):
        yield from (Path(above, name) for name in (*folders, *files))


def _read(path: Path, name: str) -> tuple[tarfile.TarInfo, bytes] | None:
    """Return a path as a member of a tar with its content, or None for what is no file, folder or link."""
    member = tarfile.TarInfo(name)
    with _readable(path):
        status = path.lstat()
        member.mode, member.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        member.uid, member.gid = status.st_uid, status.st_gid
        if path.is_symlink():
            member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        elif path.is_dir():
            member.type = tarfile.DIRTYPE
        elif path.is_file():
            data = path.read_bytes()
            member.size = len(data)
            return member, data
        else:
            return None
    return member, b""


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


class _Source(io.RawIOBase):
    """A file object over chunks, for `tarfile`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            self._rest = next(self._chunks, b"")
            if not self._rest:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _unpack(chunks: Iterator[bytes]) -> tuple[dict[str, int], set[str]]:
    """Read the tar to its end; return the size of each file and link, and the names of all members."""
    source = io.BufferedReader(_Source(chunks))
    with tarfile.open(fileobj=source, mode="r|") as tar:
        members = list(tar)
    while source.read(1 << 20):
        pass
    files = {member.name: member.size for member in members if not member.isdir()}
    return files, {member.name for member in members}


def _paths_present(configured: Iterable[str], names: set[str]) -> Outcome:
    absent = [path for path in configured if posixpath.normpath(path).lstrip("/") not in names]
    if absent:
        return failed("paths_present", f"not in it: {', '.join(absent)}", missing=len(absent))
    return passed("paths_present", "each configured path is in it", missing=0)
