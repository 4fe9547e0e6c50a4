"""`.env` is lost, or the whole configuration: it comes back decrypted, compared, and goes again by undo."""

import os
import shutil

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.errors import BackupError, KeyMissingError
from bookreader_backup_assets.core.restore_plan import Options
from tests.fixtures.living import with_settings
from tests.fixtures.trees import look


def captured(bookreader):
    """Capture and verify its configuration."""
    component = bookreader.installation.component("config/archive")
    entry, _ = capture(bookreader.installation, component, bookreader.installation.today())
    verify(bookreader.installation, component, entry)
    return bookreader


@pytest.fixture
def kept(embedded_bookreader):
    """A BookReader whose configuration was captured: it lies on this machine, containers or not."""
    return captured(embedded_bookreader)


def files(kept):
    """Every path of the configuration but the folder itself, whose time tells nothing."""
    found = look(os.fsencode(kept.config))
    return {path: what for path, what in found.items() if path not in (b".", b"") and not is_ours(path)}


def is_ours(path):
    """Whether it is what a restore keeps for its undo."""
    return path.startswith(b".bookreader-restore-")


def test_a_lost_env_comes_back(bookreader):
    """With its content and mode; what was not lost is not written again."""
    kept = captured(bookreader)
    before = {path: what[:1] for path, what in files(kept).items()}
    content = (kept.config / ".env").read_bytes()
    untouched = (kept.config / "nginx" / "nginx.conf").stat()
    (kept.config / ".env").unlink()
    report = restore(kept.installation, "config", confirm=str(kept.config))
    assert report.good, report
    assert (kept.config / ".env").read_bytes() == content
    assert {path: what[:1] for path, what in files(kept).items()} == before
    assert (kept.config / "nginx" / "nginx.conf").stat().st_ino == untouched.st_ino
    undo(kept.installation, report.id, confirm=str(kept.config))
    assert not (kept.config / ".env").exists()


def test_all_of_it_comes_back(kept):
    """The folder itself was deleted."""
    texts = {path.relative_to(kept.config): path.read_bytes() for path in kept.config.rglob("*.*")}
    shutil.rmtree(kept.config)
    report = restore(kept.installation, "config", confirm=str(kept.config))
    assert report.good, report
    assert {name: (kept.config / name).read_bytes() for name in texts} == texts


def test_into_a_folder_to_look_at(kept, tmp_path):
    """Nothing live is replaced."""
    (kept.config / ".env").write_text("SECRET_KEY=another\n")
    report = restore(kept.installation, "config", options=Options(into=str(tmp_path / "look")), confirm="")
    assert report.good, report
    assert "SECRET_KEY_OF_BOOKREADER" in (tmp_path / "look" / ".env").read_text()
    assert (kept.config / ".env").read_text() == "SECRET_KEY=another\n"


@pytest.mark.parametrize("key", ["a wrong passphrase", ""])
def test_the_wrong_key_touches_nothing(kept, key):
    """Wrong or missing: refused before anything is touched, with which key is wanted."""
    (kept.config / ".env").unlink()
    wrong = with_settings(kept, key=key, key_file="")
    with pytest.raises(BackupError) as refused:
        restore(wrong.installation, "config", confirm=str(kept.config))
    assert isinstance(refused.value, KeyMissingError)
    assert "BACKUP_KEY" in refused.value.hint
    assert not (kept.config / ".env").exists()
    assert [path for path in os.listdir(os.fsencode(kept.config)) if is_ours(path)] == []


def test_its_plan_names_files_and_no_secret(kept):
    """Which files differ is said, and not what is in them."""
    (kept.config / ".env").write_text("SECRET_KEY=another\n")
    planned = plan(kept.installation, "config")
    assert ".env" in planned.preview.replaces
    assert "SECRET_KEY" not in str(planned)
