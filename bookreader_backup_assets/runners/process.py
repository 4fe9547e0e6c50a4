"""Child processes: streamed in and out with flat memory, a deadline on every wait, no shell."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError
from bookreader_backup_assets.core.streams import CHUNK

GRACE = 5.0
"""Seconds between asking a program to end and ending it."""
_STDERR_KEPT = 64 * 1024


class Process:
    """One child process. stderr goes to an unlinked file, so that no full pipe can block it.

    `secrets` are handed over as readable file descriptors: a `{n}` in `argv` is the n-th of them.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        secrets: Sequence[bytes] = (),
        **popen: Any,
    ) -> None:
        self.program = os.path.basename(argv[0])
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        handed = [_readable(secret) for secret in secrets]
        if handed:
            argv = [argument.format(*handed) for argument in argv]
        try:
            self.popen = subprocess.Popen(
                argv,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=handed,
                start_new_session=True,
                **popen,
            )
        except FileNotFoundError:
            self._stderr.close()
            raise SourceAbsentError(
                f"{self.program} is not on this machine", hint=f"install it, or put {self.program} on PATH"
            ) from None
        except OSError as error:
            self._stderr.close()
            raise CommandError(self.program, None, str(error), what="could not be started") from None
        finally:
            for descriptor in handed:
                os.close(descriptor)

    def complaint(self) -> str:
        """The end of what the program wrote to stderr."""
        size = os.fstat(self._stderr.fileno()).st_size
        kept = os.pread(self._stderr.fileno(), _STDERR_KEPT, max(0, size - _STDERR_KEPT))
        return kept.decode("utf-8", "replace")

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes of stdout; `b""` at its end, None after `timeout` seconds."""
        assert self.popen.stdout is not None
        descriptor = self.popen.stdout.fileno()
        readable, _, _ = select.select([descriptor], [], [], timeout)
        return os.read(descriptor, CHUNK) if readable else None

    def silent(self, seconds: float) -> CommandError:
        """The error to raise when the program has been silent for too long."""
        what = f"was silent for {seconds:.0f} s and was ended"
        return CommandError(self.program, None, self.complaint(), what=what)

    def wait(self, timeout: float) -> None:
        """Wait for the end. Raises `CommandError` for any status but 0, or after `timeout` seconds."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(
                self.program, None, self.complaint(), what=f"did not end within {timeout:.0f} s"
            ) from None
        if status < 0:
            what = f"was killed by {signal.Signals(-status).name}"
            raise CommandError(self.program, status, self.complaint(), what=what)
        if status != 0:
            raise CommandError(self.program, status, self.complaint())

    def close(self) -> None:
        """End the program if it still runs, and its children, and let go of the pipes."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self.popen.poll() is None:
            _signal_group(self.popen.pid, signal.SIGTERM)
            try:
                self.popen.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal_group(self.popen.pid, signal.SIGKILL)
                self.popen.wait(GRACE)
        self._stderr.close()


class Feeder(threading.Thread):
    """Writes chunks to a pipe in the background. `error` is what their source raised, if it did."""

    def __init__(self, pipe: IO[bytes], chunks: Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._chunks = chunks
        self.error: BaseException | None = None
        self.moved = time.monotonic()
        self.start()

    def run(self) -> None:
        """Feed until the source or the reader ends."""
        try:
            for chunk in self._chunks:
                self._pipe.write(chunk)
                self.moved = time.monotonic()
            self._pipe.close()
        except (BrokenPipeError, ValueError):
            pass  # the program has ended; its status says why
        except BaseException as error:  # noqa: BLE001 - handed to the reading side, which raises it
            self.error = error
            with contextlib.suppress(OSError):
                self._pipe.close()


def stream(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Iterable[bytes] | None = None,
    stall: float,
    secrets: Sequence[bytes] = (),
) -> Iterator[bytes]:
    """Yield a program's output; see `Runner.stream`. An error of `stdin` itself is raised as it is."""
    process = Process(argv, env=env, stdin=stdin is not None, secrets=secrets)
    try:
        feeder = None
        if stdin is not None:
            assert process.popen.stdin is not None
            feeder = Feeder(process.popen.stdin, stdin)
        heard = time.monotonic()
        while (chunk := process.read(min(stall, 1.0))) != b"":
            if chunk is not None:
                heard = time.monotonic()
                yield chunk
            elif time.monotonic() - max(heard, feeder.moved if feeder else heard) > stall:
                raise process.silent(stall)
        if feeder is not None:
            feeder.join(GRACE)
            if feeder.error is not None:
                raise feeder.error
        process.wait(stall)
    finally:
        process.close()


def _readable(secret: bytes) -> int:
    """Return a descriptor that reads `secret`; it never touches a disk."""
    descriptor = os.memfd_create("secret") if hasattr(os, "memfd_create") else None
    if descriptor is not None:
        os.write(descriptor, secret)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor
    read, write = os.pipe()  # at most 64 kB: a passphrase fits
    os.write(write, secret)
    os.close(write)
    return read


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
