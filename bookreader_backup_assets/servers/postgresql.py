"""PostgreSQL servers that we start ourselves: for scratch restores, the demo and the tests.

Each has a folder of its own and ends, folder and all, when its context is left. `initdb` refuses root, so
root runs the server as nobody.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bookreader_backup_assets.components.base import ScratchPostgresql
from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.local import LocalRunner

NOBODY = 65534
READY_WITHIN = 60.0
"""Seconds for a server to accept connections; 1 is usual."""
_ENDS_WITHIN = 15.0
_PORT = 5432
QUICK = {  # for what is thrown away: a power cut loses nothing that anybody wants
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "2GB",
}


@dataclass(frozen=True)
class Server:
    """A running server: `host` is a folder with its socket, or 127.0.0.1; `user` its superuser."""

    programs: Path
    data: Path
    host: str
    port: int
    user: str
    password: Secret | None
    pid: int
    version: str

    @property
    def env(self) -> dict[str, str]:
        """What libpq's programs need to be its superuser."""
        env = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE": "postgres"}
        return env | ({"PGPASSWORD": self.password.reveal()} if self.password else {})


@contextmanager
def start(
    programs: Path,
    folder: Path | None = None,
    *,
    superuser: str = "postgres",
    password: Secret | None = None,
    durable: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start an empty server from the programs in `programs`, with its data in a new folder in `folder`.

    With a password it listens on a free port of 127.0.0.1 and asks everybody for it; without one only on
    a socket that this user can reach. `durable` keeps fsync on; `settings` are added to the server's.
    Without `folder`, a temporary one. Raises `SourceError`, with the end of the server's log, if it does
    not get ready, `CommandError` if it cannot be made.
    """
    programs = _executable(programs)
    account = _account()
    top = _make_folder(folder, account)
    try:
        # a socket's path has 107 characters at most, and the folder that was asked for may be deep
        host = "127.0.0.1" if password else str(_make_folder(Path("/tmp"), account))  # noqa: S108
        try:
            _make_cluster(programs, top, superuser, password, account)
            chosen = {**({} if durable else QUICK), **(settings or {})}
            process, port = _launch(programs, top, host, chosen, account)
            try:
                version = (top / "data" / "PG_VERSION").read_text(encoding="ascii").strip()
                yield Server(programs, top / "data", host, port, superuser, password, process.pid, version)
            finally:
                _end(process)
        finally:
            if not password:
                shutil.rmtree(host, ignore_errors=True)
    finally:
        _remove(top)


@contextmanager
def scratch(programs: Path, folder: Path | None = None) -> Iterator[ScratchPostgresql]:
    """Start a throw-away server that listens on a socket only; see `Scratch.postgresql`."""
    with start(programs, folder, superuser="scratch") as server:
        yield ScratchPostgresql(
            runner=LocalRunner(programs=server.programs),
            env=server.env,
            version=server.version,
            sees_files=True,
        )


def _account() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _make_folder(parent: Path | None, account: dict[str, Any]) -> Path:
    """Make a folder that the server's account owns, where it can reach it."""
    parents = [parent] if parent else [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108
    for candidate in parents:
        try:
            made = Path(tempfile.mkdtemp(prefix="bb-pg-", dir=candidate))
        except OSError as error:
            raise SourceAbsentError(
                f"no scratch server can live in {candidate}: {error.strerror}",
                hint="set BACKUP_SCRATCH to a folder on a disk with room for the database",
            ) from None
        if not account:
            return made
        try:
            os.chown(made, NOBODY, NOBODY)
            fits = _can(["ls", str(made)], account)
        except BaseException:
            made.rmdir()
            raise
        if fits:
            return made
        made.rmdir()
    raise SourceAbsentError(
        f"as root, a scratch server runs as nobody, who cannot reach {parents[0]}",
        hint="set BACKUP_SCRATCH to a folder whose ancestors all may be entered (chmod o+x)",
    )


def _executable(programs: Path) -> Path:
    account = _account()
    if not account or _can([str(programs / "initdb"), "--version"], account):
        return programs
    return _copied(programs)


def _can(argv: list[str], account: dict[str, Any]) -> bool:
    try:
        done = subprocess.run(argv, cwd="/", capture_output=True, timeout=30, check=False, **account)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


@functools.cache
def _copied(programs: Path) -> Path:
    """Copy programs out of a home that nobody may enter, once per process: 42 MB for the wheel."""
    copy = Path(tempfile.mkdtemp(prefix="bb-programs-", dir="/tmp"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(programs.parent, copy / "tree", symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
    return copy / "tree" / programs.name


def _make_cluster(
    programs: Path, top: Path, superuser: str, password: Secret | None, account: dict[str, Any]
) -> None:
    argv = [str(programs / "initdb"), "-D", str(top / "data"), "-U", superuser, "-E", "UTF8", "--no-locale"]
    argv += ["-N", "-A", "scram-sha-256" if password else "trust"]
    kept = top / "password"
    if password:
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password.reveal() + "\n")
        if account:
            os.chown(kept, NOBODY, NOBODY)
        argv.append(f"--pwfile={kept}")
    try:
        done = subprocess.run(
            argv,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
            **account,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandError("initdb", None, str(error), what="could not be run") from None
    finally:
        kept.unlink(missing_ok=True)
    if done.returncode != 0:
        raise CommandError("initdb", done.returncode, done.stderr.decode("utf-8", "replace"))


def _launch(
    programs: Path, top: Path, host: str, settings: Mapping[str, str], account: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    on_socket = host.startswith("/")
    for attempt in range(3):  # another program may take the free port before the server does
        port = _PORT if on_socket else _free_port()
        listen = {
            "port": str(port),
            "listen_addresses": "" if on_socket else host,
            "unix_socket_directories": host if on_socket else "",
        }
        argv = [str(programs / "postgres"), "-D", str(top / "data")]
        argv += [part for name, value in {**settings, **listen}.items() for part in ("-c", f"{name}={value}")]
        with (top / "log").open("wb") as log:
            process = subprocess.Popen(
                argv,
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **account,
            )
        try:
            if _ready(process, top / "data" / "postmaster.pid"):
                return process, port
            said = (top / "log").read_text(encoding="utf-8", errors="replace")
            if attempt == 2 or "Address already in use" not in said:
                raise SourceError(
                    "the PostgreSQL server did not get ready: " + " / ".join(said.strip().splitlines()[-5:]),
                    hint=f"its programs are in {programs}; look at its message above",
                )
        except BaseException:
            _end(process)
            raise
        _end(process)
    raise AssertionError


def _ready(process: subprocess.Popen[bytes], status: Path) -> bool:
    """Wait until the server says so in its pid file, as pg_ctl does; False if it never does."""
    deadline = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines[7:] and lines[7].strip() == "ready":
                return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    # its folder goes next, so there is nothing to write out first: a checkpoint took up to 14 s
    for number in (signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN)


def _remove(folder: Path) -> None:
    """Remove a folder into which a child of a stopped initdb may still write for a moment."""
    deadline = time.monotonic() + _ENDS_WITHIN
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    # not ours: a PGDATA or PGOPTIONS meant for another server must not reach this one
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
