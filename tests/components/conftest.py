"""Restores of tables, step by step."""

from dataclasses import dataclass, replace

import pytest

from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.psql import connect
from bookreader_backup_assets.components.table_restore import TableRestoration
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.streams import quiet
from bookreader_backup_assets.runners.base import Runner
from tests.fixtures.postgresql import Kept

STAMP = "20251024_120000"
LIBRARY = """
SET client_min_messages = warning;
CREATE TABLE readers (id int PRIMARY KEY, name text);
CREATE TABLE shelves (room int, number int, label text, PRIMARY KEY (room, number));
CREATE TABLE notes (
  id bigserial PRIMARY KEY, reader_id int REFERENCES readers ON DELETE CASCADE, text text,
  room int, number int,
  FOREIGN KEY (room, number) REFERENCES shelves MATCH FULL DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE likes (
  note_id bigint REFERENCES notes ON DELETE CASCADE, reader_id int REFERENCES readers ON DELETE SET NULL);
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no; not "now"'; END$$;
CREATE TRIGGER guarded BEFORE DELETE OR UPDATE ON readers FOR EACH ROW EXECUTE FUNCTION forbid();
INSERT INTO readers SELECT n, 'reader ' || n FROM generate_series(1, 20) n;
INSERT INTO shelves SELECT n / 3, n % 3, 'shelf ' || n FROM generate_series(0, 8) n;
INSERT INTO notes (reader_id, text, room, number)
  SELECT 1 + n % 20, E'caf\\u00e9\\t\\\\.\\n' || n, n % 3, n % 2 FROM generate_series(1, 100) n;
INSERT INTO likes SELECT n, 1 + n % 20 FROM generate_series(1, 100) n;
"""


@dataclass(frozen=True)
class Library:
    """A database with readers, shelves, notes and likes, and a vault for its dumps.

    `others` were on the shared server before.
    """

    runner: Runner
    env: dict[str, str]
    database: str
    kept: Kept
    others: frozenset[str] = frozenset()

    def sql(self, text: str) -> str:
        """Run statements as the superuser and return what they select."""
        argv = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1"]
        env = {**self.env, "PGDATABASE": self.database, "PGCLIENTENCODING": "UTF8"}
        return self.runner.run(argv, env=env, stdin=[text.encode()]).stdout.decode().rstrip("\n")

    def stored(self) -> StoredArtifact:
        """What a capture made now keeps."""
        return StoredArtifact(self.kept.installation, self.kept.capture())

    def restoration(self, stored: StoredArtifact, *tables: str, **options: str) -> TableRestoration:
        """A restore of tables, or of what the options say."""
        return TableRestoration(
            self.runner, self.env, self.database, stored, Options(tables=tables, **options)
        )

    def holds(self) -> dict:
        """Everything that is in the database: every table's rows, digest and owner, and the grants."""
        with connect(self.runner, self.env, self.database) as psql:
            found = fingerprint.take(psql, digests=True)
        return {name: found[name] for name in ("tables", "grants")}

    def databases(self) -> set[str]:
        """The databases that this test's restores have made, and not removed."""
        said = self.sql("SELECT datname FROM pg_database WHERE datname ~ '^bookreader_(restore|undo)_'")
        return set(said.splitlines()) - self.others


def made_beside(restoration: TableRestoration, stamp: str = STAMP) -> dict:
    """Make the steps of a restore that touch nothing live, and return its state."""
    restoration.preview()
    state = restoration.begin(stamp)
    restoration.beside(state, quiet)
    compared = restoration.compare(state)
    assert compared.passed, compared
    return state


def carried_out(restoration: TableRestoration, stamp: str = STAMP) -> dict:
    """Make all steps of a restore, and return its state."""
    state = made_beside(restoration, stamp)
    restoration.swap(state)
    confirmed = restoration.confirm(state)
    assert confirmed.passed, confirmed
    return state


@pytest.fixture
def library(postgresql_server, database, postgresql_kept):
    """BookReader's shape and the library, in a database of the test's own."""
    kept = postgresql_kept(PostgresqlDump(postgresql_server.runner, postgresql_server.env, database))
    there = Library(postgresql_server.runner, postgresql_server.env, database, kept)
    there = replace(there, others=frozenset(there.databases()))
    there.sql(LIBRARY)
    yield there
    for name in there.databases():
        postgresql_server.sql(f"DROP DATABASE {name} WITH (FORCE)")
