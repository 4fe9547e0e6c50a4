"""What of a server's globals makes sense on another server, and how names are read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.components.postgresql_restore import role_statements, statements
from bookreader_backup_assets.components.psql import complaint, identifier, literal, major, unquoted
from bookreader_backup_assets.core.errors import CommandError

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6))
@settings(deadline=None, max_examples=200)
def test_statements_end_at_their_semicolon_whatever_the_names_hold(pairs):
    """Quotes, semicolons, dashes, backslashes and newlines inside of names and texts end nothing."""
    made = [f"COMMENT ON ROLE {identifier(name)} IS {literal(text)}" for name, text in pairs]
    sql = "-- it's a header; with \"quotes\n\\restrict abc'\n" + "".join(f"{line};\n\n" for line in made)
    assert list(statements(sql)) == made


def test_a_statement_without_an_end_is_none():
    """Text that is cut short yields only what is whole."""
    assert list(statements("CREATE ROLE a;\nCREATE ROLE b")) == ["CREATE ROLE a"]


def test_what_belongs_to_the_other_server_is_left_out():
    """Tablespaces, settings of databases, and a role of the superuser's own name are skipped."""
    sql = """
CREATE ROLE scratch; ALTER ROLE scratch WITH NOSUPERUSER; CREATE ROLE scratchy; CREATE ROLE "a; b";
ALTER ROLE "a; b" SET search_path TO 'x';
ALTER ROLE "a; b" IN DATABASE books SET search_path TO 'x';
GRANT "a; b" TO scratchy WITH INHERIT TRUE GRANTED BY "post gres";
GRANT "GRANTED BY x" TO scratchy;
CREATE TABLESPACE fast OWNER a LOCATION '/mnt/fast';
ALTER TABLESPACE fast SET (random_page_cost=1);
GRANT CREATE ON TABLESPACE fast TO a;
COMMENT ON TABLESPACE fast IS 'x';
"""
    assert role_statements(sql, "scratch") == [
        "CREATE ROLE scratchy",
        'CREATE ROLE "a; b"',
        "ALTER ROLE \"a; b\" SET search_path TO 'x'",
        'GRANT "a; b" TO scratchy WITH INHERIT TRUE',
        'GRANT "GRANTED BY x" TO scratchy',
    ]


@given(NAMES, NAMES)
@settings(deadline=None, max_examples=200)
def test_quoted_names_are_read_back(schema, name):
    """What the server quotes as `schema.name` is taken apart into the same two names."""
    assert unquoted(f"{identifier(schema)}.{identifier(name)}") == (schema, name)


def test_plain_names_are_read_back():
    """Names that need no quotes have none."""
    assert unquoted("public.users") == ("public", "users")
    assert unquoted('public."a.b"') == ("public", "a.b")


def test_versions_and_complaints():
    """The major version decides; a complaint is the line with the error, not the statement after it."""
    assert [major(version) for version in ("15.18", "18beta1", "9.6.1", "")] == [15, 18, 9, 0]
    said = "psql: warning: x\npg_restore: error: could not execute query: ERROR:  no\nCommand was: SECRET"
    assert complaint(CommandError("pg_restore", 1, said)).endswith("ERROR:  no")
    assert "SECRET" not in complaint(CommandError("pg_restore", 1, said))
    assert complaint(CommandError("psql", 1, "")) == "psql ended with status 1"
