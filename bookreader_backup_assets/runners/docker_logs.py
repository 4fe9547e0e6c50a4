"""What containers have logged, line by line, read back from the engine.

Which lines belong to an hour is decided here, by the nanosecond: engines stop at the first line that is
too late, and two streams of a container may have their lines a little out of order. What a log driver
cannot give back, such as `none`, is a `SourceError`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.hour import instant_of
from bookreader_backup_assets.runners.base import STALL
from bookreader_backup_assets.runners.docker import PROJECT, SERVICE, containers, name_of
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_rotation import OPTIONS, may_have_rotated
from bookreader_backup_assets.runners.logs import JOINED, Line, Source

_BORDER = timedelta(minutes=1)
"""How far out of order lines may be: so much more is asked of the engine than is wanted."""
_LAG = 0.5  # seconds from a program into its driver, on a host that is busy
_RECEIVED = 256 * 1024
_HEADER = 8  # stream number, three zeros, length of the payload: four bytes, big-endian
_STREAMS = {0: b"stdout", 1: b"stdout", 2: b"stderr"}
_STAMP = 30  # bytes of 2025-10-24T02:00:00.123456789Z
_PART = 8 * 1024  # of a terminal's line: shorter ones were never logged in parts
_OFFSET = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class DockerLogs:
    """Implements `Logs` over the containers of BookReader's compose project, running or not.

    Without a `project`, it is the one that BookReader's services are found in.
    """

    engine: Engine
    project: str | None = None

    def sources(self) -> list[Source]:
        """See `Logs.sources`: each is named `<service>/<container>`.

        Raises `SourceAbsentError` if there is no container of BookReader's, `RefusedError` if there are
        those of two projects.
        """
        found = containers(self.engine, project=self.project)
        projects = {(one["Labels"] or {}).get(PROJECT) for one in found} - {None}
        if len(projects) > 1:
            raise RefusedError(
                f"several compose projects could be meant: {', '.join(sorted(map(str, projects)))}",
                hint="say which with BACKUP_COMPOSE_PROJECT",
            )
        if not found:
            where = f" of compose project {self.project}" if self.project else " of BookReader"
            raise SourceAbsentError(
                f"there is no container{where}, and so there are no logs",
                hint="start it (docker compose up -d), or correct BACKUP_COMPOSE_PROJECT",
            )
        return [source for one in found if (source := self._still_there(one)) is not None]

    def lines(self, source: Source, since: str, until: str) -> Iterator[Line]:
        """See `Logs.lines`. A window that has just ended is given the time that a line takes to be kept."""
        ended = (datetime.now(UTC) - instant_of(until)).total_seconds()
        time.sleep(min(_LAG, max(0.0, _LAG - ended)))
        border = {"since": _seconds(since, -_BORDER), "until": _seconds(until, _BORDER)}
        first, last = since.encode("ascii"), until.encode("ascii")
        with closing(self._read(source, border)) as asked:
            for line in asked:
                if first <= line.stamp < last:
                    yield line

    def oldest(self, source: Source) -> str | None:
        """See `Logs.oldest`."""
        with closing(self._read(source, {})) as lines:
            line = next(lines, None)
        return line.stamp.decode("ascii") if line else None

    def is_whole(self, source: Source) -> bool:
        """See `Logs.is_whole`. It reads as much as the driver keeps, if it comes to that."""
        driver = {"Type": source.about["driver"], "Config": source.about["options"]}
        with closing(self._read(source, {})) as lines:
            return not may_have_rotated(driver, (line.message for line in lines))

    def _still_there(self, listed: dict[str, Any]) -> Source | None:
        """Return the source, or None if the container was removed since it was listed."""
        try:
            return self._source(listed)
        except SourceAbsentError:
            if any(one["Id"] == listed["Id"] for one in containers(self.engine, project=self.project)):
                raise
            return None

    def _source(self, listed: dict[str, Any]) -> Source:
        name = name_of(listed)
        with self.engine.guarded():
            found = self.engine.api.inspect_container(listed["Id"])
        log = found["HostConfig"]["LogConfig"]
        return Source(
            name=f"{(listed['Labels'] or {}).get(SERVICE) or name}/{name}",
            id=found["Id"],
            about={
                "created": _utc(found["Created"].encode("ascii")).decode("ascii"),
                "running": bool(found["State"]["Running"]),
                "terminal": bool(found["Config"]["Tty"]),
                "driver": log["Type"],
                "options": {k: v for k, v in (log.get("Config") or {}).items() if k in OPTIONS},
            },
        )

    def _read(self, source: Source, border: dict[str, str]) -> Generator[Line, None, None]:
        with self.engine.guarded():
            answer = self.engine.api.get(
                self.engine.url(f"/containers/{source.id}/logs"),
                params={"stdout": "1", "stderr": "1", "timestamps": "1", **border},
                stream=True,
                timeout=STALL,  # an engine looks through all that it has before the first line comes
            )
        with answer:
            _check(answer, source)
            received = _guarded(answer.iter_content(_RECEIVED), source)
            frames = _of_a_terminal(received) if source.about["terminal"] else _framed(received, source)
            yield from _joined(frames, source)


def _check(answer: requests.Response, source: Source) -> None:
    if answer.status_code == requests.codes.ok:
        return
    said = answer.text.strip()[:300]
    if answer.status_code == requests.codes.not_found:
        raise SourceAbsentError(f"container {source.name} has gone: {said}", hint="docker ps --all")
    raise SourceError(
        f"log driver {source.about['driver']} of {source.name} cannot be read: {said}",
        hint="use json-file, local or journald for what is to be kept",
    )


def _guarded(chunks: Iterator[bytes], source: Source) -> Iterator[bytes]:
    try:
        yield from chunks
    except (requests.RequestException, OSError) as error:
        raise SourceError(
            f"the Docker engine broke off in the log of {source.name}: {type(error).__name__}",
            hint="see the engine's log, then capture again",
        ) from None


def _framed(chunks: Iterable[bytes], source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Yield stream and payload of each frame. Raises `SourceError` for what the engine says of itself."""
    received = bytearray()
    for chunk in chunks:
        received += chunk
        at, have = 0, len(received)
        while have >= at + _HEADER:
            end = at + _HEADER + int.from_bytes(received[at + 4 : at + _HEADER], "big")
            if have < end:
                break
            payload = bytes(received[at + _HEADER : end])
            stream = _STREAMS.get(received[at])
            if stream is None:
                raise _broken(source, payload)
            yield stream, payload
            at = end
        del received[:at]
    if received:
        raise _broken(source, b"it ends within a frame")


def _of_a_terminal(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines of a terminal, which has one stream and no frames; a very long one in parts."""
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        yield from ((b"stdout", line + b"\n") for line in lines)
        while len(held) > 2 * JOINED:
            stamp = held[: held.find(b" ") + 1]
            yield b"stdout", held[:JOINED]
            held = stamp + held[JOINED:]
    if held:
        yield b"stdout", held


def _joined(frames: Iterable[tuple[bytes, bytes]], source: Source) -> Iterator[Line]:
    """Yield whole lines: the engine keeps long ones in parts of 16 kB, each with the stamp of the first."""
    parts: dict[bytes, tuple[bytes, bytearray]] = {}
    for stream, payload in frames:
        stamp, message = _stamped(payload, source)
        if source.about["terminal"] and len(message) > _PART:
            message = message.replace(payload[: payload.find(b" ") + 1], b"")
        held = parts.pop(stream, None)
        if held is not None and held[0] != stamp:  # it was no part: the program had ended without a newline
            yield Line(held[0], stream, bytes(held[1]))
            held = None
        if message.endswith(b"\n"):
            yield Line(stamp, stream, bytes(held[1]) + message[:-1] if held else message[:-1])
        else:
            part = held[1] if held else bytearray()
            part += message
            if len(part) >= JOINED:
                yield Line(stamp, stream, bytes(part))
            else:
                parts[stream] = (stamp, part)
    for stream, (stamp, part) in parts.items():
        yield Line(stamp, stream, bytes(part))


def _stamped(payload: bytes, source: Source) -> tuple[bytes, bytes]:
    """Split a payload into stamp and message. The driver `local` writes the engine's own timezone."""
    if payload[_STAMP - 1 : _STAMP + 1] == b"Z " and payload[10:11] == b"T":
        return payload[:_STAMP], payload[_STAMP + 1 :]
    said, _, message = payload.partition(b" ")
    try:
        return _utc(said), message
    except ValueError:
        raise _broken(source, payload) from None


def _utc(said: bytes) -> bytes:
    match = _OFFSET.fullmatch(said)
    if match is None:
        raise ValueError(said)
    instant = datetime.fromisoformat((match[1] + match[3].replace(b"Z", b"+00:00")).decode("ascii"))
    fraction = (match[2] or b"").ljust(9, b"0")
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.".encode("ascii") + fraction + b"Z"


def _broken(source: Source, said: bytes) -> SourceError:
    words = said[:300].decode("utf-8", "replace").strip()
    return SourceError(
        f"the log of {source.name} cannot be read to its end: {words}", hint=f"docker logs {source.name}"
    )


def _seconds(stamp: str, more: timedelta) -> str:
    return f"{(instant_of(stamp) + more).timestamp():.6f}"
