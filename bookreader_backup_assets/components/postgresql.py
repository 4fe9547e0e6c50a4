"""`postgresql/dump`: the database from one exported snapshot, with its rows counted in that snapshot.

The fingerprint therefore equals the dump, whatever writers do meanwhile.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bookreader_backup_assets.components import postgresql_check as check
from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.psql import (
    LOCK_WAIT,
    Psql,
    client_env,
    connect,
    major,
    meaning,
)
from bookreader_backup_assets.components.psql import versions as program_versions
from bookreader_backup_assets.core.artifact import Entry, parse_utc
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.errors import BackupError, CommandError
from bookreader_backup_assets.runners.base import Runner

_ENDS_WITHIN = 20.0
_SHRINKS = 3  # no indexes, and compressed

# the clock, as the snapshot's transaction has it, in UTC; the size of the folder, since asking tables for
# theirs would wait for whoever has locked one
_BEGIN = """
SELECT jsonb_build_object(
  'snapshot', pg_export_snapshot(),
  'at', to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'pid', pg_backend_pid(),
  'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
  'bytes', pg_database_size(d.oid)
) FROM pg_database d WHERE d.datname = current_database()
"""


@dataclass(frozen=True)
class PostgresqlDump:
    """Captures and checks one database. `env` is what libpq's programs need to reach it."""

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    digests: fingerprint.Digests = True
    codecs: tuple[str, ...] = ()

    component = "postgresql"
    artifact = "dump"
    suffix = ".dump"
    kind = None

    @property
    def stem(self) -> str:
        """The database's name, as far as names of files can say it."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.database).strip("-") or "database"

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return check.CHECKS

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        with connect(self.runner, self.env, self.database) as psql:
            return program_versions(psql, self.runner, "pg_dump")

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. Raises `SourceError` if `pg_dump` is older than the server."""
        with connect(self.runner, self.env, self.database) as psql:
            versions = program_versions(psql, self.runner, "pg_dump")
            psql.tell("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
            held = psql.ask(_BEGIN)
            outline = fingerprint.outline(psql)
            counting = _Counting(lambda: fingerprint.counted(psql, outline, self.digests))

            def facts() -> Facts:
                return Facts(
                    captured_at=parse_utc(held["at"]),
                    fingerprint=counting.result(),
                    versions=versions,
                    source={
                        **self.runner.describe(),
                        "database": self.database,
                        **{key: str(held[key]) for key in ("encoding", "collate", "ctype")},
                    },
                )

            dumping = self._dump(psql, counting, held, versions)
            try:
                yield Capture(dumping, facts, expected=held["bytes"] // _SHRINKS)
            finally:
                dumping.close()
                if counting.thread.is_alive():  # left early: a closed psql would leave its query running
                    with suppress(BackupError), connect(self.runner, self.env, self.database) as another:
                        another.ask(f"SELECT to_jsonb(pg_terminate_backend({held['pid']}))")
                    counting.thread.join(_ENDS_WITHIN)

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - part of the seam
        """Never: a database is captured each time."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:
        """See `Component.verify`."""
        return check.verify(self.runner, stored, scratch, names)

    def _dump(
        self, psql: Psql, counting: _Counting, held: dict[str, Any], versions: dict[str, str]
    ) -> Generator[bytes]:
        env = client_env(self.env, self.database)
        argv = ["pg_dump", "-w", "--format=custom", f"--snapshot={held['snapshot']}"]
        argv += [f"--lock-wait-timeout={LOCK_WAIT}s", self._compression(versions)]
        if held["encoding"] != "SQL_ASCII":  # which has no meaning to convert by
            argv.append("--encoding=UTF8")  # names in `pg_restore --list` come in the dump's encoding
        try:
            yield from self.runner.stream(argv, env=env)
        except CommandError as error:
            raise counting.cause(error) from None
        counting.result()
        psql.ask("SELECT to_jsonb(1)")  # the snapshot was held to the end

    def _compression(self, versions: dict[str, str]) -> str:
        """The fastest that both sides read: gzip at its default level takes five times as long."""
        if min(map(major, versions.values())) >= 16 and self._has_zstd():
            return "--compress=zstd:1"
        return "--compress=1"

    def _has_zstd(self) -> bool:
        # it looks at its options before it looks for a server
        argv = ["pg_dump", "-w", "--format=custom", "--compress=zstd:1", "--host=/nonexistent"]
        try:
            self.runner.run(argv, env=client_env({}, "none"))
        except CommandError as error:
            return "connection to server" in error.stderr
        return True


class _Counting:
    """Counts in the background while the dump streams."""

    def __init__(self, count: Callable[[], dict[str, Any]]) -> None:
        self._count = count
        self._found: dict[str, Any] = {}
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="fingerprint", daemon=True)
        self.thread.start()

    def result(self) -> dict[str, Any]:
        """Wait for the fingerprint. Raises what the counting raised."""
        self.thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def cause(self, error: CommandError) -> BaseException:
        """Return why pg_dump failed: without the session that counts there is no snapshot either."""
        if "snapshot" in error.stderr:
            self.thread.join(_ENDS_WITHIN)
        return self._error or meaning(error)

    def _run(self) -> None:
        try:
            self._found = self._count()
        except BaseException as error:  # noqa: BLE001 - raised by result(), in the thread that captures
            self._error = error
