"""Tables out of a dump: replaced in one transaction, compared, with what refers to them left whole."""

import pytest

from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.table_restore import TableRestoration
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.streams import quiet


@pytest.fixture
def kept(postgresql_server, database, postgresql_kept):
    """A vault for dumps of the test's own database."""
    return postgresql_kept(PostgresqlDump(postgresql_server.runner, postgresql_server.env, database))


@pytest.fixture
def make(postgresql_server, database, kept):
    """A way to restore tables out of a dump made now."""

    def made(*tables, **options):
        stored = StoredArtifact(kept.installation, kept.capture())
        return TableRestoration(
            postgresql_server.runner,
            postgresql_server.env,
            database,
            stored,
            Options(tables=tables, **options),
        )

    return made


def carried_out(restoration, stamp="20251024_120000"):
    """Make the steps of a restore and return its state."""
    restoration.preview()
    state = restoration.begin(stamp)
    restoration.beside(state, quiet)
    compared = restoration.compare(state)
    assert compared.passed, compared
    restoration.swap(state)
    confirmed = restoration.confirm(state)
    assert confirmed.passed, confirmed
    return state


def test_an_emptied_table_comes_back(make, postgresql_server, database):
    """Every row is there again, and the next insert gets a number of its own."""
    rows = "SELECT md5(string_agg(b::text, '' ORDER BY id)) FROM books b"
    before = postgresql_server.sql(rows, database)
    restoration = make("books")
    postgresql_server.sql("DELETE FROM books", database)
    state = carried_out(restoration)
    assert postgresql_server.sql(rows, database) == before
    assert postgresql_server.sql("INSERT INTO books (title) VALUES ('new') RETURNING id", database) == "2001"
    restoration.accept(state)
    assert state["scratch"] not in postgresql_server.sql("SELECT datname FROM pg_database")
