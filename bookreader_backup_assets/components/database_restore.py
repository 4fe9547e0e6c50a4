"""A whole database, restored into a new one beside the live one, compared, and swapped by rename.

The old database is kept, closed to everybody, until the restore is accepted: that is the undo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bookreader_backup_assets.components import databases
from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components import postgresql_restore as restore
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.postgresql_check import GLOBALS
from bookreader_backup_assets.components.psql import Psql, connect, identifier, literal, versions
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.staged_dump import FOLDER, StagedDump
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    DamagedError,
    RefusedError,
    SourceError,
)
from bookreader_backup_assets.core.fingerprint import describe
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Meter, Progress
from bookreader_backup_assets.runners.base import Runner

MIGRATED = 3600.0
"""Seconds that migrations may take."""
_EXPANDS = 4  # a database over its compressed dump, indexes included
_RATE = 10e6  # bytes of dump restored per second: a guess, until a drill has measured it
_LOOK = """
SELECT jsonb_build_object(
  'data', current_setting('data_directory', true),
  'bytes', (SELECT pg_database_size(oid) FROM pg_database WHERE datname = {name}),
  'sessions', (SELECT count(*) FROM pg_stat_activity WHERE datname = {name}))
"""


@dataclass(frozen=True)
class DatabaseRestoration:
    """Implements `Restoration` for one database. `code` reaches the backend, whose migrations may be run."""

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    stored: Stored
    options: Options
    code: Runner | None = None

    quiet = False
    displaces = False
    keeps_old = True

    @property
    def target(self) -> str:
        """The name of the database."""
        return self.database

    def preview(self) -> Preview:
        """See `Restoration.preview`. Refuses a dump newer than the server, and a user who may not restore."""
        entry = self.stored.entry
        with self._server() as psql:
            here = versions(psql, self.runner, "pg_restore")
            look = psql.ask(_LOOK.format(name=literal(self.database)))
            restore.require_not_newer(entry, here)
            restore.require_superuser(psql, self.env, "give tables back to their owners")
        needed = int((look["bytes"] or entry.size * _EXPANDS) * 1.1)
        present = look["bytes"] is not None
        now = f"{look['bytes'] / 1e6:.1f} MB, {look['sessions']} connections" if present else "not there"
        steps = [
            f"restore {entry.name} into a new database beside it, roles first",
            "compare its tables, rows, digests, owners and grants with those captured",
            f"end the connections of {self.database}, and swap the two by rename",
        ]
        if self.options.migrate:
            steps.append("run `alembic upgrade head` in the backend")
        notes = [
            f"migration of the dump: {entry.fingerprint['alembic_version']}; of the code: {self._head()}"
        ]
        return Preview(
            replaces=f"database {self.database} ({now})",
            present=present,
            steps=tuple(steps),
            rooms=(
                Room("PostgreSQL's data folder", needed, restore.room(self.runner, look["data"])),
                *self._dump.rooms(),
            ),
            seconds=round(entry.size / _RATE + 5),
            notes=tuple(notes),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        with self._server() as psql:
            present = self.database in databases.names(psql)
        longest = 63 - len(f"_restore_{stamp}")  # bytes of a name in PostgreSQL, which cuts what is longer
        stem = self.database.encode()[:longest].decode("utf-8", "ignore")
        return {
            "new": f"{stem}_restore_{stamp}",
            "old": f"{stem}_before_{stamp}",
            "staged": f"{FOLDER}/bookreader-restore-{stamp}.dump",
            "application": f"bookreader-restore-{stamp}",
            "present": present,
        }

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`. Raises `CommandError` if anything of the dump could not be restored."""
        entry = self.stored.entry
        self.abandon(state)
        read_whole(self.stored, progress)
        env = {**self.env, "PGAPPNAME": state["application"]}
        with self._server() as psql:
            roles = psql.ask(fingerprint.ROLES)
        notes = [make_missing_roles(self.runner, self.env, self.stored, roles)]
        with connect(self.runner, env, self._maintenance) as psql:
            notes.append(restore.create_database(psql, state["new"], entry.source))
            psql.ask("SELECT to_jsonb(1)")  # created
        with self._dump.opened(state["staged"]) as path:
            restore.restore_into(self.runner, env, state["new"], self.stored, path=path)
            said = restore.database_properties(self.runner, path)
        own = restore.about_database(said, state["new"])
        restore.run_statements(self.runner, env, self._maintenance, own)
        restore.run_statements(self.runner, env, state["new"], ["ANALYZE"], within=restore.RESTORED)
        state["notes"] = [note for note in notes if note]

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: tables, rows, digests, owners, grants, sequences and the migration."""
        return compared(self.runner, self.env, state["new"], self.stored, state.get("notes", []))

    def swap(self, state: State) -> None:
        """See `Restoration.swap`. Raises `SourceError` if somebody does not let go of the database."""
        with self._opened_again(), self._server() as psql:
            if state["new"] in databases.names(psql):
                databases.rename(psql, self.database, aside=state["old"], into_place=state["new"])

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`; runs the migrations first, if asked."""
        if self.options.migrate:
            self._migrate()
        with self._server() as psql:
            there = databases.names(psql)
        with connect(self.runner, self.env, self.database) as psql:
            tables = set(fingerprint.outline(psql)["tables"])
        lost = sorted(set(self.stored.entry.fingerprint["tables"]) - tables)
        if state["new"] in there or (lost and not self.options.migrate):
            return failed("swapped", f"{self.database} is not the restored one: it has no {', '.join(lost)}")
        kept = f"; the one before is kept as {state['old']}" if state["old"] in there else ""
        return passed("swapped", f"{self.database} is the restored one, {len(tables)} tables{kept}")

    def undo(self, state: State, safety: Stored | None) -> None:  # noqa: ARG002 - the old one is there whole
        """See `Restoration.undo`: the old database is renamed back, and the restored one kept aside."""
        with self._opened_again(), self._server() as psql:
            there = databases.names(psql)
            if state["old"] in there:
                databases.rename(psql, self.database, aside=state["new"], into_place=state["old"])
            elif state["present"] and state["new"] not in there:
                raise RefusedError(
                    f"the database from before, {state['old']}, is not there any more",
                    hint="restore the safety capture that the report names: restore postgresql --from SET",
                )
            elif self.database in there and state["new"] not in there:  # there was none before
                databases.close(psql, self.database)
                databases.tell(
                    psql, f"ALTER DATABASE {identifier(self.database)} RENAME TO {identifier(state['new'])}"
                )

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        with self._server() as psql:
            databases.end_work(psql, state["application"])
            databases.let_in(psql, self.database)  # closed by a swap that was killed
            databases.drop(psql, state["new"])
        self._dump.remove(state["staged"])

    def accept(self, state: State) -> None:
        """See `Restoration.accept`: drops the old database, or after an undo the restored one."""
        with self._server() as psql:
            for name in (state["old"], state["new"]):
                databases.drop(psql, name)

    @property
    def _maintenance(self) -> str:
        """Where to stand while this database is renamed."""
        return "template1" if self.database == "postgres" else "postgres"

    @contextmanager
    def _server(self) -> Iterator[Psql]:
        with connect(self.runner, self.env, self._maintenance) as psql:
            yield psql

    @contextmanager
    def _opened_again(self) -> Iterator[None]:
        """Let people in again to what bears the database's name, whatever happens."""
        try:
            yield
        except CommandError as error:
            raise SourceError(
                f"{self.database} could not be renamed: {error.message}",
                hint="nothing was replaced; who holds it: SELECT * FROM pg_stat_activity, pg_prepared_xacts",
            ) from None
        finally:
            with suppress(BackupError), self._server() as psql:
                databases.let_in(psql, self.database)

    @property
    def _dump(self) -> StagedDump:
        return StagedDump(self.runner, self.stored)

    def _head(self) -> str:
        """The newest migration that the code has, as far as anybody can tell."""
        if self.code is None:
            return "unknown here"
        try:
            said = self.code.run(["alembic", "heads"], timeout=60).stdout.decode("utf-8", "replace")
        except BackupError as error:
            return f"unknown ({error.message.splitlines()[0]})"
        return ", ".join(line.split()[0] for line in said.splitlines() if line.strip()) or "none"

    def _migrate(self) -> None:
        if self.code is None:
            raise RefusedError(
                "there is no backend to migrate with", hint="run `alembic upgrade head` where its code is"
            )
        self.code.run(["alembic", "upgrade", "head"], timeout=MIGRATED)


def read_whole(stored: Stored, progress: Progress) -> None:
    """Read a dump to its end. Raises `DamagedError` unless its bytes are those captured."""
    meter = Meter(stored.open_range(0, stored.entry.size), progress)
    for _ in meter:
        pass
    if (meter.size, meter.sha256) != (stored.entry.size, stored.entry.sha256):
        raise DamagedError(
            f"{stored.entry.name} has changed since it was captured",
            hint="take another set: `bookreader-backup list` shows which are verified; nothing was touched",
        )


def make_missing_roles(runner: Runner, env: Mapping[str, str], stored: Stored, here: list[str]) -> str:
    """Make the roles that the dump names and the server lacks; return what had to be different.

    Roles that are there keep their passwords and memberships: they may have been changed since.
    """
    lacking = [name for name in stored.entry.fingerprint["roles"] if name not in here]
    if not lacking:
        return ""
    beside = stored.sibling(GLOBALS)
    if beside is None:
        made = [f"CREATE ROLE {identifier(name)}" for name in lacking]
        note = f"the set has no {GLOBALS}: {', '.join(lacking)} were made by name only, and cannot log in"
    else:
        sql = b"".join(beside.plain()).decode("utf-8", "surrogateescape")
        made = restore.about_roles(restore.role_statements(sql, env.get("PGUSER", "postgres")), lacking)
        note = f"roles made: {', '.join(lacking)}"
    restore.run_statements(runner, env, "template1", made)
    return note


def compared(
    runner: Runner, env: Mapping[str, str], database: str, stored: Stored, notes: list[str]
) -> Outcome:
    """Compare a restored database with what was captured."""
    expected = stored.entry.fingerprint
    with connect(runner, env, database) as psql:
        found = fingerprint.take(psql, fingerprint.digested(expected))
    wrong = fingerprint.differences(expected, found)
    rows = fingerprint.all_rows(found)
    measured = {"tables": len(found["tables"]), "rows": rows, "digests": len(fingerprint.digested(expected))}
    said = "".join(f"; {note}" for note in notes)
    if wrong:
        return failed("rows_equal", f"not what was captured: {describe(wrong)}{said}", **measured)
    return passed(
        "rows_equal", f"{len(found['tables'])} tables, {rows} rows, equal to those captured{said}", **measured
    )
