"""A psql kept open to ask one server questions, and what its complaints mean.

One question is one statement, and its answer one line of JSON: JSON holds no bare newline, whatever the
names and values are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.core.errors import BackupError, CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.base import Runner, Session

PSQL = ("psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse")
"""Stops at the first error, never asks for a password, and does not repeat a statement in an error:
it may hold a password's hash."""
ANSWER = 60.0
"""Seconds to wait for an answer that comes from the catalogs."""
LOCK_WAIT = 45
"""Seconds to wait for a lock: whoever comes later waits behind our own request for it."""
COUNTED = 6 * 3600.0
"""Seconds to wait for one table to be counted and hashed: 100 GB at 5 MB/s."""

_LIMITS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",  # version 14
    "transaction_timeout",  # version 17
)
PINNED = (  # what the text of a value depends on: the same row must give the same text on every server
    "SET extra_float_digits = 3; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD';"
    " SET IntervalStyle = iso_8601; SET bytea_output = hex; SET lc_monetary = 'C'; SET search_path = '';"
    " SET row_security = off;"
)
_MEANINGS: tuple[tuple[str, type[SourceError], str, str], ...] = (
    (
        r"authentication failed|no password supplied|no pg_hba.conf entry",
        SourceError,
        "PostgreSQL does not let this user in",
        "correct BACKUP_POSTGRESQL_USER and BACKUP_POSTGRESQL_PASSWORD, or BACKUP_POSTGRESQL_URL",
    ),
    (
        r'database ".*" does not exist',
        SourceError,
        "PostgreSQL has no such database",
        "correct BACKUP_POSTGRESQL_DATABASE, or the end of BACKUP_POSTGRESQL_URL",
    ),
    (
        r'FATAL: +role ".*" does not exist',
        SourceError,
        "PostgreSQL has no such user",
        "correct BACKUP_POSTGRESQL_USER, or the user in BACKUP_POSTGRESQL_URL",
    ),
    (
        r"connection to server .* failed|could not (?:connect|translate)|database system is \w+ing",
        SourceAbsentError,
        "PostgreSQL cannot be reached",
        "start it, or correct BACKUP_POSTGRESQL_CONTAINER or BACKUP_POSTGRESQL_URL",
    ),
    (
        r"definition of service",
        SourceError,
        "PGSERVICE is set in this environment, and would choose another server",
        "unset PGSERVICE: the server to capture is in BACKUP_POSTGRESQL_URL",
    ),
    (
        r"permission denied|row-level security|must be (?:superuser|owner)",
        SourceError,
        "this user may not read all of the database",
        "GRANT pg_read_all_data TO it (and BYPASSRLS where there is row security), or use the owner",
    ),
    (
        r"lock timeout",
        SourceError,
        "a table stayed locked for too long",
        "something changes the schema now, such as a migration: capture again when it has ended",
    ),
)  # fmt: skip


@contextmanager
def understood() -> Iterator[None]:
    """Turn what a client program complained about into an error that says what to do."""
    try:
        yield
    except CommandError as error:
        raise meaning(error) from None


def meaning(error: CommandError) -> BackupError:
    """Return the error that says what a client program's complaint means; the same one if unknown."""
    for pattern, kind, what, hint in _MEANINGS:
        if re.search(pattern, error.stderr):
            return kind(f"{what}: {complaint(error)}", hint=hint)
    return error


def complaint(error: CommandError) -> str:
    """Return the line in which the program said what was wrong, without the statement it was at."""
    lines = error.stderr.strip().splitlines()
    said = [line.strip() for line in lines if re.search(r"ERROR|FATAL|error:", line)] or lines[-1:]
    return said[0] if said else error.message


@dataclass(frozen=True)
class Psql:
    """An open session. Not for two threads at once."""

    session: Session

    def tell(self, statements: str) -> None:
        """Send statements that answer nothing."""
        with understood():
            self.session.send(statements.encode("utf-8", "surrogateescape") + b"\n")

    def ask(self, query: str, *, within: float = ANSWER) -> Any:
        """Return the one JSON value that `query` selects, waiting at most `within` seconds."""
        self.tell(query + ";")
        with understood():
            line = self.session.readline(within)
        return json.loads(line.decode("utf-8", "surrogateescape"))


@contextmanager
def connect(runner: Runner, env: Mapping[str, str], database: str) -> Iterator[Psql]:
    """Open a session on `database` in which values read the same everywhere, and that may
    take its time, though not while it waits for a lock.

    Raises `SourceAbsentError`, `SourceError` with a hint, or `CommandError` for what has no meaning here.
    """
    mine = {**client_env(env, database), "PGCLIENTENCODING": "UTF8"}
    with runner.session(PSQL, env=mine) as session:
        psql = Psql(session)
        psql.tell(f"{PINNED} SET lock_timeout = '{LOCK_WAIT}s';")
        psql.ask(
            "SELECT to_jsonb(count(pg_catalog.set_config(name, '0', false)))"
            f" FROM pg_catalog.pg_settings WHERE name IN ({', '.join(map(literal, _LIMITS))})"
        )
        yield psql


def client_env(env: Mapping[str, str], database: str) -> dict[str, str]:
    """The environment of a client program: this server and no other, English messages, a bounded wait.

    A PGSERVICE or PGHOSTADDR in the operator's own environment would win over PGHOST, and send a test
    restore to production: the first then fails, the second is taken away.
    """
    return {
        "PGCONNECT_TIMEOUT": "15",
        "PGAPPNAME": "bookreader-backup",
        "LC_ALL": "C",
        "PGHOSTADDR": "",
        "PGOPTIONS": "",
        "PGSERVICEFILE": "/dev/null",
        "PGSYSCONFDIR": "/nonexistent",
        **env,
        "PGDATABASE": database,
    }


def literal(text: str) -> str:
    """`text` as an SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def identifier(name: str) -> str:
    """`name` as a quoted SQL name."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(qualified: str) -> tuple[str, str]:
    """The schema and the name in what the server's `format('%I.%I')` made."""
    parts = re.findall(r'"((?:[^"]|"")*)"|([^".]+)', qualified)
    schema, name = (quoted.replace('""', '"') if quoted else plain for quoted, plain in parts)
    return schema, name


def versions(psql: Psql, runner: Runner, program: str) -> dict[str, str]:
    """Return the versions of the server and of a client program that is to read it, such as `15.18`.

    Raises `SourceError` if the program is of an older major version: it would refuse, or dump badly.
    """
    server = str(psql.ask("SELECT to_jsonb(current_setting('server_version'))")).split(" ", 1)[0]
    said = runner.run([program, "--version"], timeout=ANSWER).stdout.decode("utf-8", "replace")
    match = re.search(r"\(PostgreSQL\) (\S+)", said)
    if match is None:
        raise SourceError(f"{program} does not say its version: {said.strip()!r}")
    if major(match[1]) < major(server):
        raise SourceError(
            f"{program} is {match[1]}, and the server {server}: an older one cannot read it",
            hint=f"install the client programs of PostgreSQL {major(server)} or newer, and set"
            " BACKUP_POSTGRESQL_PROGRAMS to their folder",
        )
    return {"server": server, "client": match[1]}


def major(version: str) -> int:
    """The part of a version that says what reads what: 15 of `15.18`, 18 of `18beta1`."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


def conninfo(database: str) -> str:
    """`database` for programs that take a name or a whole connection string, and cannot mistake this."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"
