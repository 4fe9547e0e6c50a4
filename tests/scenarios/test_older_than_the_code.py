"""The set is older than the code that runs: both versions are shown, and the migrations run if asked."""

import os

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.living import at_once

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("disasters")]
ROWS = "SELECT count(*), md5(string_agg(concat_ws('|', id, title, file_path), ',' ORDER BY id)) FROM books"
VERSION = "SELECT version_num FROM alembic_version"
COLUMN = (
    "SELECT count(*) FROM information_schema.columns WHERE table_name = 'books' AND column_name = 'language'"
)


@pytest.fixture
def there(bookreader_project, tmp_path):
    """A BookReader in containers, whose database was captured before its code was deployed anew."""
    environ = {
        **bookreader_project.environ,
        "BACKUP_VAULT": str(tmp_path / "vault"),
        "BACKUP_KEY": "passphrase of the tests' own",
    }
    installation = at_once(assemble(load_settings(environ, env_file=tmp_path / os.devnull)))
    for asset in ("postgresql/globals", "postgresql/dump"):
        component = installation.component(asset)
        verify(installation, component, capture(installation, component, installation.today())[0])
    return bookreader_project, installation


def test_both_versions_are_shown_and_migrated_if_asked(there):
    """The plan has the dump's and the code's. Without `--migrate` the database is as it was captured, to the
    version; with it, rows and version are what the code wants; undo brings back what was there.
    """
    project, installation = there
    rows = project.sql(ROWS)
    (note,) = [note for note in plan(installation, "postgresql").preview.notes if "migration" in note]
    assert "20251024_01" in note
    assert "20251101_02" in note
    project.sql("DELETE FROM generated_images; DELETE FROM books")
    report = restore(installation, "postgresql", confirm="bookreader")
    assert report.good, report
    assert (project.sql(ROWS), project.sql(VERSION), project.sql(COLUMN)) == (rows, "20251024_01", "0")
    project.sql("DELETE FROM generated_images; DELETE FROM books")
    damaged = (project.sql(ROWS), project.sql(VERSION))
    report = restore(installation, "postgresql", options=Options(migrate=True), confirm="bookreader")
    assert report.good, report
    assert (project.sql(ROWS), project.sql(VERSION), project.sql(COLUMN)) == (rows, "20251101_02", "1")
    undo(installation, report.id, confirm="bookreader")
    assert (project.sql(ROWS), project.sql(VERSION)) == damaged
