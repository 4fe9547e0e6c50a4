"""A database of our own on the live server, into which tables of a dump are restored and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bookreader_backup_assets.components import databases
from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components import postgresql_restore as restore
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.database_restore import read_whole
from bookreader_backup_assets.components.psql import Psql, client_env, connect, conninfo, identifier, literal
from bookreader_backup_assets.components.table_sql import Table
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.streams import Progress
from bookreader_backup_assets.runners.base import Runner

_IS_COMMITTED = """
SELECT to_jsonb(coalesce(bool_or(txid_status(substring(said FROM '^swapped by ([0-9]+)$')::bigint) = 'committed'), false))
FROM (SELECT shobj_description(oid, 'pg_database') AS said FROM pg_catalog.pg_database WHERE datname = {name}) AS at
"""  # noqa: E501


@dataclass(frozen=True)
class ScratchDatabase:
    """The scratch database `name`. `maintenance` is a database to stand in; sessions bear `application`."""

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    maintenance: str
    name: str
    application: str

    def load(self, stored: Stored, tables: Sequence[Table], progress: Progress) -> str:
        """Make it, with the structure of all that is in a dump and the rows of `tables`; there is none yet.

        Return what had to be different. Raises `DamagedError` unless all bytes are those captured,
        `CommandError` if anything could not be restored.
        """
        read_whole(stored, progress)
        note = self.create(stored.entry.source)
        self._restore(stored, "pre-data")
        if tables:
            with connect(self.runner, self.env, self.name) as psql:
                sequences = fingerprint.outline(psql)["sequences"]
            named = {table.name for table in tables} | {Table.of(name).name for name in sequences}
            schemas = {table.schema for table in tables} | {Table.of(name).schema for name in sequences}
            only = [f"--schema={schema}" for schema in sorted(schemas)]
            self._restore(stored, "data", *only, *(f"--table={name}" for name in sorted(named)))
        return note

    def create(self, source: Mapping[str, str]) -> str:
        """Make it, empty, in the encoding and locale of `source`; return what had to be different."""
        with self._server() as psql:
            note = restore.create_database(psql, self.name, source)
            databases.tell(psql, f"REVOKE ALL ON DATABASE {identifier(self.name)} FROM PUBLIC")
        return note

    def compared(self, stored: Stored, tables: Sequence[Table]) -> Outcome:
        """Compare rows and digests of `tables` with those captured."""
        captured = stored.entry.fingerprint["tables"]
        names = {Table.of(name): name for name in captured}
        if lacking := [str(table) for table in tables if table not in names]:
            return failed("rows_equal", f"{stored.entry.name} has no {', '.join(lacking)}")
        expected = {names[table]: captured[names[table]] for table in tables}
        digested = tuple(name for name, table in expected.items() if table["digest"] is not None)
        with connect(self.runner, self.env, self.name) as psql:
            found = fingerprint.counted(psql, {"tables": expected}, digested)["tables"]
        wrong = [
            f"{name} has {found[name]['rows']} rows"
            + (", with other values" if found[name]["rows"] == table["rows"] else f", not {table['rows']}")
            for name, table in expected.items()
            if any(found[name][what] != table[what] for what in ("rows", "digest"))
        ]
        rows = sum(table["rows"] for table in found.values())
        measured = {"tables": len(found), "rows": rows, "digests": len(digested)}
        if wrong:
            return failed("rows_equal", f"not what was captured: {'; '.join(wrong)}", **measured)
        return passed("rows_equal", f"{len(found)} tables, {rows} rows, equal to those captured", **measured)

    def mark(self, number: int) -> None:
        """Note which transaction it goes into, before that commits: whether it did can then be asked."""
        with self._server() as psql:
            databases.tell(psql, f"COMMENT ON DATABASE {identifier(self.name)} IS 'swapped by {number}'")

    def is_committed(self) -> bool:
        """Whether it is there, and the transaction that was noted was committed."""
        with self._server() as psql:
            return bool(psql.ask(_IS_COMMITTED.format(name=literal(self.name))))

    def empty(self, tables: Sequence[Table]) -> None:
        """Let go of the rows, if it is there; what was noted stays."""
        with self._server() as psql:
            if self.name not in databases.names(psql):
                return
        with connect(self.runner, self.env, self.name) as psql:
            databases.tell(psql, f"TRUNCATE {', '.join(table.sql for table in tables)}")

    def end_work(self) -> None:
        """End what a restore that was killed still has at work."""
        with self._server() as psql:
            databases.end_work(psql, self.application)

    def drop(self) -> None:
        """Remove it, if it is there, with whoever is in it."""
        with self._server() as psql:
            databases.drop(psql, self.name)

    def _restore(self, stored: Stored, section: str, *only: str) -> None:
        argv = ["pg_restore", "-w", "--exit-on-error", "--no-tablespaces", "--no-owner", "--no-acl"]
        argv += [f"--dbname={conninfo(self.name)}", f"--section={section}", *only]
        env = client_env({**self.env, "PGAPPNAME": self.application}, self.name)
        for _ in self.runner.stream(argv, env=env, stdin=stored.plain(), stall=restore.RESTORED):
            pass

    @contextmanager
    def _server(self) -> Iterator[Psql]:
        with connect(self.runner, self.env, self.maintenance) as psql:
            yield psql
