"""Tables out of a dump: replaced in one transaction, compared, with what refers to them left whole."""

import pytest

from bookreader_backup_assets.core.errors import RefusedError

from .conftest import carried_out


def test_an_emptied_table_comes_back(library):
    """Every row is there again, and the next one gets a number of its own."""
    before, stored = library.holds(), library.stored()
    library.sql("DELETE FROM books")
    restoration = library.restoration(stored, "books")
    preview = restoration.preview()
    assert "public.books: 0 rows now, 2000 in the dump" in preview.replaces
    state = carried_out(restoration)
    assert library.holds() == before
    assert library.sql("INSERT INTO books (title) VALUES ('new') RETURNING id") == "2001"
    restoration.accept(state)
    assert library.databases() == set()


def test_what_refers_to_a_replaced_table_is_not_touched(library):
    """Not a row of the referring tables is written, whatever ON DELETE says, and no trigger fires."""
    before, stored = library.holds(), library.stored()
    library.sql("UPDATE notes SET text = 'x'; ALTER TABLE readers DISABLE TRIGGER guarded;")
    library.sql("UPDATE readers SET name = 'nobody'; ALTER TABLE readers ENABLE TRIGGER guarded;")
    referring = "".join(
        f"SELECT array_agg((ctid, xmin, t)::text) FROM {name} t;" for name in ("notes", "likes")
    )
    as_they_were = library.sql(referring)
    restoration = library.restoration(stored, "readers")
    assert "referred to by public.likes, public.notes" in restoration.preview().replaces
    carried_out(restoration)
    assert library.sql(referring) == as_they_were
    after = library.holds()
    assert after["tables"]["public.readers"] == before["tables"]["public.readers"]


def test_several_tables_are_one_transaction(library):
    """Tables that need each other come back together."""
    before, stored = library.holds(), library.stored()
    library.sql("DELETE FROM likes; DELETE FROM notes; ALTER TABLE readers DISABLE TRIGGER guarded")
    library.sql(
        "DELETE FROM readers; INSERT INTO readers VALUES (99, 'new');"
        " ALTER TABLE readers ENABLE TRIGGER guarded; INSERT INTO notes (reader_id) VALUES (99)"
    )
    carried_out(library.restoration(stored, "readers", "public.notes", "likes"))
    assert library.holds() == before


@pytest.mark.parametrize(
    ("damage", "table", "said"),
    [
        pytest.param(
            "INSERT INTO readers VALUES (77, 'x'), (78, 'y');"
            " INSERT INTO notes (reader_id) VALUES (77), (77), (78)",
            "readers",
            "notes_reader_id_fkey of public.notes: 3 rows whose reader_id is not in public.readers (77, 78)",
            id="others would refer to what is gone",
        ),
        pytest.param(
            "DELETE FROM likes WHERE reader_id = 5; DELETE FROM notes WHERE reader_id = 5;"
            " ALTER TABLE readers DISABLE TRIGGER guarded; DELETE FROM readers WHERE id = 5",
            "notes",
            "notes_reader_id_fkey of public.notes: 5 rows whose reader_id is not in public.readers (5)",
            id="it would refer to what is gone",
        ),
        pytest.param(
            "UPDATE notes SET room = 1, number = 1; DELETE FROM shelves WHERE room = 0",
            "notes",
            "of public.notes: 33 rows whose room, number is not in public.shelves ((0,0), (0,1))",
            id="two columns",
        ),
        pytest.param(
            "INSERT INTO shelves VALUES (9, 9); UPDATE notes SET room = 9, number = 9 WHERE id < 3",
            "shelves",
            "of public.notes: 2 rows whose room, number is not in public.shelves ((9,9))",
            id="two columns, from the other end",
        ),
        pytest.param(
            "CREATE TABLE fans (reader_id int REFERENCES readers) PARTITION BY LIST (reader_id);"
            " CREATE TABLE fans_all PARTITION OF fans DEFAULT; INSERT INTO readers VALUES (77, 'x');"
            " INSERT INTO fans VALUES (77)",
            "readers",
            "fans_reader_id_fkey of public.fans: 1 row whose reader_id is not in public.readers (77)",
            id="a partitioned table refers",
        ),
    ],
)  # fmt: skip
def test_a_restore_that_would_break_a_foreign_key_is_refused(damage, table, said, library):
    """The violations are listed, and everything is as before."""
    stored = library.stored()
    library.sql(damage)
    before = library.holds()
    restoration = library.restoration(stored, table)
    with pytest.raises(RefusedError) as refused:
        carried_out(restoration)
    assert said in refused.value.message
    assert library.holds() == before


def test_a_half_null_key_violates_match_full_only(library):
    """MATCH FULL wants all columns or none; what was in the dump was right, so this is a row of others."""
    stored = library.stored()
    library.sql(
        "ALTER TABLE notes DROP CONSTRAINT notes_room_number_fkey;"
        " UPDATE notes SET number = NULL WHERE id = 7"
    )
    library.sql("ALTER TABLE notes ADD CONSTRAINT loose FOREIGN KEY (room, number) REFERENCES shelves")
    carried_out(library.restoration(stored, "shelves"))
    library.sql(
        "ALTER TABLE notes ADD CONSTRAINT tight FOREIGN KEY (room, number) REFERENCES shelves"
        " MATCH FULL NOT VALID"
    )
    carried_out(library.restoration(stored, "shelves"), "20251024_130000")
    library.sql("UPDATE pg_constraint SET convalidated = true WHERE conname = 'tight'")
    with pytest.raises(RefusedError, match=r"tight of public.notes: 1 row .*\(\(1,\)\)"):
        carried_out(library.restoration(stored, "shelves"), "20251024_140000")


def test_a_key_that_was_never_validated_holds_for_no_old_row(library):
    """NOT VALID says that old rows may violate it."""
    library.sql(
        "ALTER TABLE likes DROP CONSTRAINT likes_reader_id_fkey;"
        " UPDATE likes SET reader_id = 4711 WHERE note_id = 1"
    )
    library.sql("ALTER TABLE likes ADD CONSTRAINT lax FOREIGN KEY (reader_id) REFERENCES readers NOT VALID")
    before, stored = library.holds(), library.stored()
    library.sql("DELETE FROM likes")
    carried_out(library.restoration(stored, "likes"))
    assert library.holds() == before


def test_a_schema_comes_back(library):
    """All tables of a schema, and none of another."""
    before, stored = library.holds(), library.stored()
    library.sql('DELETE FROM "My Schema"."Odd ""Table"" of\nBooks\\ (1)"; DELETE FROM empty')
    library.sql("INSERT INTO empty VALUES (5)")
    restoration = library.restoration(stored, schema="My Schema")
    carried_out(restoration)
    after = library.holds()
    assert after["tables"].pop("public.empty")["rows"] == 1
    before["tables"].pop("public.empty")
    assert after == before


def test_a_dropped_schema_comes_back_and_goes_again(library):
    """With all that is in it, tables or not; undo drops it."""
    library.sql(
        "CREATE SCHEMA lost; CREATE TYPE lost.mood AS ENUM ('good');"
        " CREATE FUNCTION lost.f() RETURNS int LANGUAGE sql AS $$SELECT 1; SELECT 2$$;"
        " CREATE TABLE lost.t (id serial PRIMARY KEY, m lost.mood, reader_id int REFERENCES readers);"
        " CREATE TABLE lost.u (id int REFERENCES lost.t); CREATE VIEW lost.v AS SELECT lost.f();"
        " INSERT INTO lost.t (m, reader_id) VALUES ('good', 1); INSERT INTO lost.u VALUES (1);"
        " GRANT USAGE ON SCHEMA lost TO bookreader_user; GRANT SELECT ON lost.t TO bookreader_user"
    )
    before, stored = library.holds(), library.stored()
    library.sql("SET client_min_messages = warning; DROP SCHEMA lost CASCADE")
    without = library.holds()
    restoration = library.restoration(stored, schema="lost")
    assert not restoration.preview().present
    state = carried_out(restoration)
    assert library.holds() == before
    assert (
        library.sql("SELECT * FROM lost.v; INSERT INTO lost.t (reader_id) VALUES (2) RETURNING id") == "2\n2"
    )
    restoration.undo(state, None)
    assert library.holds() == without


def test_names_may_hold_anything(library):
    """Quotes, spaces, newlines, capitals, dots, other alphabets, and words of SQL."""
    odd = ['"Ünïcode Таблица"', '"select"', '"a.b"', '"it\'s; -- \\"', '"Users"', '"%I $1 :x"']
    for name in odd:
        library.sql(f'CREATE TABLE {name} ("from" int, "Ö, (x)" numeric(9,2)[], "\'" text DEFAULT \'a, b)\')')
        library.sql(f"INSERT INTO {name} VALUES (1, '{{1.5}}', E'\\\\.\\n'), (2, NULL, NULL)")
    before, stored = library.holds(), library.stored()
    for name in odd:
        library.sql(f"DELETE FROM {name}")
    asked = [name[1:-1] for name in odd] + ['Odd "Table" of\nBooks\\ (1)', "nothing"]
    restoration = library.restoration(stored, *asked)
    carried_out(restoration)
    assert library.holds() == before


def test_generated_columns_and_identities_come_back(library):
    """What the server makes itself it makes the same; numbers that are taken are not given again."""
    library.sql(
        "CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY (START 5), a int,"
        " twice int GENERATED ALWAYS AS (a * 2) STORED, small smallint GENERATED BY DEFAULT AS IDENTITY,"
        " d date DEFAULT now()); INSERT INTO made (a) SELECT generate_series(1, 50)"
    )
    before, stored = library.holds(), library.stored()
    library.sql("TRUNCATE made RESTART IDENTITY")
    carried_out(library.restoration(stored, "made"))
    assert library.holds() == before
    assert library.sql("INSERT INTO made (a) VALUES (1) RETURNING id, small, twice") == "55|51|2"


def test_no_sequence_goes_back(library):
    """Sequences go as far as the rows, the dump or the live database have got, whichever is furthest."""
    library.sql(
        "CREATE SEQUENCE shared; CREATE SEQUENCE down INCREMENT -1; CREATE SEQUENCE round MAXVALUE 9 CYCLE;"
        " CREATE TABLE s (a int DEFAULT nextval('shared'), b int DEFAULT nextval('down'),"
        " c int DEFAULT nextval('round'), d serial, e serial);"
        " INSERT INTO s SELECT FROM generate_series(1, 5); INSERT INTO s (d) VALUES (70);"
        " DELETE FROM s WHERE a = 2"
    )
    stored = library.stored()
    library.sql(
        "SELECT setval('s_e_seq', 900), setval('shared', 1, false),"
        " setval('down', -1, false), setval('round', 3)"
    )
    carried_out(library.restoration(stored, "s"))
    assert library.sql("INSERT INTO s SELECT RETURNING *") == "7|-7|4|71|901"


def test_a_partitioned_table_comes_back_whole(library):
    """Partition by partition; one that was added since is emptied, and said so."""
    before, stored = library.holds(), library.stored()
    library.sql(
        "DELETE FROM reading_sessions WHERE id % 2 = 0; CREATE TABLE reading_sessions_2026 PARTITION OF"
        " reading_sessions FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');"
        " INSERT INTO reading_sessions (at) VALUES ('2026-02-02')"
    )
    restoration = library.restoration(stored, "reading_sessions")
    assert any("reading_sessions_2026" in note for note in restoration.preview().notes)
    with_more, safety = library.holds(), library.stored()
    state = carried_out(restoration)
    after = library.holds()
    assert after["tables"].pop("public.reading_sessions_2026")["rows"] == 0
    assert after == before
    restoration.undo(state, safety)
    assert library.holds() == with_more


def test_a_dropped_partitioned_table_is_made_again(library):
    """With its partitions and their indexes."""
    library.sql(
        "CREATE INDEX sessions_at ON reading_sessions (at);"
        " ALTER TABLE reading_sessions ADD PRIMARY KEY (id, at)"
    )
    before, stored = library.holds(), library.stored()
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename ~ '^reading' ORDER BY 1"
    had = library.sql(indexes)
    library.sql("DROP TABLE reading_sessions")
    without = library.holds()
    restoration = library.restoration(stored, "reading_sessions")
    state = carried_out(restoration)
    assert (library.holds(), library.sql(indexes)) == (before, had)
    restoration.undo(state, None)
    assert library.holds() == without
