"""`postgresql/dump` on a real server: captured, listed, restored, compared."""

import dataclasses
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bookreader_backup_assets.components.base import Scratch, ScratchPostgresql
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.postgresql_globals import PostgresqlGlobals
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers.machine import MachineScratch
from tests.fixtures.postgresql import KEY, ODD_ROLE, SUPERUSER, USER, programs, shaped_server

ODD = '"My Schema"."Odd ""Table"" of\nBooks\\ (1)"'


@dataclasses.dataclass(frozen=True)
class TamperedScratch:
    """Scratch servers on which `sql` is run between a restore and the comparison."""

    inner: Scratch
    sql: str
    as_stream: bool

    @contextmanager
    def postgresql(self, at_least: int = 0) -> Iterator[ScratchPostgresql]:
        with self.inner.postgresql() as scratch:
            runner = _Tampering(scratch.runner, scratch.env, self.sql)
            yield dataclasses.replace(scratch, runner=runner, sees_files=not self.as_stream)


@dataclasses.dataclass(frozen=True)
class _Tampering:
    inner: LocalRunner
    env: dict
    sql: str

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def run(self, argv, **given):
        result = self.inner.run(argv, **given)
        self._tamper(argv)
        return result

    def stream(self, argv, **given):
        yield from self.inner.stream(argv, **given)
        self._tamper(argv)

    def _tamper(self, argv):
        if argv[0] == "pg_restore" and self.sql:
            env = {**self.env, "PGDATABASE": "restored"}
            self.inner.run(["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1"], env=env, stdin=[self.sql.encode()])


@pytest.fixture
def dump(postgresql_server, database):
    """The component on a database of the test's own."""
    return PostgresqlDump(postgresql_server.runner, postgresql_server.env, database)


@pytest.fixture
def globals_(postgresql_server, database):
    """The roles beside it."""
    return PostgresqlGlobals(postgresql_server.runner, postgresql_server.env, database, KEY)


def test_what_is_captured_comes_back(dump, globals_, postgresql_kept):
    """Roles and dump of one set restore into a scratch server, owners included, equal in every table."""
    kept = postgresql_kept(dump, globals_)
    kept.capture("postgresql/globals")
    before = datetime.now(UTC)
    entry = kept.capture()
    assert before - timedelta(seconds=1) <= entry.captured_at <= datetime.now(UTC)
    found = kept.verify(entry)
    assert set(found) == {"not_empty", "sha256", "tables_listed", "restorable"}
    assert all(outcome.passed for outcome in found.values()), found
    assert found["restorable"].message == "restored and equal: 8 tables, 2703 rows"
    assert found["restorable"].measured["rows"] == 2703
    assert entry.name.startswith("postgresql/bookreader-")
    assert entry.name.endswith(".dump")


def test_the_fingerprint_says_what_is_in_the_database(dump, postgresql_server):
    """Rows, digests and owners by table, odd names included; sequences, migration, extensions, roles."""
    with dump.capture() as capture:
        assert sum(map(len, capture.chunks)) > 0
        facts = capture.facts()
    print_ = facts.fingerprint
    rows = {name: (table["rows"], table["owner"]) for name, table in print_["tables"].items()}
    assert rows == {
        ODD: (2, SUPERUSER),
        "public.alembic_version": (1, SUPERUSER),
        "public.books": (2000, USER),
        "public.empty": (0, SUPERUSER),
        "public.nothing": (0, SUPERUSER),
        "public.reading_sessions_2024": (213, SUPERUSER),
        "public.reading_sessions_2025": (187, SUPERUSER),
        "public.users": (300, USER),
    }
    assert all(table["digest"] for table in print_["tables"].values())
    assert print_["tables"]["public.empty"]["digest"] == "0"
    assert print_["sequences"]["public.books_id_seq"] == 2000
    assert "public.countdown" not in print_["sequences"]
    assert print_["alembic_version"] == "abc123"
    assert set(print_["roles"]) == {SUPERUSER, USER, ODD_ROLE}
    assert facts.versions["server"].startswith(postgresql_server.server.version)
    assert facts.source["database"] == dump.database
    assert facts.source["encoding"] == "UTF8"


@pytest.mark.parametrize(
    ("digests", "digested"),
    [(False, set()), (("users", "public.books"), {"public.users", "public.books"})],
    ids=["none", "some"],
)
def test_digests_are_taken_where_the_plan_asks(dump, digests, digested):
    """Tables that the plan does not name are only counted."""
    with dataclasses.replace(dump, digests=digests).capture() as capture:
        for _ in capture.chunks:
            pass
        tables = capture.facts().fingerprint["tables"]
    assert {name for name, table in tables.items() if table["digest"] is not None} == digested


@pytest.mark.parametrize("only", ["machine", "wheel"])
def test_servers_of_the_machine_and_of_the_wheel_both_serve(only, postgresql_kept):
    """Capture and restore hold with either set of programs."""
    folder = programs(only)
    with shaped_server(folder) as server:
        kept = postgresql_kept(
            PostgresqlDump(server.runner, server.env, "shape"),
            scratch=MachineScratch(Path(tempfile.gettempdir()), folder),
        )
        outcome = kept.verify(kept.capture(), "restorable")["restorable"]
    assert outcome.passed, outcome


def test_writers_may_be_busy_throughout(dump, postgresql_server, postgresql_kept):
    """The fingerprint equals the restored dump, not the source as it is afterwards."""
    writing = threading.Event()
    ended = threading.Event()
    write = "INSERT INTO books (user_id, title) SELECT 1, 'x' FROM generate_series(1, 20); DELETE FROM users"
    write += " WHERE id IN (SELECT id FROM users WHERE id > 1 AND NOT EXISTS (SELECT FROM books"
    write += " WHERE user_id = users.id) LIMIT 1);\nSELECT 1;\n"
    argv = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1"]

    def writer():
        env = {**postgresql_server.env, "PGDATABASE": dump.database}
        with postgresql_server.runner.session(argv, env=env) as session:
            while not ended.is_set():
                session.send(write.encode())
                session.readline(30)
                writing.set()

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        assert writing.wait(30)
        kept = postgresql_kept(dump)
        entries = [kept.capture() for _ in range(3)]
    finally:
        ended.set()
        thread.join()
    for entry in entries:
        outcome = kept.verify(entry, "restorable")["restorable"]
        assert outcome.passed, outcome
    counts = [entry.fingerprint["tables"]["public.books"]["rows"] for entry in entries]
    afterwards = int(postgresql_server.sql("SELECT count(*) FROM books", dump.database))
    assert 2000 < counts[0] < counts[1] < counts[2] < afterwards


@pytest.mark.parametrize(
    ("digests", "tampering"),
    [
        (
            False,
            {
                "DELETE FROM reading_sessions_2024 WHERE id = 1": "2024 rows: expected 213, found 212",
                "SELECT setval('books_id_seq', 5)": "public.books_id_seq: expected at least 2000, found 5",
                "ALTER SEQUENCE users_id_seq RESTART": "sequences public.users_id_seq: expected at least 300",
                "DROP SEQUENCE reading_sessions_id_seq CASCADE": "at least 400, found nothing",
            },
        ),
        (
            ("public.books",),
            {
                "UPDATE books SET title = 'y' WHERE id = 7": "public.books digest",
                "ALTER TABLE users OWNER TO scratch": "owner: expected bookreader_user, found scratch",
                "DROP TABLE empty": "public.empty: expected something, found nothing",
                "CREATE TABLE more (id int)": "public.more: expected nothing",
                "UPDATE alembic_version SET version_num = 'older'": "alembic_version: expected abc123",
            },
        ),
    ],
    ids=["counts", "digests"],
)
def test_whatever_differs_after_the_restore_fails(digests, tampering, dump, postgresql_kept, shared_scratch):
    """One row, owner, table, migration or sequence that is not as captured turns `restorable` to failed."""
    scratch = TamperedScratch(shared_scratch, ";".join(tampering), as_stream=not digests)
    kept = postgresql_kept(dataclasses.replace(dump, digests=digests), scratch=scratch)
    outcome = kept.verify(kept.capture(), "restorable")["restorable"]
    assert outcome.verdict is Verdict.FAILED
    assert [said for said in tampering.values() if said not in outcome.message] == []


def test_a_table_that_the_dump_lacks_fails_the_listing(dump, postgresql_kept):
    """`tables_listed` compares the dump's own list with the fingerprint, name by name."""
    kept = postgresql_kept(dump)
    entry = kept.capture()
    tables = {**entry.fingerprint["tables"], "public.lost": {"rows": 1, "digest": None, "owner": USER}}
    entry = dataclasses.replace(entry, fingerprint={**entry.fingerprint, "tables": tables})
    found = kept.verify(entry, "tables_listed", "restorable")
    assert found["tables_listed"].verdict is Verdict.FAILED
    assert "public.lost" in found["tables_listed"].message
    assert found["restorable"].verdict is Verdict.FAILED


def test_without_globals_the_roles_are_made_by_name(dump, postgresql_kept):
    """A set without roles still proves its dump, and says what was not proven."""
    kept = postgresql_kept(dump)
    outcome = kept.verify(kept.capture(), "restorable")["restorable"]
    assert outcome.passed
    assert "no postgresql/globals" in outcome.message


def test_a_role_that_the_globals_lack_fails(dump, globals_, postgresql_server, postgresql_kept):
    """A dump whose owner is not among the roles beside it does not restore, and the message names it."""
    kept = postgresql_kept(dump, globals_)
    kept.capture("postgresql/globals")
    role = f"late_{os.getpid()}"
    postgresql_server.sql(f"CREATE ROLE {role}; ALTER TABLE empty OWNER TO {role}", dump.database)
    try:
        outcome = kept.verify(kept.capture(), "restorable")["restorable"]
    finally:
        postgresql_server.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", dump.database)
    assert outcome.verdict is Verdict.FAILED
    assert f'role "{role}" does not exist' in outcome.message


def test_an_empty_database_is_a_database(postgresql_server, postgresql_kept):
    """No tables at all is captured and restored like anything else."""
    name = postgresql_server.new_database()
    kept = postgresql_kept(PostgresqlDump(postgresql_server.runner, postgresql_server.env, name))
    entry = kept.capture()
    assert entry.size > 0
    assert entry.fingerprint["tables"] == {}
    assert all(outcome.passed for outcome in kept.verify(entry).values())


def test_a_database_may_have_any_name(postgresql_server, postgresql_kept):
    """A name that looks like a connection string, with quotes and spaces, is a name."""
    name = "host=nowhere 'it''s' \\ \"x\""
    quoted = name.replace('"', '""')
    postgresql_server.sql(f'CREATE DATABASE "{quoted}"')
    kept = postgresql_kept(
        PostgresqlDump(postgresql_server.runner, postgresql_server.env, name),
        PostgresqlGlobals(postgresql_server.runner, postgresql_server.env, name, KEY),
    )
    entries = [kept.capture("postgresql/globals"), kept.capture()]
    assert entries[1].name.startswith("postgresql/host-nowhere-it-s-x_")
    for entry in entries:
        assert all(outcome.passed for outcome in kept.verify(entry).values())


def test_settings_of_the_database_do_not_reach_the_digest(dump, postgresql_server, postgresql_kept):
    """Formats and timeouts set on the database change neither the texts hashed nor the capture."""
    for setting in (
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
        "extra_float_digits = -5",
        "search_path = '\"My Schema\"'",
        "idle_in_transaction_session_timeout = '1ms'",
        "lock_timeout = '1ms'",
    ):
        postgresql_server.sql(f'ALTER DATABASE "{dump.database}" SET {setting}')
    kept = postgresql_kept(dump)
    assert kept.verify(kept.capture(), "restorable")["restorable"].passed


def test_an_encoding_and_locale_come_back(postgresql_server, postgresql_kept):
    """A database in LATIN1 is restored in LATIN1, and its texts are equal."""
    name = f"latin_{os.getpid()}"
    postgresql_server.sql(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    postgresql_server.sql('CREATE TABLE "Bücher" (t text); INSERT INTO "Bücher" VALUES (\'é\')', name)
    kept = postgresql_kept(PostgresqlDump(postgresql_server.runner, postgresql_server.env, name))
    entry = kept.capture()
    assert entry.source["encoding"] == "LATIN1"
    found = kept.verify(entry)
    assert all(outcome.passed for outcome in found.values()), found


def test_a_locale_that_the_scratch_server_lacks_is_said(dump, postgresql_kept):
    """Another locale sorts differently and holds the same: restored, and named in the outcome."""
    kept = postgresql_kept(dump)
    entry = kept.capture()
    entry = dataclasses.replace(
        entry, source={**entry.source, "collate": "xx_XX.UTF-8", "ctype": "xx_XX.UTF-8"}
    )
    outcome = kept.verify(entry, "restorable")["restorable"]
    assert outcome.passed
    assert "no locale xx_XX.UTF-8: C was used" in outcome.message


def test_a_scratch_server_that_does_not_fit_is_inconclusive(dump, postgresql_kept):
    """An older scratch server, none at all, or one without an extension: a warning that says so."""
    kept = postgresql_kept(dump)
    entry = kept.capture()
    newer = dataclasses.replace(entry, versions={**entry.versions, "server": "99.1"})
    outcome = kept.verify(newer, "restorable")["restorable"]
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "needs 99" in outcome.message
    odd = {**entry.fingerprint, "extensions": {"no_such_extension": "1.0"}}
    outcome = kept.verify(dataclasses.replace(entry, fingerprint=odd), "restorable")["restorable"]
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "no_such_extension" in outcome.message

    class NoScratch:
        def postgresql(self, at_least=0):
            raise SourceAbsentError("there is no server", hint="install one")

    outcome = postgresql_kept(dump, scratch=NoScratch()).verify(entry, "restorable")["restorable"]
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "install one" in outcome.message


def test_the_list_is_read_without_the_service(dump, postgresql_kept):
    """A container that is stopped by now does not keep its dump from being read."""

    class Gone(LocalRunner):
        def stream(self, argv, **_):
            raise SourceAbsentError("stopped")

    kept = postgresql_kept(dump)
    entry = kept.capture()
    gone = postgresql_kept(dataclasses.replace(dump, runner=Gone()))
    assert gone.verify(entry, "tables_listed")["tables_listed"].passed


def test_probe_reaches_the_server(dump, globals_, postgresql_server):
    """The versions of server and client, without writing anything."""
    for component in (dump, globals_):
        versions = component.probe()
        assert versions["server"].startswith(postgresql_server.server.version)
        assert set(versions) == {"server", "client"}
