"""Tables that are not there: dropped by accident and made again, or put beside under another name."""

import pytest

from bookreader_backup_assets.core.errors import RefusedError

from .conftest import carried_out

DEFINED = """
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2, 3;
SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 2;
SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid)
FROM pg_trigger WHERE NOT tgisinternal ORDER BY 2, 3;
SELECT 'column', table_name, ordinal_position, column_name, column_default, is_identity, udt_name, is_nullable
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 2, 3;
SELECT 'comment', objoid::regclass::text, objsubid, description FROM pg_description
WHERE classoid = 'pg_class'::regclass AND objoid > 16384 ORDER BY 2, 3;
SELECT 'owned', pg_get_serial_sequence(quote_ident(table_name), column_name) FROM information_schema.columns
WHERE table_schema = 'public' AND table_name ~ '^[a-z]+$' ORDER BY 2;
"""


def test_a_dropped_table_is_made_again_as_it_was(library):
    """Columns, owner, grants, keys in both directions, indexes, triggers, sequence, comments."""
    library.sql(
        'ALTER TABLE notes OWNER TO bookreader_user; GRANT SELECT ON notes TO "odd ""; role";'
        ' GRANT UPDATE (text) ON notes TO "odd ""; role"; CREATE INDEX on_text ON notes (lower(text));'
        " COMMENT ON TABLE notes IS 'of; readers'; COMMENT ON COLUMN notes.text IS 'markdown';"
        " CREATE TRIGGER held BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION forbid();"
        ' ALTER TABLE notes ADD CHECK (id > 0); GRANT USAGE ON SEQUENCE notes_id_seq TO "odd ""; role"'
    )  # fmt: skip
    before, defined, stored = library.holds(), library.sql(DEFINED), library.stored()
    library.sql("SET client_min_messages = warning; DROP TABLE notes CASCADE")
    without, without_defined = library.holds(), library.sql(DEFINED)
    restoration = library.restoration(stored, "notes")
    assert "public.notes: not there, 100 rows in the dump" in restoration.preview().replaces
    state = carried_out(restoration)
    assert library.holds() == before
    assert library.sql(DEFINED) == defined
    assert library.sql("INSERT INTO notes DEFAULT VALUES RETURNING id") == "101"
    restoration.undo(state, None)
    assert library.holds() == without
    assert library.sql(DEFINED) == without_defined


def test_rows_without_a_home_refuse_what_they_refer_to(library):
    """Rows of others that came after the dump, and whose key was dropped along, are listed."""
    stored = library.stored()
    library.sql("INSERT INTO notes (reader_id) VALUES (1), (1); INSERT INTO likes VALUES (101), (102), (102)")
    library.sql("SET client_min_messages = warning; DROP TABLE notes CASCADE")
    before = library.holds()
    with pytest.raises(RefusedError, match=r"likes_note_id_fkey of public.likes: 3 rows .* \(101, 102\)"):
        carried_out(library.restoration(stored, "notes"))
    assert library.holds() == before


def test_one_replaced_and_one_made(library):
    """In one transaction; undo replaces the one and drops the other."""
    before, stored = library.holds(), library.stored()
    library.sql("SET client_min_messages = warning; DROP TABLE likes; DELETE FROM notes WHERE id > 10")
    damaged, safety = library.holds(), library.stored()
    restoration = library.restoration(stored, "likes", "notes")
    state = carried_out(restoration)
    assert library.holds() == before
    restoration.undo(state, safety)
    assert library.holds() == damaged


def test_views_that_went_along_are_named(library):
    """Nobody is left to wonder where the view has gone."""
    stored = library.stored()
    library.sql("SET client_min_messages = warning; DROP TABLE books CASCADE")
    assert any("public.ready" in note for note in library.restoration(stored, "books").preview().notes)


def test_an_owner_that_is_not_there_is_said_before(library, postgresql_server):
    """The table could not be given to whoever owned it."""
    postgresql_server.sql("CREATE ROLE leaver")
    library.sql("CREATE TABLE left_behind (a int); ALTER TABLE left_behind OWNER TO leaver")
    stored = library.stored()
    library.sql("DROP TABLE left_behind")
    postgresql_server.sql("DROP ROLE leaver")
    with pytest.raises(RefusedError, match="leaver") as refused:
        library.restoration(stored, "left_behind").preview()
    assert "CREATE ROLE" in refused.value.hint


def test_a_table_may_be_looked_at_first(library):
    """Under another name, with the same values, owned by whoever owns the live one; undo drops it."""
    stored = library.stored()
    library.sql("DELETE FROM books WHERE id > 5")
    before = library.holds()
    restoration = library.restoration(stored, "books", into="books_then")
    assert not restoration.preview().present
    state = carried_out(restoration)
    then = library.holds()["tables"].pop("public.books_then")
    assert then == stored.entry.fingerprint["tables"]["public.books"] | {"digest": then["digest"]}
    assert (
        library.sql(
            "SELECT count(*) FROM books_then t WHERE EXISTS (SELECT FROM books b WHERE b::text = t::text)"
        )
        == "5"
    )
    restoration.undo(state, None)
    assert library.holds() == before
    assert library.databases() == set()


def test_one_that_has_changed_may_be_looked_at(library):
    """Columns, types and the table itself may have gone since: the rows are there to look at."""
    stored = library.stored()
    library.sql("SET client_min_messages = warning; DROP TABLE books CASCADE; DROP TYPE status")
    carried_out(library.restoration(stored, "books", into="My Schema.then"))
    assert library.sql('SELECT count(*), min(state) FROM "My Schema"."then"') == "2000|new"


def test_a_partitioned_table_is_looked_at_as_one(library):
    """All partitions' rows are in it."""
    stored = library.stored()
    carried_out(library.restoration(stored, "reading_sessions", into="then"))
    assert library.sql('SELECT count(*), max(seconds) FROM "then"') == "400|00:06:40"


def test_a_name_that_is_taken_is_refused(library):
    """At first, and when it was taken meanwhile; undo does not drop what another made."""
    stored = library.stored()
    with pytest.raises(RefusedError, match=r"public\.users is there already"):
        library.restoration(stored, "books", into="users").preview()
    restoration = library.restoration(stored, "books", into="mine")
    state = restoration.begin("20251024_120000")
    library.sql("CREATE TABLE mine (a int)")
    with pytest.raises(RefusedError, match="did not make it"):
        restoration.undo(state, None)
    assert library.sql("SELECT count(*) FROM mine") == "0"
    with pytest.raises(RefusedError, match="takes one table"):
        library.restoration(stored, "books", "users", into="both").preview()
