"""Keys: their ids, what they open, and a rotation that may be stopped anywhere."""

import hashlib
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions import init_writes, keys
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.recovery_kit import LINES, WIDTH, Kit, text
from bookreader_backup_assets.codecs import gpg, gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import KeyMissingError, RefusedError
from bookreader_backup_assets.core.secret import Secret, key_id
from bookreader_backup_assets.settings import load_settings, old_keys
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.missing import missing

OLD, NEW = Secret("the old passphrase"), Secret("the new passphrase")


@pytest.fixture(scope="module", autouse=True)
def _gpg_is_here():
    if shutil.which("gpg") is None:
        missing("gpg is not installed")


def installed(vault: Path, key: Secret | None) -> Installation:
    """An installation that captures nothing, over a real vault."""
    encryption = gpg.Gpg(key)
    codecs = {
        "gzip": Codec("gzip", gzip.SUFFIX, gzip.encode, gzip.decode),
        "gpg": Codec("gpg", gpg.SUFFIX, encryption.encode, encryption.decode),
    }
    return Installation(LocalVault(vault), Codecs(codecs), {}, (), None, ZoneInfo("UTC"), key=key)


def stored(installation: Installation, day: str, key: Secret, *, recorded: bool) -> str:
    """Put an artifact that `key` opens into the vault, with an entry that says so or not."""
    name = f"config/config_{day}_03-15-00.tar.gz.gpg"
    data = b"".join(gpg.Gpg(key).encode([b"configuration"]))
    source = {"key": key_id(key, installation.id)} if recorded else {}
    installation.vault.put(name, [data])
    entry = Entry(
        installation.id, "config", "archive", name, day, datetime.fromisoformat(day).replace(tzinfo=UTC),
        len(data), hashlib.sha256(data).hexdigest(), ("gzip", "gpg"), source=source,
    )  # fmt: skip
    installation.vault.put(entry.entry_name, [entry.to_json()])
    return name


@pytest.fixture
def place(tmp_path):
    """A settings file beside a key, in a folder, and the installation that they are of."""
    (tmp_path / "key").write_text(OLD.reveal() + "\n")
    (tmp_path / "key").chmod(0o600)
    settings = tmp_path / "bookreader-backup.env"
    settings.write_text(
        f"# mine\nBACKUP_PLAN=production\nBACKUP_KEY_FILE={tmp_path}/key\nBACKUP_VAULT={tmp_path}/v\n"
    )
    settings.chmod(0o640)
    return tmp_path, settings, installed(tmp_path / "v", OLD)


def held(settings: Path) -> tuple[keys.Held, ...]:
    """The passphrases that a settings file names."""
    found = load_settings({}, env_file=settings)
    line = re.search(r"^BACKUP_KEY_FILE=(.*)$", settings.read_text(), re.MULTILINE)
    return keys.as_held(found.key, Path(line[1]) if line else None, old_keys(found))


def texts(settings: Path) -> list[str]:
    """Those passphrases in clear."""
    return [one.key.reveal() for one in held(settings)]


def test_an_id_is_of_one_key_in_one_installation():
    """Eight digits, the same again, another for another key or installation, and slow to be made."""
    first = key_id(OLD, "one")
    assert re.fullmatch(r"[0-9a-f]{8}", first)
    assert key_id(Secret(OLD.reveal()), "one") == first
    assert len({first, key_id(NEW, "one"), key_id(OLD, "two")}) == 3
    assert (
        first
        == hashlib.scrypt(
            OLD.reveal().encode(), salt=b"one", n=32768, r=8, p=1, dklen=4, maxmem=1 << 26
        ).hex()
    )


def test_a_new_passphrase_is_random_and_can_be_typed():
    """Thirty characters that are told apart on paper, never twice the same."""
    made = {keys.new_passphrase().reveal() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"([2-9a-hj-km-np-z]{5}-){5}[2-9a-hj-km-np-z]{5}", one) for one in made)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"windows\r\n", b"\xff\xfe", b"nul\0"])
def test_what_is_no_passphrase_is_refused(tmp_path, content):
    """What gpg would only a part of, and what by hand would not open what it encrypted."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyMissingError, match="key"):
        keys.read_key(tmp_path / "key")
    with pytest.raises(KeyMissingError, match="cannot be read"):
        keys.read_key(tmp_path / "gone")


def test_every_key_and_what_it_opens(place):
    """By the entry, or by trying where an older entry does not say; what is nowhere is named, and so is what
    no entry and no key explains.
    """
    folder, _, installation = place
    lost, unknown = Secret("lost"), Secret("somebody else's")
    stored(installation, "2025-10-20", lost, recorded=True)
    stored(installation, "2025-10-21", NEW, recorded=False)
    stored(installation, "2025-10-22", NEW, recorded=True)
    stored(installation, "2025-10-23", OLD, recorded=False)
    stored(installation, "2025-10-24", unknown, recorded=False)
    known = (keys.Held(OLD, folder / "key"), keys.Held(NEW))
    found = {one.id: one for one in keys.who_opens(installation, known)}
    sets = {identity: [entry.set for entry in one.entries] for identity, one in found.items()}
    ids = {key: key_id(key, installation.id) for key in (OLD, NEW, lost)}
    assert sets == {
        ids[OLD]: ["2025-10-23"],
        ids[NEW]: ["2025-10-21", "2025-10-22"],
        ids[lost]: ["2025-10-20"],
        keys.UNKNOWN: ["2025-10-24"],
    }
    assert [identity for identity, one in found.items() if one.current] == [ids[OLD]]
    assert {identity for identity, one in found.items() if not one.good} == {ids[lost], keys.UNKNOWN}
    assert found[ids[OLD]].place == str(folder / "key")


def test_a_rotation(place):
    """The settings name the new key, and the old one among the earlier; files of keys stay as they were."""
    folder, settings, installation = place
    target = keys.rotate(installation, settings, held(settings), folder)
    made = target.read_text().strip()
    assert texts(settings) == [made, OLD.reveal()]
    assert target.name == f"key-{key_id(Secret(made), installation.id)}"
    assert (target.stat().st_mode & 0o777, settings.stat().st_mode & 0o777) == (0o600, 0o640)
    assert (folder / "key").read_text() == OLD.reveal() + "\n"
    lines = settings.read_text().splitlines()
    assert lines[:2] == ["# mine", "BACKUP_PLAN=production"]
    assert lines[-1] == f"BACKUP_VAULT={folder}/v"
    second = keys.rotate(installed(folder / "v", Secret(made)), settings, held(settings), folder)
    assert texts(settings) == [second.read_text().strip(), made, OLD.reveal()]


def test_back_to_an_earlier_key(place):
    """It is taken as it is, is no longer among the earlier ones, and the key in use is refused."""
    folder, settings, installation = place
    target = keys.rotate(installation, settings, held(settings), folder)
    made = keys.read_key(target)
    keys.rotate(installed(folder / "v", made), settings, held(settings), folder, new_file=folder / "key")
    assert texts(settings) == [OLD.reveal(), made.reveal()]
    before = settings.read_text()
    with pytest.raises(RefusedError, match="in use"):
        keys.rotate(installation, settings, held(settings), folder, new_file=folder / "key")
    assert settings.read_text() == before


def test_a_passphrase_of_ones_own(place, tmp_path):
    """It is copied beside the others: the medium that it came on can go. One that others read or guess is
    refused, and nothing is written.
    """
    folder, settings, installation = place
    mine = tmp_path / "medium" / "mine"
    mine.parent.mkdir()
    before = settings.read_text(), sorted(folder.iterdir())
    refusals = (("eleven long", 0o600, "fewer than 12"), (NEW.reveal(), 0o640, "read by others"))
    for words, mode, said in refusals:
        mine.write_text(words + "\n")
        mine.chmod(mode)
        with pytest.raises(RefusedError, match=said):
            keys.rotate(installation, settings, held(settings), folder, new_file=mine)
        assert (settings.read_text(), sorted(folder.iterdir())) == before
    mine.chmod(0o600)
    target = keys.rotate(installation, settings, held(settings), folder, new_file=mine)
    mine.unlink()
    assert target.parent == folder
    assert target.stat().st_mode & 0o777 == 0o600
    assert texts(settings) == [NEW.reveal(), OLD.reveal()]


def test_a_passphrase_in_the_settings_moves_to_a_file(place):
    """`BACKUP_KEY` is no file that could be named as an earlier key: it gets one."""
    folder, settings, installation = place
    settings.write_text(f"BACKUP_KEY='{OLD.reveal()}'\nBACKUP_VAULT={folder}/v\n")
    (folder / "key").unlink()
    keys.rotate(installation, settings, held(settings), folder / "s")
    assert texts(settings)[1:] == [OLD.reveal()]
    assert "BACKUP_KEY=" not in settings.read_text()
    assert (folder / "s" / f"key-{key_id(OLD, installation.id)}").read_text() == OLD.reveal() + "\n"


def test_a_lost_earlier_key_is_not_forgotten(place):
    """Its file may come back, and then it is read again."""
    folder, settings, installation = place
    with settings.open("a") as file:
        file.write(f"BACKUP_OLD_KEY_FILES={folder}/lost\n")
    lost = [path for path, key in old_keys(load_settings({}, env_file=settings)).items() if key is None]
    keys.rotate(installation, settings, held(settings), folder, lost=lost)
    (folder / "lost").write_text("found again\n")
    assert texts(settings)[1:] == [OLD.reveal(), "found again"]


@pytest.mark.parametrize("given", [False, True])
def test_killed_at_any_moment(tmp_path, monkeypatch, given):
    """Before every write, rename and removal: the settings name the old key, or the new one and the old; what
    either encrypted can be read; and the same command, given again, ends it.
    """
    monkeypatch.setattr(keys, "_try", lambda _key: None)  # it changes nothing, and takes half a second
    ended = 0
    for step in range(1, 60):
        folder = tmp_path / str(step)
        folder.mkdir()
        (folder / ".git").mkdir()
        (folder / "key").write_text(OLD.reveal() + "\n")
        (folder / "mine").write_text(NEW.reveal() + "\n")
        (folder / "mine").chmod(0o600)
        settings = folder / "bookreader-backup.env"
        settings.write_text(f"BACKUP_KEY_FILE={folder}/key\n")
        installation = installed(tmp_path / "v", OLD)
        _ = installation.id
        chosen = folder / "mine" if given else None
        status = killed_at(step, lambda at=folder, to=settings, of=installation, new=chosen: keys.rotate(
            of, to, held(to), at, new_file=new
        ))  # fmt: skip
        found = texts(settings)
        assert OLD.reveal() in found[:2], step
        assert len(found) in (1, 2), step
        ended = ended or (step if len(found) == 2 else 0)
        if status == 0:
            break
        if len(found) == 1:
            keys.rotate(installation, settings, held(settings), folder, new_file=chosen)
            assert texts(settings)[1:] == [OLD.reveal()], step
            assert not list(folder.glob(".*partial"))
    assert status == 0
    assert 3 < ended <= step


def killed_at(step, work):
    """Do something in a child that is gone, as after SIGKILL, before its n-th change of a file system."""
    child = os.fork()
    if child == 0:
        left = [step]

        def counted(real):
            def change(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return real(*arguments, **options)

            return change

        for name in ("fsync", "unlink", "rename", "mkdir", "fchmod"):
            setattr(os, name, counted(getattr(os, name)))
        opened = os.open
        os.open = lambda path, flags, *rest, **more: (
            counted(opened)(path, flags, *rest, **more)
            if flags & os.O_CREAT
            else opened(path, flags, *rest, **more)
        )
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_rotations_at_once_are_one(place):
    """The second is refused, and says to wait."""
    folder, _settings, _installation = place
    with (
        init_writes.alone(folder),
        pytest.raises(RefusedError, match="at work"),
        init_writes.alone(folder),
    ):
        pytest.fail("two are at work")


@pytest.mark.parametrize("shown", [(), (("1a2b3c4d", NEW), ("5e6f7a8b", OLD))])
def test_the_kit_is_one_page(shown):
    """It fits a page, and has the passphrases, each with its id, only if it is to."""
    page = text(
        Kit(
            host="host", installation="0b9c3f1e-7d52-4d0f-a4a6-2c3b5e8f9a10",
            vault=Path("/var/backups/bookreader"), settings="/etc/bookreader-backup/bookreader-backup.env",
            plan="production, timezone Europe/Moscow",
            at=datetime(2025, 10, 24, tzinfo=UTC), key_id="1a2b3c4d", key_file="/etc/bookreader-backup/key",
            old_keys=("5e6f7a8b in /etc/bookreader-backup/key-old",), database="bookreader",
            restore=("docker", "exec", "-i", "bookreader_postgres"), config="/opt/bookreader-ai",
            storage="/app/storage",
            offsite=("offsite: s3://bucket/bookreader-backups/0b9c3f1e-7d52-4d0f-a4a6-2c3b5e8f9a10/",),
            keys=shown,
        )
    )  # fmt: skip
    lines = page.splitlines()
    assert len(lines) <= LINES
    assert max(len(line) for line in lines if not line.startswith("    ")) <= WIDTH
    for identity, key in (("1a2b3c4d", NEW), ("5e6f7a8b", OLD)):
        assert (f"{identity}  {key.reveal()}" in page) is bool(shown)
    for said in (
        "1a2b3c4d",
        "/var/backups/bookreader",
        "keep the key elsewhere",
        "5e6f7a8b",
        "printf %s",
        "Bad session key",
        "s3://bucket/bookreader-backups/0b9c3f1e",
    ):
        assert said in page
    assert [line[0] for line in lines if re.match(r"\d\. ", line)] == list("12345")
