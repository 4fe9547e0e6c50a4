"""Tables restored in a container: the rows go from psql to psql, through this program."""

import pytest

from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.core.errors import RefusedError, SourceError

from .conftest import LIBRARY, Library, carried_out

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]


@pytest.fixture
def contained(bookreader_containers, postgresql_kept):
    """The library in BookReader's container."""
    there = bookreader_containers
    name = "library"
    server = Library(there.postgresql, there.libpq, there.database, None)
    server.sql(f"CREATE DATABASE {name}")
    kept = postgresql_kept(PostgresqlDump(there.postgresql, there.libpq, name))
    library = Library(there.postgresql, there.libpq, name, kept)
    library.sql(LIBRARY)
    yield library
    for left in (*library.databases(), name):
        server.sql(f"DROP DATABASE {left} WITH (FORCE)")


def test_a_table_that_others_refer_to_comes_back_in_a_container(contained):
    """Emptied of what nobody held, replaced, and undone."""
    before, stored = contained.holds(), contained.stored()
    contained.sql("UPDATE notes SET text = 'x' WHERE id > 50")
    damaged, safety = contained.holds(), contained.stored()
    restoration = contained.restoration(stored, "notes")
    assert "referred to by public.likes" in restoration.preview().replaces
    state = carried_out(restoration)
    assert contained.holds() == before
    restoration.undo(state, safety)
    assert contained.holds() == damaged
    assert contained.databases() == set()


def test_many_rows_pass_through(contained):
    """More than any pipe holds."""
    contained.sql(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS t FROM generate_series(1, 50000) n"
    )
    before, stored = contained.holds(), contained.stored()
    contained.sql("DROP TABLE big")
    carried_out(contained.restoration(stored, "big"))
    assert contained.holds() == before


def test_a_foreign_key_is_held_to_in_a_container(contained):
    """Refused with the violations; nothing has changed."""
    stored = contained.stored()
    contained.sql("INSERT INTO readers VALUES (77, 'x'); INSERT INTO likes VALUES (1, 77)")
    before = contained.holds()
    with pytest.raises(RefusedError, match=r"likes_reader_id_fkey of public.likes: 1 row .* \(77\)"):
        carried_out(contained.restoration(stored, "readers"))
    assert contained.holds() == before


def test_a_backend_killed_in_a_container_changes_nothing(contained):
    """Ended by the server while the rows were on their way."""
    contained.sql(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS t FROM generate_series(1, 50000) n"
    )
    stored = contained.stored()
    contained.sql("UPDATE big SET t = ''")
    before = contained.holds()
    restoration = contained.restoration(stored, "big")
    contained.sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;"
        " CREATE TRIGGER dies AFTER DELETE ON big EXECUTE FUNCTION die();"
        " ALTER TABLE big ENABLE ALWAYS TRIGGER dies"
    )
    with pytest.raises(SourceError, match="nothing was"):
        carried_out(restoration)
    assert contained.holds() == before
