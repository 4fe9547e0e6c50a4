"""The whole demo system: servers started and filled, and the settings by which production code finds it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.demo.configuration import PATHS, write_configuration
from bookreader_backup_assets.demo.content import Library, write_library
from bookreader_backup_assets.demo.database import NAME, fill_database
from bookreader_backup_assets.demo.elsewhere import elsewhere
from bookreader_backup_assets.demo.previous import end_previous, record
from bookreader_backup_assets.demo.queues import fill_redis
from bookreader_backup_assets.servers import postgresql, redis, s3
from bookreader_backup_assets.servers.programs import Only, postgresql_programs, redis_programs
from bookreader_backup_assets.settings import variables


@dataclass(frozen=True)
class BookReader:
    """A running BookReader.

    `environ` holds the `BACKUP_…` settings that lead to it, all others empty, no secret among them: those
    lie in files.
    `rows` (per table) and `keys` (per Redis database) are what was written.
    """

    folder: Path
    environ: Mapping[str, str]
    postgresql: postgresql.Server = field(repr=False)
    redis: redis.RedisServer = field(repr=False)
    s3: s3.S3Server = field(repr=False)
    library: Library = field(repr=False)
    rows: Mapping[str, int]
    keys: Mapping[str, int]


@contextmanager
def bookreader(folder: Path, *, only: Only | None = None, scale: float = 1.0) -> Iterator[BookReader]:
    """Start an embedded BookReader in `folder`; everything that was started is stopped on leaving.

    The vault, its key, its copies elsewhere and the configuration are kept from one run to the next, so that
    history grows; the other servers' data and the storage tree are made anew. SIGTERM stops it like an
    exception. `only` as in `servers.programs`; `scale` times the usual 150 books. Raises `RefusedError` if a
    demo already runs in this folder, `SourceAbsentError` if there are no server programs.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder), _stopped_by_sigterm():
        end_previous(folder / "servers.json")
        try:
            yield from _run(folder, only, scale)
        finally:
            (folder / "servers.json").unlink(missing_ok=True)


def _run(folder: Path, only: Only | None, scale: float) -> Iterator[BookReader]:
    for name in ("storage", "redis"):  # PostgreSQL's data is where its account can reach it, maybe not here
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("vault", "secrets", "redis"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    said = write_configuration(folder / "config", now=datetime.now(UTC))
    superuser = Secret(secrets.token_urlsafe(24))
    away_key = (_secret(folder, "offsite_access_key", None), _secret(folder, "offsite_secret_key", None))
    database_programs, cache_programs = postgresql_programs(only=only), redis_programs(only=only)
    with (
        postgresql.start(database_programs, password=superuser) as database,
        redis.start(
            cache_programs,
            folder / "redis",
            password=said["REDIS_PASSWORD"],
            appendonly=True,
            # a dump asked for waits 5 s for a second replica otherwise
            options={"maxmemory-policy": "allkeys-lru", "repl-diskless-sync-delay": "0"},
        ) as cache,
        elsewhere(folder, (Path(away_key[0]), Path(away_key[1]))) as away,
    ):
        record(
            folder / "servers.json",
            [(database.pid, database.data.parent), (cache.pid, cache.folder)],
            kept=[(away.server.pid, away.server.folder)],
        )
        library = write_library(folder / "storage", scale=scale)
        rows = fill_database(
            database, library, owner=said["DB_PASSWORD"], reader=said["DB_READONLY_PASSWORD"]
        )
        keys = fill_redis(cache, library)
        address = f"postgresql://{database.user}:{quote(superuser.reveal())}@{database.host}:{database.port}"
        password = quote(said["REDIS_PASSWORD"].reveal())
        environ = {
            **dict.fromkeys(variables(), ""),  # whatever the operator has set is about another BookReader
            "BACKUP_RUNNER": "local",
            "BACKUP_VAULT": str(folder / "vault"),
            "BACKUP_LOG": str(folder / "bookreader-backup.log"),
            "BACKUP_KEY_FILE": _secret(folder, "key", None),
            "BACKUP_POSTGRESQL_URL_FILE": _secret(folder, "postgresql_url", f"{address}/{NAME}"),
            "BACKUP_POSTGRESQL_PROGRAMS": str(database_programs),
            "BACKUP_REDIS_URL_FILE": _secret(
                folder, "redis_url", f"redis://:{password}@127.0.0.1:{cache.port}"
            ),
            "BACKUP_REDIS_PROGRAMS": str(cache_programs),
            "BACKUP_STORAGE_PATH": str(folder / "storage"),
            "BACKUP_CONFIG_ROOT": str(folder / "config"),
            "BACKUP_CONFIG_PATHS": ",".join(PATHS),
            **away.environ,
        }
        yield BookReader(folder, environ, database, cache, away.server, library, rows, keys)


def _secret(folder: Path, name: str, text: str | None) -> str:
    """Keep `text` in a file of its own, or a new passphrase that stays; return where."""
    path = folder / "secrets" / name
    if text is not None or not path.exists():
        new = path.with_name(name + ".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write((text or secrets.token_urlsafe(32)) + "\n")
        new.rename(path)
    return str(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "lock")  # the kernel lets go of it however its holder ends
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RefusedError(
            f"a demo runs in {folder} already", hint="stop that one, or give this one another --folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Have SIGTERM unwind what is open here, where nobody else has a say about it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
