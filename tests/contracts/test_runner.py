"""Every runner keeps the promises of `runners/base.py`."""

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError
from bookreader_backup_assets.runners import child
from bookreader_backup_assets.runners.base import Runner
from bookreader_backup_assets.runners.docker import STORAGE, DockerRunner
from bookreader_backup_assets.runners.local import LocalRunner

DOCKER = pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.xdist_group("docker")])
SECRET = "s3cret-in-the-environment"


@dataclasses.dataclass(frozen=True)
class Place:
    """A runner, and a folder that it and the test both see: `inside` for the one, `folder` for the other."""

    runner: Runner
    inside: str
    folder: Path

    def mark(self) -> str:
        """A number of seconds that no other process of this machine is told to sleep."""
        return str(time.time_ns() % 10**15)

    def count(self, mark: str) -> int:
        """How many processes of this machine have `mark` in their argv."""
        found = 0
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    argv = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                found += mark.encode() in argv.split(b"\0")
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder that both sides see."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module", params=["local", DOCKER])
def place(request, shared):
    """Each runner in turn."""
    if request.param == "local":
        return Place(LocalRunner(), str(shared), shared)
    start = request.getfixturevalue("start_container")
    name = start("busybox", "bookreader-test-contract", binds=[f"{shared}:/shared"])
    engine = request.getfixturevalue("engine")
    return Place(DockerRunner(engine, STORAGE, configured=name), "/shared", shared)


def sh(script: str, *arguments: str) -> list[str]:
    """A small shell program."""
    return ["sh", "-c", script, "sh", *arguments]


def test_streams_what_is_printed(place):
    """Every byte of stdout comes, in order, and nothing of stderr."""
    said = b"".join(place.runner.stream(sh("echo one; echo no >&2; head -c 300000 /dev/zero; echo two")))
    assert said == b"one\n" + bytes(300000) + b"two\n"


def test_loses_no_first_byte(place):
    """A program that prints at once and ends is heard, thirty times."""
    for number in range(30):
        assert b"".join(place.runner.stream(["echo", str(number)])) == f"{number}\n".encode()


def test_raises_after_the_last_chunk(place):
    """All output of a program that fails is yielded first; then the error says status and complaint."""
    said = []
    with pytest.raises(CommandError, match="status 3: it went wrong") as caught:
        said.extend(place.runner.stream(sh("echo half; echo it went wrong >&2; exit 3")))
    assert b"".join(said) == b"half\n"
    assert caught.value.status == 3


def test_a_killed_program_is_an_error(place):
    """A program killed half-way ends in an error that names the signal."""
    with pytest.raises(CommandError, match="SIGKILL"):
        list(place.runner.stream(sh("echo half; kill -9 $$")))


def test_a_missing_program_is_named(place):
    """A program that is not there is not a failure of that program."""
    with pytest.raises(SourceAbsentError, match="no-such-program"):
        list(place.runner.stream(["no-such-program"]))


def test_silence_ends_a_stream(place):
    """A program that says nothing for too long is ended, and nothing of it stays."""
    mark = place.mark()
    with pytest.raises(CommandError, match="silent"):
        list(place.runner.stream(["sleep", mark], stall=0.3))
    assert place.count(mark) == 0


def test_silence_ends_a_program_that_does_not_read(place):
    """A program that takes no input is ended although more of it waits to be written."""
    mark = place.mark()
    with pytest.raises(CommandError, match="silent"):
        list(place.runner.stream(["sleep", mark], stdin=iter([bytes(10_000_000)]), stall=0.3))
    assert place.count(mark) == 0


def test_stdin_is_fed_unchanged(place):
    """10 MB go in and come back equal, while neither side waits for the other."""
    data = os.urandom(10_000_000)
    chunks = (data[at : at + 70_001] for at in range(0, len(data), 70_001))
    assert b"".join(place.runner.stream(["cat"], stdin=chunks)) == data


def test_stdin_that_nobody_reads_is_no_error(place):
    """A program may end before it has read all of its input."""
    assert place.runner.run(["true"], stdin=iter([bytes(10_000_000)])).stdout == b""


@pytest.mark.parametrize("call", ["stream", "run"])
def test_an_error_of_stdin_is_raised(place, call):
    """What the source of the input raises is raised, although the program was content."""

    def broken():
        yield b"half"
        raise KeyError("from the source")

    with pytest.raises(KeyError, match="from the source"):
        assert list(getattr(place.runner, call)(["cat"], stdin=broken())) is None


def test_a_flood_on_stderr_does_not_block(place):
    """1 MB of complaints neither blocks the program nor is kept whole."""
    script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo; echo the end >&2; echo out; exit 1"
    said = []
    with pytest.raises(CommandError, match="the end") as caught:
        said.extend(place.runner.stream(sh(script)))
    assert b"".join(said) == b"\nout\n"
    assert len(caught.value.stderr) <= 65536


def test_run_returns_both_outputs(place):
    """What a program said, on stdout and stderr, comes back apart."""
    result = place.runner.run(sh("cat; echo aside >&2"), stdin=[b"in", b"put"])
    assert (result.stdout, result.stderr) == (b"input", "aside\n")


def test_run_raises_for_a_status(place):
    """A status that is not 0 is an error."""
    with pytest.raises(CommandError, match="status 7: bad"):
        place.runner.run(sh("echo bad >&2; exit 7"))


def test_run_has_a_deadline(place):
    """A program that talks for ever is ended at the deadline all the same."""
    started, mark = time.monotonic(), place.mark()
    with pytest.raises(CommandError, match="within 1 s"):
        place.runner.run(sh("while true; do echo x; sleep 0.05; done", mark), timeout=1)
    assert time.monotonic() - started < 15
    assert place.count(mark) == 0


def test_a_session_answers_line_by_line(place):
    """A program that is talked to answers each time, and is ended when its context is left."""
    mark = place.mark()
    with place.runner.session(sh("while read line; do echo got $line; done; sleep $1", mark)) as session:
        for word in (b"one", b"two"):
            session.send(word + b"\n")
            assert session.readline(5) == b"got " + word
    assert place.count(mark) == 0


def test_a_session_says_that_it_ended(place):
    """Reading from, or talking to, a program that has gone is an error with its complaint."""
    talk = place.runner.session(sh("echo bye >&2; exit 4"))
    with talk as session, pytest.raises(CommandError, match="status 4: bye"):
        session.readline(5)


def test_a_session_may_not_be_silent(place):
    """An answer that does not come in time is an error."""
    with place.runner.session(["cat"]) as session, pytest.raises(CommandError, match="silent"):
        session.readline(0.2)


@pytest.mark.parametrize(
    "script",
    ["while true; do echo x; sleep 0.05; done", "trap '' TERM; while true; do echo x; sleep 0.05; done"],
)
def test_closing_the_iterator_ends_the_program(place, script, monkeypatch):
    """An abandoned program is gone when `close` returns, even one that ignores SIGTERM."""
    monkeypatch.setattr(child, "GRACE", 0.5)
    mark = place.mark()
    chunks = place.runner.stream(sh(script, mark))
    next(chunks)
    assert place.count(mark) > 0
    chunks.close()
    assert place.count(mark) == 0


def test_the_environment_carries_secrets(place):
    """`env` reaches the program, and shows in no argv on this machine and not in the runner's repr."""
    script = "echo $SECRET; read line"
    runner = dataclasses.replace(place.runner, env={"SECRET": SECRET})
    with runner.session(sh(script)) as session:
        assert session.readline(5) == SECRET.encode()
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and (process / "cmdline").exists():
                assert SECRET.encode() not in (process / "cmdline").read_bytes()
    assert SECRET not in repr(runner)


@pytest.fixture
def odd_tree(shared):
    """A tree with everything that names and files may be."""
    root = os.fsencode(shared / "tree")
    os.makedirs(root + b"/a/b/c")
    os.makedirs(root + b"/empty")
    for name in (
        b"plain",
        b"new\nline",
        b"quo'te\"",
        b"not-utf8-\xff\xfe",
        b"x" * 255,
        "кириллица".encode(),
        b"a/b/c/deep",
        b"a/zz",
    ):
        with open(root + b"/" + name, "wb") as file:
            file.write(name * 100)
    os.symlink("../nowhere", root + b"/a/link")
    os.link(root + b"/plain", root + b"/a/same")
    with open(root + b"/sparse", "wb") as file:
        file.truncate(3_000_000)
    os.chmod(root + b"/plain", 0o640)
    os.chown(root + b"/a/zz", 1234, 4321)
    os.mkfifo(root + b"/pipe")
    os.utime(root + b"/plain", ns=(1, 1_700_000_000_123_456_789))
    yield shared / "tree"
    shutil.rmtree(root)


def listing(tree) -> dict[bytes, tuple]:
    """A tree read to its end: path to kind, mode, owner, time, target and content."""
    found = {}
    for item in tree.items:
        assert item.path == b"." or os.path.dirname(item.path) in {*found, b""}, "folders come first"
        content = b"".join(item.chunks()) if item.kind == "file" else b""
        assert item.kind != "file" or len(content) == item.size
        found[item.path] = (item.kind, item.mode, item.uid, item.gid, item.mtime_ns, item.target, content)
    return found


def test_reads_a_tree(place, odd_tree):
    """Every name, link, empty folder, mode, owner, time and byte comes as it is; a pipe is named."""
    tree = place.runner.read_tree(f"{place.inside}/tree")
    found = listing(tree)
    assert next(iter(found)) == b"."
    assert set(found) == {
        os.path.relpath(os.path.join(folder, name), os.fsencode(odd_tree))
        for folder, folders, files in os.walk(os.fsencode(odd_tree))
        for name in [*folders, *files, b"."]
        if name != b"pipe" and (name != b"." or folder == os.fsencode(odd_tree))
    }
    assert found[b"empty"][0] == "folder"
    assert found[b"a/link"][::5] == ("symlink", b"../nowhere")
    assert {found[b"plain"][0], found[b"a/same"][0]} == {"file", "hardlink"}
    assert found[b"plain"][4] == 1_700_000_000_123_456_789
    assert found[b"a/zz"][2:4] == (1234, 4321)
    assert found[b"sparse"][6] == bytes(3_000_000)
    assert [(problem.where, "left out" in problem.what) for problem in tree.problems] == [("pipe", True)]


def test_a_missing_folder_is_named(place):
    """Reading a folder that is not there says which."""
    with pytest.raises(SourceAbsentError, match="no-such-folder"):
        place.runner.read_tree(f"{place.inside}/no-such-folder")


def test_the_folder_of_this_machine_is_told(place, shared):
    """What the service sees at a path, and where this machine has it, are one; also one that is missing."""
    (shared / "here").mkdir(exist_ok=True)
    assert place.runner.local_folder(f"{place.inside}/here") == shared / "here"
    assert place.runner.local_folder(f"{place.inside}/gone") == shared / "gone"


def test_describes_itself(place):
    """Everything in the description is text, and it names the runner."""
    described = place.runner.describe()
    assert described["runner"] in {"local", "docker"}
    assert all(isinstance(value, str) and value for value in described.values())
