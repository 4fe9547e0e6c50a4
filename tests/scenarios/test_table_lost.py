"""A table is emptied, or holds nonsense: it comes back alone, and those that refer to it stay whole."""

import pytest

from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options

USERS = Options(tables=("users",))


@pytest.fixture
def kept(embedded_bookreader):
    """A BookReader, backed up."""
    embedded_bookreader.back_up("postgresql")
    return embedded_bookreader


def test_an_emptied_table_comes_back(bookreader):
    """Every row, with those that went along by CASCADE; what was written elsewhere since then stays."""
    kept = bookreader
    kept.back_up("postgresql")
    before = kept.rows()
    lost = ("books", "generated_images") if kept.kind == "docker" else ("books",)
    kept.sql("TRUNCATE books CASCADE")
    emptied = kept.rows()
    report = restore(kept.installation, "table", options=Options(tables=lost), confirm=kept.database)
    assert report.good, report
    assert kept.rows() == before
    assert undo(kept.installation, report.id, confirm=kept.database).result == "undone"
    assert kept.rows() == emptied


def test_a_table_that_others_refer_to_is_replaced(kept):
    """Users come back as they were; books, which refer to them, are not rewritten."""
    before = kept.rows()
    as_written = "SELECT sum(hashtext(ctid::text || xmin::text)::bigint) FROM books"
    written = kept.sql(as_written)
    kept.sql("UPDATE users SET email = 'lost ' || id; INSERT INTO users (email) VALUES ('intruder')")
    report = restore(kept.installation, "table", options=USERS, confirm=kept.database)
    assert report.good, report
    assert kept.rows() == before
    assert kept.sql(as_written) == written


def test_a_foreign_key_that_would_break_refuses_it(kept):
    """A book of a user who came after the backup: it is named, and not one row was changed."""
    kept.sql("INSERT INTO users (email) VALUES ('later@example.org')")
    later = kept.sql("SELECT max(id) FROM users")
    kept.sql(f"INSERT INTO books (user_id, title) VALUES ({later}, 'theirs')")
    before = kept.rows()
    with pytest.raises(RefusedError, match=r"public\.books: 1 row") as refused:
        restore(kept.installation, "table", options=USERS, confirm=kept.database)
    assert later in refused.value.message
    assert kept.rows() == before


def test_looking_first_replaces_nothing(kept):
    """Under another name beside the live one, which is as it was."""
    good = kept.sql("SELECT count(*), max(email) FROM users")
    kept.sql("UPDATE users SET email = 'lost ' || id")
    damaged = kept.rows()
    look = Options(tables=("users",), into="users_before")
    report = restore(kept.installation, "table", options=look, confirm="")
    assert report.good, report
    assert kept.sql("SELECT count(*), max(email) FROM users_before") == good
    kept.sql("DROP TABLE users_before")
    assert kept.rows() == damaged


def test_its_plan_names_what_would_change(kept):
    """The rows there are now beside those in the dump, who refers to it, and the name to type back."""
    kept.sql("UPDATE users SET email = 'lost ' || id")
    damaged = kept.rows()
    planned = plan(kept.installation, "table", options=USERS)
    assert planned.target == kept.database
    assert "public.users" in planned.preview.replaces
    assert "referred to by public.books" in planned.preview.replaces
    with pytest.raises(RefusedError):
        restore(kept.installation, "table", options=USERS, confirm="users")
    assert kept.rows() == damaged
