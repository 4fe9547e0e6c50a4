"""The filter before the engine: all that captures and restores do passes, and nothing that takes the host."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookreader_backup_assets.core.errors import BackupError, CommandError, SourceError
from bookreader_backup_assets.runners.docker import POSTGRESQL, REDIS, STORAGE, DockerRunner
from bookreader_backup_assets.runners.docker_engine import DEFAULT, Engine
from bookreader_backup_assets.runners.docker_files import DockerFiles
from bookreader_backup_assets.runners.docker_services import DockerServices
from bookreader_backup_assets.servers.containers import LABEL, ContainerScratch
from tests.fixtures.docker import BookReader, until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

PROGRAM = Path(__file__).parents[2] / "deploy" / "engine_filter.py"


@contextlib.contextmanager
def filtering(folder: Path, engine: Engine, project: str, *containers: str) -> Iterator[Engine]:
    """The engine, as it is seen through a filter of its own."""
    if not engine.is_local:
        pytest.skip("the engine has no socket on this machine")
    socket_file = folder / "f"
    behind = engine.address.removeprefix("unix://")
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(
            [sys.executable, PROGRAM, socket_file, behind, project, *containers], stderr=log
        ) as process,
    ):
        try:
            until(lambda: b"listening" in (folder / "log").read_bytes(), "the filter")
            yield Engine(f"unix://{socket_file}")
        finally:
            process.terminate()
            assert process.wait(10) == 0
    assert not socket_file.exists()


@pytest.fixture(scope="module")
def filtered(bookreader_containers: BookReader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine behind a filter for the containers of this run's BookReader."""
    folder = tmp_path_factory.mktemp("f")
    with filtering(folder, bookreader_containers.engine, bookreader_containers.project) as engine:
        yield engine


@pytest.fixture
def redis(bookreader_containers: BookReader, filtered: Engine) -> DockerRunner:
    """Redis, reached through the filter."""
    return DockerRunner(filtered, REDIS, bookreader_containers.project)


def raw(engine: Engine, request: str) -> bytes:
    """What comes back for bytes that no client of ours would send."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(engine.address.removeprefix("unix://"))
        connection.sendall(request.encode())
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                answer += more
    return answer


def post(path: str, body: object) -> str:
    """A request with a JSON body."""
    content = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    )


def test_programs_run_through_it(redis: DockerRunner, bookreader_containers: BookReader) -> None:
    """With input and output, statuses, and an end that is seen by either side."""
    auth = {"REDISCLI_AUTH": bookreader_containers.redis_password}
    assert redis.run(["redis-cli", "ping"], env=auth).stdout.strip() == b"PONG"
    big = os.urandom(3 << 20)
    assert b"".join(redis.stream(["cat"], stdin=[big])) == big
    with pytest.raises(CommandError):
        redis.run(["sh", "-c", "exit 3"])
    with redis.session(["cat"]) as session:
        assert session is not None


def test_scratch_servers_come_and_go(bookreader_containers: BookReader, filtered: Engine) -> None:
    """A dump of PostgreSQL and one of Redis are tried, and nothing is left of the servers."""
    there = bookreader_containers
    postgresql = DockerRunner(filtered, POSTGRESQL, there.project)
    redis = DockerRunner(filtered, REDIS, there.project)
    scratch = ContainerScratch(filtered, postgresql, redis)
    with scratch.postgresql() as server:
        assert server.runner.run(["psql", "-XAtqc", "SELECT 1"], env=server.env).stdout.strip() == b"1"
    auth = {"REDISCLI_AUTH": there.redis_password}
    dump = b"".join(redis.stream(["redis-cli", "--rdb", "-"], env=auth))
    with contextlib.suppress(SourceError):  # its end mark is no part of a dump
        scratch.check_rdb([dump])
    with there.engine.guarded():
        left = there.engine.api.containers(all=True, filters={"label": LABEL})
    assert [one for one in left if str(os.getpid()) in one["Labels"][LABEL].split()] == []


def test_files_are_read_and_written_through_it(start_container, engine: Engine, tmp_path: Path) -> None:
    """And their container is stopped and started: what a restore needs."""
    labels = {"com.docker.compose.project": "filtered", "com.docker.compose.service": "backend"}
    name = start_container("busybox", "filtered", command=["sleep", "1000"], labels=labels)
    with filtering(tmp_path, engine, "filtered") as filtered:
        files = DockerFiles(DockerRunner(filtered, STORAGE, "filtered"))
        folder = files.find("/tmp")
        assert folder is not None
        content = os.urandom(2 << 20)
        files.put("/tmp/written", len(content), [content], folder)
        found = files.find("/tmp/written")
        assert found is not None
        assert b"".join(found.chunks()) == content
        services = DockerServices(filtered, "filtered", ("backend",), settled=0.1, grace=1)
        services.stop(name)
        assert services.running() == ()
        services.start(name)
        assert services.running() == (name,)


def test_a_named_container_is_within_reach(start_container, engine: Engine, tmp_path: Path) -> None:
    """One that compose did not make, once its name is given."""
    name = start_container("busybox", "filter-named", command=["sleep", "1000"])
    with filtering(tmp_path, engine, "filtered", "", name) as filtered, filtered.guarded():
        assert filtered.api.inspect_container(name)["Name"] == f"/{name}"


def test_another_container_is_out_of_reach(start_container, filtered: Engine) -> None:
    """It is listed, and no more: not its environment, its files, its programs, its end."""
    name = start_container("busybox", "filter-other", command=["sleep", "1000"])
    api = filtered.api
    for asked in (
        lambda: api.inspect_container(name),
        lambda: api.logs(name),
        lambda: api.exec_create(name, ["true"]),
        lambda: api.put_archive(name, "/tmp", _tar()),
        lambda: next(api.get_archive(name, "/etc/passwd")[0]),
        lambda: api.stop(name, timeout=0),
        lambda: api.remove_container(name, force=True),
    ):
        with pytest.raises(SourceError, match="no container of"), filtered.guarded():
            asked()
    with filtered.guarded():
        assert name in [one["Names"][0].lstrip("/") for one in api.containers()]


def test_bookreader_cannot_be_removed(bookreader_containers: BookReader, filtered: Engine) -> None:
    """Scratch servers are removed, and waited for, and nothing else."""
    for asked in (filtered.api.remove_container, filtered.api.wait):
        with pytest.raises(SourceError, match="no container of"), filtered.guarded():
            asked(bookreader_containers.redis_name)


SERVER = {
    "Image": "debian:bookworm-slim",
    "User": "65534:65534",
    "Labels": {LABEL: "test 1 1"},
    "Entrypoint": ["true"],
    "HostConfig": {
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "json-file", "Config": {}},
    },
}


@pytest.mark.parametrize(
    "more",
    [
        {"User": "0"},
        {"User": ""},
        {"Labels": {}},
        {"Labels": {LABEL: "x", "com.docker.compose.project": "x"}},
        {"Volumes": {"/x": {}}},
        {"HostConfig": {"Binds": ["/:/host"]}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}},
        {"HostConfig": {"VolumesFrom": ["other"]}},
        {"HostConfig": {"Privileged": True}},
        {"HostConfig": {"privileged": True}},
        {"HostConfig": {"CapAdd": ["SYS_ADMIN"]}},
        {"HostConfig": {"CapDrop": []}},
        {"HostConfig": {"NetworkMode": "host"}},
        {"HostConfig": {"PidMode": "host"}},
        {"HostConfig": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}},
        {"HostConfig": {"Devices": [{"PathOnHost": "/dev/sda"}]}},
        {"HostConfig": None},
    ],
    ids=str,
)
def test_only_scratch_servers_can_be_made(filtered: Engine, more: dict) -> None:
    """A container with one right more than they have is refused before the engine hears of it."""
    body = {**SERVER, **more}
    if more.get("HostConfig"):
        body["HostConfig"] = {**SERVER["HostConfig"], **more["HostConfig"]}
    answer = raw(filtered, post("/v1.41/containers/create", body))
    assert answer.startswith(b"HTTP/1.1 403 "), answer


def test_a_body_is_written_anew(filtered: Engine, engine: Engine) -> None:
    """The engine takes keys of any case, and the last of two: it never sees what was not looked at."""
    content = (
        json.dumps(SERVER)[:-1] + ', "hostconfig": null, "HostConfig": ' + json.dumps(SERVER["HostConfig"])
    )
    content = content.replace('"CapDrop": ["ALL"]', '"CapDrop": ["ALL"], "networkmode": ""') + "}"
    request = post("/v1.41/containers/create", {}).replace(
        "Content-Length: 2", f"Content-Length: {len(content)}"
    )
    answer = raw(filtered, request[:-2] + content)
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    made = json.loads(answer.partition(b"\r\n\r\n")[2])["Id"]
    try:
        assert engine.api.inspect_container(made)["HostConfig"]["NetworkMode"] == "none"
    finally:
        filtered.api.remove_container(made, force=True)


@pytest.mark.parametrize("more", [{"Privileged": True}, {"privileged": True}, {"User": "root"}], ids=str)
def test_programs_have_no_more_rights_than_their_container(
    bookreader_containers: BookReader, filtered: Engine, more: dict
) -> None:
    """An exec as another user, or a privileged one, is refused."""
    path = f"/v1.41/containers/{bookreader_containers.storage_name}/exec"
    assert raw(filtered, post(path, {"Cmd": ["id"], **more})).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /v1.41/images/create?fromImage=x",
        "POST /v1.41/build",
        "GET /v1.41/volumes",
        "POST /v1.41/volumes/create",
        "GET /v1.41/secrets",
        "POST /v1.41/containers/prune",
        "GET /v1.41/events",
        "POST /grpc",
        "POST /session",
        "GET /v1.41/containers/../images/json",
        "GET /v1.41/containers/%2e%2e/json/../json",
        "GET //containers/json",
    ],
)
def test_other_calls_are_refused(filtered: Engine, request_line: str) -> None:
    """What is not known to be needed does not reach the engine."""
    answer = raw(filtered, f"{request_line} HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 "), answer


SMUGGLED = "POST /v1.41/volumes/create HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "first",
    [
        "GET /version HTTP/1.1\r\nHost: docker\r\n\r\n",
        "GET /version HTTP/1.1\r\nHost: docker\r\nConnection: keep-alive\r\n\r\n",
        f"POST /exec/{'0' * 64}/start HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{{}}",
    ],
    ids=["pipelined", "kept alive", "after a refused take-over"],
)
def test_a_second_request_is_not_passed_on(filtered: Engine, engine: Engine, first: str) -> None:
    """One connection carries one request, whatever comes behind it."""
    before = {one["Name"] for one in engine.api.volumes()["Volumes"] or []}
    answer = raw(filtered, first + SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    made = {one["Name"] for one in engine.api.volumes()["Volumes"] or [] if not one["Labels"]} - before
    assert b"CreatedAt" not in answer, made


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /version HTTP/1.1\nUpgrade: h2c\r\nHost: docker\r\n\r\n",
        "GET /version HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /version HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "nonsense\r\n\r\n",
        f"POST /exec/{'0' * 64}/start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(filtered: Engine, request_text: str) -> None:
    """The filter and the engine could take such a request for different things."""
    answer = raw(filtered, request_text)
    assert answer.startswith(b"HTTP/1.1 400 "), answer


def test_an_engine_that_is_down_is_said(tmp_path: Path) -> None:
    """It is no refusal: the engine may come back."""
    with filtering(tmp_path, Engine(f"unix://{tmp_path}/nobody"), "x") as filtered:
        assert raw(filtered, "GET /version HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 502 ")


def test_a_killed_filter_starts_again(tmp_path: Path) -> None:
    """Its socket of before is in the way of nothing."""
    (tmp_path / "f").touch()
    with filtering(tmp_path, Engine(DEFAULT), "x"):
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_many_at_a_time(redis: DockerRunner, bookreader_containers: BookReader) -> None:
    """Captures run side by side."""
    auth = {"REDISCLI_AUTH": bookreader_containers.redis_password}
    said: list[bytes] = []

    def ask() -> None:
        with contextlib.suppress(BackupError):
            said.append(redis.run(["redis-cli", "ping"], env=auth).stdout.strip())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == [b"PONG"] * 6


def test_a_wrong_call_says_how() -> None:
    """Without a project everything would be out of reach, or nothing."""
    done = subprocess.run([sys.executable, PROGRAM, "a", "b"], capture_output=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: ")


def _tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return made.getvalue()
