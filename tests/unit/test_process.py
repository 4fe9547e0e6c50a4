"""Child processes of this machine: what the runners' contract does not see."""

import os
import resource
import signal
import sys
import time

import pytest

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.runners import child, process
from bookreader_backup_assets.runners.local import LocalRunner

PYTHON = [sys.executable, "-c"]


def _gone(pid, within=20.0):
    """Wait until a process has ended, or is a zombie that its parent does not fetch."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(") ")[2].startswith("Z"):
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_stalled_program_is_ended():
    """A program that neither prints nor reads is ended after `stall` seconds, and the error says so."""
    started = process.stream(["sh", "-c", "echo $$; exec sleep 600"], stall=0.3)
    pid = int(next(started))
    with pytest.raises(CommandError, match="was silent for 0 s and was ended") as error:
        next(started)
    assert error.value.status is None
    assert _gone(pid)


def test_input_that_moves_is_no_silence():
    """A program that only reads, for longer than `stall`, is left alone."""

    def slow():
        for _ in range(8):
            time.sleep(0.1)
            yield b"x" * 10_000

    assert b"".join(process.stream(["wc", "-c"], stdin=slow(), stall=0.5)).strip() == b"80000"


def test_closing_ends_the_children_too():
    """What a program started goes with it, even where it ignores a polite request."""
    script = "(trap '' TERM; while :; do sleep 1; done) & echo $!; wait"
    started = process.stream(["sh", "-c", script], stall=60)
    grandchild = int(next(started))
    assert not _gone(grandchild, within=0.1)
    started.close()
    assert _gone(grandchild)


def test_who_ignores_sigterm_is_killed(monkeypatch):
    """After the grace there is the axe."""
    monkeypatch.setattr(child, "GRACE", 0.3)
    started = process.stream(["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done"], stall=60)
    pid = int(next(started))
    started.close()
    assert _gone(pid)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        (
            "import sys; print('first\\nsecond', file=sys.stderr); sys.exit(7)",
            "ended with status 7: first / second",
        ),
    ],
)
def test_how_it_ended_is_told(script, said):
    """The status or signal, and the end of its complaint; the output so far came before the error."""
    meter = Meter(process.stream([*PYTHON, f"print('out', flush=True); {script}"], stall=60))
    with pytest.raises(CommandError) as error:
        list(meter)
    assert said in error.value.message
    assert meter.size == len(b"out\n")


def test_an_unknown_signal_does_not_hide_the_error():
    """A real-time signal has no name in Python's table, and is an error all the same."""
    number = signal.SIGRTMIN + 1
    with pytest.raises(CommandError, match=f"was killed by .*{number}"):
        list(process.stream([*PYTHON, f"import os; os.kill(os.getpid(), {number})"], stall=60))


def test_a_flood_of_complaints_is_bounded():
    """Megabytes on stderr block nothing, and only their end is kept."""
    script = "import sys; sys.stderr.write('x' * 5_000_000 + 'the end'); print('out'); sys.exit(1)"
    with pytest.raises(CommandError) as error:
        list(process.stream([*PYTHON, script], stall=60))
    assert error.value.stderr.endswith("the end")
    assert len(error.value.stderr) <= 64 * 1024


@pytest.mark.parametrize("kind", [ValueError, BrokenPipeError, OSError, KeyError, CommandError])
def test_an_error_of_the_source_is_raised_as_it_is(kind):
    """Whatever the source of stdin raises arrives, at once, and is never taken for a closed pipe."""

    def failing():
        yield b"x"
        raise kind("source", 1, "") if kind is CommandError else kind("of the source")

    for call in (
        lambda: list(process.stream(["cat"], stdin=failing(), stall=60)),
        lambda: LocalRunner().run(["cat"], stdin=failing(), timeout=60),
    ):
        started = time.monotonic()
        with pytest.raises(kind, match="source"):
            call()
        assert time.monotonic() - started < 30


def test_a_program_that_stops_reading_decides_by_its_status():
    """It may have read enough: 0 is fine, anything else is its error, and neither waits for the source."""
    flood = lambda: (bytes(1 << 20) for _ in range(10_000))  # noqa: E731
    assert b"".join(process.stream(["head", "-c", "3"], stdin=flood(), stall=60)) == bytes(3)
    with pytest.raises(CommandError, match="status 3"):
        list(process.stream(["sh", "-c", "exec 0<&-; echo closed; exit 3"], stdin=flood(), stall=60))
    assert b"".join(process.stream(["sh", "-c", "exec 0<&-; echo on"], stdin=flood(), stall=60)) == b"on\n"


def test_the_source_is_let_go_of():
    """When the program has ended, nobody reads its source any more."""
    closed = []

    def source():
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            closed.append(True)

    list(process.stream(["head", "-c", "3"], stdin=source(), stall=60))
    assert closed == [True]


def test_secrets_travel_by_descriptor():
    """A `{n}` in argv becomes the number of a descriptor that reads the n-th secret; argv never holds it."""
    script = "import os, sys; print(os.read(int(sys.argv[1]), 99), open('/proc/self/cmdline').read())"
    said = b"".join(process.stream([*PYTHON, script, "{0}", "plain"], secrets=[b"hunter2"], stall=60))
    assert said.startswith(b"b'hunter2' ")
    assert said.count(b"hunter2") == 1


def test_descriptors_are_given_back():
    """A hundred programs, good, failing and absent, leave no descriptor open."""
    list(process.stream(["true"], stdin=[b"x"], stall=60))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        list(process.stream(["cat"], stdin=[b"x"], secrets=[b"s"], stall=60))
        with pytest.raises(CommandError):
            list(process.stream(["false"], stall=60))
        with pytest.raises(SourceAbsentError):
            list(process.stream(["no-such-program"], stdin=[b"x"], secrets=[b"s"], stall=60))
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_open_descriptors_are_no_obstacle():
    """A long-lived daemon may have more than 1024 files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert b"".join(process.stream(["cat"], stdin=[b"x"], stall=60)) == b"x"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_program_that_is_none_is_named(tmp_path):
    """Absent, or not to be executed: an error of this project, with what to do."""
    with pytest.raises(SourceAbsentError, match="no-such-program is not on this machine") as error:
        process.Process(["no-such-program"])
    assert "PATH" in error.value.hint
    (tmp_path / "data").write_text("x", encoding="utf-8")
    with pytest.raises(CommandError, match="data could not be started"):
        process.Process([str(tmp_path / "data")])
