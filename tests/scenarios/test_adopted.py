"""All there is are backups of the guide's script: adopted, they bring BookReader back."""

import os
import shutil

from bookreader_backup_assets.actions.adopt import adopt
from bookreader_backup_assets.actions.adopt_found import ADOPTED
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.core.restore_plan import Options
from tests.fixtures.trees import look


def state(there):
    """All it holds. The script's archives have whole seconds, and of the configuration no times at all."""
    config = look(os.fsencode(there.config)).items()
    return {
        "rows": there.rows(),
        "keys": there.keys(),
        "files": {path: what for path, what in files(there).items() if path != b"."},
        "config": {p: (*what[:3], what[4]) for p, what in config if p != b"." and b".bookreader" not in p},
    }


def files(there):
    """Every path of storage but what a restore keeps for its undo."""
    found = look(os.fsencode(there.storage), seconds=True)
    return {path: what for path, what in found.items() if not path.startswith(b".bookreader")}


def lose_everything(there):
    """The database, the cache, the files and the configuration, in one day."""
    there.sql("DROP TABLE empty; DELETE FROM alembic_version; UPDATE books SET title = 'lost'")
    there.cache("FLUSHALL")
    shutil.rmtree(there.storage / "books")
    (there.storage / "covers" / "2.bin").write_bytes(b"overwritten")
    (there.config / ".env").unlink()
    (there.config / "nginx" / "nginx.conf").write_text("broken", encoding="utf-8")


def test_everything_comes_back_from_what_the_script_left(script):
    """A vault with nothing but adopted artifacts: one file, and each part, is planned and restored, and
    equals what was backed up; without a day being named, they are the newest there is.
    """
    there = script.there
    good = state(there)
    script.run()
    lines = list(adopt(there.installation, script.folder))
    assert {line.verdict for line in lines} == {"verified", "read"}
    (day,) = {line.set for line in lines if line.set}
    entries = Catalog(there.installation.vault).entries()
    assert {entry.label for entry in entries} == {ADOPTED}
    lose_everything(there)
    assert all(state(there)[part] != good[part] for part in good)
    options = Options(paths=("books/12.bin",))
    assert ADOPTED in plan(there.installation, "file", options=options).artifact
    assert restore(there.installation, "file", day, confirm=str(there.storage), options=options).good
    assert files(there)[b"books/12.bin"] == good["files"][b"books/12.bin"]
    for scenario in ("postgresql", "redis", "storage", "config"):
        planned = plan(there.installation, scenario, day)
        assert planned.standing == "verified"
        report = restore(there.installation, scenario, day, confirm=planned.target)
        assert report.good, (scenario, report)
    assert state(there) == good
