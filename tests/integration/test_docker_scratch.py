"""Scratch servers as containers of the production containers' own images."""

import contextlib
import os
import subprocess
import sys

import pytest

from bookreader_backup_assets.core.errors import DamagedError, SourceAbsentError
from bookreader_backup_assets.runners.docker import POSTGRESQL, REDIS, DockerRunner
from bookreader_backup_assets.servers import containers
from bookreader_backup_assets.servers.containers import LABEL, ContainerScratch, remove_orphans

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
PSQL = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]


@pytest.fixture
def scratch(bookreader_containers):
    """Scratch servers like the running trio."""
    there = bookreader_containers
    return ContainerScratch(there.engine, there.postgresql, there.redis)


@pytest.fixture
def left(engine):
    """The scratch containers of this process that there are now."""

    def now():
        held = engine.api.containers(all=True, filters={"label": LABEL})
        return [one["Id"] for one in held if one["Labels"][LABEL] == containers._holder()]

    return now


def rdb_of(there) -> bytes:
    """A dump of the running Redis, without redis-cli's end marker."""
    env = {"REDISCLI_AUTH": there.redis_password}
    said = b"".join(there.redis.stream(["redis-cli", "--rdb", "-"], env=env))
    return said[:-40]


def test_a_dump_is_restored_and_nothing_stays(bookreader_containers, scratch, left):
    """The running server's dump restores into an empty server of its own version, which then vanishes."""
    there = bookreader_containers
    dump = there.postgresql.stream(["pg_dump", "-Fc", "-Z1"], env=there.libpq)
    with scratch.postgresql() as server:
        assert server.version.startswith("15.")
        assert server.sees_files is False
        assert (
            server.runner.run(
                [*PSQL, "-c", "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'"], env=server.env
            ).stdout
            == b"scratch\n"
        )
        server.runner.run(["createdb", "restored"], env=server.env)
        server.runner.run(
            ["pg_restore", "--no-owner", "--exit-on-error", "-d", "restored"], env=server.env, stdin=dump
        )
        count = [*PSQL, "-d", "restored", "-c", "SELECT count(*) FROM books"]
        assert server.runner.run(count, env=server.env).stdout == b"500\n"
        mounts = server.runner.inspect()["Mounts"]
        assert [mount["Type"] for mount in mounts] == ["volume"]  # the image asks for it
        assert len(left()) == 1
    assert left() == []
    assert mounts[0]["Name"] not in {volume["Name"] for volume in there.engine.api.volumes()["Volumes"] or []}


def test_it_has_no_network_and_no_powers(scratch, engine):
    """A scratch server reaches nothing, and may do nothing that an ordinary process may not."""
    with scratch.postgresql() as server:
        found = engine.api.inspect_container(server.runner.configured)
        assert found["HostConfig"]["NetworkMode"] == "none"
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["Config"]["User"] != "root"
        powers = server.runner.run(["grep", "CapEff", "/proc/self/status"]).stdout
        assert int(powers.split()[1], 16) == 0


def test_it_is_removed_after_an_error(scratch, left):
    """What happens while a scratch server is held does not keep it."""
    with pytest.raises(KeyError), scratch.postgresql():
        raise KeyError
    assert left() == []


def test_keys_are_counted_with_those_that_expired(bookreader_containers, scratch, left):
    """A dump loads with all its keys, those that have expired since among them, in every database."""
    there = bookreader_containers
    env = {"REDISCLI_AUTH": there.redis_password}
    later, past = 4_000_000_000_000, 1_000_000_000_000
    there.redis.run(["redis-cli", "SET", "short:lived", "1", "PXAT", str(later)], env=env)
    rdb = rdb_of(there).replace(later.to_bytes(8, "little"), past.to_bytes(8, "little"))[:-8] + bytes(8)
    there.redis.run(["redis-cli", "DEL", "short:lived"], env=env)
    assert past.to_bytes(8, "little") in rdb
    with scratch.redis([rdb]) as server:
        keyspace = server.runner.run([*server.cli, "INFO", "keyspace"]).stdout.decode()
        assert [line.split(",")[0] for line in keyspace.split()[2:]] == [
            "db0:keys=101",
            "db1:keys=200",
            "db2:keys=300",
        ]
        assert server.version.startswith("7.0.")
    assert left() == []


@pytest.mark.parametrize("harm", [lambda rdb: rdb[:-100], lambda _: b"junk" * 100, lambda _: b""])
def test_a_damaged_dump_is_refused(bookreader_containers, scratch, left, harm):
    """A truncated, a foreign and an empty dump are refused by the server and by the checker."""
    bad = harm(rdb_of(bookreader_containers))
    with pytest.raises(DamagedError), scratch.redis([bad]):
        pass
    with pytest.raises(DamagedError):
        scratch.check_rdb([bad])
    assert left() == []


def test_a_good_dump_passes_the_checker(bookreader_containers, scratch, left):
    """`redis-check-rdb` of the container's own image accepts its server's dump."""
    scratch.check_rdb([rdb_of(bookreader_containers)])
    assert left() == []


def test_an_error_of_the_dump_is_raised(scratch, left):
    """What reading the stored dump raises comes through, and the container goes."""

    def broken():
        yield b"REDIS"
        raise DamagedError("sha256 differs")

    with pytest.raises(DamagedError, match="sha256 differs"), scratch.redis(broken()):
        pass
    assert left() == []


def test_without_the_production_container_there_is_none(engine):
    """No container to take the image of means no scratch server, and says so."""
    absent = DockerRunner(engine, POSTGRESQL, configured="no-such-container")
    scratch = ContainerScratch(engine, absent, DockerRunner(engine, REDIS, configured="no-such-container"))
    with pytest.raises(SourceAbsentError, match="no-such-container"), scratch.postgresql():
        pass


HOLD = """
import sys
from bookreader_backup_assets.runners.docker import *
from bookreader_backup_assets.servers.containers import ContainerScratch
engine = Engine(sys.argv[1])
one = DockerRunner(engine, POSTGRESQL, configured=sys.argv[2])
with ContainerScratch(engine, one, one).postgresql() as server:
    print(server.runner.configured, flush=True)
    sys.stdin.read()
"""


def test_orphans_are_swept(bookreader_containers, engine, scratch):
    """A holder that is alive keeps its server; of one that was killed, the next use removes it."""
    with contextlib.ExitStack() as held:
        holder = held.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", HOLD, engine.address, bookreader_containers.postgresql_name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        held.callback(holder.kill)
        name = holder.stdout.readline().decode().strip()
        assert name not in remove_orphans(engine)
        holder.kill()
        holder.wait(10)
        with scratch.postgresql() as server:
            names = [one["Names"][0].lstrip("/") for one in engine.api.containers(all=True)]
            assert name not in names
            assert server.runner.configured in names


def test_an_unseen_holder_has_a_day(engine, image, monkeypatch):
    """A scratch container of another host is left alone, until it is a day old."""
    monkeypatch.setattr(containers, "LABEL", f"{LABEL}.{os.getpid()}")  # those of other tests are alive
    labels = {containers.LABEL: "elsewhere boot pid:[1] 12 345"}
    made = engine.api.create_container(image("busybox"), labels=labels)
    name = engine.api.inspect_container(made["Id"])["Name"].lstrip("/")
    assert name not in remove_orphans(engine)
    monkeypatch.setattr(containers, "ABANDONED", -60)
    assert remove_orphans(engine) == [name]
