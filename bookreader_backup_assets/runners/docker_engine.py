"""A Docker engine: its address, its errors in our words, and connections taken over for raw bytes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound

from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError, SourceError

DEFAULT = "unix:///var/run/docker.sock"
TIMEOUT = 60
"""Seconds to wait for the engine's answer to one call."""


@dataclass(frozen=True)
class Engine:
    """The engine at `address`: `unix:///path` or `tcp://host:port`; without one, `DOCKER_HOST`'s.

    Making one contacts nothing. Connections with TLS or over ssh are refused at the first call: a
    program's input cannot be ended on them without ending its output too.
    """

    address: str = field(default_factory=lambda: os.environ.get("DOCKER_HOST") or DEFAULT)

    @cached_property
    def api(self) -> docker.APIClient:
        """The library's client. Use it inside `guarded` only. Raises like `guarded`."""
        scheme = urlsplit(self.address).scheme
        if scheme not in {"unix", "tcp"} or (scheme == "tcp" and os.environ.get("DOCKER_TLS_VERIFY")):
            raise RefusedError(
                f"the Docker engine's address {self.address} is not one that this program can use",
                hint="set DOCKER_HOST to unix:///… ; for an engine elsewhere forward its socket: "
                "ssh -L /run/user/1000/docker.sock:/var/run/docker.sock HOST",
            )
        with self.guarded():
            self._connect().close()  # the library would leave its socket open where nobody answers
            return docker.APIClient(base_url=self.address, version="auto", timeout=TIMEOUT)

    @property
    def is_local(self) -> bool:
        """Whether it is reached by a socket of this machine, so that its paths may be ours."""
        return self.address.startswith("unix://")

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Let no exception of the library out.

        Raises `SourceAbsentError` where the engine or the thing asked for is not there, `SourceError`
        where the engine refuses.
        """
        try:
            yield
        except NotFound as error:
            raise SourceAbsentError(_said(error), hint="docker ps --all shows what there is") from None
        except APIError as error:
            raise _refusal(_said(error)) from None
        except (DockerException, OSError) as error:
            raise SourceAbsentError(
                f"the Docker engine at {self.address} cannot be reached: {_innermost(error)}",
                hint="is it running, and may this user use it (docker version)? DOCKER_HOST sets its address",
            ) from None

    def url(self, path: str) -> str:
        """The address of an API call, for what the library's client has no method for."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"

    def take_over(self, path: str, body: dict[str, object]) -> tuple[socket.socket, bytes]:
        """POST to `path`, and keep the connection for raw bytes both ways.

        Returns its socket, and what had already come through it: the library's own way reads through a
        buffer that it then drops. Raises like `guarded`.
        """
        content = json.dumps(body).encode()
        head = (
            f"POST /v{self.api.api_version}{path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        with self.guarded():
            connection = self._connect()
            try:
                connection.sendall(head.encode() + content)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    more = connection.recv(4096)
                    if not more:
                        raise ConnectionError("it closed the connection")
                    answer += more
                said, rest = answer.split(b"\r\n\r\n", 1)
                status = said.split(b"\r\n", 1)[0].decode("ascii", "replace")
                if " 101 " not in f"{status} " and " 200 " not in f"{status} ":
                    raise _refusal(f"{status} {rest.decode('utf-8', 'replace')}")
                connection.settimeout(None)
            except BaseException:
                connection.close()
                raise
            return connection, rest

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.address)
        if parts.scheme == "tcp":
            return socket.create_connection((parts.hostname or "localhost", parts.port or 2375), TIMEOUT)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(parts.path)
        except OSError:
            connection.close()
            raise
        return connection


def _refusal(said: str) -> SourceError:
    if "is not running" in said or "is paused" in said:  # since it was looked at, a moment ago
        return SourceAbsentError(f"the container has just stopped: {said}", hint="docker ps --all")
    return SourceError(f"the Docker engine refuses: {said}", hint="see its log")


def _said(error: APIError) -> str:
    return str(error.explanation or error).strip()


def _innermost(error: BaseException) -> str:
    """What the operating system said, under the library's three wrappings."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", None) or error)
