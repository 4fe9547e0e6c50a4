"""Programs in real containers: BookReader's own, and what goes wrong with them."""

import os
import signal
from pathlib import Path

import pytest

from bookreader_backup_assets.core.errors import (
    CommandError,
    RefusedError,
    SourceAbsentError,
    SourceError,
)
from bookreader_backup_assets.runners.docker import (
    POSTGRESQL,
    STORAGE,
    DockerRunner,
    Engine,
    Sought,
    find_container,
    images,
)
from tests.fixtures.docker import until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
MARK = str(10**9 + os.getpid())  # seconds that nobody else sleeps
PATIENT = f"--lock-wait-timeout={MARK}"  # a pg_dump that nobody else runs
PSQL = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'abandoned'"


def running(*words: str) -> list[int]:
    """Processes of this machine with all of `words` in their argv."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                argv = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(word.encode() in argv for word in words):
                found.append(int(process.name))
    return found


def test_a_dump_streams_and_lists(bookreader_containers):
    """A custom-format dump of the running server comes out whole: its own tool lists every table."""
    there = bookreader_containers
    dump = b"".join(there.postgresql.stream(["pg_dump", "-Fc", "-Z1"], env=there.libpq))
    listed = there.postgresql.run(["pg_restore", "--list"], stdin=[dump]).stdout.decode()
    for table in ("users", "books", "generated_images", "alembic_version"):
        assert f"TABLE DATA public {table} " in listed


def test_a_session_holds_a_snapshot(bookreader_containers):
    """A psql that is kept open sees the rows of its snapshot while others write."""
    there = bookreader_containers
    with there.postgresql.session(PSQL, env=there.libpq) as held:
        held.send(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n")
        snapshot = held.readline(10).decode()
        there.postgresql.run([*PSQL, "-c", "INSERT INTO users (email) VALUES ('new')"], env=there.libpq)
        dump = there.postgresql.stream(
            ["pg_dump", "--data-only", "-t", "users", f"--snapshot={snapshot}"], env=there.libpq
        )
        assert b"".join(dump).count(b"@example.org") == 50
        held.send(b"SELECT count(*) FROM users;\n")
        assert held.readline(10) == b"50"
    there.postgresql.run([*PSQL, "-c", "DELETE FROM users WHERE email = 'new'"], env=there.libpq)


def test_a_wrong_password_is_the_servers_word(bookreader_containers):
    """A refusal by the server is an error that repeats what it said, without the password."""
    there = bookreader_containers
    wrong = {**there.libpq, "PGPASSWORD": "not-the-password"}
    with pytest.raises(CommandError, match="password authentication failed") as caught:
        list(there.postgresql.stream(["pg_dump"], env=wrong))
    assert "not-the-password" not in str(caught.value)


def test_an_abandoned_dump_leaves_no_backend(bookreader_containers):
    """A dump that nobody reads on is ended in the container, and its server process goes with it."""
    there = bookreader_containers
    env = {**there.libpq, "PGAPPNAME": "abandoned"}
    with there.postgresql.session(PSQL, env=there.libpq) as lock:
        lock.send(b"BEGIN; LOCK books; SELECT 1;\n")
        lock.readline(10)
        with pytest.raises(CommandError, match="silent"):
            list(there.postgresql.stream(["pg_dump", PATIENT], env=env, stall=0.5))
    assert running(PATIENT) == []
    until(lambda: there.postgresql.run([*PSQL, "-c", OURS], env=there.libpq).stdout == b"0\n", "no backend")


def test_a_dump_killed_inside_is_an_error(bookreader_containers):
    """A pg_dump killed in its container never looks like a dump that ended."""
    there = bookreader_containers
    with there.postgresql.session(PSQL, env=there.libpq) as lock:
        lock.send(b"BEGIN; LOCK books; SELECT 1;\n")
        lock.readline(10)
        dump = there.postgresql.session(["pg_dump", PATIENT], env=there.libpq)
        with dump as dumping:
            until(lambda: running(PATIENT), "pg_dump running")
            for pid in running(PATIENT):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(CommandError, match="SIGKILL"):
                dumping.readline(10)


def test_a_container_killed_half_way_is_an_error(start_container, engine):
    """A stream whose container is killed, or removed, raises: what came is not the whole."""
    for end in (engine.api.kill, lambda name: engine.api.remove_container(name, force=True)):
        name = start_container("busybox", "bookreader-test-killed")
        runner = DockerRunner(engine, STORAGE, configured=name)
        chunks = runner.stream(["sh", "-c", "echo half; sleep 1000"])
        assert next(chunks) == b"half\n"
        end(name)
        with pytest.raises((CommandError, SourceAbsentError)):
            list(chunks)


def test_a_program_without_a_shell_beside_it_is_ended(bookreader_containers):
    """In a container with no shell and no kill, an abandoned program is ended from outside."""
    there = bookreader_containers
    with pytest.raises(CommandError, match="silent"):
        list(there.storage.stream(["/sleep", MARK], stall=0.3))
    assert running(MARK) == []


def test_a_program_that_cannot_be_ended_is_told(bookreader_containers, monkeypatch):
    """An engine elsewhere, a container without a shell: that a program runs on is not kept quiet."""
    there = bookreader_containers
    monkeypatch.setattr(Engine, "is_local", False)
    monkeypatch.setattr("bookreader_backup_assets.runners.child.GRACE", 0.2)
    chunks = there.storage.stream(["/sleep", MARK], stall=0.2)
    try:
        with pytest.raises(CommandError, match="runs on in container"):
            next(chunks)
    finally:
        for pid in running(MARK):
            os.kill(pid, signal.SIGKILL)


def calls(runner):
    """Every way to use a runner, as calls."""

    def session():
        with runner.session(["cat"]):
            pass

    return {
        "stream": lambda: list(runner.stream(["true"])),
        "run": lambda: runner.run(["true"]),
        "session": session,
        "read_tree": lambda: list(runner.read_tree("/app/storage").items),
        "describe": runner.describe,
    }


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
@pytest.mark.parametrize("call", ["stream", "run", "session", "read_tree", "describe"])
def test_an_absent_engine_is_named(address, call):
    """Without an engine every call says so, and what to do; making the runner has asked nobody."""
    runner = DockerRunner(Engine(address), POSTGRESQL)
    with pytest.raises(SourceAbsentError, match=address) as caught:
        calls(runner)[call]()
    assert "is it running" in caught.value.hint


def test_an_address_that_cannot_be_used_is_refused():
    """An engine behind ssh is refused with the way round it."""
    with pytest.raises(RefusedError, match="ssh://host") as caught:
        DockerRunner(Engine("ssh://host"), POSTGRESQL).describe()
    assert "ssh -L" in caught.value.hint


@pytest.mark.parametrize("call", ["stream", "run", "session"])
def test_a_stopped_container_is_named(start_container, engine, call):
    """A program in a container that does not run is refused with the command that starts it."""
    name = start_container("busybox", f"bookreader-test-stopped-{call}", running=False)
    with pytest.raises(SourceAbsentError, match=f"{name} is created") as caught:
        calls(DockerRunner(engine, STORAGE, configured=name))[call]()
    assert caught.value.hint == f"docker start {name}"


def test_a_paused_container_is_named(start_container, engine):
    """A paused container is refused, instead of waited for."""
    name = start_container("busybox", "bookreader-test-paused")
    engine.api.pause(name)
    with pytest.raises(SourceAbsentError, match="is paused") as caught:
        DockerRunner(engine, STORAGE, configured=name).run(["true"])
    assert caught.value.hint == f"docker unpause {name}"


def test_an_absent_container_is_named(bookreader_containers, engine):
    """A configured name that does not exist is an error that names what does, and the setting."""
    with pytest.raises(SourceAbsentError, match=bookreader_containers.postgresql_name) as caught:
        DockerRunner(engine, POSTGRESQL, configured="bookreader_typo").describe()
    assert "bookreader_typo" in caught.value.message
    assert "BACKUP_POSTGRESQL_CONTAINER" in caught.value.hint


@pytest.fixture(scope="module")
def sought(start_container):
    """Two compose projects with a service each, a one-off of the first, and a container with a name only."""
    service = f"service{os.getpid()}"

    def labels(project: str, oneoff: str = "False") -> dict[str, str]:
        prefix = "com.docker.compose."
        return {f"{prefix}project": project, f"{prefix}service": service, f"{prefix}oneoff": oneoff}

    names = {
        "one": start_container("busybox", "one", labels=labels("one"), running=False),
        "two": start_container("busybox", "two", labels=labels("two"), running=False),
        "named": start_container("busybox", "named", running=False),
    }
    start_container("busybox", "off", labels=labels("one", oneoff="True"), running=False)
    return names, service


def test_a_project_decides_between_two(sought, engine):
    """The same service in two projects is refused; the project, or the container's name, decides."""
    names, service = sought
    what = Sought((service,), (), "BACKUP_X_CONTAINER")
    with pytest.raises(RefusedError, match=r"one-.*\(project one\), two-") as caught:
        find_container(engine, what)
    assert "BACKUP_COMPOSE_PROJECT" in caught.value.hint
    assert "BACKUP_X_CONTAINER" in caught.value.hint
    assert find_container(engine, what, project="two") == names["two"]
    assert find_container(engine, what, configured=names["one"]) == names["one"]


def test_a_known_name_is_found(sought, engine):
    """A container without compose labels is found by its name; a preferred service goes before others."""
    names, service = sought
    assert find_container(engine, Sought(("none",), (names["named"],), "X")) == names["named"]
    assert find_container(engine, Sought(("none", service), (names["named"],), "X")) == names["named"]
    with pytest.raises(SourceAbsentError, match="in compose project three"):
        find_container(engine, Sought((service,), (), "X"), project="three")


def test_images_are_those_of_the_project(bookreader_containers, engine):
    """The manifest learns which images every service runs; one that was never pulled has no digest."""
    there = bookreader_containers
    found = images(engine, project=there.project)
    assert set(found) == {"postgres", "redis", "backend"}
    assert found["postgres"]["image"].startswith("bookreader-test-postgres:")
    assert found["postgres"]["id"].startswith("sha256:")
    assert set(found["redis"]) == {"image", "id"}


def test_a_runner_describes_its_container(bookreader_containers):
    """An entry learns the container and its image."""
    there = bookreader_containers
    described = there.redis.describe()
    assert described["container"] == there.redis_name
    assert set(described) == {"runner", "container", "image", "image_id"}


def test_what_the_engine_refuses_is_an_error_of_ours(bookreader_containers, engine):
    """A refusal of the engine does not leave as the library's exception."""
    with pytest.raises(SourceError, match="refuses"), engine.guarded():
        engine.api.remove_container(bookreader_containers.redis_name)
