"""Scratch servers as containers of the production containers' own images, so that versions always fit.

They have no network and no capabilities, ignore the image's entrypoint and settings, and keep their data
in their own writable layer, below /tmp, which every such image has and anybody there may write: no mount
to size or to own, and it goes with the container. `put_archive` into a tmpfs would say success and be lost.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from docker.types import LogConfig

from bookreader_backup_assets.components.base import ScratchPostgresql, ScratchRedis
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    SourceAbsentError,
    SourceError,
    SpaceError,
)
from bookreader_backup_assets.runners.base import STALL
from bookreader_backup_assets.runners.docker import DockerRunner, Engine, Sought
from bookreader_backup_assets.runners.docker_exec import SocketPipe
from bookreader_backup_assets.servers import postgresql, redis

LABEL = "bookreader-backup.scratch"
"""On every scratch container: who holds it."""
ABANDONED = 24 * 3600
"""Seconds after which a scratch container whose holder cannot be seen from here is taken for an orphan."""
_NOBODY = "65534:65534"
_POLL = 0.1
_SHARED_MEMORY = 256 << 20  # Docker's 64 MB are too few for a parallel index build
_SETTINGS = " ".join(f"-c {name}={value}" for name, value in postgresql.QUICK.items())
_POSTGRESQL = f"""
for folder in /usr/lib/postgresql/*/bin /usr/local/bin; do PATH="$folder:$PATH"; done
initdb -D /tmp/scratch/data -U scratch -A trust -E UTF8 --no-locale -N >/tmp/initdb.log 2>&1 ||
  {{ status=$?; cat /tmp/initdb.log; exit $status; }}
exec postgres -D /tmp/scratch/data -k /tmp/scratch -c listen_addresses= {_SETTINGS}
"""
_CHECK_RDB = "redis-server --version; cat >/tmp/dump.rdb && exec redis-check-rdb /tmp/dump.rdb"
# the replica of a port where nobody answers keeps keys that have expired since: a master drops them
_REDIS = f"""
redis-server --version
cat >/tmp/dump.rdb && exec redis-server --dir /tmp --dbfilename dump.rdb --save '' --appendonly no \\
  --port 0 --unixsocket /tmp/redis --databases {redis.DATABASES} --replicaof 127.0.0.1 1
"""


@dataclass(frozen=True)
class ContainerScratch:
    """Implements `components.base.Scratch` on the engine that runs production's containers."""

    engine: Engine
    production_postgresql: DockerRunner
    production_redis: DockerRunner

    @contextmanager
    def postgresql(self, at_least: int = 0) -> Iterator[ScratchPostgresql]:  # noqa: ARG002 - production's own
        """See `Scratch.postgresql`."""
        env = {"PGHOST": "/tmp/scratch", "PGPORT": "5432", "PGUSER": "scratch", "PGDATABASE": "postgres"}  # noqa: S108 - in the container
        with self._container(self.production_postgresql, _POSTGRESQL) as container:
            container.start()
            argv = ["psql", "-XAtqc", "SHOW server_version"]
            try:
                said = container.answer(argv, lambda _: True, env, postgresql.READY_WITHIN)
            except SourceAbsentError:  # it has ended
                log = container.log().strip()[-500:]
                raise SourceAbsentError(f"a scratch PostgreSQL server ended as it began: {log}") from None
            yield ScratchPostgresql(container.runner, env, said.split()[0], sees_files=False)

    @contextmanager
    def redis(self, rdb: Iterable[bytes]) -> Iterator[ScratchRedis]:
        """See `Scratch.redis`."""
        cli = ("redis-cli", "-s", "/tmp/redis")  # noqa: S108 - in the container
        with self._container(self.production_redis, _REDIS, fed=True) as container:
            container.start_fed(rdb)
            try:
                container.answer([*cli, "PING"], lambda said: said.strip() == "PONG", {}, redis.LOADED)
            except SourceAbsentError:  # it has ended
                raise container.refusal("redis-server") from None
            yield ScratchRedis(container.runner, cli, redis.version_in(container.log()))

    def check_rdb(self, rdb: Iterable[bytes]) -> None:
        """See `Scratch.check_rdb`."""
        with self._container(self.production_redis, _CHECK_RDB, fed=True) as container:
            container.start_fed(rdb)
            if container.wait(redis.CHECKED) != 0:
                raise container.refusal("redis-check-rdb")

    @contextmanager
    def _container(self, like: DockerRunner, script: str, *, fed: bool = False) -> Iterator[_Container]:
        """Create a container of the image of `like` that is to run `script`; it is removed on leaving."""
        image = like.inspect()["Image"]
        remove_orphans(self.engine)
        api = self.engine.api
        with self.engine.guarded():
            made = api.create_container(
                image,
                entrypoint=["sh", "-c", script],
                user=_NOBODY,
                stdin_open=fed,
                labels={LABEL: _holder()},
                healthcheck={"test": ["NONE"]},
                host_config=api.create_host_config(
                    network_mode="none",
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    shm_size=_SHARED_MEMORY,
                    log_config=LogConfig(type=LogConfig.types.JSON),
                ),
            )
        try:
            with self.engine.guarded():
                name = api.inspect_container(made["Id"])["Name"].lstrip("/")
            yield _Container(self.engine, name)
        finally:
            _remove(self.engine, made["Id"])


@dataclass(frozen=True)
class _Container:
    engine: Engine
    name: str

    @property
    def runner(self) -> DockerRunner:
        return DockerRunner(self.engine, Sought((), (), ""), configured=self.name)

    def start(self) -> None:
        with self.engine.guarded():
            self.engine.api.start(self.name)

    def start_fed(self, chunks: Iterable[bytes]) -> None:
        """Start it with `chunks` as its input. That it ends before it has read them all shows later."""
        path = f"/containers/{self.name}/attach?stream=1&stdin=1"
        connection, _ = self.engine.take_over(path, {})
        with connection, suppress(BrokenPipeError):
            connection.settimeout(STALL)
            pipe = SocketPipe(connection)
            self.start()
            for chunk in chunks:
                pipe.write(chunk)
            pipe.close()

    def answer(
        self, argv: list[str], right: Callable[[str], bool], env: dict[str, str], within: float
    ) -> str:
        """Ask until the answer is right. Raises `SourceError` after `within` seconds, or if it has ended."""
        deadline = time.monotonic() + within
        said = ""
        while time.monotonic() < deadline:
            try:
                said = self.runner.run(argv, env=env, timeout=within).stdout.decode("utf-8", "replace")
                if right(said):
                    return said
            except CommandError as error:
                said = error.message
            time.sleep(_POLL)
        raise SourceError(f"a scratch server was not ready within {within:.0f} s: {said} {self.log()[-500:]}")

    def wait(self, within: float) -> int:
        """Return the status with which it ends. Raises `CommandError` if not `within` seconds."""
        try:
            with self.engine.guarded():
                return int(self.engine.api.wait(self.name, timeout=within)["StatusCode"])
        except SourceError:
            what = f"did not end within {within:.0f} s"
            raise CommandError(self.name, None, self.log(), what=what) from None

    def log(self) -> str:
        with self.engine.guarded():
            return str(self.engine.api.logs(self.name, tail=300).decode("utf-8", "replace"))

    def refusal(self, program: str) -> BackupError:
        """What to raise now that a program has ended that was to read a dump."""
        log, status = self.log(), self.wait(redis.READY)
        if "No space left" in log:
            return SpaceError(
                "the Docker engine has no room for a scratch copy of the dump", hint="docker system df"
            )
        signalled = -signal.SIGKILL if status == 128 + signal.SIGKILL else status
        return redis.refusal(program, redis.version_in(log), signalled, log)


def remove_orphans(engine: Engine) -> list[str]:
    """Remove scratch containers whose holder has gone without removing them; return their names.

    A holder on another machine, or in another container, cannot be seen: its are orphans after a day.
    """
    with engine.guarded():
        listed = engine.api.containers(all=True, filters={"label": LABEL})
    orphans = [
        container for container in listed if _is_orphan(container["Labels"][LABEL], container["Created"])
    ]
    for container in orphans:
        _remove(engine, container["Id"])
    return [container["Names"][0].lstrip("/") for container in orphans]


def _remove(engine: Engine, container: str) -> None:
    with suppress(SourceError), engine.guarded():  # another process may be removing it, too
        engine.api.remove_container(container, force=True, v=True)


def _holder() -> str:
    """Name this process so that another can tell whether it is still there: its number is used again."""
    return f"{_seen_from()} {os.getpid()} {_started(os.getpid())}"


def _is_orphan(holder: str, created: float) -> bool:
    where, pid, started = holder.rsplit(" ", 2)
    if where == _seen_from():
        return _started(int(pid)) != started
    return time.time() - created > ABANDONED


def _seen_from() -> str:
    """Where a number of a process means what it means here: this host since it booted, this container."""
    said = [socket.gethostname()]
    with suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            said.append(boot.read().strip())
        said.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(said)


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "-" if there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as status:
            return status.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return "-"
