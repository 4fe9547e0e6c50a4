"""Stands between the code location and the Docker engine, and lets through what backups and restores need.

    python3 engine_filter.py LISTEN ENGINE PROJECT [CONTAINER]...

LISTEN and ENGINE are paths of Unix sockets. Within reach are the containers of the compose project PROJECT,
those named, and the scratch servers that come and go with a capture: in these, programs run as the
container's own user, files are read and written, and they are stopped and started. A new container can only
be a scratch server, without network, mounts, devices and capabilities. Everything else is refused.

A connection carries one request: the engine is told to close it after its answer, so nothing that follows
is taken for another. What is decided by its body is sent on written anew. Standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from engine_rules import RULES, SCRATCH, RefusedError, Rule

PROJECT = "com.docker.compose.project"
TIMEOUT = 60
"""Seconds for a request to come, and for the engine to say what a container is."""
_HEAD, _BODY, _CHUNK = 16 << 10, 1 << 20, 256 << 10
_PASSED = ("accept", "content-length", "content-type", "host", "transfer-encoding", "user-agent")


@dataclass(frozen=True)
class Filter:
    """What one installation may ask of the engine at the socket `engine`."""

    engine: str
    project: str
    containers: frozenset[str] = frozenset()

    def rule(self, method: str, target: str) -> Rule:
        """Return the rule that lets a request through. Raises `RefusedError` where none does."""
        path = re.sub(r"^/v\d+\.\d+(?=/)", "", target.partition("?")[0])
        for rule in RULES:
            if match := rule.request.fullmatch(f"{method} {path}"):
                container = next(filter(None, match.groupdict().values()), None)
                if container is not None and not self._is_within_reach(container, rule):
                    raise RefusedError(f"{container} is no container of {self.project}")
                return rule
        raise RefusedError(f"{method} {path} is no call that backups need")

    def _is_within_reach(self, container: str, rule: Rule) -> bool:
        with self.connect() as engine:
            request = (
                f"GET /containers/{container}/json HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
            )
            engine.sendall(request.encode())
            answer = http.client.HTTPResponse(engine)
            answer.begin()
            found = json.loads(answer.read())
        if answer.status != http.client.OK:
            return answer.status == http.client.NOT_FOUND  # the engine will say so
        labels = found["Config"].get("Labels") or {}
        ours = labels.get(PROJECT) == self.project or found["Name"].lstrip("/") in self.containers
        return SCRATCH in labels or (ours and not rule.scratch)

    def connect(self) -> socket.socket:
        """Return a connection to the engine. Raises `OSError`."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(self.engine)
        except OSError:
            connection.close()
            raise
        return connection


class Connection(socketserver.BaseRequestHandler):
    """One connection, one request."""

    def handle(self) -> None:
        """Read the request, decide, and pass bytes on both ways until the engine has said everything."""
        client: socket.socket = self.request
        client.settimeout(TIMEOUT)
        said = "?"
        try:
            head, rest = _head(client)
            if not head:
                return  # it only wanted to know whether somebody listens
            first, *lines = _lines(head)
            method, target, _version = first.split(" ")
            said = f"{method} {target.partition('?')[0]}"
            rule = cast("Server", self.server).filter.rule(method, target)
            headers = _headers(lines)
            if rule.body or rule.raw:
                body, rest = _body(client, headers, rest)
                body = json.dumps(rule.body(_document(body))).encode() if rule.body else body
                headers["content-length"] = str(len(body))
            else:
                body, rest = rest, b""
            with cast("Server", self.server).filter.connect() as engine:
                wanted = "Upgrade\r\nupgrade: tcp" if rule.raw else "close"
                sent = [
                    first,
                    *(f"{name}: {value}" for name, value in headers.items()),
                    f"connection: {wanted}",
                ]
                engine.sendall("\r\n".join([*sent, "", ""]).encode("latin-1") + body)
                if not rule.raw or _agreed(engine, client):
                    if rest:  # even nothing cannot be sent to an engine that has closed already
                        engine.sendall(rest)
                    _pass_on(client, engine)
        except RefusedError as error:
            _answer(client, said, "403 Forbidden", f"the engine's filter refuses: {error}")
        except (ValueError, http.client.HTTPException) as error:
            _answer(client, said, "400 Bad Request", f"the engine's filter does not understand: {error}")
        except OSError as error:  # one of the two has gone, perhaps in the middle
            _answer(
                client, said, "502 Bad Gateway", f"the engine cannot be reached: {error.strerror or error}"
            )


class Server(socketserver.ThreadingUnixStreamServer):
    """Listens, with a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listen: str, allowed: Filter) -> None:
        self.filter = allowed
        with contextlib.suppress(FileNotFoundError):
            os.unlink(listen)  # of an earlier life that was killed
        before = os.umask(0o177)  # who may connect may do all that this lets through
        try:
            super().__init__(listen, Connection)
        finally:
            os.umask(before)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return a request's head, and what came behind it; nothing if nothing came."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = client.recv(_CHUNK)
        if not more and not received:
            return b"", b""
        if not more or len(received) > _HEAD:
            raise ValueError("a request that ends in its head, or has a very long one")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _lines(head: bytes) -> list[str]:
    """Return the lines of a head. A control character may end a line for one reader, and not for another."""
    lines = head.decode("latin-1").split("\r\n")
    if any(character < " " for line in lines for character in line.replace("\t", " ")):
        raise ValueError("control characters")
    return lines


def _headers(lines: Sequence[str]) -> dict[str, str]:
    """Return the headers that are passed on. What could end a body in two places is no request."""
    named = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = {name: value for name, value in named if name in _PASSED}
    lengths = [name for name, _ in named if name in ("content-length", "transfer-encoding")]
    if len(lengths) > 1:
        raise ValueError("headers that contradict each other")
    return headers


def _body(client: socket.socket, headers: Mapping[str, str], received: bytes) -> tuple[bytes, bytes]:
    """Return a request's body, and what came behind it."""
    size = int(headers.get("content-length", "0"))
    if "transfer-encoding" in headers or not 0 <= size <= _BODY:
        raise ValueError("a body that does not say its length, or has a great one")
    while len(received) < size:
        more = client.recv(_CHUNK)
        if not more:
            raise ValueError("half a body")
        received += more
    return received[:size], received[size:]


def _document(body: bytes) -> Mapping[str, Any]:
    document = json.loads(body)
    if not isinstance(document, dict):
        raise RefusedError("a body that is no object")
    return document


def _agreed(engine: socket.socket, client: socket.socket) -> bool:
    """Pass the engine's answer on, and say whether it lets the connection be taken over.

    Where it does not, it would take what the client sends for another request: nothing more is sent.
    """
    answer = b""
    while b"\r\n\r\n" not in answer and (more := engine.recv(_CHUNK)):
        answer += more
    client.sendall(answer)
    if answer.startswith(b"HTTP/1.1 101 "):
        return True
    engine.shutdown(socket.SHUT_WR)
    _pump(engine, client)
    return False


def _pass_on(client: socket.socket, engine: socket.socket) -> None:
    """Pass bytes on both ways, a half-closed connection included, until the engine has closed its own."""
    client.settimeout(None)
    engine.settimeout(None)
    asking = threading.Thread(target=_pump, args=(client, engine), daemon=True)
    asking.start()
    _pump(engine, client)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)  # wakes the other thread
    asking.join(TIMEOUT)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _answer(client: socket.socket, said: str, status: str, message: str) -> None:
    sys.stderr.write(f"{said}: {message}\n")
    content = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    with contextlib.suppress(OSError):
        client.sendall(f"{head}Connection: close\r\n\r\n".encode() + content)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM. Ends with status 2 for a wrong call."""
    listen, engine, project, *containers = [*arguments, "", "", ""][: max(3, len(arguments))]
    if not (listen and engine and project):
        sys.stderr.write("usage: engine_filter.py LISTEN ENGINE PROJECT [CONTAINER]...\n")
        sys.exit(2)
    allowed = Filter(engine, project, frozenset(filter(None, containers)))
    with Server(listen, allowed) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        sys.stderr.write(f"containers of {project} only; listening at {listen}\n")
        server.serve_forever()
    os.unlink(listen)


if __name__ == "__main__":
    main(sys.argv[1:])
