"""What containers log, read back line by line from the engine: every byte, once, by the nanosecond."""

import contextlib
import itertools
import os
import re
import socket
import socketserver
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.hour import stamp
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_logs import DockerLogs
from tests.fixtures.docker import LABEL

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
EVER = ("2000-01-01T00:00:00.000000000Z", "2100-01-01T00:00:00.000000000Z")
_PROJECTS = itertools.count()


@pytest.fixture
def project():
    """A compose project of the test's own."""
    return f"logs-{time.time_ns()}-{next(_PROJECTS)}"


@pytest.fixture
def logged(engine, image, project):
    """A way to run a shell script in a container of a service to its end; returns its source."""
    made = []

    def run(script, service="backend", *, wait=True, tty=False, driver="json-file", labels=None, **options):
        config = engine.api.create_host_config(
            network_mode="none", log_config={"Type": driver, "Config": options}
        )
        ours = {"com.docker.compose.project": project, "com.docker.compose.service": service}
        name = f"logs-{service}-{time.time_ns()}"
        engine.api.create_container(
            image("busybox"),
            ["sh", "-c", script],
            name=name,
            tty=tty,
            host_config=config,
            labels={LABEL: str(os.getpid()), **ours, **(labels or {})},
        )
        made.append(name)
        engine.api.start(name)
        if wait:
            engine.api.wait(name, timeout=60)
        found = DockerLogs(engine, project).sources()
        return next((one for one in found if one.name.endswith(name)), None)

    yield run
    for name in made:
        with contextlib.suppress(SourceAbsentError), engine.guarded():
            engine.api.remove_container(name, force=True, v=True)


@pytest.fixture
def logs(engine, project):
    """The logs of the test's project."""
    return DockerLogs(engine, project)


def told(lines):
    """Lines as stream and message."""
    return [(line.stream.decode(), line.message.decode("utf-8", "surrogateescape")) for line in lines]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_every_line_of_both_streams(logs, logged, driver):
    """Both streams come with their stamps in UTC to the nanosecond, in the order of logging."""
    source = logged("echo one; sleep 0.02; echo two >&2; sleep 0.02; echo; echo 'Привет, мир'", driver=driver)
    lines = list(logs.lines(source, *EVER))
    assert told(lines) == [("stdout", "one"), ("stderr", "two"), ("stdout", ""), ("stdout", "Привет, мир")]
    stamps = [line.stamp.decode() for line in lines]
    assert stamps == sorted(stamps)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", one) for one in stamps)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(stamps[0][:26] + "+00:00")) < timedelta(minutes=2)
    assert logs.oldest(source) == stamps[0]


def test_from_an_instant_to_an_instant_exactly(logs, logged):
    """The first instant belongs to a window and the last does not, to the nanosecond."""
    source = logged("for i in 1 2 3 4 5; do echo $i; done")
    stamps = [line.stamp.decode() for line in logs.lines(source, *EVER)]
    assert [m for _, m in told(logs.lines(source, stamps[1], stamps[3]))] == ["2", "3"]
    after = stamps[1][:-4] + f"{int(stamps[1][-4:-1]) + 1:03}Z"
    if after[:-1] > stamps[1][:-1]:
        assert [m for _, m in told(logs.lines(source, after, stamps[3]))] == ["3"]
    assert told(logs.lines(source, stamps[4], stamps[4])) == []
    assert [m for _, m in told(logs.lines(source, EVER[0], stamps[0]))] == []


@pytest.mark.parametrize("tty", [False, True], ids=["frames", "a terminal"])
def test_a_long_line_is_one_line(logs, logged, tty):
    """Lines that the engine keeps in parts of 16 kB come back whole, from a terminal, too."""
    source = logged("head -c 50000 /dev/zero | tr '\\0' x; echo end; echo next; printf last", tty=tty)
    messages = [message.removesuffix("\r") for _, message in told(logs.lines(source, *EVER))]
    assert messages == ["x" * 50000 + "end", "next", "last"]


def test_two_streams_at_once_are_not_mixed(logs, logged):
    """Parts of a long line on one stream, and lines of the other between them, are each in their place."""
    long = "head -c 40000 /dev/zero | tr '\\0' a"
    source = logged(f"({long}; sleep 0.2; {long}; echo) & sleep 0.1; echo between >&2; wait")
    assert sorted(told(logs.lines(source, *EVER))) == [("stderr", "between"), ("stdout", "a" * 80000)]


def test_a_line_without_an_end_does_not_swallow_the_next(engine, logs, logged):
    """What a program wrote last, without a newline, and what it writes when started again, are two lines."""
    source = logged("printf unfinished; sleep 0.05")
    engine.api.start(source.id)
    engine.api.wait(source.id, timeout=60)
    assert [m for _, m in told(logs.lines(source, *EVER))] == ["unfinished", "unfinished"]


def test_bytes_that_are_no_text(logs, logged):
    """Control characters and carriage returns come through; a line is a line only at its newline."""
    source = logged("printf 'a\\rb\\000c\\tend\\n'; printf '\\033[31mred\\033[0m\\n'")
    assert [m for _, m in told(logs.lines(source, *EVER))] == ["a\rb\0c\tend", "\033[31mred\033[0m"]


def test_containers_of_the_project_stopped_ones_too(logs, logged, project):
    """Each container of the project logs, running or not; other projects' and one-off containers do not."""
    logged("echo done", "celery-beat")
    logged("echo up; sleep 1000", "backend", wait=False)
    logged("true", labels={"com.docker.compose.project": f"{project}-other"})
    logged("true", labels={"com.docker.compose.oneoff": "True"})
    found = {source.name.split("/")[0]: source for source in logs.sources()}
    assert sorted(found) == ["backend", "celery-beat"]
    assert len(logs.sources()) == 2
    assert (found["backend"].about["running"], found["celery-beat"].about["running"]) == (True, False)


def test_no_container_and_two_projects(engine, logged, project):
    """Nobody to ask is an error that says so; two BookReaders are refused."""
    with pytest.raises(SourceAbsentError, match="there is no container of compose project"):
        DockerLogs(engine, f"{project}-nowhere").sources()
    logged("true")
    logged("true", labels={"com.docker.compose.project": f"{project}-other"})
    with pytest.raises(RefusedError, match="several compose projects") as raised:
        DockerLogs(engine).sources()
    assert "BACKUP_COMPOSE_PROJECT" in raised.value.hint
    with pytest.raises(SourceAbsentError, match="cannot be reached"):
        DockerLogs(Engine("unix:///nowhere/at/all"), project).sources()


def test_a_driver_that_keeps_nothing(logs, logged):
    """A log that cannot be read back is an error that names container, driver and what to use instead."""
    source = logged("echo lost", driver="none")
    with pytest.raises(SourceError, match="log driver none of backend/") as raised:
        list(logs.lines(source, *EVER))
    assert "json-file" in raised.value.hint


def test_a_container_that_has_gone(engine, logs, logged):
    """A container removed in between is absent, and not merely silent."""
    source = logged("echo here")
    engine.api.remove_container(source.id)
    with pytest.raises(SourceAbsentError, match="has gone"):
        list(logs.lines(source, *EVER))


def test_rotated_lines_are_known_to_be_gone(logs, logged):
    """A log that rotates is whole while its files have room, and no longer once the first was dropped."""
    write = "i=0; while [ $i -lt {} ]; do echo line $i ............................; i=$((i+1)); done"
    small = {"max-size": "20k", "max-file": "3"}
    short = logged(write.format(50), **small)
    assert logs.is_whole(short)
    long = logged(write.format(2000), **small)
    assert not logs.is_whole(long)
    assert " 0 " not in told(logs.lines(long, *EVER))[0][1]
    assert logs.is_whole(logged(write.format(10)))
    assert logs.is_whole(logged("echo", driver="local"))
    assert not logs.is_whole(logged("echo", **{"max-size": "20k"})), "one file is emptied when it is full"


@pytest.mark.parametrize("after", [5_000, 100_001, 300_000])
def test_an_engine_that_ends_within_a_log(engine, logs, logged, tmp_path, after):
    """An answer cut short is an error: what came is not taken for all."""
    source = logged("seq 1 20000")
    with _ends_after(engine, tmp_path / "socket", after) as address:
        cut = DockerLogs(Engine(address), logs.project)
        with pytest.raises(SourceError, match="broke off"):
            list(cut.lines(source, *EVER))
    assert len(list(logs.lines(source, *EVER))) == 20000


def test_memory_stays_flat(engine, logs, logged):
    """Thirty thousand lines take no more memory than a few: they are never held."""
    source = logged("seq 1 30000 | sed 's/$/ ............................................/'")
    list(itertools.islice(logs.lines(source, *EVER), 10))
    tracemalloc.start()
    count = sum(1 for _ in logs.lines(source, *EVER))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 4 << 20


def test_now_is_a_border_as_well(logs, logged):
    """Of a container that goes on logging, a window that ends now has what came before, and no more."""
    source = logged("while true; do echo tick; sleep 0.05; done", wait=False)
    time.sleep(0.4)
    until = stamp(datetime.now(UTC))
    first = list(logs.lines(source, EVER[0], until))
    time.sleep(0.2)
    assert list(logs.lines(source, EVER[0], until)) == first
    later = list(logs.lines(source, until, EVER[1]))
    assert first
    assert later
    assert later[0].stamp.decode() >= until > first[-1].stamp.decode()


@contextlib.contextmanager
def _ends_after(engine, path, size):
    """An address of the engine at which an answer of more than `size` bytes is cut off there."""

    class Cut(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.socket(socket.AF_UNIX) as real:
                real.connect(engine.address.removeprefix("unix://"))
                back = threading.Thread(target=self.answer, args=(real,))
                back.start()
                while asked := self.request.recv(65536):
                    real.sendall(asked)
                back.join()

        def answer(self, real):
            left = size
            with contextlib.suppress(OSError):
                while left > 0 and (said := real.recv(min(left, 65536))):
                    self.request.sendall(said)
                    left -= len(said)
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Cut) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()
