"""Tables replaced by those of another database of the same server, in one transaction.

Triggers are off in it (`session_replication_role`), so that nothing cascades into tables which refer to
these; what the triggers would have held is looked at before the commit. Readers go on reading the old rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bookreader_backup_assets.components import databases, table_keys
from bookreader_backup_assets.components.postgresql_restore import RESTORED
from bookreader_backup_assets.components.psql import (
    Psql,
    complaint,
    connect,
    identifier,
    literal,
)
from bookreader_backup_assets.components.table_rows import (
    columns_of,
    compare_rows,
    copy_rows,
    kinds,
    rows_of,
    set_sequences,
)
from bookreader_backup_assets.components.table_sql import Outline, Table, refers_from, unvalidated
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    SourceAbsentError,
    SourceError,
)
from bookreader_backup_assets.runners.base import Runner

LOCKED_WITHIN = 20
"""Seconds to wait for the locks: who comes later waits behind us."""
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
"""Whatever the defaults of the user or the database are."""
# Waits end before the others' own look for a deadlock (after 1 s), so that it is never they who are ended,
# and nobody queues behind us for long. Our look comes first: it is what makes an autovacuum give way.
_LOCKING = """DO $bookreader_locking$
DECLARE until timestamptz = clock_timestamp() + interval '{within} s';
BEGIN
  SET LOCAL deadlock_timeout = '200ms';
  LOOP
    BEGIN
      SET LOCAL lock_timeout = '800ms';
      {locks}
      EXIT;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      IF clock_timestamp() > until THEN RAISE; END IF;
    END;
    PERFORM pg_sleep(0.2);
  END LOOP;
  SET LOCAL lock_timeout = '{within}s';
END $bookreader_locking$"""
_HOLDERS = """
SELECT coalesce(jsonb_agg(DISTINCT said), '[]') FROM (
  SELECT concat_ws(' ', a.usename, nullif(a.application_name, ''), a.client_addr,
           format('(pid %s, %s for %s s, on %s)', a.pid, a.state,
                  extract(epoch FROM now() - coalesce(a.state_change, a.xact_start))::bigint, l.relation::regclass)) AS said
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
  WHERE l.granted AND l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock') AND a.application_name <> {own}
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND l.relation IN (SELECT pg_catalog.to_regclass(name) FROM unnest(ARRAY[{tables}]::text[]) AS name)) AS held
"""  # noqa: E501


@dataclass(frozen=True)
class Swap:
    """A transaction to be made on `database`, with the rows of `scratch`.

    `tables` are replaced, or made as `outline` says if they are not there, with all of `schema` if that is
    to be made; `parents` are partitioned tables to be made; `emptied` get no rows, `dropped` go.
    """

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    scratch: str
    application: str
    tables: tuple[Table, ...]
    outline: Outline
    parents: tuple[Table, ...] = ()
    emptied: tuple[Table, ...] = ()
    dropped: tuple[Table, ...] = ()
    schema: str | None = None
    dropped_schema: str | None = None

    def make(self, mark: Callable[[int], None]) -> dict[str, int]:
        """Make it, and return what was counted. `mark` is told the transaction's number before it commits.

        Raises `RefusedError` for violated foreign keys, `DamagedError` if the rows in place are not those of
        `scratch`, `SourceError` if a lock was not to be had, or for what the server complains of: every time,
        nothing is changed.
        """
        env = {**self.env, "PGAPPNAME": self.application}
        with self._explained(), connect(self.runner, env, self.database) as live:
            live.tell(
                f"{BEGIN}; SET LOCAL lock_timeout = '{LOCKED_WITHIN}s';"
                f" SET LOCAL statement_timeout = '{RESTORED:.0f}s';"
                " SET LOCAL check_function_bodies = false; SET LOCAL session_replication_role = replica;"
            )
            with connect(self.runner, env, self.scratch) as source:
                counted = self._replace(live, source)
            number = live.ask("SELECT to_jsonb(txid_current())")
            mark(number)
            databases.tell(live, "COMMIT")
        return counted

    def _replace(self, live: Psql, source: Psql) -> dict[str, int]:
        there = kinds(live, (*self.tables, *self.emptied))
        replaced = [table for table in (*self.tables, *self.emptied) if table in there]
        missing = [table for table in self.tables if table not in there]
        self._lock(live, replaced)
        self._drop(live)
        pre, post = self.outline.making([*missing, *self.parents], self.schema)
        _run(live, (item.sql for item in pre))
        _run(live, (f"DELETE FROM ONLY {table.sql};\n" for table in replaced))
        rows = sum(self._fill(live, source, table) for table in self.tables)
        added = self._add(live, post, missing)
        table_keys.require_unique(live, replaced)
        keys = table_keys.touching(live, [*replaced, *missing])
        looked_at = table_keys.require_met(live, keys, added)
        _run(live, (f"ALTER TABLE {t.sql} VALIDATE CONSTRAINT {identifier(name)};\n" for t, name in added))
        sequences = set_sequences(live, source, self.tables)
        _run(live, (f"ANALYZE {table.sql};\n" for table in self.tables))
        return {"tables": len(self.tables), "rows": rows, "keys": looked_at, "sequences": sequences}

    def _lock(self, live: Psql, replaced: list[Table]) -> None:
        """Keep writers out of the tables, and out of those at the other ends of their foreign keys."""
        if not replaced:
            return
        names = ", ".join(f"ONLY {table.sql}" for table in sorted(replaced))
        locks = [f"LOCK TABLE {names} IN EXCLUSIVE MODE;"]
        ends = _ends(live, replaced)
        if others := ", ".join(table.sql for table in sorted(ends - set(replaced))):
            locks.append(f"LOCK TABLE {others} IN SHARE MODE;")
        databases.tell(live, _LOCKING.format(within=LOCKED_WITHIN, locks=" ".join(locks)))
        if _ends(live, replaced) != ends:
            raise SourceError("the foreign keys of the tables were changed just now")

    def _drop(self, live: Psql) -> None:
        """Drop what a restore had made, and the keys that refer to it; nothing else that depends on it."""
        if there := kinds(live, self.dropped):
            for key in table_keys.touching(live, there):
                if key.referred in there and key.refers not in there:
                    live.tell(f"ALTER TABLE {key.refers.sql} DROP CONSTRAINT {identifier(key.name)};")
            databases.tell(live, f"DROP TABLE {', '.join(table.sql for table in there)}")
        if self.dropped_schema is not None:
            databases.tell(live, f"DROP SCHEMA IF EXISTS {identifier(self.dropped_schema)} CASCADE")

    def _fill(self, live: Psql, source: Psql, table: Table) -> int:
        """Copy a table's rows, and compare both; return how many there are."""
        columns = columns_of(source, table)
        copied = [identifier(name) for name, _, generated in columns if not generated]
        listed = f" ({', '.join(copied)})" if copied else ""
        rows = f"SELECT {', '.join(copied)} FROM ONLY {table.sql}"
        env = {**self.env, "PGAPPNAME": self.application}
        copy_rows(rows_of(self.runner, env, self.scratch, rows), live, table.sql + listed)
        return compare_rows(live, f"ONLY {table.sql}", source, f"ONLY {table.sql}", columns=columns)

    def _add(self, live: Psql, post: list[Any], missing: list[Table]) -> list[tuple[Table, str]]:
        """Make indexes and constraints; return the foreign keys that are not validated yet."""
        added = []
        for item in post:
            end = refers_from(item)
            if end is not None and end not in missing and not kinds(live, [end]):
                continue  # it refers from a table that is not there
            sql, key = unvalidated(item)
            if key is not None and kinds(live, [key[0]])[key[0]] == "p":
                sql, key = item.sql, None  # one of a partitioned table is validated as it is made
            _run(live, [sql])
            if key is not None:
                added.append(key)
        return added

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SourceAbsentError:
            raise
        except (CommandError, SourceError) as error:
            said = complaint(error) if isinstance(error, CommandError) else error.message
            if re.search("lock timeout|deadlock detected", said):
                names = ", ".join(map(str, self.tables))
                raise SourceError(
                    f"{names}: in use, and nothing was replaced: {self._holders()}",
                    hint="let it finish or end it (SELECT pg_terminate_backend(PID)), and restore again",
                ) from None
            raise SourceError(
                f"the tables could not be replaced, and nothing was: {said}",
                hint="--into another name to look at the rows, or restore the whole database",
            ) from None

    def _holders(self) -> str:
        """Who holds locks on the tables, or on those at the other ends of their keys."""
        with suppress(BackupError), connect(self.runner, self.env, self.database) as psql:
            there = kinds(psql, (*self.tables, *self.emptied))
            named = ", ".join(literal(table.sql) for table in {*there, *_ends(psql, there)})
            held = psql.ask(_HOLDERS.format(tables=named, own=literal(self.application)))
            if held:
                return "by " + ", ".join(held)
        return "whoever held it has let go"


def _ends(psql: Psql, tables: Iterable[Table]) -> set[Table]:
    """The tables at either end of the foreign keys of `tables`."""
    return {end for key in table_keys.touching(psql, tables) for end in (key.refers, key.referred)}


def _run(psql: Psql, statements: Iterable[str]) -> None:
    for statement in statements:
        psql.tell(statement)
    psql.ask("SELECT to_jsonb(1)", within=RESTORED)
