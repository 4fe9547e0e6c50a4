"""The vault on a git remote: what several push, what the remote refuses, what comes back from it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import NameTakenError, VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults import git as git_vault
from bookreader_backup_assets.vaults.git import BRANCHES, LARGEST, GitPlace
from bookreader_backup_assets.vaults.git_remote import Remote
from tests.fixtures.code import commit, git
from tests.fixtures.git import QUOTED, TOKEN

BRANCH = BRANCHES.removeprefix("refs/heads/") + "one"
ASSET = "config/archive"


@pytest.fixture
def vault(git_place):
    """A vault on an empty remote."""
    return git_place.vault("one")


def _replicate_all(installation):
    entries = waiting(installation, Catalog(installation.vault), "git")
    return [replicate(installation, entry, "git") for entry in entries]


@pytest.fixture
def own_config(environ, tmp_path):
    """The configuration, where a test may change it; ask for it before `installation`."""
    folder = shutil.copytree(environ["BACKUP_CONFIG_ROOT"], tmp_path / "app")
    environ["BACKUP_CONFIG_ROOT"] = str(folder)
    return folder


# several at once


def test_many_push_at_once_and_nothing_is_lost(git_place, git_remote):
    """Six writers of one branch, with a clone each: all files are there, in one line of history."""
    failed = []

    def write(number):
        try:
            git_place.vault("one").put(f"config/{number}", [b"x" * number])
        except VaultError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    assert [(one.name, one.size) for one in git_place.vault("one").list()] == [
        (f"config/{number}", number) for number in range(6)
    ]
    assert git(git_remote, "rev-list", "--count", BRANCH) == "6"
    assert git(git_remote, "rev-list", "--count", "--merges", BRANCH) == "0"


def test_of_two_hosts_one_has_the_name(git_place, vault):
    """Whoever pushes second is told so, although the name was free when it began; the first one's stays."""

    def slowly():
        yield b"the "
        git_place.vault("one").put("config/a", [b"the first"])
        yield b"second"

    with pytest.raises(NameTakenError):
        vault.put("config/a", slowly())
    assert b"".join(vault.open("config/a")) == b"the first"


def test_what_others_pushed_meanwhile_stays(git_place, vault, git_remote):
    """A push on top of another's neither undoes it nor merges: it is made again."""

    def slowly():
        git_place.vault("one").put("config/b", [b"between"])
        yield b"x"

    vault.put("config/a", slowly())
    assert [one.name for one in vault.list()] == ["config/a", "config/b"]
    git(git_remote, "fsck", "--full", "--strict")


KILLED = """
import sys
from pathlib import Path
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.git import GitPlace

vault = GitPlace(Secret(sys.argv[1]), Path(sys.argv[2])).vault("one")
print("begun", flush=True)
for number in range(100):
    vault.put(f"{sys.argv[3]}/{number}", [b"x" * 1000] * 5)
"""


def test_killed_at_any_moment_there_is_all_or_nothing(git_place, git_remote, tmp_path):
    """Whatever was under way, what is listed is whole, the remote is sound, and the next one can push."""
    for turn, seconds in enumerate((0.05, 0.11, 0.17, 0.23, 0.31, 0.4)):
        words = [sys.executable, "-c", KILLED, git_remote.as_uri(), str(git_place.scratch), str(turn)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"begun\n"
            time.sleep(seconds)
            writer.kill()
    vault = git_place.vault("one")
    for number in range(3):
        vault.put(f"after/{number}", [b"y" * 5000])
    assert {one.size for one in vault.list()} == {5000}
    git(git_remote, "fsck", "--full", "--strict")


def test_other_branches_are_nobodys_business(git_place, vault, git_remote, tmp_path):
    """A remote with code in it keeps it; installations have a branch each, and see no other."""
    code = tmp_path / "code"
    code.mkdir()
    git(code, "init", "--quiet", "--initial-branch=main")
    head = commit(code, "code", {"README": "code\n"})
    git(code, "push", "--quiet", git_remote.as_uri(), "main")
    vault.put("installation.json", [b"{}"])
    git_place.vault("two").put("installation.json", [b"{}"])
    git_place.vault("two").put("b", [b"y"])
    git(code, "push", "--quiet", git_remote.as_uri(), "main:bookreader-backups/something-else")
    assert git(git_remote, "rev-parse", "main") == head
    assert git_place.installations() == ["one", "two"]
    assert [one.name for one in git_place.vault("two").list()] == ["b", "installation.json"]


def test_what_was_deleted_is_out_of_the_tree_and_not_out_of_history(git_place, vault, git_remote):
    """No history is rewritten: the last commit removes the file, and the one before still has it."""
    vault.put("config/a", [b"x"])
    vault.put("config/b", [b"y"])
    vault.delete("config/a")
    assert [one.name for one in git_place.vault("one").list()] == ["config/b"]
    assert git(git_remote, "show", f"{BRANCH}~1:config/a") == "x"
    assert git(git_remote, "log", "-1", "--format=%an: %s", BRANCH) == "bookreader-backup: Remove config/a"


# what the remote does not do


def test_a_hook_that_refuses(vault, git_remote):
    """What the remote does not take is an error with the hook's own words, and nothing is there."""
    hook = git_remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(VaultError, match="not on a Friday") as refused:
        vault.put("config/a", [b"x"])
    assert "hook or a rule" in refused.value.hint
    assert list(vault.list()) == []
    hook.unlink()
    assert vault.put("config/a", [b"x"]).size == 1


def test_a_remote_that_is_none(tmp_path):
    """An absent repository, a closed port and a transport that runs programs: an error each, with a hint."""
    for url, hint in (
        ((tmp_path / "absent").as_uri(), "empty repository"),
        ("http://127.0.0.1:9/code.git", "reachable"),
        (f"ext::touch {tmp_path}/run", "reachable"),
    ):
        place = GitPlace(Secret(url), tmp_path)
        vault = place.vault("one")
        for ask in (lambda v=vault: v.put("a", [b"x"]), vault.free, place.installations):
            with pytest.raises(VaultError) as failed:
                ask()
            assert hint in failed.value.hint, failed.value
    assert not (tmp_path / "run").exists()


def test_without_git(vault, monkeypatch, tmp_path):
    """A machine without git says so, and nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VaultError, match="git is not on this machine"):
        list(vault.list())


def test_large_files_are_refused(vault, monkeypatch):
    """Of a known size before they are read, else as soon as it is seen; nothing is pushed of them."""
    with pytest.raises(VaultError, match="too large"):
        vault.put("large", (pytest.fail("read") for _ in range(1)), size=LARGEST + 1)
    monkeypatch.setattr(git_vault, "LARGEST", 1000)
    with pytest.raises(VaultError, match="too large") as refused:
        vault.put("large", (bytes(100) for _ in range(11)))
    assert "[config]" in refused.value.hint
    assert list(vault.list()) == []


def test_reading_back_reads_the_remote(vault, git_remote):
    """What was put and is damaged on the remote's disk afterwards is no good any more."""
    vault.put("config/a", [os.urandom(2000)])
    vault.digest("config/a")
    for file in (git_remote / "objects").glob("??/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.chmod(0o600)
        file.write_bytes(content)
    with pytest.raises(VaultError):
        vault.digest("config/a")


# the token


def test_a_token_is_shown_nowhere(http_remote, tmp_path, caplog):
    """It reaches the remote, and is in no command line, no file of ours, no address and no repr."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    place = GitPlace(Secret(http_remote.url), scratch)
    vault = place.vault("one")
    vault.put("config/a", [b"x"])
    assert b"".join(vault.open("config/a")) == b"x"
    assert (http_remote.refused, http_remote.authorized > 3) == (0, True)
    assert any("remote-http" in command for command in http_remote.seen)
    files = [file.read_bytes() for file in scratch.rglob("*") if file.is_file()]
    assert files
    shown = [*http_remote.seen, caplog.text, repr(place), repr(vault), vault.remote.address]
    for secret in (TOKEN, QUOTED):
        assert not [text for text in shown if secret in text]
        assert not [content for content in files if secret.encode() in content]


def test_a_wrong_token(http_remote, tmp_path):
    """Is refused in words, with what lets this host in, and without the token."""
    place = GitPlace(Secret(http_remote.url.replace(QUOTED, "wrong-token")), tmp_path)
    with pytest.raises(VaultError, match="uthentic") as refused:
        place.installations()
    assert "deploy key" in refused.value.hint
    assert "wrong-token" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://TOKEN@example.org/o/r.git", "https://example.org/o/r.git"),
        ("https://user:TOKEN@example.org:8443/o/r.git", "https://example.org:8443/o/r.git"),
        ("ssh://git:TOKEN@example.org:22/o/r.git", "ssh://git@example.org:22/o/r.git"),
        ("git@example.org:o/r.git", "git@example.org:o/r.git"),
        ("/srv/git/a@b.git", "/srv/git/a@b.git"),
        ("file:///srv/git/a@b.git", "file:///srv/git/a@b.git"),
    ],
)
def test_addresses(url, address):
    """What is secret in an address is cut out of it, and what tells the way is not."""
    assert Remote(Secret(url)).address == address


# the configuration


def test_the_configuration_is_replicated(own_config, with_git, installation, clock):
    """Twelve versions: those that the plan keeps are there, each proven, and nothing else of the set."""
    clock.set("2026-06-10T03:15:00+00:00")
    component = installation.component(ASSET)
    for number in range(12):
        (own_config / "nginx" / "nginx.conf").write_text(f"events {{}}  # {number}\n")
        back_up_today(installation, [ASSET], lambda error: pytest.fail(error.message))
        clock.forward(days=1)
    assert component.unchanged_since(Catalog(installation.vault).newest(ASSET))
    back_up_today(installation, ["redis/rdb"], lambda error: pytest.fail(error.message))
    wanted = waiting(installation, Catalog(installation.vault), "git")
    assert {entry.component for entry in wanted} == {"config", "backup_set"}
    for entry in [*(entry for entry in wanted if entry.asset == ASSET), wanted[-1]]:
        replicate(installation, entry, "git")
    there = Catalog(installation.reading("git").vault)
    newest = Catalog(installation.vault).entries(asset=ASSET)[-10:]
    assert there.entries(asset=ASSET) == newest
    assert there.entries(asset="backup_set/manifest") == [wanted[-1]]
    assert {there.standing(entry).verdict for entry in newest} == {Verdict.PASSED}
    later = waiting(installation, Catalog(installation.vault), "git")
    assert {entry.component for entry in later} == {"backup_set"}
    assert compare(installation, newest[0], "git").passed


def test_from_another_machine(own_config, with_git, installation, git_remote, tmp_path):
    """With the remote and the key alone the configuration comes back, whoever's it was."""
    back_up_today(installation, [ASSET], lambda error: pytest.fail(error.message))
    _replicate_all(installation)
    shutil.rmtree(installation.vault.root)
    target = tmp_path / "restored"
    environ = {
        "PATH": os.environ["PATH"],
        "BACKUP_GIT_REMOTE": git_remote.as_uri(),
        "BACKUP_KEY_FILE": with_git["BACKUP_KEY_FILE"],
        "BACKUP_VAULT": str(tmp_path / "elsewhere"),
    }
    words = ["restore", "config", "--vault", "git", "--into", str(target), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bookreader_backup_assets", *words],
        env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    restored = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    captured = {str(p.relative_to(own_config)): p.read_bytes() for p in own_config.rglob("*") if p.is_file()}
    assert captured.items() <= restored.items()
