"""What containers log, read back line by line from the engine: every byte, once, by the nanosecond."""

import contextlib
import gzip
import itertools
import json
import os
import re
import socket
import socketserver
import threading
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.hours import archive_hour
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.components.logs import LOGS
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.hour import begin_of, instant_of, key_of, stamp
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_logs import DockerLogs
from bookreader_backup_assets.settings import Settings
from tests.fixtures.docker import LABEL
from tests.fixtures.installation import Clock
from tests.fixtures.missing import missing

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


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_from_an_instant_to_an_instant_exactly(logs, logged, driver):
    """The first instant belongs to a window and the last does not, to the nanosecond."""
    source = logged("for i in 1 2 3 4 5; do echo $i; done", driver=driver)
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


def test_a_container_that_goes_while_they_are_listed(engine, logs, logged):
    """One that is removed between two questions is left out; an engine that is gone is an error."""
    source = logged("echo here")
    logged("echo there")
    (listed,) = [one for one in engine.api.containers(all=True) if one["Id"] == source.id]
    engine.api.remove_container(source.id)
    assert logs._still_there(listed) is None
    with pytest.raises(SourceAbsentError, match="cannot be reached"):
        DockerLogs(Engine("unix:///nowhere/at/all"), logs.project)._still_there(listed)


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


def _logged_at(engine, source, instants):
    """Give the lines of a container that has ended other times, in the file that the engine keeps them in."""
    path = Path(engine.api.inspect_container(source.id)["LogPath"])
    if not os.access(path, os.W_OK):
        missing("no container with a log of hours ago: the engine's files are out of reach")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) == len(instants)
    lines = [json.dumps({**r, "time": stamp(at)}) for r, at in zip(records, instants, strict=True)]
    path.write_text("\n".join(lines) + "\n")


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


class TestArchive:
    """Hours of a compose project in an archive, in a vault, checked; and what became of its containers."""

    @pytest.fixture
    def clock(self):
        """The clock of the installation: set on, it makes this hour one that is over."""
        return Clock()

    @pytest.fixture
    def installation(self, engine, project, tmp_path, monkeypatch, clock):
        """The settings of an operator whose BookReader runs in Docker."""
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        settings = Settings(
            runner="docker",
            vault=tmp_path / "vault",
            compose_project=project,
            log=tmp_path / "own.log",
        )
        return assemble(settings, now=clock)

    @pytest.fixture
    def hour(self, clock):
        """The hour it is, which a clock that is set on by one has over."""
        now = datetime.now(UTC)
        if now.minute == 59 and now.second > 30:
            time.sleep(61 - now.second)
        return key_of(datetime.now(UTC))

    def archived(self, installation, clock, hour):
        """Archive an hour when it is over, check it, and return entry and checks."""
        clock.at = max(clock(), begin_of(hour) + timedelta(hours=1, minutes=5))
        return self.checked(installation, archive_hour(installation, hour)[0])

    def window(self, installation, since, until, set_id, label=None):
        """Archive a window of this hour, check it, and return entry and checks."""
        component = replace(installation.component(LOGS), since=since, until=until)
        return self.checked(installation, capture(installation, component, set_id, label=label)[0])

    def checked(self, installation, entry):
        """Check an archive; returns it and its outcomes."""
        proof = verify(installation, installation.component(LOGS), entry)
        return entry, {outcome.check: outcome for outcome in proof.checks}

    def text(self, installation, entry):
        """The lines of an archive."""
        stored = b"".join(installation.vault.open(entry.name))
        return gzip.decompress(stored).decode().splitlines()

    def test_an_hour_of_all_containers(self, installation, clock, hour, logged):
        """All containers' lines and this program's own are in one file, by container; every check passes."""
        backend = logged("echo one; echo two >&2", "backend")
        beat = logged("seq 1 300", "celery-beat")
        logged("sleep 1000", "redis", wait=False)
        installation.log.info("capture redis/rdb done")
        entry, checks = self.archived(installation, clock, hour)
        assert [o for o in checks.values() if not o.passed] == []
        assert entry.set == hour
        assert entry.captured_at == begin_of(hour) + timedelta(hours=1)
        assert re.fullmatch(r"logs/logs_\d{4}-\d\d-\d\d_\d\d-05-00\.log\.gz", entry.name)
        lines = self.text(installation, entry)
        assert [line.split()[0] for line in lines if "celery" in line] == [beat.name] * 300
        said = {tuple(line.split()[2:]) for line in lines if "backend/" in line}
        assert said == {("stdout", "one"), ("stderr", "two")}
        assert lines[-1].startswith("bookreader-backup 20")
        assert lines[-1].endswith(" log INFO capture redis/rdb done")
        sources = entry.fingerprint["sources"]
        assert sources[beat.name]["lines"] == 300
        assert sources[backend.name]["oldest"] == sources[backend.name]["first"]
        assert sum(source["lines"] for source in sources.values()) == len(lines) == 303
        assert "the first" in checks["no_gap"].message

    def test_windows_that_join_have_every_line_once(self, installation, logs, logged):
        """A container that logs through the border of two windows has each line in one of them."""
        source = logged("i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done")
        instants = [instant_of(line.stamp.decode()) for line in logs.lines(source, *EVER)]
        borders = [instants[0], instants[20], instants[41], instants[-1] + timedelta(seconds=1)]
        found, begin = [], begin_of("2026-01-01-00:00")
        for number, (since, until) in enumerate(itertools.pairwise(borders)):
            hour = key_of(begin + timedelta(hours=number))
            time.sleep(max(0, (until - datetime.now(UTC)).total_seconds()))
            entry, checks = self.window(installation, since, until, hour)
            assert [o for o in checks.values() if not o.passed] == []
            lines = self.text(installation, entry)
            found.append([line.split(" ", 3)[3] for line in lines if line.startswith("backend/")])
        assert [len(lines) for lines in found] == [20, 21, 19]
        assert list(itertools.chain(*found)) == [f"line {number}" for number in range(60)]

    def test_rotated_away_between_two_captures(self, installation, clock, logged):
        """A container that logs more than its driver keeps: the gap is named, with both its instants."""
        source = logged(
            "echo first; while [ ! -e /go ]; do sleep 0.05; done; seq 1 5000; sleep 1000",
            wait=False,
            **{"max-size": "20k", "max-file": "2"},
        )
        time.sleep(0.3)
        middle = datetime.now(UTC)
        _, checks = self.window(installation, middle - timedelta(minutes=5), middle, "2026-01-01-00:00")
        assert checks["no_gap"].passed, checks["no_gap"].message
        engine = installation.component(LOGS).logs[0].engine
        engine.api.exec_start(engine.api.exec_create(source.id, ["touch", "/go"])["Id"])
        time.sleep(1)
        entry, checks = self.window(installation, middle, datetime.now(UTC), "2026-01-01-01:00")
        oldest = entry.fingerprint["sources"][source.name]["oldest"]
        assert checks["readable"].passed
        assert checks["no_gap"].verdict is Verdict.FAILED
        assert checks["no_gap"].measured["gaps"] == [
            {"source": source.name, "from": stamp(middle), "until": oldest}
        ]
        assert f"{source.name} logged from" in checks["no_gap"].message
        later = verify(installation, installation.component(LOGS), entry, names=["no_gap"])
        assert later.checks[0].measured == checks["no_gap"].measured, "told again from what was recorded"

    def test_before_a_container_goes_away(self, engine, installation, logged):
        """A labelled capture has the last lines of a container that is replaced; without one it is named."""
        old = logged("echo last words; sleep 1000", wait=False)
        nginx = logged("echo hello; sleep 1000", "nginx", wait=False)
        time.sleep(0.2)
        middle = datetime.now(UTC)
        self.window(installation, middle - timedelta(minutes=5), middle, "2026-01-01-00:00")
        label, checks = self.checked(
            installation,
            capture(
                installation,
                installation.component(LOGS),
                "2026-01-01_00-30-00_pre-deploy",
                label="pre-deploy",
            )[0],
        )
        assert label.fingerprint["since"] == stamp(middle)
        assert checks["no_gap"].passed
        engine.api.remove_container(old.id, force=True)
        logged("echo new; sleep 1000", wait=False)
        time.sleep(0.2)
        entry, checks = self.window(installation, middle, datetime.now(UTC), "2026-01-01-01:00")
        assert checks["no_gap"].verdict is Verdict.INCONCLUSIVE, "nobody knows what came after the label"
        assert f"{old.name} was there" in checks["no_gap"].message
        assert label.name in checks["no_gap"].message
        engine.api.remove_container(nginx.id, force=True)
        _, checks = self.window(
            installation, instant_of(entry.fingerprint["until"]), datetime.now(UTC), "2026-01-01-02:00"
        )
        assert checks["no_gap"].verdict is Verdict.INCONCLUSIVE
        assert f"{nginx.name} was there" in checks["no_gap"].message

    def test_a_driver_that_keeps_nothing_is_a_problem(self, installation, clock, hour, logged):
        """The others' logs are archived; the one that cannot be read is named, and is a gap."""
        logged("echo kept", "backend")
        mute = logged("echo lost", "nginx", driver="none")
        entry, checks = self.archived(installation, clock, hour)
        assert [problem.where for problem in entry.problems] == [mute.name]
        assert "log driver none" in entry.problems[0].what
        assert len(self.text(installation, entry)) == 1
        assert checks["readable"].passed
        assert checks["no_gap"].verdict is Verdict.FAILED
        with pytest.raises(SourceError, match="log driver none"):
            installation.component(LOGS).probe()

    def test_a_backfill_through_dagster(self, engine, installation, logged, tmp_path):
        """Three past hours, in one run each, hold what the engine has of each of them: a backfill is true."""
        source = logged("seq 1 180", "backend")
        last = begin_of(key_of(datetime.now(UTC)))
        begin = last - timedelta(hours=3)
        _logged_at(engine, source, [begin + timedelta(minutes=number) for number in range(180)])
        settings = Settings(
            runner="docker",
            vault=tmp_path / "vault",
            compose_project=installation.component(LOGS).logs[0].project,
        )
        job = define(assemble(settings), settings).resolve_job_def("capture_logs")
        keys = [key_of(begin + timedelta(hours=number)) for number in (-1, 1, 0, 2)]
        with dg.instance_for_test() as instance:
            for key in keys:
                job.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)
        catalog = Catalog(installation.vault)
        entries = catalog.entries(asset=LOGS)
        assert [entry.set for entry in entries] == sorted(keys)
        assert {str(catalog.standing(entry)) for entry in entries} == {"verified"}
        numbers = [[line.split()[-1] for line in self.text(installation, entry)] for entry in entries]
        assert numbers == [[], *([str(n) for n in range(at, at + 60)] for at in (1, 61, 121))]

    def test_a_line_that_is_missing_is_noticed(self, installation, clock, hour, logged):
        """An archive whose lines are not those counted, or of another hour, does not pass."""
        logged("seq 1 10")
        entry, _ = self.archived(installation, clock, hour)
        for change in (
            {
                "sources": {
                    name: {**one, "lines": one["lines"] + 1}
                    for name, one in entry.fingerprint["sources"].items()
                }
            },
            {"sources": {}},
            {"since": stamp(begin_of(hour) + timedelta(minutes=59, seconds=59))},
        ):
            other = replace(entry, fingerprint={**entry.fingerprint, **change})
            assert self.checked(installation, other)[1]["readable"].verdict is Verdict.FAILED
        path = installation.vault.local_path(entry.name)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-9])
        assert self.checked(installation, entry)[1]["readable"].verdict is Verdict.FAILED
