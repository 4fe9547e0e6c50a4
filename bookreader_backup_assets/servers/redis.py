"""Redis servers that we start ourselves: for scratch restores, the demo and the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.components.base import ScratchRedis
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    DamagedError,
    SourceAbsentError,
    SpaceError,
)
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers.redis_wire import Address, ask, free_port, where

READY = 30.0
"""Seconds until a server must have answered."""
LOADED = 3600.0
"""Seconds until it must have loaded its dump."""
CHECKED = 3600.0
"""Seconds that `redis-check-rdb` may take."""
DATABASES = 1024
"""A dump that names a higher one than the server has is refused; Redis's own default is 16."""
_CLI = LocalRunner(without=frozenset({"REDISCLI_AUTH"}))
"""Runs redis-cli without a password of the user's own: a server that has none refuses whoever gives one."""
_END = 10.0
_CANNOT = ("Can't handle RDB format version", "module data I can't load", "configured to handle more than")
"""What a server says of a dump that is whole, and not for it."""


@dataclass(frozen=True)
class RedisServer:
    """A running server. `cli` is the argv that talks to it, `port` 0 where only a socket does.

    `folder` holds its data, `redis.conf` and `redis.log`.
    """

    cli: tuple[str, ...]
    pid: int
    version: str
    folder: Path
    port: int = 0
    password: Secret | None = field(default=None, repr=False)

    @property
    def env(self) -> dict[str, str]:
        """What redis-cli needs to be let in."""
        return {"REDISCLI_AUTH": self.password.reveal()} if self.password else {}

    def run(self, *command: str, stdin: Iterable[bytes] | None = None) -> str:
        """Return what redis-cli says to `command`. Raises `CommandError` where it exits badly."""
        return _CLI.run((*self.cli, *command), env=self.env, stdin=stdin).stdout.decode()


@contextmanager
def start(
    programs: Path,
    folder: Path,
    *,
    password: Secret | None = None,
    appendonly: bool = False,
    rdb: Iterable[bytes] | None = None,
    tcp: bool = True,
    options: Mapping[str, str] | None = None,
) -> Iterator[RedisServer]:
    """Start a server with the `redis-server` and `redis-cli` in `programs`, and end it on leaving.

    It lives in a new folder (0700) inside `folder`, removed on leaving, and listens on a free port of
    127.0.0.1, or without `tcp` on a socket only. `rdb` is loaded first. `options` are configuration
    directives. Raises `SourceAbsentError` if there is no such program or it does not understand the
    dump, `DamagedError` if it refuses the dump, `CommandError` with its log if it does not come up.
    """
    version = version_of(programs)
    # a socket's path has about 100 characters, and `folder` may have more
    with _private(folder) as home, tempfile.TemporaryDirectory(prefix="bb-", dir="/tmp") as near:
        address = free_port() if tcp else os.path.join(near, "redis")
        if rdb is not None:
            _write(home / "dump.rdb", rdb)
        directives = {
            "bind": "127.0.0.1",
            "port": str(address) if tcp else "0",
            "unixsocket": _quoted("" if tcp else str(address)),
            "unixsocketperm": "700",
            "dir": _quoted(str(home)),
            "save": '""',
            "databases": str(DATABASES),
            "appendonly": "yes" if appendonly and rdb is None else "no",  # a new AOF would shadow the dump
            **({"requirepass": _quoted(password.reveal())} if password else {}),
            **(options or {}),
        }
        _write(home / "redis.conf", [f"{name} {value}\n".encode() for name, value in directives.items()])
        process = _spawn(programs, home)
        try:
            _await(process, address, password, home / "redis.log", version, loading=rdb is not None)
            if appendonly and rdb is not None:
                _turn_on_aof(address, password)
            yield RedisServer(
                cli=(str(programs / "redis-cli"), *where(address)),
                pid=process.pid,
                version=version,
                folder=home,
                port=address if isinstance(address, int) else 0,
                password=password,
            )
        finally:
            _end(process)


@contextmanager
def scratch(programs: Path, folder: Path, rdb: Iterable[bytes]) -> Iterator[ScratchRedis]:
    """Start a server on a dump, reachable by a socket only; see `Scratch.redis`.

    A master drops what has expired while it loads (778 of 918 keys were left): a replica keeps it, so
    this one is made the replica of a port where nobody answers.
    """
    nobody = {"replicaof": "127.0.0.1 1"}
    with start(programs, folder, rdb=rdb, tcp=False, options=nobody) as server:
        yield ScratchRedis(_CLI, server.cli, server.version)


def master(
    programs: Path, folder: Path, rdb: Iterable[bytes], password: Secret
) -> AbstractContextManager[RedisServer]:
    """Start a server on a dump that another is to be made the replica of. Raises as `start` does."""
    at_once = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}  # no second replica will come
    return start(programs, folder, password=password, rdb=rdb, options=at_once)


def check_rdb(programs: Path, folder: Path, rdb: Iterable[bytes]) -> None:
    """Have `redis-check-rdb` read a dump; see `Scratch.check_rdb`. The dump lies in `folder` meanwhile.

    The checker is redis-server under another name. It prints a count of keys for good and bad dumps
    alike, so only its exit status is trusted.
    """
    version = version_of(programs)
    with _private(folder) as home:
        _write(home / "dump.rdb", rdb)
        checker = home / "redis-check-rdb"
        checker.symlink_to((programs / "redis-server").resolve())
        try:
            done = subprocess.run(
                [str(checker), str(home / "dump.rdb")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=CHECKED,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(checker.name, None, "", what=f"did not end within {CHECKED:.0f} s") from None
    if done.returncode != 0:
        raise refusal(checker.name, version, done.returncode, done.stdout.decode("utf-8", "replace"))


def version_of(programs: Path) -> str:
    """Return the version of the `redis-server` in `programs`."""
    said = LocalRunner().run([str(programs / "redis-server"), "--version"], timeout=READY).stdout.decode()
    return version_in(said)


def version_in(said: str) -> str:
    """Return the version in what `redis-server --version` said."""
    return said.partition(" v=")[2].partition(" ")[0]


def refusal(program: str, version: str, status: int, log: str) -> BackupError:
    """Return what to raise of a program that ended on a dump with `status` (negative: a signal)."""
    if status == -signal.SIGKILL:
        hint = "a scratch server needs as much memory as production's: see the kernel's log (dmesg)"
        return CommandError(program, status, log, what="was killed while it read the dump", hint=hint)
    if any(text in log for text in _CANNOT):
        return SourceAbsentError(
            f"{program} {version} cannot read this dump: {_first_with(_CANNOT, log)}",
            hint="set BACKUP_REDIS_PROGRAMS to a Redis like the one that wrote it, not older",
        )
    found = log.partition("ERROR DETECTED ---")[2] or log  # what follows may name keys
    line = next((line.strip() for line in found.splitlines() if line.strip()), f"status {status}")
    return DamagedError(f"{program} {version} refuses the dump: {line}")


def _first_with(texts: Iterable[str], log: str) -> str:
    return next((line.strip() for line in log.splitlines() if any(text in line for text in texts)), "")


@contextmanager
def _private(folder: Path) -> Iterator[Path]:
    try:
        home = Path(tempfile.mkdtemp(prefix="redis-", dir=folder))  # 0700
    except OSError as error:
        raise SourceAbsentError(
            f"no scratch server can live in {folder}: {error.strerror}",
            hint="set BACKUP_SCRATCH to a folder with room for the whole dump",
        ) from None
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk)
            try:
                while view:
                    view = view[file.write(view) :]
            except OSError as error:
                raise SpaceError(
                    f"{path} cannot be written: {error.strerror}",
                    hint="set BACKUP_SCRATCH to a folder with room for the whole dump",
                ) from None


def _spawn(programs: Path, home: Path) -> subprocess.Popen[bytes]:
    with open(home / "redis.log", "wb") as log:
        return subprocess.Popen(
            [str(programs / "redis-server"), str(home / "redis.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await(
    process: subprocess.Popen[bytes],
    address: Address,
    password: Secret | None,
    log: Path,
    version: str,
    *,
    loading: bool,
) -> None:
    started = time.monotonic()
    while not (answer := ask(address, password, b"PING")).startswith(b"+PONG"):
        patience = LOADED if answer.startswith(b"-LOADING") else READY
        status = process.poll()
        if status is not None or time.monotonic() > started + patience:
            said = log.read_text(encoding="utf-8", errors="replace")
            if status is None:
                what = f"was not ready within {patience:.0f} s"
                raise CommandError("redis-server", None, said, what=what)
            if loading:
                raise refusal("redis-server", version, status, said)
            raise CommandError("redis-server", status, said)
        time.sleep(0.01)


def _turn_on_aof(address: Address, password: Secret | None) -> None:
    """Turn the AOF on and wait until it is written: until then, Redis refuses to end."""
    ask(address, password, b"CONFIG", b"SET", b"appendonly", b"yes")
    deadline = time.monotonic() + LOADED
    while b"aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0" not in (
        said := ask(address, password, b"INFO", b"persistence")
    ):
        if time.monotonic() > deadline:
            text = said.decode("utf-8", "replace")
            raise CommandError("redis-server", None, text, what=f"wrote no AOF within {LOADED:.0f} s")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END)


def _quoted(text: str) -> str:
    """Return text as redis.conf takes it, whatever it holds."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'
