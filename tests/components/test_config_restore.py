"""The configuration comes back in place or into a folder, compared; and goes away again as it came."""

import itertools
import os
import shutil
import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components.config import ConfigArchive
from bookreader_backup_assets.components.config_restore import ConfigRestoration
from bookreader_backup_assets.core.errors import DamagedError, KeyMissingError, RefusedError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.core.streams import quiet
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.trees import look

DAY, STAMP = "2025-10-24", "20251024_040506"
PATHS = ("docker-compose.yml", ".env", "nginx", "backend/conf.d/x.conf")
KEPT = f".bookreader-restore-{STAMP}"


@pytest.fixture
def root(tmp_path):
    """A configuration folder as BookReader has it."""
    folder = tmp_path / "bookreader"
    (folder / "nginx" / "certs").mkdir(parents=True)
    (folder / "backend" / "conf.d").mkdir(parents=True)
    (folder / "docker-compose.yml").write_text("services: {}\n")
    (folder / ".env").write_text("DB_PASSWORD=hunter2\n")
    (folder / ".env").chmod(0o600)
    (folder / "nginx" / "nginx.conf").write_text("events {}\n")
    (folder / "nginx" / "certs" / "live.pem").symlink_to("1.pem")
    (folder / "nginx" / "certs" / "1.pem").write_text("certificate")
    (folder / "nginx" / "certs").chmod(0o700)
    (folder / "backend" / "conf.d" / "x.conf").write_text("x")
    (folder / "README").write_text("not configured")
    return folder


def make(root, *, key="a passphrase", paths=PATHS):
    """Return an installation that captures the configuration only."""
    gpg = Gpg(Secret(key) if key else None)
    known = {
        "gzip": Codec("gzip", ".gz", gzip.encode, gzip.decode),
        "gpg": Codec("gpg", ".gpg", gpg.encode, gpg.decode),
    }
    return Installation(
        vault=LocalVault(root.parent / "vault"),
        codecs=Codecs(known),
        components={"config/archive": ConfigArchive(root, paths, gpg)},
        planned=("config/archive",),
        scratch=None,
        zone=ZoneInfo("UTC"),
        now=lambda: datetime.now(UTC),
    )


@pytest.fixture
def entry(root):
    """The entry of what `root` held, captured."""
    installation = make(root)
    return capture(installation, installation.component("config/archive"), DAY)[0]


def restoration(root, entry, *, key="a passphrase", **options):
    """Return the restoration of `entry`, with a key."""
    installation = make(root, key=key)
    archive = installation.component("config/archive")
    return ConfigRestoration(
        root, archive.paths, archive.gpg, StoredArtifact(installation, entry), Options(**options)
    )


def restored(made, state=None):
    """Carry a restoration out as `actions/restore.py` does, and return its state."""
    made.preview()
    state = state or made.begin(STAMP)
    made.beside(state, quiet)
    assert made.compare(state).passed, made.compare(state)
    made.swap(state)
    assert made.confirm(state).passed
    return state


def held(root):
    """What a folder holds, with times in seconds, but for what a restore keeps, and the times of folders."""
    return {
        path: value if value[4] is not None else value[:3]
        for path, value in look(os.fsencode(root), seconds=True).items()
        if not path.startswith(KEPT.encode())
    }


def spoil(root):
    """Lose, change and add files as a bad day does."""
    (root / ".env").unlink()
    (root / "docker-compose.yml").write_text("services: {wrong: {}}\n")
    (root / "nginx" / "nginx.conf").chmod(0o600)
    shutil.rmtree(root / "nginx" / "certs")
    shutil.rmtree(root / "backend")
    (root / "nginx" / "later.conf").write_text("made since")


def test_what_was_lost_and_changed_comes_back(root, entry):
    """Contents, modes, links and times are as captured; what the artifact does not hold is left alone."""
    before = held(root)
    spoil(root)
    restored(restoration(root, entry))
    after = held(root)
    assert after.pop(b"nginx/later.conf")[4][1] == b"made since"
    assert after == before


def test_a_file_that_is_the_same_is_not_replaced(root, entry):
    """Its inode stays: a container that has the file mounted goes on seeing it."""
    inode = (root / "nginx" / "nginx.conf").stat().st_ino
    (root / ".env").unlink()
    state = restored(restoration(root, entry))
    assert (root / "nginx" / "nginx.conf").stat().st_ino == inode
    assert os.stat(state["kept"]).st_mode & 0o777 == 0o700


def test_undo_puts_back_what_was_there(root, entry):
    """Changed files, absent files, modes and folders are as they were before the restore."""
    spoil(root)
    before = held(root)
    made = restoration(root, entry)
    state = restored(made)
    made.undo(state, None)
    assert held(root) == before
    made.undo(state, None)
    assert held(root) == before
    made.accept(state)
    assert not any(path.name.startswith(".bookreader") for path in root.iterdir())


def test_undo_keeps_what_was_edited_since(root, entry):
    """An edit made after the restore is not thrown away by its undo."""
    spoil(root)
    made = restoration(root, entry)
    state = restored(made)
    (root / ".env").write_text("edited since")
    (root / "docker-compose.yml").write_text("edited, too")
    made.undo(state, None)
    assert (root / KEPT / "undone" / ".env").read_text() == "edited since"
    assert (root / KEPT / "undone" / "docker-compose.yml").read_text() == "edited, too"


def test_accept_and_abandon_leave_nothing(root, entry):
    """The folder that is kept is removed, also twice."""
    before = held(root)
    made = restoration(root, entry)
    state = restored(made)
    for step in (made.accept, made.abandon):
        step(state)
        assert not (root / KEPT).exists()
    assert held(root) == before
    with pytest.raises(RefusedError, match="not in"):
        made.undo(state, None)


def test_into_a_folder_touches_nothing_live(root, entry, tmp_path):
    """The new folder is this user's only, holds exactly the files, and the live ones are not looked at."""
    spoil(root)
    before = held(root)
    made = restoration(root, entry, into=str(tmp_path / "new" / "config"))
    state = restored(made)
    found = tmp_path / "new" / "config"
    assert found.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(found)) == sorted([".env", "backend", "docker-compose.yml", "nginx"])
    assert (found / ".env").stat().st_mode & 0o777 == 0o600
    assert held(root) == before
    made.undo(state, None)
    assert not found.exists()


def test_a_folder_that_is_not_empty_is_refused(root, entry, tmp_path):
    """Nothing is mixed with what is there."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(RefusedError, match="not empty"):
        restoration(root, entry, into=str(tmp_path / "full")).preview()
    assert os.listdir(tmp_path / "full") == ["mine"]


def test_a_wrong_key_is_refused_and_says_which_is_wanted(root, entry):
    """Before anything is touched; the hint names the setting, and the day."""
    before = held(root)
    with pytest.raises(KeyMissingError) as refused:
        restoration(root, entry, key="another").preview()
    assert "BACKUP_KEY_FILE" in refused.value.hint
    assert f"passphrase of {entry.captured_at:%Y-%m-%d}" in refused.value.hint
    with pytest.raises(KeyMissingError, match="no encryption key"):
        restoration(root, entry, key="").preview()
    assert held(root) == before


def test_what_was_encrypted_to_another_key_names_it(root, entry, tmp_path):
    """The ids of the keys that would open it are in the hint, and what to do with the escrowed one."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    env = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        user = ["ops@example.org", "rsa2048", "encrypt", "never"]
        subprocess.run([*gpg, "--quick-gen-key", *user], env=env, check=True, timeout=60, capture_output=True)
        path = make(root).vault.local_path(entry.name)
        argv = [*gpg, "--trust-model", "always", "--yes", "-r", "ops@example.org", "-o", str(path), "-e"]
        subprocess.run(argv, env=env, check=True, timeout=60, input=b"tar", capture_output=True)
        listed = ["gpg", "--batch", "--with-colons", "--list-keys"]
        said = subprocess.run(listed, env=env, check=True, timeout=60, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=env, check=False, timeout=60)
    keys = [line.split(":")[4] for line in said.splitlines() if line[:3] in ("pub", "sub")]
    with pytest.raises(KeyMissingError) as refused:
        restoration(root, entry).preview()
    assert any(key in refused.value.hint for key in keys), refused.value.hint
    assert "gpg --import" in refused.value.hint


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_damaged_artifact_touches_nothing(root, entry, part):
    """A flipped byte is found before the swap, wherever it is."""
    spoil(root)
    before = look(os.fsencode(root))
    path = make(root).vault.local_path(entry.name)
    data = bytearray(path.read_bytes())
    data[int(len(data) * part)] ^= 0x20
    path.write_bytes(data)
    with pytest.raises((DamagedError, KeyMissingError)):
        restoration(root, entry).preview()
    with pytest.raises((DamagedError, KeyMissingError)):
        restoration(root, entry).beside(restoration(root, entry).begin(STAMP), quiet)
    assert look(os.fsencode(root)) == before


def test_another_artifact_under_its_name_is_refused(root, entry):
    """An archive that decrypts, and is not what the entry speaks of, is not restored."""
    (root / ".env").write_text("DB_PASSWORD=another\n")
    installation = make(root)
    other, _ = capture(installation, installation.component("config/archive"), "2025-10-25")
    vault = installation.vault
    shutil.copy(vault.local_path(other.name), vault.local_path(entry.name))
    with pytest.raises(DamagedError, match="does not hold what was captured"):
        restoration(root, entry).preview()


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (lambda new: (new / ".env").write_text("other"), "other content"),
        (lambda new: (new / ".env").chmod(0o644), "mode 644"),
        (lambda new: (new / "nginx" / "nginx.conf").unlink(), "is not there"),
        (lambda new: (new / "nginx" / "certs" / "live.pem").unlink(), "is not there"),
        (lambda new: (new / "nginx" / "certs").chmod(0o755), "mode 755"),
    ],
    ids=["content", "mode", "a file gone", "a link gone", "a folder's mode"],
)
def test_each_difference_fails_the_comparison(root, entry, spoiled, said):
    """What lies beside, or later in place, and is not as captured is named; its content never is."""
    made = restoration(root, entry)
    state = made.begin(STAMP)
    made.beside(state, quiet)
    assert made.compare(state).passed
    spoiled(root / KEPT / "new")
    outcome = made.compare(state)
    assert not outcome.passed
    assert said in outcome.message
    assert "hunter2" not in outcome.message
    spoiled(root)
    assert said in made.confirm(state).message


def test_a_link_or_a_folder_in_the_way_is_refused(root, entry, tmp_path):
    """Nothing is written through a link, and no folder is displaced for a file."""
    shutil.move(root / "nginx", tmp_path / "elsewhere")
    (root / "nginx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="no folder"):
        restoration(root, entry).preview()
    (root / "nginx").unlink()
    (root / ".env").unlink()
    (root / ".env").mkdir()
    with pytest.raises(RefusedError, match="folder") as refused:
        restoration(root, entry).preview()
    assert "mv" in refused.value.hint


def test_a_link_that_leads_out_is_made_only_if_asked(root, tmp_path):
    """By default it is left out, and said; with `--outside-links` it is there again."""
    (root / "nginx" / "certs" / "far.pem").symlink_to("/etc/ssl/far.pem")
    installation = make(root)
    entry, _ = capture(installation, installation.component("config/archive"), DAY)
    (root / "nginx" / "certs" / "far.pem").unlink()
    made = restoration(root, entry)
    assert any("far.pem" in note for note in made.preview().notes)
    made.accept(restored(made))
    assert not (root / "nginx" / "certs" / "far.pem").is_symlink()
    restored(restoration(root, entry, outside_links=True))
    assert os.readlink(root / "nginx" / "certs" / "far.pem") == "/etc/ssl/far.pem"


def test_a_path_from_elsewhere_is_left_alone_in_place(root, tmp_path):
    """An absolute path outside of the folder is named, and comes back only into another folder."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fullchain.pem").write_text("chain")
    installation = make(root, paths=(".env", str(tmp_path / "etc")))
    entry, _ = capture(installation, installation.component("config/archive"), DAY)
    made = restoration(root, entry)
    assert any(str(tmp_path / "etc") in note for note in made.preview().notes)
    (root / ".env").unlink()
    before = set(held(root))
    made.accept(restored(made))
    assert set(held(root)) == before | {b".env"}
    restored(restoration(root, entry, into=str(tmp_path / "new")))
    found = (tmp_path / "new").joinpath(*(tmp_path / "etc" / "fullchain.pem").parts[1:])
    assert found.read_text() == "chain"


def test_a_host_without_the_folder(root, entry):
    """The folder is made, and an undo leaves it empty of what came."""
    before = {path: value for path, value in held(root).items() if path != b"README"}
    shutil.rmtree(root)
    made = restoration(root, entry)
    assert not made.preview().present
    state = restored(made)
    after = held(root)
    assert {p: v for p, v in after.items() if v[3:]} == {p: v for p, v in before.items() if v[3:]}
    made.undo(state, None)
    made.accept(state)
    assert list(root.iterdir()) == []


def test_a_capture_leaves_out_what_a_restore_keeps(root, entry):
    """The displaced files are no part of the configuration, also where the whole folder is configured."""
    (root / ".env").write_text("changed")
    restored(restoration(root, entry))
    assert (root / KEPT / "old" / ".env").read_text() == "changed"
    installation = make(root, paths=(".",))
    whole, _ = capture(installation, installation.component("config/archive"), "2025-10-26")
    assert not any("bookreader-restore" in name for name in whole.fingerprint["files"])
    assert ".env" in whole.fingerprint["files"]


STEPS = ("beside", "swap", "confirm", "undo", "accept")
CHANGES = ("rename", "link", "mkdir", "rmdir", "unlink", "chmod")


class Killed(BaseException):
    """The program ends here."""


def killing(patch, at):
    """Have the `at`-th change of names on disk be the last, made or, for a positive number, not made."""
    count = 0

    def guarded(real):
        def call(*args, **options):
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            try:
                return real(*args, **options)
            finally:
                if count == -at:
                    raise Killed

        return call

    for name in CHANGES:
        patch.setattr(os, name, guarded(getattr(os, name)))


def live(root, target):
    """What is in the live place and in the new one."""
    seen = {}
    for place in filter(os.path.exists, (root, target)):
        seen |= {(place == root, path): value for path, value in held(place).items() if path != b"."}
    return seen


def carried_out(root, entry, target, monkeypatch, *, into, kill):
    """Make all steps, one of them killed at a change and made again.

    Return what was there after the swap, what at the end, and whether anything was killed.
    """
    options = {"into": str(target)} if into else {}
    state = restoration(root, entry, **options).begin(STAMP)
    after, killed = {}, False
    for name in STEPS:
        made = restoration(root, entry, **options)
        step = getattr(made, name)
        arguments = {"beside": [quiet], "undo": [None]}.get(name, [])
        if name == kill[0]:
            with monkeypatch.context() as patch:
                killing(patch, kill[1])
                try:
                    step(state, *arguments)
                except Killed:
                    killed = True
            step = getattr(restoration(root, entry, **options), name)
        outcome = step(state, *arguments)
        assert name != "confirm" or outcome.passed, outcome
        after[name] = live(root, target)
    return after["confirm"], after["accept"], killed


@pytest.mark.parametrize("into", [False, True], ids=["in place", "into"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_every_change_and_made_again(root, entry, tmp_path, monkeypatch, into, step):  # noqa: PLR0917 - as pytest hands them over
    """Wherever a step is ended, making it again ends as if it never was: restored, then as before."""
    kills = run_of_kills(root, entry, tmp_path, monkeypatch, into=into, step=step)
    assert kills >= (0 if step in {"confirm", "accept"} else 3)


def test_killed_where_no_links_can_be_made(root, entry, tmp_path, monkeypatch):
    """The same on a disk without hard links."""

    def refused(*_args, **_options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for step in ("swap", "undo"):
        assert run_of_kills(root, entry, tmp_path, monkeypatch, into=False, step=step) > 8


def run_of_kills(root, entry, tmp_path, monkeypatch, *, into, step):
    """Kill a step at each of its changes in turn, compare the ends, and return how many there were."""
    plain = b"".join(StoredArtifact(make(root), entry).plain())
    monkeypatch.setattr(StoredArtifact, "plain", lambda _: iter([plain]))  # a key is slow, as it should be
    spoiled, target = tmp_path / "spoiled", tmp_path / "new"
    if not spoiled.exists():
        spoil(root)
        shutil.copytree(root, spoiled, symlinks=True)

    def attempt(kill):
        for place in (root, target):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(spoiled, root, symlinks=True)
        before = live(root, target)
        swapped, ended, killed = carried_out(root, entry, target, monkeypatch, into=into, kill=kill)
        assert ended == before, kill
        return swapped, killed

    expected, _ = attempt((None, 0))
    for kills in itertools.count(1):
        for at in (kills, -kills):
            swapped, killed = attempt((step, at))
            assert swapped == expected, (step, at)
            if not killed:
                return kills - 1
    return None
