"""What every runner does with a program once it runs: follow its output, feed it, talk to it.

A `Child` is the program, on this machine or in a container; the three drivers are the same for both.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from bookreader_backup_assets.core.errors import CommandError
from bookreader_backup_assets.runners.base import Result

GRACE = 5.0
"""Seconds between asking a program to end and ending it."""


class Pipe(Protocol):
    """A program's standard input. Raises `BrokenPipeError` when the program has gone."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""
        ...

    def flush(self) -> None:
        """Pass on what is buffered."""
        ...

    def close(self) -> None:
        """Tell the program that this was all."""
        ...


class Child(Protocol):
    """One running program."""

    program: str

    @property
    def stdin(self) -> Pipe | None:
        """Where to feed it, if it was started to be fed."""
        ...

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes of stdout; `b""` at its end, None after `timeout` seconds."""
        ...

    def complaint(self) -> str:
        """The end of what the program wrote to stderr."""
        ...

    def wait(self, timeout: float) -> None:
        """Wait for the end. Raises `CommandError` for any status but 0, or after `timeout` seconds."""
        ...

    def close(self) -> None:
        """End the program if it still runs, and let go of the pipes."""
        ...


def follow(child: Child, stdin: Iterable[bytes] | None, stall: float) -> Iterator[bytes]:
    """Yield a program's output and close it; see `Runner.stream`. An error of `stdin` is raised as it is."""
    feeder = _fed(child, stdin)
    try:
        heard = time.monotonic()
        while (chunk := child.read(min(stall, 1.0))) != b"":
            if chunk is not None:
                heard = time.monotonic()
                yield chunk
            elif time.monotonic() - max(heard, feeder.moved if feeder else heard) > stall:
                raise _silent(child, stall)
        _finish(child, feeder, stall)
    finally:
        _close(child, feeder)


def gather(child: Child, stdin: Iterable[bytes] | None, timeout: float) -> Result:
    """Run a program to its end within `timeout` seconds and close it; see `Runner.run`."""
    deadline = time.monotonic() + timeout
    feeder = _fed(child, stdin)
    try:
        said = bytearray()
        while (chunk := child.read(max(0.0, deadline - time.monotonic()))) != b"":
            if chunk is None or time.monotonic() > deadline:
                raise CommandError(
                    child.program, None, child.complaint(), what=f"did not end within {timeout:.0f} s"
                )
            said += chunk
        _finish(child, feeder, max(GRACE, deadline - time.monotonic()))
        return Result(bytes(said), child.complaint())
    finally:
        _close(child, feeder)


class Talk:
    """A `Session` with a program that was started to be fed. The program is closed by who started it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._rest = b""

    def send(self, data: bytes) -> None:
        """See `Session.send`."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(data)
            self._child.stdin.flush()
        except OSError:
            raise self._ended() from None

    def readline(self, timeout: float) -> bytes:
        """See `Session.readline`."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            chunk = self._child.read(max(0.0, deadline - time.monotonic()))
            if chunk is None:
                raise _silent(self._child, timeout)
            if not chunk:
                raise self._ended()
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _ended(self) -> CommandError:
        try:
            self._child.wait(GRACE)
        except CommandError as error:
            return error
        return CommandError(self._child.program, 0, self._child.complaint(), what="ended too early")


class _Feeder(threading.Thread):
    """Feeds a program in the background. `error` is what the source of the chunks raised, if it did."""

    def __init__(self, pipe: Pipe, chunks: Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._chunks = chunks
        self.error: BaseException | None = None
        self.moved = time.monotonic()
        self.start()

    def run(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._write(chunk):
                    break
                self.moved = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - handed to the reading side, which raises it
            self.error = error
        with contextlib.suppress(OSError):
            self._pipe.close()

    def _write(self, chunk: bytes) -> bool:
        try:
            self._pipe.write(chunk)
        except (BrokenPipeError, ValueError):
            return False  # it has ended, or reads no more, or was closed; its status says why
        return True


def _fed(child: Child, stdin: Iterable[bytes] | None) -> _Feeder | None:
    if stdin is None:
        return None
    assert child.stdin is not None
    return _Feeder(child.stdin, stdin)


def _finish(child: Child, feeder: _Feeder | None, timeout: float) -> None:
    try:
        child.wait(timeout)
    finally:
        if feeder is not None and feeder.error is not None:  # the reason, whatever the program made of it
            raise feeder.error


def _close(child: Child, feeder: _Feeder | None) -> None:
    child.close()
    if feeder is not None:
        feeder.join(GRACE)  # closing has woken it: nobody reads the source of stdin any more


def _silent(child: Child, seconds: float) -> CommandError:
    what = f"was silent for {seconds:.0f} s and was ended"
    return CommandError(child.program, None, child.complaint(), what=what)
