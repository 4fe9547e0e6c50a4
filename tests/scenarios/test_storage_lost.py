"""Storage is deleted: all that was in it, or the folder too. Restored, compared, and undone if asked."""

import os
import shutil

import pytest

from bookreader_backup_assets.actions.journal import unfinished
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, undo
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.vaults.local import LocalVault


def empty(storage):
    """Delete what is in the folder."""
    for path in storage.iterdir():
        shutil.rmtree(path)


def target(there):
    """The name that is typed back."""
    return plan(there.installation, "storage").target


def leftovers(there):
    """What restores have left, beside the folder and in it."""
    return sorted(there.storage.parent.glob(".bookreader-restore-*")) + sorted(
        there.storage.glob(".bookreader-restore-*")
    )


def test_lost_content_comes_back(embedded_bookreader):
    """Every path with its owner, mode, time and content, nothing nested; undo takes it out again."""
    comes_back(embedded_bookreader, empty)


def test_a_lost_folder_comes_back(bookreader):
    """The folder itself too, where containers have it mounted."""
    comes_back(bookreader, shutil.rmtree)


def comes_back(bookreader, lost):
    """Lose it, restore it, compare it, undo that, restore it again, and accept."""
    good = bookreader.files()
    bookreader.back_up("storage")
    lost(bookreader.storage)
    running = bookreader.installation.services.running()
    report = restore(bookreader.installation, "storage", confirm=target(bookreader))
    assert report.good, report
    assert bookreader.files() == good
    assert bookreader.installation.services.running() == running
    undo(bookreader.installation, report.id, confirm=report.target)
    assert not bookreader.storage.exists() or os.listdir(bookreader.storage) == []
    again = restore(bookreader.installation, "storage", confirm=target(bookreader))
    assert again.good
    assert bookreader.files() == good
    for ended in (report, again):
        accept(bookreader.installation, ended.id, confirm=ended.target)
    assert leftovers(bookreader) == []
    assert bookreader.files() == good


def test_another_folder_touches_nothing(embedded_bookreader, tmp_path):
    """The set is laid out to be looked at, while the live folder stays as lost as it is."""
    bookreader = embedded_bookreader
    good = bookreader.files()
    bookreader.back_up("storage")
    empty(bookreader.storage)
    from bookreader_backup_assets.core.restore_plan import Options

    report = restore(
        bookreader.installation, "storage", options=Options(into=str(tmp_path / "look")), confirm=""
    )
    assert report.good
    assert bookreader.files(tmp_path / "look") == good
    assert os.listdir(bookreader.storage) == []


def test_a_set_that_is_missing_and_one_that_is_corrupted_touch_nothing(embedded_bookreader):
    """Refused with the sets that are there; a rotten byte is found before anything live is touched."""
    there = embedded_bookreader
    day = there.back_up("storage")
    empty(there.storage)
    before = there.files()
    with pytest.raises(RefusedError) as refused:
        restore(there.installation, "storage", "2020-01-01", confirm=target(there))
    assert day in refused.value.hint
    assert isinstance(there.installation.vault, LocalVault)
    (archive,) = (there.installation.vault.root / "storage").glob("*.tar.gz")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedError):
        restore(there.installation, "storage", confirm=target(there))
    assert there.files() == before
    assert leftovers(there) == []
    assert unfinished(there.installation) == []
