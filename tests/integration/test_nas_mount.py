"""A NAS that goes away or fills up in the middle of a copy, with a real mount."""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import SpaceError, VaultError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.vaults.nas import MARKER, Nas
from tests.fixtures.missing import missing

ASSET = "storage/archive"


def _mount(folder, size):
    if os.geteuid() != 0:
        missing("only root can mount a small disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True, timeout=30).returncode != 0:
        missing("this machine lets nobody mount a disk")


def _unmount(folder):
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


@pytest.fixture
def mounted(nas):
    """Mounts something else over the folder of the NAS, with the marker in it: a size, such as `2m`."""
    (nas / MARKER).unlink()  # what is below is the disk of this host

    def mount(size):
        _mount(nas, size)
        (nas / MARKER).touch()

    yield mount
    while os.path.ismount(nas):
        _unmount(nas)


@pytest.fixture
def captured(with_nas, installation):
    """An installation with its storage and configuration captured."""
    assert back_up_today(installation, [ASSET, "config/archive"], lambda error: pytest.fail(error.message))
    return installation


def _watched(installation, act):
    """The installation, with `act` called in the middle of what it copies."""

    @contextmanager
    def watch(_doing, _bytes):
        yield lambda _passed: act()

    return replace(installation, watch=watch)


def _there(nas):
    return sorted(str(path.relative_to(nas)) for path in nas.rglob("*") if path.is_file())


@pytest.mark.parametrize("when", ["between two chunks", "after the last one"])
def test_unmounted_in_mid_write(nas, mounted, when):
    """Nothing is under the name, nothing lands on this host's own disk, and the error says what is wrong."""
    mounted("64m")
    vault = Nas(nas).vault("one")
    vault.put("kept", [b"x"])

    def chunks():
        yield bytes(3 * CHUNK)
        if when == "between two chunks":
            _unmount(nas)
        yield bytes(3 * CHUNK)
        if when == "after the last one":
            _unmount(nas)

    with pytest.raises(VaultError, match="not mounted") as gone:
        vault.put("a/new", chunks())
    assert "mount it" in gone.value.hint
    assert _there(nas) == []
    with pytest.raises(VaultError, match="not mounted"):
        list(vault.list())


def test_a_copy_that_was_cut_off_is_made_again(captured, nas, mounted):
    """Unmounted while an artifact is copied, nothing is recorded; mounted again, all of it is."""
    mounted("64m")
    entry = Catalog(captured.vault).newest(ASSET)
    with pytest.raises(VaultError, match="not mounted"):
        replicate(_watched(captured, lambda: os.path.ismount(nas) and _unmount(nas)), entry, "nas")
    assert _there(nas) == []
    with pytest.raises(VaultError, match="not mounted"):
        waiting(captured, Catalog(captured.vault), "nas")
    mounted("64m")
    assert replicate(captured, entry, "nas").outcome.passed
    assert Catalog(captured.reading("nas").vault).standing(entry).verdict is Verdict.PASSED


def test_what_was_written_before_is_found_when_it_is_back(captured, nas, tmp_path, mounted):
    """The same disk mounted again: what was half-written counts for nothing, and is in nobody's way."""
    mounted("64m")
    kept = tmp_path / "kept"
    kept.mkdir()
    subprocess.run(["mount", "--bind", str(nas), str(kept)], check=True, timeout=30)
    try:
        entry = Catalog(captured.vault).newest(ASSET)
        with pytest.raises(VaultError, match="not mounted"):
            replicate(_watched(captured, lambda: os.path.ismount(nas) and _unmount(nas)), entry, "nas")
        subprocess.run(["mount", "--bind", str(kept), str(nas)], check=True, timeout=30)
        away = captured.reading("nas")
        assert Catalog(away.vault).entries() == []
        assert entry.name not in [stored.name for stored in away.vault.list()]
        assert [entry] == [
            one for one in waiting(captured, Catalog(captured.vault), "nas") if one.asset == ASSET
        ]
        assert replicate(captured, entry, "nas").outcome.passed
        assert Catalog(away.vault).entries() == [entry]
        assert list(away.vault.unfinished()) == []
    finally:
        _unmount(kept)


def test_a_full_nas(captured, nas, mounted):
    """What does not fit is an error, leaves nothing, and is not recorded; what fits is copied."""
    mounted("640k")
    catalog = Catalog(captured.vault)
    entry, small = catalog.newest(ASSET), catalog.newest("config/archive")
    assert entry.size > 640_000
    with pytest.raises(SpaceError, match=f"full: {entry.name} was not written") as full:
        replicate(captured, entry, "nas")
    assert "BACKUP_VAULT" not in full.value.hint
    away = captured.reading("nas")
    assert Catalog(away.vault).entries() == []
    assert entry.name not in [stored.name for stored in away.vault.list()]
    assert list(away.vault.unfinished()) == []
    assert replicate(captured, small, "nas").outcome.passed
    assert Catalog(away.vault).entries() == [small]
