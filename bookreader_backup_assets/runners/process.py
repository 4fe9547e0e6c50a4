"""Child processes: streamed in and out with flat memory, a deadline on every wait, no shell."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners import child

_STDERR_KEPT = 64 * 1024


class Process:
    """One child process. stderr goes to an unlinked file, so that no full pipe can block it.

    `secrets` are handed over as readable file descriptors: a `{n}` in `argv` is the n-th of them. `env` is
    added to this process's own environment, of which the variables in `without` are not passed on.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        secrets: Sequence[bytes] = (),
        without: Collection[str] = (),
        **popen: Any,
    ) -> None:
        self.program = os.path.basename(argv[0])
        try:
            self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise CommandError(
                self.program,
                None,
                str(error),
                what="could not be started",
                hint="set TMPDIR to a folder that takes files",
            ) from None
        handed = [_readable(secret) for secret in secrets]
        if handed:
            argv = [argument.format(*handed) for argument in argv]
        try:
            self.popen = subprocess.Popen(
                argv,
                env={**{k: v for k, v in os.environ.items() if k not in without}, **(env or {})},
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

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where to feed it, if it was started to be fed."""
        return self.popen.stdin

    def complaint(self) -> str:
        """The end of what the program wrote to stderr."""
        size = os.fstat(self._stderr.fileno()).st_size
        kept = os.pread(self._stderr.fileno(), _STDERR_KEPT, max(0, size - _STDERR_KEPT))
        return kept.decode("utf-8", "replace")

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes of stdout; `b""` at its end, None after `timeout` seconds."""
        assert self.popen.stdout is not None
        descriptor = self.popen.stdout.fileno()
        readable = select.poll()  # select() takes no descriptor over 1023
        readable.register(descriptor, select.POLLIN)
        return os.read(descriptor, CHUNK) if readable.poll(timeout * 1000) else None

    def wait(self, timeout: float) -> None:
        """Wait for the end. Raises `CommandError` for any status but 0, or after `timeout` seconds."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(
                self.program, None, self.complaint(), what=f"did not end within {timeout:.0f} s"
            ) from None
        if status < 0:
            names = {number.value: number.name for number in signal.Signals}  # real-time ones have no name
            what = f"was killed by {names.get(-status, f'signal {-status}')}"
            raise CommandError(self.program, status, self.complaint(), what=what)
        if status != 0:
            raise CommandError(self.program, status, self.complaint())

    def close(self) -> None:
        """End the program if it still runs, and its children, and let go of the pipes."""
        if self.popen.poll() is None:
            _signal_group(self.popen.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(child.GRACE)
            _signal_group(self.popen.pid, signal.SIGKILL)  # what it started may outlive it
            self.popen.wait(child.GRACE)
        for pipe in (self.popen.stdin, self.popen.stdout):  # last: a thread may be blocked in a write
            if pipe is not None:
                # ValueError: the thread that fed it has closed it at the same moment
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()
        self._stderr.close()


def stream(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Iterable[bytes] | None = None,
    stall: float,
    secrets: Sequence[bytes] = (),
    without: Collection[str] = (),
) -> Iterator[bytes]:
    """Yield a program's output; see `Runner.stream`. An error of `stdin` itself is raised as it is."""
    program = Process(argv, env=env, stdin=stdin is not None, secrets=secrets, without=without)
    yield from child.follow(program, stdin, stall)


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
