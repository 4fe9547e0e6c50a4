"""`.gpg`: any gpg opens it, nothing is ever in clear, and a wrong key is told from damage."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.core.errors import CommandError, DamagedError, KeyMissingError
from bookreader_backup_assets.core.secret import Secret
from tests.fixtures.missing import missing

KEY = "correct h0rse \"battery\" stäple {0} 'x'"
PLAIN = random.Random(5).randbytes(300_000)


@pytest.fixture(scope="module", autouse=True)
def _gpg_is_here():
    if shutil.which("gpg") is None:
        missing("gpg is not installed")


@pytest.fixture(scope="module")
def codec():
    """A codec with a key that anything might trip over."""
    return Gpg(Secret(KEY))


@pytest.fixture(scope="module")
def message(codec):
    """`PLAIN`, encrypted."""
    return b"".join(codec.encode([PLAIN]))


def _in_parts(data, step=65_536):
    return (data[start : start + step] for start in range(0, len(data), step))


@pytest.fixture
def witness(monkeypatch, tmp_path):
    """A gpg that writes down its arguments and its environment, and then is the real one."""
    folder = tmp_path / "witness"
    folder.mkdir()
    log = folder / "log"
    log.touch()
    script = ["#!/bin/sh", f'tr "\\0" "\\n" < /proc/$$/cmdline >> {log}', f"env >> {log}"]
    script.append(f'exec {shutil.which("gpg")} "$@"')
    (folder / "gpg").write_text("\n".join(script), encoding="utf-8")
    (folder / "gpg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: log.read_text(encoding="utf-8").splitlines()


def _homes(lines):
    return [Path(line.removeprefix("GNUPGHOME=")) for line in lines if line.startswith("GNUPGHOME=")]


def _agents(homes):
    """Return the command lines of what runs in these folders."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = file.read_text(encoding="utf-8", errors="replace")
            found += [argv for home in homes if str(home) in argv]
    return found


@settings(deadline=None, max_examples=6)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_round_trip(chunks):
    """What was encrypted comes back, an empty stream too."""
    codec = Gpg(Secret("k"))
    assert b"".join(codec.decode(codec.encode(chunks))) == b"".join(chunks)


def test_gpg_by_hand_opens_it(message, tmp_path):
    """Restorable without us: `gpg -d` and the passphrase."""
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (tmp_path / "key").write_text(KEY + "\n", encoding="utf-8")
        argv = [
            "gpg",
            "--batch",
            "--pinentry-mode",
            "loopback",
            "--passphrase-file",
            str(tmp_path / "key"),
            "-d",
        ]
        env = {**os.environ, "GNUPGHOME": str(home)}
        done = subprocess.run(argv, input=message, capture_output=True, check=True, timeout=60, env=env)
        assert done.stdout == PLAIN
        assert b"AES256" in done.stderr
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=20)
        shutil.rmtree(home, ignore_errors=True)


def test_without_gpg_nothing_is_read(monkeypatch, tmp_path):
    """No gpg on PATH: refused with a hint, before a byte is asked for."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def unread():
        pytest.fail("it was read")
        yield b""

    for step in (Gpg(Secret("k")).encode, Gpg(Secret("k")).decode):
        with pytest.raises(KeyMissingError, match="gpg is not on this machine") as refused:
            next(step(unread()))
        assert "install" in refused.value.hint


@pytest.mark.parametrize(
    "key", [None, Secret(""), Secret("two\nlines"), Secret("\nfirst line empty"), Secret("nul\0")]
)
def test_without_a_key_nothing_is_read(key):
    """No key, an empty one, or one of which gpg would read a part: refused before a byte is asked for."""

    def unread():
        pytest.fail("it was read")
        yield b""

    with pytest.raises(KeyMissingError) as refused:
        next(Gpg(key).encode(unread()))
    assert "BACKUP_KEY_FILE" in refused.value.hint
    with pytest.raises(KeyMissingError):
        Gpg(key).require()


@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8"])
def test_a_wrong_key_is_told_from_damage(message, monkeypatch, locale):
    """The hint speaks of the key, whatever language gpg speaks to its user."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("LANGUAGE", locale)
    with pytest.raises(KeyMissingError, match="the key does not open this artifact") as refused:
        list(Gpg(Secret("wrong")).decode([message]))
    assert "BACKUP_KEY_FILE" in refused.value.hint


@pytest.mark.parametrize("kept", [0, 1, 5, 6, 10, 15, 16, 17, 40, 60, 5_000, 299_000, -23, -1])
def test_truncation_is_damage(codec, message, kept):
    """Cut anywhere: gpg 2.2 itself ends with 0 on a message cut to its first 6 to 15 bytes."""
    with pytest.raises(DamagedError):
        list(codec.decode(_in_parts(message[:kept])))


@pytest.mark.parametrize("at", [16, 40, 5_000, 200_000, -30, -1])
def test_tampering_is_damage(codec, message, at):
    """One flipped byte in the encrypted part is found at the end, at the latest."""
    flipped = bytearray(message)
    flipped[at] ^= 1
    with pytest.raises(DamagedError):
        list(codec.decode(_in_parts(bytes(flipped))))


@pytest.mark.parametrize("at", [0, 2, 3, 8])
def test_a_damaged_head_is_an_error_too(codec, message, at):
    """In the salt of the key it cannot be told from a wrong key, and the hint says so."""
    flipped = bytearray(message)
    flipped[at] ^= 1
    with pytest.raises((DamagedError, KeyMissingError)) as found:
        list(codec.decode([bytes(flipped)]))
    assert not isinstance(found.value, KeyMissingError) or "sha256" in found.value.hint


@pytest.mark.parametrize("extra", [b"x", bytes(100), b"garbage" * 99])
def test_trailing_garbage_is_damage(codec, message, extra):
    """Bytes after the message are not passed over."""
    with pytest.raises(DamagedError):
        list(codec.decode([message, extra]))


def test_two_messages_in_a_row_are_damage(codec, message):
    """Two artifacts in one file are no artifact, and the key is not blamed."""
    with pytest.raises(DamagedError):
        list(codec.decode([message, message]))


@pytest.mark.parametrize("data", [b"", b"plain text", random.Random(3).randbytes(5_000)])
def test_what_is_not_encrypted_is_damage(codec, data):
    """Anything else is no message."""
    with pytest.raises(DamagedError):
        list(codec.decode([data]))


def test_a_gpg_that_is_killed_is_not_damage(monkeypatch, tmp_path):
    """A program that did not end by itself says nothing about the bytes."""
    fake = tmp_path / "gpg"
    fake.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CommandError, match="SIGKILL"):
        list(Gpg(Secret("k")).decode([b"x" * 100]))


def test_the_source_is_not_blamed_on_gpg(codec):
    """An error of what is encrypted or decrypted arrives as it is, and no half message looks whole."""

    def failing(first):
        yield first
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(codec.encode(failing(PLAIN)))
    with pytest.raises(ZeroDivisionError):
        list(codec.decode(failing(b"\x8c\x0d")))


def test_the_passphrase_and_the_content_stay_out_of_sight(codec, witness, monkeypatch, tmp_path):
    """While gpg runs, no argument and no variable of it holds the key, and no file the content."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    marker = b"DB_PASSWORD=in-clear-"
    written = []

    def source():
        for _ in range(3):
            yield marker * 10_000
            for folder in (tmp_path, *_homes(witness())):
                written.extend(path for path in folder.rglob("*") if path.is_file() and _holds(path, marker))

    made = b"".join(codec.encode(source()))
    assert b"".join(codec.decode([made])) == marker * 30_000
    assert written == []
    assert {"--symmetric", "--decrypt", "--passphrase-fd"} <= set(witness())
    assert "correct h0rse" not in "\n".join(witness())
    assert [path.name for path in tmp_path.iterdir()] == ["witness"]


def _holds(path, marker):
    try:
        return marker in path.read_bytes()
    except OSError:
        return False


def test_nothing_is_left_behind(codec, witness, monkeypatch, tmp_path):
    """No agent, no folder, no `~/.gnupg`: whether it worked, failed, or was left half-way."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    message = b"".join(codec.encode([PLAIN]))
    with pytest.raises(KeyMissingError):
        list(Gpg(Secret("wrong")).decode([message]))
    half = codec.encode(bytes(1 << 20) for _ in range(50))
    next(half)
    half.close()
    homes = _homes(witness())
    assert len(set(homes)) == 3
    assert _agents(homes) == []
    assert [path for path in homes if path.exists()] == []
    assert list(home.iterdir()) == []


def test_a_long_temporary_folder_is_no_obstacle(codec, monkeypatch, tmp_path):
    """The sockets of gpg have a short limit on their path, and TMPDIR may be long."""
    deep = tmp_path / ("long-" * 20) / ("name-" * 20)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert b"".join(codec.decode(codec.encode([b"x"]))) == b"x"


@pytest.mark.parametrize("size", [0, 300_000])
def test_an_earlier_key_opens_what_it_encrypted(size):
    """After a change of the key both kinds are read, and only the new key encrypts."""
    plain = PLAIN[:size]
    before, after = Gpg(Secret("before")), Gpg(Secret("after"), (Secret("other"), Secret("before")))
    old = b"".join(before.encode([plain]))
    assert b"".join(after.decode(_in_parts(old))) == plain
    new = b"".join(after.encode([plain]))
    assert b"".join(after.decode(_in_parts(new))) == plain
    with pytest.raises(KeyMissingError):
        list(before.decode([new]))
    assert after.opener([old]).reveal() == "before"
    assert after.opener(_in_parts(new)).reveal() == "after"
    assert Gpg(Secret("x"), (Secret("y"),)).opener([old]) is None


def test_earlier_keys_are_enough_to_read():
    """A host that has lost its own key still opens what the earlier ones encrypted, and encrypts nothing."""
    old = b"".join(Gpg(Secret("before")).encode([PLAIN]))
    left = Gpg(None, (Secret("before"),))
    assert b"".join(left.decode([old])) == PLAIN
    with pytest.raises(KeyMissingError, match="no encryption key"):
        list(left.encode([PLAIN]))


def test_of_several_wrong_keys_none_is_blamed_on_the_bytes(message):
    """Where no key fits, it says so; and damage is damage, whichever key fits."""
    with pytest.raises(KeyMissingError, match="none of the 2 keys opens") as refused:
        list(Gpg(Secret("a"), (Secret("b"),)).decode([message]))
    assert "BACKUP_OLD_KEY_FILES" in refused.value.hint
    several = Gpg(Secret("a"), (Secret(KEY),))
    for cut in (10, 5_000):
        with pytest.raises((DamagedError, KeyMissingError)):
            list(several.decode(_in_parts(message[:cut])))
    flipped = bytearray(message)
    flipped[200_000] ^= 1
    with pytest.raises(DamagedError):
        list(several.decode(_in_parts(bytes(flipped))))
