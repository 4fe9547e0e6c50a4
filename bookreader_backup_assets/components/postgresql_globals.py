"""`postgresql/globals`: roles, grants of roles and tablespaces, encrypted, since it holds password hashes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.postgresql_fingerprint import ROLES
from bookreader_backup_assets.components.postgresql_restore import statements
from bookreader_backup_assets.components.psql import (
    client_env,
    connect,
    conninfo,
    identifier,
    understood,
)
from bookreader_backup_assets.components.psql import versions as program_versions
from bookreader_backup_assets.core.artifact import Entry, Problem, parse_utc
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.runners.base import Runner

DECRYPTS = "decrypts"
_TRAILER = "-- PostgreSQL database cluster dump complete"
_ABOUT = """
SELECT jsonb_build_object(
  'at', to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'hashes', has_table_privilege('pg_catalog.pg_authid', 'SELECT'))
"""


@dataclass(frozen=True)
class PostgresqlGlobals:
    """Captures and checks the roles of one server. `database` is where the session connects."""

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    gpg: Gpg = field(repr=False)

    component = "postgresql"
    artifact = "globals"
    stem = "globals"
    suffix = ".sql"
    kind = None
    codecs = ("gzip", "gpg")

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {DECRYPTS: "it decrypts to SQL that is whole and names every role"}

    def probe(self) -> dict[str, str]:
        """See `Component.probe`. Raises `KeyMissingError` where it could not be encrypted."""
        self.gpg.require()
        with connect(self.runner, self.env, self.database) as psql:
            return program_versions(psql, self.runner, "pg_dumpall")

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. A user who may not read password hashes gets the roles without them.

        Raises `KeyMissingError` before anything is read.
        """
        self.gpg.require()
        with connect(self.runner, self.env, self.database) as psql:
            versions = program_versions(psql, self.runner, "pg_dumpall")
            about = psql.ask(_ABOUT)
            roles = psql.ask(ROLES)
        argv = ["pg_dumpall", "-w", "--globals-only", f"--database={conninfo(self.database)}"]
        problems: tuple[Problem, ...] = ()
        if not about["hashes"]:
            argv.append("--no-role-passwords")
            user = self.env.get("PGUSER", "this user")
            problems = (Problem(f"roles without passwords: {user} may not read them", "pg_authid"),)

        def chunks() -> Iterator[bytes]:
            with understood():
                yield from self.runner.stream(argv, env=client_env(self.env, self.database))

        facts = Facts(
            captured_at=parse_utc(about["at"]),
            fingerprint={"kind": "roles", "roles": roles},
            versions=versions,
            source={**self.runner.describe(), "database": self.database},
            problems=problems,
        )
        yield Capture(chunks(), lambda: facts)

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - part of the seam
        """Never: each set has its own."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`. Raises `KeyMissingError` if the key here does not open it."""
        if DECRYPTS in names:
            try:
                yield _whole(stored)
            except DamagedError as error:
                yield failed(DECRYPTS, error.message)


def _whole(stored: Stored) -> Outcome:
    sql = b"".join(stored.plain()).decode("utf-8", "surrogateescape")
    # newer programs end with \unrestrict, and a blank line
    if _TRAILER not in sql[-400:]:
        return failed(DECRYPTS, "it decrypts, and does not end as pg_dumpall ends: cut short")
    made = {match[1] for text in statements(sql) if (match := re.match(r"(?s)CREATE ROLE (.*)", text))}
    roles = stored.entry.fingerprint["roles"]
    absent = [role for role in roles if role not in made and identifier(role) not in made]
    if absent:
        return failed(
            DECRYPTS, f"it has no role {', '.join(absent[:5])}", roles=len(roles), absent=len(absent)
        )
    return passed(DECRYPTS, f"it decrypts, and has all {len(roles)} roles", roles=len(roles))
