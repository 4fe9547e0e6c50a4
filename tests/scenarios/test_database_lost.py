"""The database is dropped, or damaged: restored, compared, and if asked put back as it was."""

import pytest

from bookreader_backup_assets.actions.journal import find, journals
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, undo
from bookreader_backup_assets.core.errors import RefusedError


def names(bookreader):
    """The databases there are."""
    return set(bookreader.sql("SELECT datname FROM pg_database", "postgres").split("\n"))


def test_a_dropped_database_comes_back(bookreader):
    """Every table, row, owner and grant is as it was captured, and nothing else is left on the server."""
    there = bookreader
    before = there.rows()
    there.back_up("postgresql")
    others = names(there)
    there.sql(f'DROP DATABASE "{there.database}" WITH (FORCE)', "postgres")
    report = restore(there.installation, "postgresql", confirm=there.database)
    assert report.good, report
    assert report.safety == "absent"
    assert there.rows() == before
    assert names(there) == others


def test_a_damaged_database_is_replaced_and_can_be_had_back(bookreader):
    """What was written since is gone after the restore, and there again after its undo."""
    before = bookreader.rows()
    bookreader.back_up("postgresql")
    bookreader.sql("DELETE FROM alembic_version; INSERT INTO users (email) VALUES ('later@example.org')")
    damaged = bookreader.rows()
    report = restore(bookreader.installation, "postgresql", confirm=bookreader.database)
    assert report.good
    assert bookreader.rows() == before
    undone = undo(bookreader.installation, report.id, confirm=bookreader.database)
    assert undone.result == "undone"
    assert bookreader.rows() == damaged
    accept(bookreader.installation, report.id, confirm=bookreader.database)
    assert {name for name in names(bookreader) if name.startswith(f"{bookreader.database}_")} == set()


def test_nothing_is_touched_without_the_name_typed_back(embedded_bookreader):
    """Neither a plan nor a restore with another name does anything but look."""
    there = embedded_bookreader
    there.back_up("postgresql")
    before, known = there.rows(), names(there)
    planned = plan(there.installation, "postgresql")
    assert planned.target == there.database
    assert planned.preview.present
    with pytest.raises(RefusedError, match="not its name"):
        restore(there.installation, "postgresql", confirm="another")
    assert (there.rows(), names(there)) == (before, known)
    assert journals(there.installation) == []


def test_the_report_is_in_the_vault(embedded_bookreader):
    """What was done, from what, kept how, and how long each step took, can be read without a database."""
    there = embedded_bookreader
    there.back_up("postgresql")
    report = restore(there.installation, "postgresql", confirm=there.database)
    stored = find(there.installation, report.id).report()
    assert stored["result"] == "restored"
    assert [step["step"] for step in stored["steps"]] == ["safety", "beside", "compare", "swap", "confirm"]
    assert stored["safety"].startswith("postgresql/")
    assert "pre-restore" in stored["safety"]


_PROPERTIES = r"""
SELECT datdba::regrole, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), datconnlimit,
  shobj_description(d.oid, 'pg_database'),
  (SELECT array_agg(setrole::regrole || ' ' || s::text ORDER BY setrole, s)
   FROM pg_db_role_setting, unnest(setconfig) s WHERE setdatabase = d.oid)
FROM pg_database d WHERE datname = '{name}'
"""


def test_the_databases_own_properties_come_back(embedded_bookreader):
    """Its owner, who may connect, its limit, its settings and its comment: also where it was dropped."""
    there, name = embedded_bookreader, embedded_bookreader.database
    for statement in (
        f'ALTER DATABASE "{name}" OWNER TO bookreader_user',
        f'REVOKE CONNECT ON DATABASE "{name}" FROM public',
        f'ALTER DATABASE "{name}" CONNECTION LIMIT 77',
        f"ALTER DATABASE \"{name}\" SET work_mem = '5MB'",
        f"ALTER ROLE bookreader_user IN DATABASE \"{name}\" SET search_path = 'other'",
        f"COMMENT ON DATABASE \"{name}\" IS 'hi'",
    ):
        there.sql(statement, "postgres")
    before = there.sql(_PROPERTIES.format(name=name), "postgres")
    assert "bookreader_user" in before
    there.back_up("postgresql")
    assert restore(there.installation, "postgresql", confirm=name).good
    assert there.sql(_PROPERTIES.format(name=name), "postgres") == before
    there.sql(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")
    assert restore(there.installation, "postgresql", confirm=name).good
    assert there.sql(_PROPERTIES.format(name=name), "postgres") == before
