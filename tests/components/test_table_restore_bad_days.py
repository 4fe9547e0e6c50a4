"""Bad days of a table's restore: after each, the live tables are as they were, or as they are to be."""

import dataclasses
import threading
import time
from contextlib import contextmanager

import pytest

from bookreader_backup_assets.components import table_restore, table_swap
from bookreader_backup_assets.components.psql import connect
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.streams import quiet

from .conftest import carried_out, made_beside


class Interfering:
    """A runner that does something at the n-th chunk of the rows on their way."""

    def __init__(self, runner, what, chunk=0):
        self._runner, self._what, self._chunk = runner, what, chunk

    def __getattr__(self, name):
        return getattr(self._runner, name)

    def stream(self, argv, **given):
        for number, chunk in enumerate(self._runner.stream(argv, **given)):
            if argv[0] == "psql" and number == self._chunk:
                self._what()
            yield chunk


@contextmanager
def held(library, statement):
    """Somebody who is in a transaction."""
    with connect(library.runner, {**library.env, "PGAPPNAME": "somebody"}, library.database) as psql:
        psql.tell(f"SET search_path = public; BEGIN; {statement};")
        psql.ask("SELECT to_jsonb(1)")
        yield psql


def test_a_backend_killed_in_the_middle_changes_nothing(library):
    """The rows were gone and half copied, in a transaction that ended without a commit."""
    stored = library.stored()
    library.sql("UPDATE books SET title = 'x'")
    before = library.holds()
    ending = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name ~ '^bookreader-restore' AND datname = '{library.database}'"
    )
    runner = Interfering(library.runner, lambda: library.sql(ending))
    restoration = library.restoration(stored, "books")
    state = made_beside(restoration)
    with pytest.raises(SourceError, match="nothing was"):
        dataclasses.replace(restoration, runner=runner).swap(state)
    assert library.holds() == before
    restoration.undo(state, None)  # there is nothing to bring back, so no safety capture is asked for
    assert library.holds() == before
    assert library.databases() == set()


def test_an_error_in_the_middle_changes_nothing(library):
    """Whatever is raised while the rows are on their way."""
    stored = library.stored()
    library.sql("UPDATE books SET title = 'x'")
    before = library.holds()

    def fail():
        raise KeyboardInterrupt

    restoration = library.restoration(stored, "books")
    state = made_beside(restoration)
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(restoration, runner=Interfering(library.runner, fail)).swap(state)
    assert library.holds() == before
    restoration.swap(state)  # made again, it finishes
    assert restoration.confirm(state).passed
    assert library.holds()["tables"]["public.books"]["digest"] != before["tables"]["public.books"]["digest"]


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_killed_at_the_commit_it_is_known_whether_it_happened(moment, library, monkeypatch):
    """Swapped again only if it was not; undone only if it was."""
    before, stored = library.holds(), library.stored()
    library.sql("DELETE FROM books WHERE id > 7")
    damaged, safety = library.holds(), library.stored()
    restoration = library.restoration(stored, "books")
    state = made_beside(restoration)
    at_disk = dict(state)
    tell = table_swap.databases.tell

    def dies(psql, *statements):
        if statements == ("COMMIT",):
            if moment == "after the commit":
                tell(psql, *statements)
            raise KeyboardInterrupt
        tell(psql, *statements)

    monkeypatch.setattr(table_swap.databases, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        restoration.swap(state)
    monkeypatch.setattr(table_swap.databases, "tell", tell)
    state = dict(at_disk)
    if moment == "after the commit":
        assert library.holds() == before
        library.sql("INSERT INTO books (title) VALUES ('written since')")
        restoration.swap(state)
        assert restoration.confirm(state).passed
        assert library.sql("SELECT count(*) FROM books") == "2001"  # not replaced a second time
    else:
        assert library.holds() == damaged
    restoration.undo(dict(at_disk), safety)
    assert library.holds() == damaged
    assert library.databases() == set()


def test_a_busy_table_is_waited_for_and_then_named(library, monkeypatch):
    """Who holds it is said; nothing was touched."""
    monkeypatch.setattr(table_swap, "LOCKED_WITHIN", 1)
    stored = library.stored()
    before = library.holds()
    restoration = library.restoration(stored, "readers")
    state = made_beside(restoration)
    with held(library, "INSERT INTO readers VALUES (100)"):
        started = time.monotonic()
        with pytest.raises(
            SourceError, match=r"public.readers: in use.*keeper somebody.*pid \d+, idle in trans"
        ):
            restoration.swap(state)
        assert time.monotonic() - started < 20
    with (
        held(library, "UPDATE likes SET note_id = 2 WHERE note_id = 1"),
        pytest.raises(SourceError, match=r"public\.likes"),
    ):
        restoration.swap(state)
    assert library.holds() == before
    with held(library, "SELECT count(*) FROM readers"):  # who only reads is in nobody's way
        restoration.swap(state)


def test_readers_read_the_old_rows_until_the_commit(library):
    """And writers wait, and are not lost."""
    stored = library.stored()
    library.sql("DELETE FROM books WHERE id > 7")
    seen, writers = [], []

    def look():
        seen.append(library.sql("SELECT count(*) FROM books"))
        writer = threading.Thread(target=lambda: library.sql("INSERT INTO books (title) VALUES ('waited')"))
        writer.start()
        writers.append(writer)

    restoration = library.restoration(stored, "books")
    state = made_beside(restoration)
    dataclasses.replace(restoration, runner=Interfering(library.runner, look)).swap(state)
    writers[0].join(30)
    assert seen == ["7"]
    assert library.sql("SELECT count(*) FROM books WHERE title = 'waited'") == "1"
    assert library.sql("SELECT count(*) FROM books") == "2001"


def test_undo_brings_back_the_rows_from_before(library):
    """Out of the safety capture, in one transaction, and once only."""
    stored = library.stored()
    library.sql(
        "UPDATE books SET title = 'x' WHERE id < 50;"
        " DELETE FROM users WHERE id NOT IN (SELECT user_id FROM books)"
    )
    before, safety = library.holds(), library.stored()
    restoration = library.restoration(stored, "books", "users")
    state = carried_out(restoration)
    assert library.holds() != before
    with pytest.raises(RefusedError, match="is not there any more"):
        restoration.undo(state, None)
    restoration.undo(state, safety)
    assert library.holds() == before
    assert library.databases() == set()


def test_an_undo_that_was_killed_is_finished(library, monkeypatch):
    """Wherever it was."""
    stored = library.stored()
    library.sql("DELETE FROM likes WHERE reader_id = 3")
    before, safety = library.holds(), library.stored()
    restoration = library.restoration(stored, "likes")
    calls = 0
    for fatal in range(1, 40):
        state = carried_out(restoration, f"20251024_1200{fatal:02}")
        calls = 0

        @contextmanager
        def counted(*given, fatal=fatal):
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise KeyboardInterrupt
            with connect(*given) as psql:
                yield psql

        for module in (table_swap, table_restore.table_look, table_restore, table_scratch_module()):
            monkeypatch.setattr(module, "connect", counted)
        try:
            restoration.undo(dict(state), safety)
        except KeyboardInterrupt:
            monkeypatch.undo()
            restoration.undo(dict(state), safety)
        else:
            monkeypatch.undo()
            break
        assert library.holds() == before
        assert library.databases() == set()
    assert calls > 5
    assert library.holds() == before


def table_scratch_module():
    """Where the scratch database's sessions begin."""
    from bookreader_backup_assets.components import table_scratch

    return table_scratch


def test_what_has_changed_since_is_refused_before_anything_is_touched(library):
    """A column more, less, or of another type; and at the last moment too."""
    stored = library.stored()
    library.sql("ALTER TABLE likes ADD COLUMN at date; ALTER TABLE notes ALTER COLUMN text TYPE varchar(50)")
    with pytest.raises(
        RefusedError, match=r"public.likes is no longer .*at \(date\) is not in the dump"
    ) as refused:
        library.restoration(stored, "likes").preview()
    assert "--into" in refused.value.hint
    with pytest.raises(RefusedError, match=r"text is character varying\(50\), in the dump text"):
        library.restoration(stored, "notes").preview()
    restoration = library.restoration(stored, "shelves")
    state = restoration.begin("20251024_120000")
    restoration.beside(state, quiet)
    library.sql("ALTER TABLE shelves DROP COLUMN label")
    with pytest.raises(RefusedError, match=r"label \(text\) is only in the dump"):
        restoration.compare(state)
    restoration.abandon(state)
    assert library.databases() == set()


def test_columns_may_stand_in_another_order(library):
    """They are matched by name, and the rows are compared by them."""
    stored = library.stored()
    library.sql("DELETE FROM likes; ALTER TABLE likes DROP COLUMN note_id, ADD COLUMN note_id bigint")
    carried_out(library.restoration(stored, "likes"))
    assert library.sql("SELECT count(*), sum(note_id), sum(reader_id) FROM likes") == "100|5050|1050"


def test_a_constraint_that_is_new_and_does_not_hold_changes_nothing(library):
    """The server's own word for it is passed on."""
    stored = library.stored()
    library.sql(
        "UPDATE shelves SET label = 'shelf';"
        " ALTER TABLE shelves ADD CONSTRAINT short CHECK (length(label) < 6)"
    )
    before = library.holds()
    with pytest.raises(SourceError, match='violates check constraint "short"'):
        carried_out(library.restoration(stored, "shelves"))
    assert library.holds() == before


def test_a_trigger_that_changes_the_rows_is_found(library):
    """One that always fires is announced, and what it makes of the rows is not committed."""
    stored = library.stored()
    library.sql(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.label = upper(NEW.label); RETURN NEW; END$$;"
        " CREATE TRIGGER loud BEFORE INSERT ON shelves FOR EACH ROW EXECUTE FUNCTION shout();"
        " ALTER TABLE shelves ENABLE ALWAYS TRIGGER loud"
    )
    before = library.holds()
    restoration = library.restoration(stored, "shelves")
    assert any("loud" in note for note in restoration.preview().notes)
    with pytest.raises(DamagedError, match="not the 9 of the dump"):
        carried_out(restoration)
    assert library.holds() == before


def test_a_table_made_or_dropped_meanwhile_is_refused(library):
    """What was previewed is what is done."""
    stored = library.stored()
    library.sql("CREATE TABLE kept AS TABLE likes; DROP TABLE likes")
    restoration = library.restoration(stored, "likes")
    state = made_beside(restoration)
    library.sql("CREATE TABLE likes (LIKE kept)")
    with pytest.raises(RefusedError, match="made or dropped since"):
        restoration.swap(state)
    assert library.sql("SELECT count(*) FROM likes") == "0"
    restoration.abandon(state)


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        (("Boks",), "no table 'Boks'", "public.books"),
        (("public.reader",), "no table", "public.readers"),
        (("xyz",), "no table", "it has: "),
        (("twin",), "could be a.twin, b.twin", "which"),
        ((), "no table was named", "--table"),
    ],
)
def test_tables_that_the_dump_lacks_are_refused(asked, said, hint, library):
    """With those that were perhaps meant."""
    library.sql("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.twin (i int); CREATE TABLE b.twin (i int)")
    with pytest.raises(RefusedError, match=said) as refused:
        library.restoration(library.stored(), *asked).preview()
    assert hint in refused.value.hint


def test_a_schema_that_the_dump_lacks_is_refused(library):
    """With those that there are."""
    with pytest.raises(RefusedError, match="no tables in a schema 'publik'") as refused:
        library.restoration(library.stored(), schema="publik").preview()
    assert "public" in refused.value.hint


def test_a_newer_dump_is_refused(library):
    """Before anything is made."""
    stored = library.stored()
    stored.entry = dataclasses.replace(stored.entry, versions={"server": "99.1", "client": "99.1"})
    with pytest.raises(RefusedError, match=r"PostgreSQL 99\.1"):
        library.restoration(stored, "books").preview()


def test_who_is_no_superuser_is_refused(library):
    """Triggers could not be kept from firing."""
    stored = library.stored()
    restoration = library.restoration(stored, "books")
    env = {**library.env, "PGUSER": "bookreader_user", "PGPASSWORD": "the user's pass%word"}
    with pytest.raises(RefusedError, match="no superuser"):
        dataclasses.replace(restoration, env=env).preview()


def test_another_migration_is_said(library):
    """It is the operator's to judge."""
    stored = library.stored()
    library.sql("UPDATE alembic_version SET version_num = 'def456'")
    notes = library.restoration(stored, "books").preview().notes
    assert any("abc123" in note and "def456" in note for note in notes)


def test_damaged_bytes_make_nothing(library):
    """They are read to the end before anything is made of them."""
    stored = library.stored()
    stored.entry = dataclasses.replace(stored.entry, sha256="0" * 64)
    restoration = library.restoration(stored, "books")
    state = restoration.begin("20251024_120000")
    with pytest.raises(DamagedError, match="has changed since it was captured"):
        restoration.beside(state, quiet)
    assert library.databases() == set()


@pytest.mark.parametrize("what", ["rows", "digest"])
def test_what_is_not_what_was_captured_does_not_compare(what, library):
    """Rows or values that differ from the fingerprint of the capture."""
    stored = library.stored()
    tables = stored.entry.fingerprint["tables"]
    wrong = {**tables["public.books"], what: 1999 if what == "rows" else "1"}
    fingerprint = {**stored.entry.fingerprint, "tables": {**tables, "public.books": wrong}}
    stored.entry = dataclasses.replace(stored.entry, fingerprint=fingerprint)
    restoration = library.restoration(stored, "books")
    state = restoration.begin("20251024_120000")
    restoration.beside(state, quiet)
    outcome = restoration.compare(state)
    assert not outcome.passed
    assert "public.books has 2000 rows" in outcome.message
    restoration.abandon(state)


def test_begun_again_after_a_crash_it_starts_over(library):
    """What a killed one has left is taken away, and whoever is still at it is ended."""
    before, stored = library.holds(), library.stored()
    library.sql("DELETE FROM books")
    restoration = library.restoration(stored, "books")
    state = restoration.begin("20251024_120000")
    library.sql(f"CREATE DATABASE {state['scratch']}")
    env = {**library.env, "PGAPPNAME": state["application"]}
    with connect(library.runner, env, library.database) as left:
        left.tell("BEGIN; LOCK TABLE public.books;")
        left.ask("SELECT to_jsonb(1)")
        restoration.beside(state, quiet)
        restoration.swap(state)
        with pytest.raises(BackupError):
            left.ask("SELECT to_jsonb(1)")
    assert library.holds() == before


def test_a_table_of_the_maintenance_database_too(postgresql_server, postgresql_kept):
    """Whoever keeps tables in `postgres`."""
    from bookreader_backup_assets.components.postgresql import PostgresqlDump

    from .conftest import Library

    kept = postgresql_kept(PostgresqlDump(postgresql_server.runner, postgresql_server.env, "postgres"))
    there = Library(postgresql_server.runner, postgresql_server.env, "postgres", kept)
    there.sql("CREATE TABLE odd_place AS SELECT 1 AS a")
    stored = there.stored()
    there.sql("DELETE FROM odd_place")
    restoration = there.restoration(stored, "odd_place")
    state = carried_out(restoration)
    assert there.sql("SELECT * FROM odd_place; DROP TABLE odd_place") == "1"
    restoration.accept(state)
