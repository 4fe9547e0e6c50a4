"""The files a container sees: from its mount's path on this machine, or through the engine's archive call.

The host's path is four times as fast (556 MB/s against 145) and has nanosecond times; the archive call
works for any container, running or not, with a shell or without, and gives whole seconds.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import requests

from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import SourceAbsentError, SourceError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners import tree
from bookreader_backup_assets.runners.base import STALL, Kind, Tree, TreeItem
from bookreader_backup_assets.runners.docker_engine import TIMEOUT, Engine

IN_MEMORY = "is a tmpfs of the container, which the engine does not show: left out"
_END = bytes(2 * tarfile.BLOCKSIZE)  # what an archive ends with
_GO_FOLDER = 1 << 31
_TIME = re.compile(r"(?P<whole>[^.Z+]+)(?:\.(?P<part>\d{1,9}))?(?P<zone>Z|[+-]\d\d:\d\d)")
_KINDS: Mapping[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}


def read_tree(engine: Engine, container: Mapping[str, Any], path: str) -> Tree:
    """Read the folder `path` of an inspected `container`; see `Runner.read_tree`.

    Through the archive call, a file that vanishes after its folder was listed, and a socket, are left
    out by the engine without a word.
    """
    name = container["Name"].lstrip("/")
    at = PurePosixPath(path)
    found = _stat(engine, name, at)
    if found["linkTarget"]:
        at = PurePosixPath(found["linkTarget"])
        found = _stat(engine, name, at)
    if not int(found["mode"]) & _GO_FOLDER:
        raise SourceError(f"{at} in container {name} is not a folder", hint="correct BACKUP_STORAGE_PATH")
    mounts = _mounts(container)
    host = _host_path(mounts, at)
    if host is not None and engine.is_local and _is_the_same(host, found):
        read = tree.read_tree(host)
    else:
        problems: list[Problem] = []
        read = Tree(_Archive(engine, name, at, problems).items(), problems)
    unseen = [place for place, source in mounts.items() if source is None and at in place.parents]
    read.problems.extend(Problem(IN_MEMORY, str(place.relative_to(at))) for place in unseen)
    return read


def local_folder(engine: Engine, container: Mapping[str, Any], path: str) -> Path | None:
    """Return the folder of this machine that a container has at `path`; see `Runner.local_folder`.

    One that has been deleted is told by its mount alone, if what it lay in is here: look again when it
    is there.
    """
    if not engine.is_local:
        return None
    name, at = container["Name"].lstrip("/"), PurePosixPath(path)
    mounts = _mounts(container)
    found: dict[str, Any] | None = None
    with suppress(SourceError):
        found = _stat(engine, name, at)
        if found["linkTarget"]:
            at = PurePosixPath(found["linkTarget"])
            found = _stat(engine, name, at)
    host = _host_path(mounts, at)
    if host is None:
        return None
    gone = not os.path.lexists(host) and os.path.isdir(os.path.dirname(host))  # a running container holds on
    return Path(host) if gone or (found is not None and _is_the_same(host, found)) else None


def _stat(engine: Engine, name: str, path: PurePosixPath) -> dict[str, Any]:
    """What the engine says of a path: name, size, mode (Go's), mtime, linkTarget."""
    with engine.guarded():
        answer = engine.api.head(_archive_url(engine, name), params={"path": str(path)}, timeout=TIMEOUT)
    _check(answer, name, path)
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    return found


def _archive_url(engine: Engine, name: str) -> str:
    return engine.url(f"/containers/{name}/archive")


def _check(answer: requests.Response, name: str, path: PurePosixPath) -> None:
    if answer.status_code == requests.codes.not_found:
        raise SourceAbsentError(
            f"container {name} has no {path}", hint="correct BACKUP_STORAGE_PATH or BACKUP_STORAGE_CONTAINER"
        )
    if answer.status_code != requests.codes.ok:
        raise SourceError(f"the Docker engine refuses to read {path} in {name}: {answer.status_code}")


def _mounts(container: Mapping[str, Any]) -> dict[PurePosixPath, str | None]:
    """Every mount's place in the container, and its folder on the engine's host: None for a tmpfs."""
    host = container["HostConfig"]
    in_memory = [*(host.get("Tmpfs") or {})]
    in_memory += [mount["Target"] for mount in host.get("Mounts") or () if mount["Type"] == "tmpfs"]
    found = {
        PurePosixPath(mount["Destination"]): mount.get("Source") or None for mount in container["Mounts"]
    }
    return {**found, **dict.fromkeys(map(PurePosixPath, in_memory))}


def _host_path(mounts: Mapping[PurePosixPath, str | None], path: PurePosixPath) -> str | None:
    """Where the host keeps `path` and all that is under it, if one mount holds that."""
    if any(path in place.parents for place in mounts):
        return None  # another mount lies below: the host's folder is empty there
    around = [place for place in mounts if place in {path, *path.parents}]
    if not around:
        return None
    nearest = max(around, key=lambda place: len(place.parts))
    source = mounts[nearest]
    if source is None:
        raise SourceError(
            f"{path} is a tmpfs: it ends with its container, and the engine does not show what is in it",
            hint="keep the files on a volume or on a folder of the host",
        )
    inside = os.path.join(os.path.realpath(source), path.relative_to(nearest))
    # a link on the way means one thing in the container and another here
    return inside if os.path.realpath(inside) == inside.rstrip("/.") else None


def _is_the_same(host: str, found: Mapping[str, Any]) -> bool:
    """Whether the host's path is one of this machine, may be read whole, and is what the engine means.

    The engine may have another machine's disks (Docker Desktop, this program in a container): equal
    nanoseconds tell. Only root, or the owner of the files, can expect to read all of them.
    """
    try:
        status = os.stat(host)
    except OSError:
        return False
    return os.geteuid() in {0, status.st_uid} and status.st_mtime_ns == _nanoseconds(found["mtime"])


def _nanoseconds(text: str) -> int:
    """Go's `2026-11-23T05:48:26.123456789+01:00` as nanoseconds since the epoch."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise SourceError(f"the Docker engine gives a time that cannot be read: {text}")
    whole = datetime.fromisoformat(match["whole"] + match["zone"].replace("Z", "+00:00"))
    return int(whole.timestamp()) * 10**9 + int((match["part"] or "").ljust(9, "0"))


@dataclass(frozen=True)
class _Archive:
    """The engine's tar of a folder, as it comes: nothing of it is held but the member at hand."""

    engine: Engine
    name: str
    path: PurePosixPath
    problems: list[Problem]

    def items(self) -> Iterator[TreeItem]:
        """Yield every member. Raises `SourceError` if the archive ends before its end."""
        with self.engine.guarded():
            answer = self.engine.api.get(
                _archive_url(self.engine, self.name),
                params={"path": str(self.path)},
                stream=True,
                timeout=STALL,
            )
        with answer:
            _check(answer, self.name, self.path)
            reader = _Reader(answer.iter_content(CHUNK))
            source: Any = reader  # a streamed archive asks for `read` only, the annotations for more
            with (
                self._ends_well(),
                tarfile.open(
                    fileobj=source, mode="r|", bufsize=CHUNK, encoding="utf-8", errors="surrogateescape"
                ) as archive,
            ):
                while (member := archive.next()) is not None:
                    vars(archive)["members"].clear()  # or it would remember every one of them
                    kind = _KINDS.get(member.type)
                    if kind is None:
                        where = tree.as_text(_below_root(member.name))
                        self.problems.append(Problem(tree.LEFT_OUT, where))
                    else:
                        yield self._item(archive, member, kind)
                reader.drain()
                if reader.passed < archive.offset + len(_END) or reader.tail != _END:
                    raise tarfile.ReadError("its last blocks are missing")

    def _item(self, archive: tarfile.TarFile, member: tarfile.TarInfo, kind: Kind) -> TreeItem:
        target = b""
        if kind != "file":
            target = _below_root(member.linkname) if kind == "hardlink" else tree.as_path(member.linkname)
        return TreeItem(
            path=_below_root(member.name),
            kind=kind,
            mode=stat.S_IMODE(member.mode),
            uid=member.uid,
            gid=member.gid,
            mtime_ns=int(Decimal(member.pax_headers.get("mtime", member.mtime)) * 10**9),
            size=member.size,
            target=target,
            chunks=lambda: self._content(archive, member),
        )

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
        content = archive.extractfile(member) if member.isreg() else None
        if content is not None:
            with self._ends_well():
                while chunk := content.read(CHUNK):
                    yield chunk

    @contextmanager
    def _ends_well(self) -> Iterator[None]:
        try:
            yield
        except tarfile.TarError as error:
            raise SourceError(
                f"the engine's archive of {self.path} in {self.name} ended early: {error}",
                hint="a file shrank while it was read; capture again, or run where the files' own disk is",
            ) from None


class _Reader:
    """The engine's bytes as a file for `tarfile`, counted, with the last two blocks kept."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.passed = 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = self._next()
        said, self._rest = self._rest[:size], self._rest[size:]
        return said

    def drain(self) -> None:
        while self._next():
            pass

    def _next(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except OSError as error:
            raise SourceError(f"the engine's archive was cut off: {error}", hint="see its log") from None
        self.passed += len(chunk)
        self.tail = (self.tail + chunk[-len(_END) :])[-len(_END) :]
        return chunk


def _below_root(name: str) -> bytes:
    """The engine's names begin with the folder's own."""
    return tree.as_path(name).partition(b"/")[2] or b"."
