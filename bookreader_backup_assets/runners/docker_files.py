"""Single files of a container, read and written whether it runs or not; and it is stopped and started.

Through the engine's archive call, which keeps owners. Into a tmpfs it answers success and the file is
nowhere, so whatever was written is looked for.
"""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import requests

from bookreader_backup_assets.core.errors import (
    BackupError,
    DamagedError,
    SourceAbsentError,
    SourceError,
    SpaceError,
)
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.base import STALL, TreeItem
from bookreader_backup_assets.runners.docker import DockerRunner
from bookreader_backup_assets.runners.docker_services import DockerServices

_GRACE = 600
"""Seconds that a server has to write its data down when it is stopped."""
_SAID = 10  # lines of a log in an error
_IN_MEMORY = 64 << 20  # bytes of a file that is copied
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class DockerFiles:
    """The container of `runner`, and files in it by absolute path. Each call looks it up anew."""

    runner: DockerRunner

    @property
    def name(self) -> str:
        """Its name; where it is gone, the one by which it is looked for."""
        with suppress(BackupError):
            return str(self._look()["Name"]).lstrip("/")
        return self.runner.configured or self.runner.sought.services[0]

    def argv(self) -> tuple[str, ...]:
        """What it runs: its entrypoint and command."""
        config = self._look()["Config"]
        return (*(config["Entrypoint"] or ()), *(config["Cmd"] or ()))

    def working_folder(self) -> str:
        """Where its program begins."""
        return self._look()["Config"]["WorkingDir"] or "/"

    def is_running(self) -> bool:
        """Whether it runs, and is not about to be started again after it ended."""
        state = self._look()["State"]
        return bool(state["Running"]) and not state["Restarting"]

    def ended(self) -> str:
        """Return why it does not run since it was started, with the end of its log; "" if it does."""
        found = self._look()
        state = found["State"]
        if state["Running"] and not state["Restarting"] and not found["RestartCount"]:
            return ""
        log = b""
        with suppress(BackupError), self.runner.engine.guarded():  # some log drivers cannot be read
            log = self.runner.engine.api.logs(found["Id"], tail=_SAID)
        lines = [line.strip() for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
        status = "out of memory" if state.get("OOMKilled") else f"status {state['ExitCode']}"
        return f"container {self.name} has ended ({status}): {' / '.join(lines)[-1000:]}"

    def stop(self) -> None:
        """Stop it, and return when it has ended. One that does not run is fine."""
        DockerServices(self.runner.engine, grace=_GRACE).stop(self.name)

    def start(self) -> None:
        """Start it; one that runs is fine. Raises `SourceError` where the engine cannot."""
        with self.runner.engine.guarded():
            self.runner.engine.api.start(self.name)

    def find(self, path: str) -> TreeItem | None:
        """Return the file or folder at `path`, None if there is none; `chunks` reads a file, once."""
        with self._archive(path) as archive:
            return None if archive is None else self._item(path, archive.next())

    def put(self, path: str, size: int, chunks: Iterable[bytes], like: TreeItem) -> None:
        """Write a file of `size` bytes, with the owner of `like`, and its mode if that is a file.

        Not at once: a reader meanwhile sees less of it. Raises `SourceError` where it did not get there,
        `DamagedError` for another number of bytes.
        """
        folder, name = os.path.split(path)
        head = tarfile.TarInfo(name)
        head.size, head.uid, head.gid, head.mtime = size, like.uid, like.gid, int(time.time())
        head.mode = like.mode if like.kind == "file" else 0o644  # as Redis and others make theirs
        self._send(folder, _tar(head, chunks, path))
        found = self.find(path)
        if found is None or found.size != size:
            raise SourceError(
                f"{path} was written in container {self.name}, and is not there",
                hint="a tmpfs cannot be written from outside: keep the data on a volume",
            )

    def copy(self, path: str, to: str) -> None:
        """Copy a file, with its owner and mode, by way of a file of this machine that nobody else sees.

        Not at once from the one to the other: the engine locks the container for either. Raises
        `SourceAbsentError` if it is not there, `SpaceError`.
        """
        found = self.find(path)
        if found is None:
            raise SourceAbsentError(f"container {self.name} has no file {path}")
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            try:
                for chunk in found.chunks():
                    spool.write(chunk)
            except OSError as error:
                raise SpaceError(
                    f"{path} cannot be copied by way of {tempfile.gettempdir()}: {error.strerror}",
                    hint="set TMPDIR to a folder with room for it",
                ) from None
            spool.seek(0)
            self.put(to, found.size, iter(lambda: spool.read(CHUNK), b""), found)

    def make_folder(self, path: str, like: TreeItem) -> None:
        """Make a folder with the owner of `like`, unless it is there."""
        if self.find(path) is None:
            head = tarfile.TarInfo(os.path.basename(path))
            head.type, head.uid, head.gid, head.mode = tarfile.DIRTYPE, like.uid, like.gid, 0o755
            head.mtime = int(time.time())
            self._send(os.path.dirname(path), _tar(head, (), path))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; it has to run, and its image to have `rm`. Those that are not there are fine."""
        self.runner.run(["rm", "-f", "--", *paths])

    def _look(self) -> Mapping[str, Any]:
        return self.runner.inspect()

    def _item(self, path: str, member: tarfile.TarInfo | None) -> TreeItem | None:
        if member is None:
            return None
        return TreeItem(
            path=os.fsencode(path),
            kind="folder" if member.isdir() else "symlink" if member.issym() else "file",
            mode=stat.S_IMODE(member.mode),
            uid=member.uid,
            gid=member.gid,
            mtime_ns=int(member.mtime * 10**9),
            size=member.size,
            chunks=lambda: self._content(path),
        )

    def _content(self, path: str) -> Iterator[bytes]:
        with self._archive(path) as archive:
            member = None if archive is None else archive.next()
            content = archive.extractfile(member) if archive and member and member.isreg() else None
            if member is None or content is None:
                raise SourceAbsentError(f"container {self.name} has no file {path}")
            read = 0
            while chunk := content.read(CHUNK):
                read += len(chunk)
                yield chunk
            if read != member.size:
                raise SourceError(f"{path} of container {self.name} ended early")

    @contextmanager
    def _archive(self, path: str) -> Iterator[tarfile.TarFile | None]:
        """Open the engine's tar of a path, None if there is no such path; only what is asked for is sent."""
        engine = self.runner.engine
        url = engine.url(f"/containers/{self.name}/archive")
        with engine.guarded():
            answer = engine.api.get(url, params={"path": path}, stream=True, timeout=STALL)
        with answer:
            if answer.status_code == requests.codes.not_found:
                self._look()  # raises if it is the container that is not there
                yield None
                return
            if answer.status_code != requests.codes.ok:
                raise SourceError(f"the Docker engine refuses to read {path}: {answer.text[:300]}")
            source: Any = _Bytes(answer.iter_content(CHUNK))
            try:
                with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK) as archive:
                    yield archive
            except tarfile.TarError as error:
                raise SourceError(f"the engine's archive of {path} ended early: {error}") from None

    def _send(self, folder: str, tar: Iterator[bytes]) -> None:
        with self.runner.engine.guarded():
            self.runner.engine.api.put_archive(self.name, folder, tar)


@dataclass
class _Bytes:
    """Chunks as a file for `tarfile`, which asks for `read` only."""

    chunks: Iterator[bytes]
    rest: bytes = b""

    def read(self, size: int) -> bytes:
        self.rest = self.rest or next(self.chunks, b"")
        said, self.rest = self.rest[:size], self.rest[size:]
        return said


def _tar(head: tarfile.TarInfo, chunks: Iterable[bytes], path: str) -> Iterator[bytes]:
    yield head.tobuf(tarfile.GNU_FORMAT)
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
    if size != head.size:
        raise DamagedError(f"{size} bytes came for {path}, and {head.size} were to come")
    yield bytes(-size % _BLOCK + 2 * _BLOCK)
