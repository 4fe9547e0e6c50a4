"""All there is are backups of the guide's script: adopted as the page says, they bring BookReader back."""

import os
import re
import shlex
import shutil
import subprocess
import sys

from bookreader_backup_assets.actions.adopt_found import ADOPTED
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.restore_plan import Options
from tests.fixtures.pages import RUNBOOKS, blocks
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


def type_the_page(script, day, home):
    """Type the commands of the runbook, and return what they print."""
    values = {"/var/backups/bookreader": str(script.folder), "2025-10-24": day}
    said = []
    for text in (text for mark, text in blocks(RUNBOOKS / "adopt.md") if mark == "run"):
        for line in re.findall(r"^ *bookreader-backup (.*)$", text, re.MULTILINE):
            done = subprocess.run(
                [sys.executable, "-m", "bookreader_backup_assets"]
                + [values.get(word, word) for word in shlex.split(line)],
                cwd=home,
                env={"PATH": os.environ["PATH"], "HOME": str(home), **script.there.environ},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
    return said


def test_everything_comes_back_from_what_the_script_left(script, tmp_path):
    """A vault with nothing but adopted artifacts: one file, and each part, is planned and restored, and
    equals what was backed up; without a day being named, they are the newest there is.
    """
    there = script.there
    good = state(there)
    day = script.run()[:10]
    planned, adopted, listed, restorable = type_the_page(script, day, tmp_path)
    assert "5 ready" in planned
    assert "5 verified" in adopted
    assert listed.count(f"_{ADOPTED}.") == 5
    assert "verified" in restorable
    catalog = Catalog(there.installation.vault)
    assert {entry.label for entry in catalog.entries()} == {ADOPTED}
    assert {catalog.standing(entry).verdict for entry in catalog.entries()} == {Verdict.PASSED}
    lose_everything(there)
    assert all(state(there)[part] != good[part] for part in good)
    options = Options(paths=("books/12.bin",))
    assert ADOPTED in plan(there.installation, "file", options=options).artifact
    assert restore(there.installation, "file", day, confirm=str(there.storage), options=options).good
    assert files(there)[b"books/12.bin"] == good["files"][b"books/12.bin"]
    for scenario in ("postgresql", "redis", "storage", "config"):
        wanted = plan(there.installation, scenario, day)
        assert wanted.standing == "verified"
        report = restore(there.installation, scenario, day, confirm=wanted.target)
        assert report.good, (scenario, report)
    assert state(there) == good
