"""Every vault keeps the promises of `vaults/base.py`. Another kind joins in `VAULTS`."""

import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.core.errors import NameTakenError, NotFoundError, SpaceError, VaultError
from bookreader_backup_assets.vaults.base import Stored
from bookreader_backup_assets.vaults.local import LocalVault
from bookreader_backup_assets.vaults.names import PARTIAL
from bookreader_backup_assets.vaults.nas import Nas, NasVault
from tests.fixtures.missing import missing
from tests.fixtures.s3 import raw

NAME = "redis/redis_dump_2025-10-24_02-30-00.rdb.gz"
BAD = [
    "", ".", "..", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", ".hidden", "a/.hidden", "a..b",
    "-x", "a b", "a\nb", "a\n", "a\0b", "ä", "имя", "a\\b", "a:b", f"x{PARTIAL}", "a*", "~/x",
]  # fmt: skip


def _local(tmp_path):
    return LocalVault(tmp_path / "vault")


VAULTS = {
    "local": lambda request: _local(request.getfixturevalue("tmp_path")),
    "s3": lambda request: request.getfixturevalue("offsite"),
    "nas": lambda request: Nas(request.getfixturevalue("nas")).vault("one"),
    "git": lambda request: request.getfixturevalue("git_place").vault("one"),
}
BUT_GIT = [kind for kind in VAULTS if kind != "git"]
"""The kinds that tell when a file was written, and in which a killed writer leaves something."""


@pytest.fixture(params=VAULTS)
def vault(request):
    """An empty vault of each kind."""
    return VAULTS[request.param](request)


def _begin(vault, name, content):
    """Write half a file into a vault, as a process does that is killed then."""
    if isinstance(vault, LocalVault | NasVault):
        path = vault.local_path(name).with_name(name.rpartition("/")[2] + PARTIAL)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return
    client, where = raw(vault), {"Bucket": vault.access.bucket, "Key": vault.prefix + name}
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1, Body=content)


@pytest.fixture
def local(tmp_path):
    """An empty vault in a folder."""
    return _local(tmp_path)


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unread():
    pytest.fail("the source was read")
    yield b""


# every vault


def test_what_was_put_is_there(vault):
    """It is read, listed, measured and hashed as it was written."""
    stored = vault.put(NAME, [b"abc", b"", b"defg"])
    assert stored == vault.stat(NAME) == Stored(NAME, 7)
    assert b"".join(vault.open(NAME)) == b"abcdefg"
    assert vault.digest(NAME) == hashlib.sha256(b"abcdefg").hexdigest()
    assert list(vault.list()) == [stored]
    if (path := vault.local_path(NAME)) is not None:
        assert path.read_bytes() == b"abcdefg"


def test_an_empty_file_is_a_file(vault):
    """Nothing at all is kept, too: judging it is not the vault's business."""
    assert vault.put("empty", []) == Stored("empty", 0)
    assert b"".join(vault.open("empty")) == b""


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 30), length=st.none() | st.integers(0, 30))
def test_ranges_are_slices(vault, offset, length):
    """`open` gives what a slice gives, beyond the end as well."""
    content = bytes(range(20))
    with suppress(NameTakenError):
        vault.put("ranges", [content])
    expected = content[offset:] if length is None else content[offset : offset + length]
    assert b"".join(vault.open("ranges", offset, length)) == expected


def test_large_files_come_in_chunks(vault):
    """Memory stays flat: no chunk has more than a few megabytes."""
    block = random.Random(1).randbytes(1 << 20)
    vault.put("large", (block for _ in range(5)))
    assert max(len(chunk) for chunk in vault.open("large")) <= 4 << 20
    assert b"".join(vault.open("large", (3 << 20) + 5, 1 << 20)) == block[5:] + block[:5]
    assert vault.stat("large").size == 5 << 20


def test_lists_are_sorted_and_by_prefix(vault):
    """Names come in their own order, whatever folders they are in."""
    names = ["b/z", "a.json", "a/b/c", "a/b.x", "a-1", "ab", "a/b-c/d"]
    for name in names:
        vault.put(name, [name.encode()])
    assert [stored.name for stored in vault.list()] == sorted(names)
    assert [stored.name for stored in vault.list("a/b")] == ["a/b-c/d", "a/b.x", "a/b/c"]
    assert list(vault.list("a/b/c")) == [Stored("a/b/c", 5)]
    assert list(vault.list("../")) == list(vault.list("none")) == []


def test_an_unused_vault_is_empty(vault):
    """Before the first artifact there is nothing to list, and that is no error."""
    assert list(vault.list()) == []


@pytest.mark.parametrize("ask", ["stat", "digest", "delete", "open", "locked_until", "discard"])
def test_what_is_not_there_is_named(vault, ask):
    """Every question about an absent name ends in the same error."""
    with pytest.raises(NotFoundError, match="absent/file"):
        list(getattr(vault, ask)("absent/file"))


def test_names_are_written_once(vault):
    """A second file of a name is refused before its source is read, and the first one stays."""
    vault.put(NAME, [b"first"])
    with pytest.raises(NameTakenError):
        vault.put(NAME, _unread())
    assert b"".join(vault.open(NAME)) == b"first"
    assert [stored.name for stored in vault.list()] == [NAME]


def test_a_deleted_name_is_gone_alone(vault):
    """`delete` takes one file away, and its neighbours stay."""
    for name in (NAME, NAME + ".entry.json", "redis/redis_dump"):
        vault.put(name, [b"x"])
    vault.delete(NAME)
    assert [stored.name for stored in vault.list()] == ["redis/redis_dump", NAME + ".entry.json"]
    assert vault.put(NAME, [b"again"]).size == 5


@pytest.mark.parametrize(
    "kind", [ZeroDivisionError, OSError, FileNotFoundError, KeyboardInterrupt, GeneratorExit]
)
def test_a_failing_source_leaves_nothing(vault, kind):
    """What the source raises arrives as it is, nothing is under the name, and the name is free."""

    def failing():
        yield b"x" * 100_000
        raise kind

    with pytest.raises(kind):
        vault.put(NAME, failing())
    with pytest.raises(NotFoundError):
        vault.stat(NAME)
    assert list(vault.list()) == []
    assert vault.put(NAME, [b"second"]).size == 6


def test_a_file_appears_whole(vault):
    """While it is being written, nobody sees it."""

    def looking():
        for _ in range(3):
            yield b"x" * 1000
            assert list(vault.list()) == []
            with pytest.raises(NotFoundError):
                vault.stat(NAME)

    vault.put(NAME, looking())
    assert vault.stat(NAME).size == 3000


def test_a_name_that_is_being_written_is_taken(vault):
    """A second writer is refused before its source is read, and harms nothing of the first."""

    def writing():
        yield b"first"
        with pytest.raises(NameTakenError):
            vault.put(NAME, _unread())
        yield b" and only"

    vault.put(NAME, writing())
    assert b"".join(vault.open(NAME)) == b"first and only"


def test_of_many_writers_one_wins(vault):
    """However many write one name at once, one file is there, and it is the winner's, whole."""
    for turn in range(5):
        name, won, others = f"race/{turn}", [], []
        start = threading.Barrier(8)

        def write(number, name=name, won=won, others=others, start=start):
            start.wait(30)
            try:
                vault.put(name, [bytes([number]) * 50_000] * 4)
                won.append(number)
            except NameTakenError:
                others.append(number)

        threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(won) == 1
        assert len(others) == 7
        assert b"".join(vault.open(name)) == bytes(won) * 200_000


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(vault, name):
    """Nothing is written, read or deleted under a name that leads elsewhere, or that a shell trips over."""
    for ask in (vault.stat, vault.digest, vault.delete, lambda name: list(vault.open(name))):
        with pytest.raises(VaultError):
            ask(name)
    with pytest.raises(VaultError, match="cannot be the name"):
        vault.put(name, _unread())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20) | st.from_regex(r"[a-z./]{1,12}", fullmatch=True))
def test_any_name_is_taken_or_refused(vault, name):
    """Whatever the name, the vault lists it exactly if it took it."""
    try:
        vault.put(name, [b"x"])
    except NameTakenError:
        pass
    except VaultError:
        assert name not in [stored.name for stored in vault.list()]
        return
    assert name in [stored.name for stored in vault.list(name)]


def test_free_space_is_known_or_not(vault):
    """Bytes, or None where nobody can tell; before the vault exists, too."""
    assert vault.free() is None or vault.free() > 0


@pytest.mark.parametrize("vault", BUT_GIT, indirect=True)
def test_it_says_when_a_file_was_written(vault):
    """In UTC, and within a minute of now: what is listed says the same as what is asked for."""
    vault.put(NAME, [b"x"])
    written = vault.stat(NAME).modified
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    assert [stored.modified for stored in vault.list()] == [written]


def test_what_is_not_locked_says_so(vault):
    """None: nothing but this program's own rules keeps it from being deleted."""
    vault.put(NAME, [b"x"])
    assert vault.locked_until(NAME) is None


@pytest.mark.parametrize("vault", BUT_GIT, indirect=True)
def test_what_was_never_ended_is_told_of_and_is_no_file(vault):
    """Under the name that it was meant for, with its size and age: not listed, not found, in nobody's way."""
    vault.put("redis/whole", [b"x"])
    assert list(vault.unfinished()) == []
    _begin(vault, NAME, b"half of")
    _begin(vault, "a/other", b"")
    found = list(vault.unfinished())
    assert found == [Stored("a/other", 0), Stored(NAME, 7)]
    assert all(abs(datetime.now(UTC) - one.modified) < timedelta(minutes=1) for one in found)
    assert [stored.name for stored in vault.list()] == ["redis/whole"]
    with pytest.raises(NotFoundError):
        vault.stat(NAME)
    assert vault.put(NAME, [b"whole"]).size == 5
    assert b"".join(vault.open(NAME)) == b"whole"


@pytest.mark.parametrize("vault", BUT_GIT, indirect=True)
def test_what_was_never_ended_can_be_discarded(vault):
    """That alone: another unfinished one, and a file of the same beginning, stay."""
    vault.put(f"{NAME}.entry.json", [b"x"])
    _begin(vault, NAME, b"half of")
    _begin(vault, f"{NAME}.log", b"half")
    vault.discard(NAME)
    assert list(vault.unfinished()) == [Stored(f"{NAME}.log", 4)]
    assert [stored.name for stored in vault.list()] == [f"{NAME}.entry.json"]


def test_what_is_being_written_is_not_discarded(vault):
    """`discard` while somebody writes leaves it to him."""

    def writing():
        yield b"first"
        with suppress(NotFoundError):
            vault.discard(NAME)
        yield b" and only"

    vault.put(NAME, writing())
    assert b"".join(vault.open(NAME)) == b"first and only"


# the vault in a folder


def test_strangers_in_the_folder_are_hidden(local):
    """Files that the vault could not have written are not listed, and not touched."""
    local.put("a/good", [b"x"])
    for name in ("a/.hidden", "a/two words", "a/имя", "a/x.partial", "a/back~", "lost+found"):
        (local.root / name).write_bytes(b"stranger")
    assert [stored.name for stored in local.list()] == ["a/good"]
    assert len(_files(local.root)) == 7


def test_nobody_else_may_look(local):
    """Files are 0600 and folders 0700, whatever the umask."""
    before = os.umask(0)
    try:
        local.put("deep/er/file", [b"secret"])
    finally:
        os.umask(before)
    for path in (local.root, *local.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


KILLED = """
import os, signal, sys
from pathlib import Path
from bookreader_backup_assets.vaults.local import LocalVault
import bookreader_backup_assets.vaults.local as local

step = int(sys.argv[2])

def counted(function):
    def call(*arguments, **options):
        global step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("open", "write", "fsync", "rename", "ftruncate", "close", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
LocalVault(Path(sys.argv[1])).put("a/b", [b"x" * 1000] * 5)
"""


def test_killed_at_any_step_there_is_all_or_nothing(tmp_path):
    """Killed before each system call in turn: the file is absent or whole, and writing it again succeeds."""
    whole = absent = 0
    for step in range(1, 60):
        vault = LocalVault(tmp_path / str(step))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(vault.root), str(step)], check=False, timeout=60
        )
        names = [stored.name for stored in vault.list()]
        if names:
            assert vault.digest("a/b") == hashlib.sha256(b"x" * 5000).hexdigest()
            whole += 1
        else:
            absent += 1
            assert vault.put("a/b", [b"after the crash"]).size == 15
            assert [path.name for path in _files(vault.root)] == ["b"]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert whole >= 2
    assert absent >= 8


def test_what_a_crash_left_is_in_nobodys_way(local):
    """A `.partial` whose writer is dead is taken over, not kept as a lock, and not appended to."""
    local.put("a/other", [b"x"])
    (local.root / f"a/b{PARTIAL}").write_bytes(b"much more than the new content")
    assert local.put("a/b", [b"new"]) == Stored("a/b", 3)
    assert [path.name for path in _files(local.root)] == ["b", "other"]


def test_a_full_disk_leaves_nothing(request, tmp_path):
    """Met in the middle of a file: the error says where, nothing is left, and what was there stays."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        missing("a tmpfs cannot be mounted here (not root, or a container without that right)")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30))
    vault = LocalVault(folder)
    vault.put("a/good", [bytes(500_000)])
    before = vault.free()
    with pytest.raises(SpaceError, match="full: a/large was not written") as full:
        vault.put("a/large", (bytes(100_000) for _ in range(50)))
    assert "free space" in full.value.hint
    assert [path.name for path in _files(folder)] == ["good"]
    assert vault.free() == before
    assert vault.put("a/small", [b"x"]).size == 1


READS_ONLY = """
import sys
from pathlib import Path
from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.vaults.local import LocalVault

vault = LocalVault(Path(sys.argv[1]))
for ask in (lambda: vault.put("a/b", [b"x"]), lambda: list(vault.list()), lambda: vault.delete("a/good")):
    try:
        ask()
        print("fine")
    except VaultError as error:
        print(type(error).__name__, error.message, "|", error.hint)
"""


@pytest.mark.parametrize(("mode", "listed"), [(0o500, True), (0o000, False)], ids=oct)
def test_a_folder_without_the_right_is_an_error(tmp_path, mode, listed):
    """As an ordinary user: not to be written, the error has a hint; not to be read, it is not empty."""
    vault = LocalVault(tmp_path / "vault")
    vault.put("a/good", [b"x"])
    python = sys.executable
    account = {}
    if os.geteuid() == 0:
        python = next(
            (path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), None
        )
        probe = [python, "-c", "import bookreader_backup_assets.vaults.local"]
        account = {"user": 65534, "group": 65534, "extra_groups": []}
        if python is None or subprocess.run(
            probe, check=False, capture_output=True, timeout=60, env=_environment(), cwd="/", **account
        ).returncode:  # fmt: skip
            missing("no Python that an ordinary user can run, while the tests run as root")
        for folder in (tmp_path, *tmp_path.parents):
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o001)
        for path in (vault.root, *vault.root.rglob("*")):
            os.chown(path, 65534, 65534)
    (vault.root / "a").chmod(mode)
    try:
        done = subprocess.run(
            [python, "-c", READS_ONLY, str(vault.root)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=_environment(),
            cwd="/",
            **account,
        )
    finally:
        (vault.root / "a").chmod(0o700)
    put, lists, delete = done.stdout.splitlines()
    assert put.startswith("VaultError the local vault at ")
    assert put.endswith("failed on a/b: Permission denied | check that this user may read and write there")
    assert lists == "fine" if listed else lists.startswith("VaultError")
    assert delete.startswith("VaultError")


def _environment():
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_a_file_in_the_way_is_an_error(local):
    """Where a folder should be, there may be anything."""
    local.put("a", [b"x"])
    with pytest.raises(VaultError, match="failed on a/b"):
        local.put("a/b", _unread())
    (local.root / "folder").mkdir()
    with pytest.raises(NameTakenError):
        local.put("folder", _unread())


def test_a_root_with_an_odd_name_works(tmp_path):
    """The folder itself may be called anything."""
    vault = LocalVault(tmp_path / "резерв 'копии' \udcff\n")
    vault.put(NAME, [b"x"])
    assert [stored.name for stored in vault.list()] == [NAME]
    assert vault.digest(NAME) == hashlib.sha256(b"x").hexdigest()
