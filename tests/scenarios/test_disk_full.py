"""The vault's disk is full: seen before anything is read, or met in the middle."""

import os
import subprocess
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.examine import examine
from bookreader_backup_assets.core.errors import SpaceError
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.missing import missing

ROOM = 600_000


@pytest.fixture
def small(installation, tmp_path):
    """An installation whose vault is on a disk of its own, with room for less than the storage files."""
    if os.geteuid() != 0:
        missing("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)], check=False, timeout=30
    )
    if done.returncode != 0:
        missing("this machine lets nobody mount a disk")
    yield replace(installation, vault=LocalVault(disk / "vault"))
    subprocess.run(["umount", str(disk)], check=True, timeout=30)


def stored(installation):
    """Return every file of the storage component, half-written ones included."""
    return list((installation.vault.root / "storage").glob("*"))


def test_a_disk_that_fills_in_the_middle_leaves_nothing(small):
    """The error says which disk and what to do, no half archive is left, and its room is given back."""
    with pytest.raises(SpaceError) as full:
        capture(small, small.component("storage/archive"), small.today())
    assert str(small.vault.root) in full.value.message
    assert "BACKUP_VAULT" in full.value.hint
    assert stored(small) == []
    capture(small, small.component("redis/rdb"), small.today())
    assert [entry.asset for entry in Catalog(small.vault).entries()] == ["redis/rdb"]


def test_too_little_room_is_seen_before_anything_is_read(small):
    """What is half as large again as the last one does not fit: refused, with the numbers."""
    component = small.component("redis/rdb")
    entry, _ = capture(small, component, small.today())
    filler = small.vault.root / "filler"
    filler.write_bytes(bytes(small.vault.free() - entry.size))
    with pytest.raises(SpaceError) as refused:
        capture(small, component, small.today())
    assert "nothing was started" in refused.value.hint
    assert entry.name in refused.value.message
    assert {f.subject: f.good for f in examine(small, {})}["vault"] is False
