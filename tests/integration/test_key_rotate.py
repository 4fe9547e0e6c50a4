"""A new key on real artifacts: old sets come back with the old key, the newest with the new one alone."""

import json
import os
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.installation import KEY
from tests.fixtures.pages import RUNBOOKS, blocks

PROGRAM = Path(sys.executable).with_name("bookreader-backup")


@pytest.fixture
def home(embedded_bookreader, tmp_path):
    """A folder with a settings file that names a key, and a set of the day before in the vault."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "key").write_text(KEY + "\n")
    given = {**embedded_bookreader.environ, "BACKUP_KEY_FILE": str(folder / "key")}
    text = "".join(f"{name}='{value}'\n" for name, value in given.items())
    (folder / "bookreader-backup.env").write_text(text)
    there = embedded_bookreader
    there.clock.at = there.clock() - timedelta(days=1)
    there.back_up("postgresql", "redis", "config")
    return folder


@pytest.fixture
def run(home):
    """Run the program there, with nothing of ours in the environment."""

    def call(*arguments):
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def installation(home):
    """What the settings file describes now."""
    return assemble(load_settings({}, env_file=home / "bookreader-backup.env"))


def captured(made, asset):
    """Capture an asset into today's set and verify it; return the entry, and whether it is new."""
    component = made.component(asset)
    entry, new = capture(made, component, made.today())
    outcomes = verify(made, component, entry).checks
    assert {outcome.verdict for outcome in outcomes} == {Verdict.PASSED}, outcomes
    return entry, new


def test_the_page_of_the_key(home, run):
    """Its commands, in order, change the key; no secret is printed but by the one that is to."""
    secrets = [KEY]
    for mark, text in blocks(RUNBOOKS / "key.md"):
        for line in text.splitlines() if mark == "run" else ():
            words = shlex.split(line, comments=True)
            done = run(*words[1:])
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            if "rotate" in words:
                assert "key kit --show-key" in done.stdout
                assert "RECOVERY KIT" not in done.stdout, "it works after the next backup"
                (made,) = home.glob("key-*")
                secrets.append(made.read_text().strip())
            shown = [secret for secret in secrets if secret in done.stdout + done.stderr]
            assert shown == (secrets if "--show-key" in words else [])
    listed = json.loads(run("key", "list", "--json").stdout)
    now, before = listed["keys"]
    assert (now["current"], before["current"]) == (True, False)
    assert now["from"] > before["to"]
    assert len(now["entries"]) == 2, "roles and configuration"


def test_the_newest_needs_the_new_key_only(home, run, embedded_bookreader):
    """An unchanged configuration is not captured again, but for a new key; when the old key is lost, the
    newest set is whole, and `key list` says what is shut.
    """
    before = installation(home)
    held, new = captured(before, "config/archive")
    assert not new
    assert held.source["key"] == before.key_id
    assert run("key", "rotate").returncode == 0
    after = installation(home)
    entries = [
        captured(after, asset) for asset in ("config/archive", "postgresql/globals", "postgresql/dump")
    ]
    assert [new for _, new in entries] == [True, True, True]
    assert [entry.source.get("key") for entry, _ in entries] == [after.key_id, after.key_id, None]
    assert not captured(after, "config/archive")[1]
    assert run("drill", "config", "--from", held.set).returncode == 0
    (home / "key").unlink()
    done = run("drill", "config")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("drill", "config", "--from", held.set).returncode == 1
    refused = run("restore", "config", "--from", held.set, "--plan")
    assert refused.returncode == 2
    assert f"it is of the key {before.key_id}" in refused.stderr
    assert "`bookreader-backup key list`" in refused.stderr
    listed = run("key", "list")
    assert listed.returncode == 1
    assert f"{before.key_id}  NOWHERE" in listed.stdout
    assert f"names {home}/key, which cannot be read" in listed.stdout
    shut = "2 artifacts are of a key that is not here: bookreader-backup key list"
    assert shut in run("status").stdout.splitlines()[1:]
    looked = json.loads(run("doctor", "--json").stdout)
    (found,) = (one for one in looked["findings"] if one["subject"] == "key")
    assert found["seen"] == "2 artifacts in the vault are of a key that is not here"
    assert not looked["ok"]
    (embedded_bookreader.config / ".env").unlink()
    root = str(embedded_bookreader.config)
    restored = run("restore", "config", "--confirm", root)
    assert restored.returncode == 0, restored.stdout + restored.stderr


def test_an_old_set_is_restored(home, run, embedded_bookreader):
    """What the old key encrypted comes back equal, by the settings that a rotation leaves."""
    there = embedded_bookreader
    (old,) = Catalog(there.installation.vault).entries(asset="config/archive")
    good = (there.config / ".env").read_bytes()
    mine = home / "mine"
    mine.write_text("a passphrase of my own\n")
    mine.chmod(0o600)
    assert run("key", "rotate", "--new-key-file", str(mine)).returncode == 0
    assert installation(home).key.reveal() == "a passphrase of my own"
    (there.config / ".env").write_bytes(b"SECRET_KEY=changed\n")
    captured(installation(home), "config/archive")
    done = run("restore", "config", "--from", old.set, "--confirm", str(there.config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (there.config / ".env").read_bytes() == good


@pytest.mark.parametrize(
    ("settings", "environ", "said"),
    [
        ("", {"BACKUP_KEY": "x"}, "BACKUP_KEY is set in the environment"),
        ("", {}, "no key is named in .env"),
        ("BACKUP_PLAN=production\n", {}, "no key is named in bookreader-backup.env"),
    ],
)
def test_a_rotation_that_could_not_count_is_refused(tmp_path, settings, environ, said):
    """The settings file would not be what says the key; nothing is written."""
    if settings:
        (tmp_path / ".env").write_text(settings)
        (tmp_path / "bookreader-backup.env").write_text(settings)
    done = subprocess.run(
        [PROGRAM, "key", "rotate"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "BACKUP_VAULT": str(tmp_path / "v"),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.glob("key-*"))


@pytest.mark.parametrize("words", [["list"], ["kit"]])
def test_looking_makes_no_vault(tmp_path, words):
    """Without one it says so, and what to do."""
    done = subprocess.run(
        [PROGRAM, "key", *words],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "BACKUP_VAULT": str(tmp_path / "v")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no vault" in done.stderr
    assert "bookreader-backup init" in done.stderr
    assert list(tmp_path.iterdir()) == []
