"""A program running inside a container, through the engine's exec: framed output, half-closed input.

The engine has no call that ends an exec, and a program whose connection is closed runs on. So each one
carries a mark in its environment, and a second exec signals whatever carries it; that works through a
remote engine too. A container without a shell has no such second exec: there the process is signalled
from here, if the engine's processes are this machine's and this user may.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from bookreader_backup_assets.core.errors import BackupError, CommandError, SourceAbsentError
from bookreader_backup_assets.runners import child
from bookreader_backup_assets.runners.docker_engine import Engine

_MARK = "BOOKREADER_BACKUP_EXEC"
_STDERR_KEPT = 64 * 1024
_RECEIVED = 256 * 1024  # a fifth faster than 1 MB: a socket holds no more, and the room is made each time
_HEADER = 8  # stream number, three zeros, length of the payload: four bytes, big-endian
_HEEDS = 0.2  # seconds for what reads its input to end with it: to look for a process to signal costs more
_SIGNAL_MARKED = """
for process in /proc/[0-9]*; do
  case "$(tr '\\0' '\\n' < "$process/environ" 2>/dev/null)" in
    *"$1"*) kill "-$2" "${process#/proc/}" ;;
  esac
done
"""


class Exec:
    """One program in a running container. It is a `Child`."""

    def __init__(
        self, engine: Engine, container: str, argv: Sequence[str], *, env: Mapping[str, str], stdin: bool
    ) -> None:
        self.program = os.path.basename(argv[0])
        self._engine = engine
        self._container = container
        self._mark = uuid4().hex
        self._head = b""
        self._stderr = bytearray()
        self._ended = False
        with engine.guarded():
            created = engine.api.exec_create(
                container, list(argv), stdin=stdin, environment={**env, _MARK: self._mark}
            )
        self._id = str(created["Id"])
        self._socket, rest = engine.take_over(f"/exec/{self._id}/start", {"Detach": False, "Tty": False})
        self._received = bytearray(rest)
        self._pipe = SocketPipe(self._socket) if stdin else None

    @property
    def stdin(self) -> SocketPipe | None:
        """Where to feed it, if it was started to be fed."""
        return self._pipe

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes of stdout; `b""` at its end, None after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not (said := self._unframed()):
            left = max(0.0, deadline - time.monotonic())
            if not poll.poll(left * 1000):
                return None
            try:
                more = self._socket.recv(_RECEIVED)
            except OSError as error:
                raise self._broken(str(error)) from None
            if not more:
                if self._received:
                    raise self._broken("in the middle of a frame")
                return b""
            self._received += more
        return said

    def complaint(self) -> str:
        """The end of what the program wrote to stderr."""
        return self._stderr.decode("utf-8", "replace")

    def wait(self, timeout: float) -> None:
        """Wait for the end. Raises `CommandError` for any status but 0, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (status := self._status()) is None:
            if time.monotonic() > deadline:
                what = f"did not end within {timeout:.0f} s"
                raise CommandError(self.program, None, self.complaint(), what=what)
            time.sleep(0.01)
        self._ended = True
        refused = status == 126 and not self._stderr  # by the engine: the container ended just then
        if refused or (status in {126, 127} and self._head.startswith(b"OCI runtime")):
            said = self._head.decode("utf-8", "replace").strip() or "it has ended"
            raise SourceAbsentError(
                f"{self.program} cannot be run in container {self._container}: {said}",
                hint="is it the container that was meant?",
            )
        if status > 128 and status - 128 in set(signal.Signals):
            what = f"was killed by {signal.Signals(status - 128).name}"
            raise CommandError(self.program, status, self.complaint(), what=what)
        if status != 0:
            raise CommandError(self.program, status, self.complaint())

    def close(self) -> None:
        """End the program if it still runs, and its children, and let go of the connection.

        Raises `CommandError` if it cannot be ended.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that is blocked in a write
        self._socket.close()
        if self._ended or self._has_ended(_HEEDS if self._pipe else 0):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(BackupError):
                self._signal(number)
            if self._has_ended(child.GRACE):
                return
        what = f"runs on in container {self._container} and cannot be ended"
        raise CommandError(self.program, None, "", what=what, hint="end it there, or restart the container")

    def _signal(self, number: signal.Signals) -> None:
        pid = self._state()["Pid"]
        script = ["sh", "-c", _SIGNAL_MARKED, "sh", self._mark, number.name.removeprefix("SIG")]
        with self._engine.guarded():
            killer = self._engine.api.exec_create(self._container, script)
            self._engine.api.exec_start(killer["Id"])
        if self._engine.is_local and not self._has_ended(0.5) and _carries(pid, self._mark):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def _has_ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with contextlib.suppress(SourceAbsentError):  # the container or the engine went, and took it along
            while self._status() is None:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
        return True

    def _status(self) -> int | None:
        state = self._state()
        return None if state["Running"] or state["ExitCode"] is None else int(state["ExitCode"])

    def _state(self) -> dict[str, Any]:
        with self._engine.guarded():
            found: dict[str, Any] = self._engine.api.exec_inspect(self._id)
            return found

    def _unframed(self) -> bytes:
        """Take the whole frames out of what was received: stdout is returned, stderr kept."""
        said: list[bytes] = []
        at = 0
        while len(self._received) >= at + _HEADER:
            end = at + _HEADER + int.from_bytes(self._received[at + 4 : at + _HEADER], "big")
            if len(self._received) < end:
                break
            payload = bytes(self._received[at + _HEADER : end])
            if self._received[at] == 2:
                self._stderr = (self._stderr + payload)[-_STDERR_KEPT:]
            else:
                said.append(payload)
            at = end
        del self._received[:at]
        out = b"".join(said)
        self._head = self._head or out[:400]
        return out

    def _broken(self, why: str) -> CommandError:
        what = f"was cut off from container {self._container}: {why}"
        return CommandError(self.program, None, self.complaint(), what=what)


class SocketPipe:
    """The writing half of a connection as a program's standard input."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def write(self, data: bytes, /) -> None:
        """Write all of `data`. Raises `BrokenPipeError` when the program has gone."""
        try:
            self._socket.sendall(data)
        except OSError:
            raise BrokenPipeError from None

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """Close this half only: the program sees the end of its input, and its output still comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)


def _carries(pid: int, mark: str) -> bool:
    """Whether process `pid` of this machine is the marked one: an engine's numbers may not be ours."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return f"{_MARK}={mark}".encode() in environ.read()
    except OSError:
        return False
