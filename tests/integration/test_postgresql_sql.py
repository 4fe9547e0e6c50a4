"""`postgresql/sql`: the dump as SQL, whole, and with as many rows as the dump."""

import gzip
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.postgresql_sql import read
from bookreader_backup_assets.core.errors import DamagedError, SourceAbsentError

DUMP, SQL = "postgresql/dump", "postgresql/sql"


@pytest.fixture
def captured(installation):
    """A dump and its SQL, in the set of today."""
    day = installation.today()
    dump, _ = capture(installation, installation.component(DUMP), day)
    sql, _ = capture(installation, installation.component(SQL), day)
    return dump, sql


def outcomes(installation, entry):
    """What the checks of the SQL say, by name."""
    made = verify(installation, installation.component(SQL), entry).checks
    return {outcome.check: outcome for outcome in made}


def stored_as(installation, entry, text):
    """The entry over other bytes, as if these had been captured."""
    name = entry.name.replace(".sql.gz", "_other.sql.gz")
    data = gzip.compress(text)
    installation.vault.put(name, [data])
    return replace(entry, name=name, size=len(data))


def test_it_is_the_dumps_content_at_the_dumps_instant(installation, captured, system):
    """It can be read with gunzip, loads into psql as it is, and has every row of the dump."""
    dump, sql = captured
    assert (sql.captured_at, sql.fingerprint["dump"]) == (dump.captured_at, dump.name)
    assert [o.message for o in outcomes(installation, sql).values() if not o.passed] == []
    text = gzip.decompress(installation.vault.local_path(sql.name).read_bytes())
    server = system.postgresql
    server.runner.run(["createdb", "from_sql"], env=server.env)
    argv = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "from_sql"]
    server.runner.run(argv, env=server.env, stdin=[text])
    count = ["psql", "-XqAt", "-d", "from_sql", "-c", "SELECT count(*) FROM users"]
    rows = server.runner.run(count, env=server.env).stdout.decode().strip()
    assert int(rows) == dump.fingerprint["tables"]["public.users"]["rows"]


def test_what_was_made_of_this_dump_is_not_made_again(installation, captured):
    """The same dump gives the same SQL; another one gives another."""
    day = installation.today()
    again, new = capture(installation, installation.component(SQL), day)
    assert (again.name == captured[1].name, new) == (False, True), "it was never verified"
    outcomes(installation, again)
    assert capture(installation, installation.component(SQL), day) == (again, False)
    component = installation.component(SQL).over(StoredArtifact(installation, captured[0]))
    of_another = replace(again, fingerprint={**again.fingerprint, "dump_sha256": "0" * 64})
    assert (component.unchanged_since(again), component.unchanged_since(of_another)) == (True, False)


def test_without_a_dump_there_is_no_sql(installation):
    """It says what to capture first; nothing is left in the vault but why."""
    with pytest.raises(SourceAbsentError, match="has no postgresql/dump to derive it from") as refused:
        capture(installation, installation.component(SQL), installation.today())
    assert refused.value.hint == "capture postgresql/dump first"


def test_a_dump_that_has_changed_gives_no_sql(installation, captured):
    """The dump is read and compared before anything is made of it."""
    path = installation.vault.local_path(captured[0].name)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="has changed since it was captured"):
        capture(installation, installation.component(SQL), installation.today())


def test_a_row_less_is_red(installation, captured):
    """A table that lacks a row, or is not there at all, is named."""
    text = gzip.decompress(installation.vault.local_path(captured[1].name).read_bytes())
    begin = text.index(b"COPY public.users ")
    row = text.index(b"\n", begin)
    short = text[:row] + text[text.index(b"\n", row + 1) :]
    outcome = outcomes(installation, stored_as(installation, captured[1], short))["tables_equal"]
    assert outcome.passed is False
    assert "public.users has" in outcome.message


@pytest.mark.parametrize("cut", [3, 60, 4000])
def test_a_cut_one_is_red(installation, captured, cut):
    """Two dashes, the trailer, or more is missing at its end."""
    text = gzip.decompress(installation.vault.local_path(captured[1].name).read_bytes())
    outcome = outcomes(installation, stored_as(installation, captured[1], text[:-cut]))["whole"]
    assert outcome.passed is False


def test_rows_are_counted_however_the_bytes_arrive():
    """Rows that look like ends or like COPY, odd names, empty tables, any chunk size."""
    text = (
        b"--\n-- PostgreSQL database dump\n--\n\nCOPY public.users (id, name) FROM stdin;\n"
        b"1\tone\n2\tCOPY public.books (id) FROM stdin;\n3\t\\\\.\n\n\\.\n\n"
        b'COPY "Odd ""schema"."a.b" ("x y") FROM stdin;\n\\.\n\nCOPY public.nothing  FROM stdin;\n\n\n\\.\n'
        b'COPY public."two\nlines" ("a\nb", c) FROM stdin;\n1\t2\n\\.\n'
        b"SELECT 1;\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n"
    )
    for size in range(1, 40):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert read(chunks) == (
            {
                ("public", "users"): 4,
                ('Odd "schema', "a.b"): 0,
                ("public", "nothing"): 2,
                ("public", "two\nlines"): 1,
            },
            True,
        )
