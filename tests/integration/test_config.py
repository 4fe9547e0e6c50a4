"""Configuration: exactly the configured paths, encrypted, and a new artifact only for new content."""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components.config import ConfigArchive
from bookreader_backup_assets.core.errors import KeyMissingError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.trees import as_nobody

DAY = "2025-10-24"
PATHS = ("docker-compose.yml", ".env", "nginx")
SECRET = "DB_PASSWORD=hunter2"


@pytest.fixture
def root(tmp_path):
    """A configuration folder as BookReader has it."""
    folder = tmp_path / "bookreader"
    (folder / "nginx" / "certs").mkdir(parents=True)
    (folder / "docker-compose.yml").write_text("services: {}\n")
    (folder / ".env").write_text(SECRET + "\n")
    (folder / "nginx" / "nginx.conf").write_text("events {}\n")
    (folder / "nginx" / "certs" / "live.pem").symlink_to("1.pem")
    (folder / "nginx" / "certs" / "1.pem").write_text("certificate")
    (folder / "elsewhere").write_text("not configured")
    return folder


def make(tmp_path, root, *, key="a passphrase", paths=PATHS):
    """Return an installation that captures the configuration only."""
    gpg = Gpg(Secret(key) if key else None)
    component = ConfigArchive(root, paths, gpg)
    known = {
        "gzip": Codec("gzip", ".gz", gzip.encode, gzip.decode),
        "gpg": Codec("gpg", ".gpg", gpg.encode, gpg.decode),
    }
    return Installation(
        vault=LocalVault(tmp_path / "vault"),
        codecs=Codecs(known),
        components={"config/archive": component},
        planned=("config/archive",),
        scratch=None,
        zone=ZoneInfo("UTC"),
        now=lambda: datetime.now(UTC),
    )


def captured(installation):
    """Capture and verify; return the entry, whether it is new, and what the checks found."""
    component = installation.component("config/archive")
    entry, new = capture(installation, component, DAY)
    outcomes = {o.check: o for o in verify(installation, component, entry).checks}
    return entry, new, outcomes


def test_what_was_configured_comes_back_with_gpg_and_tar(tmp_path, root):
    """`gpg -d | tar -x` gives the same files, modes and links, and nothing else."""
    installation = make(tmp_path, root)
    entry, _, outcomes = captured(installation)
    assert {name: o.passed for name, o in outcomes.items()} == dict.fromkeys(entry.checks, True)
    key = tmp_path / "key"
    key.write_text("a passphrase")
    gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--no-autostart", "--homedir", str(tmp_path)]
    plain = subprocess.run(
        [*gpg, "--passphrase-file", str(key), "-d", str(installation.vault.local_path(entry.name))],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    target = tmp_path / "restored"
    target.mkdir()
    subprocess.run(["tar", "-xzpf", "-", "-C", str(target)], input=plain, check=True, timeout=60)
    for path in PATHS:
        subprocess.run(["diff", "-r", str(root / path), str(target / path)], check=True, timeout=60)
    assert (target / "nginx" / "certs" / "live.pem").readlink() == (root / "nginx/certs/live.pem").readlink()
    assert sorted(os.listdir(target)) == sorted(PATHS)


def test_nothing_is_ever_in_clear(tmp_path, root):
    """The secret is in no file of the vault, and in no entry."""
    installation = make(tmp_path, root)
    captured(installation)
    for path in installation.vault.root.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_without_a_key_nothing_is_stored(tmp_path, root):
    """A missing key refuses the capture; a clear file is never the fallback."""
    installation = make(tmp_path, root, key="")
    with pytest.raises(KeyMissingError) as refused:
        captured(installation)
    assert "BACKUP_KEY" in refused.value.hint
    assert list(installation.vault.list("config/")) == []


def test_without_gpg_nothing_is_stored(tmp_path, root, monkeypatch):
    """A missing gpg refuses the capture."""
    monkeypatch.setenv("PATH", str(tmp_path))
    installation = make(tmp_path, root)
    with pytest.raises(KeyMissingError) as refused:
        captured(installation)
    assert "gnupg" in refused.value.hint
    assert list(installation.vault.list("config/")) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / ".env").write_text(SECRET + "3\n"),
        lambda root: (root / ".env").chmod(0o640),
        lambda root: (root / "nginx" / "new.conf").touch(),
        lambda root: (root / "nginx" / "nginx.conf").rename(root / "nginx" / "other.conf"),
        lambda root: shutil.rmtree(root / "nginx" / "certs"),
    ],
    ids=["content", "mode", "a new empty file", "a name", "a folder gone"],
)
def test_only_a_change_is_captured_again(tmp_path, root, change):
    """The same content is referred to; any change of content, name or mode is a new artifact."""
    installation = make(tmp_path, root)
    first, new, _ = captured(installation)
    assert new
    os.utime(root / ".env")
    again, new, _ = captured(installation)
    assert (again, new) == (first, False)
    change(root)
    second, new, outcomes = captured(installation)
    assert new
    assert second.name != first.name
    assert all(o.passed for o in outcomes.values())


def test_an_artifact_that_rotted_is_captured_again(tmp_path, root):
    """Unchanged content is no reason to rely on an artifact whose checks failed."""
    installation = make(tmp_path, root)
    first, _, _ = captured(installation)
    path = installation.vault.local_path(first.name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verify(installation, installation.component("config/archive"), first)
    _, new, outcomes = captured(installation)
    assert new
    assert all(o.passed for o in outcomes.values())


def test_a_configured_path_that_is_missing_turns_its_check_red(tmp_path, root):
    """The rest is kept, the path is named, and the artifact does not count as verified."""
    (root / ".env").unlink()
    installation = make(tmp_path, root)
    entry, _, outcomes = captured(installation)
    assert [problem.where for problem in entry.problems] == [".env"]
    assert not outcomes["paths_present"].passed
    assert ".env" in outcomes["paths_present"].message
    assert outcomes["decrypts"].passed
    assert str(Catalog(installation.vault).standing(entry)) == "failed"


def test_an_empty_folder_that_is_configured_is_present(tmp_path, root):
    """A folder counts by itself, not by its files; `./` and slashes at the end change nothing."""
    (root / "empty").mkdir()
    *_, outcomes = captured(make(tmp_path, root, paths=("./empty/", "nginx/")))
    assert outcomes["paths_present"].passed


def test_a_flipped_byte_is_found(tmp_path, root):
    """Wherever it is flipped, sha256 is red, and decryption is never called a success."""
    installation = make(tmp_path, root)
    entry, _, _ = captured(installation)
    path = installation.vault.local_path(entry.name)
    good = path.read_bytes()
    for position in range(0, len(good), max(1, len(good) // 12)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        proof = verify(installation, installation.component("config/archive"), entry)
        assert not any(o.passed for o in proof.checks if o.check in {"sha256", "decrypts"}), position


def test_another_key_makes_checks_inconclusive_never_passed(tmp_path, root):
    """Who has not the key cannot tell; the bytes are still proven."""
    entry, _, _ = captured(make(tmp_path, root))
    other = make(tmp_path, root, key="another passphrase")
    outcomes = {
        o.check: str(o.verdict) for o in verify(other, other.component("config/archive"), entry).checks
    }
    assert outcomes == {
        "decrypts": "inconclusive",
        "paths_present": "inconclusive",
        "not_empty": "passed",
        "sha256": "passed",
    }


def test_an_absent_folder_says_which_setting(tmp_path, root):
    """A wrong BACKUP_CONFIG_ROOT is named."""
    with pytest.raises(SourceAbsentError) as absent:
        captured(make(tmp_path, root / "no such"))
    assert "BACKUP_CONFIG_ROOT" in absent.value.hint


def test_probe_names_what_is_not_there(tmp_path, root):
    """`doctor` sees a missing path before the night does."""
    component = make(tmp_path, root).component("config/archive")
    assert component.probe() == {}
    with pytest.raises(SourceAbsentError, match=r"missing\.conf"):
        dataclasses.replace(component, paths=(*PATHS, "missing.conf")).probe()


def test_large_and_odd_names(tmp_path, root):
    """Long paths, names that are no UTF-8, sockets: kept, or named and left out."""
    deep = root / "nginx" / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(os.urandom(3_000_000))
    odd = os.path.join(os.fsencode(root / "nginx"), b"caf\xe9\n'\"")
    with open(odd, "wb") as file:
        file.write(b"x")
    os.mkfifo(root / "nginx" / "pipe")
    entry, _, outcomes = captured(make(tmp_path, root))
    assert all(o.passed for o in outcomes.values())
    assert [problem.where for problem in entry.problems] == ["nginx/pipe"]


def test_what_may_not_be_read_is_refused_not_left_out(root):
    """A folder of certificates that this user may not list is an error: an archive without it is none."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        top = Path(folder) / "app"
        shutil.copytree(root, top, symlinks=True)
        component = ConfigArchive(top, PATHS, Gpg(Secret("a passphrase")))
        for closed, mode in ((top / "nginx" / "certs", 0o755), (Path(folder), 0)):
            os.chmod(folder, mode)
            os.chmod(closed, 0)
            with as_nobody(), pytest.raises(SourceError, match=r"(certs|app) cannot be read: Permission"):
                component.members()
            os.chmod(closed, 0o700)
