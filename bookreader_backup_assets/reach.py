"""How the settings reach BookReader's services: by URLs and paths of this machine, or in their containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bookreader_backup_assets.actions.installation import Images
from bookreader_backup_assets.components.base import Scratch
from bookreader_backup_assets.components.redis_files import FilesWay
from bookreader_backup_assets.components.redis_replica import ReplicaWay
from bookreader_backup_assets.components.redis_talk import Talk
from bookreader_backup_assets.components.redis_way import Way
from bookreader_backup_assets.core.errors import SettingsError, SourceAbsentError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.base import Runner, Services
from bookreader_backup_assets.runners.local import LocalRunner, NoServices
from bookreader_backup_assets.runners.logs import Logs
from bookreader_backup_assets.runners.stack import NoStack, Stack
from bookreader_backup_assets.runners.unset import UnsetRunner
from bookreader_backup_assets.settings import Settings


@dataclass(frozen=True)
class Reach:
    """How this installation's services are reached. `code` runs programs in BookReader's backend."""

    postgresql: Runner
    postgresql_env: Mapping[str, str]
    database: str
    redis: Runner
    redis_cli: tuple[str, ...]
    redis_password: Secret | None
    redis_way: Way
    storage: Runner
    scratch: Scratch
    images: Images
    services: Services
    stack: Stack
    code: Runner | None
    logs: Logs | None


def on_this_machine(settings: Settings) -> Reach:
    """Reach services by URLs and paths. Raises `SettingsError` for a URL that is none; where one is not set,
    whoever needs that service does.
    """
    from bookreader_backup_assets.servers import redis as redis_servers
    from bookreader_backup_assets.servers.machine import MachineScratch
    from bookreader_backup_assets.servers.programs import postgresql_programs, redis_programs

    def programs(url: _Url, find: Callable[[], Path]) -> Runner:
        if url.unset:
            return url.unset
        with suppress(SourceAbsentError):
            return LocalRunner(programs=find())
        return LocalRunner()  # each call then says which program is not there

    def master(rdb: Iterable[bytes], password: Secret) -> AbstractContextManager[redis_servers.RedisServer]:
        found = redis_programs(settings.redis_programs)
        return redis_servers.master(found, settings.scratch, rdb, password)

    database = _url("BACKUP_POSTGRESQL_URL", settings.postgresql_url, ("postgresql", "postgres"))
    cache = _url("BACKUP_REDIS_URL", settings.redis_url, ("redis",))
    talk = Talk(
        programs(cache, partial(redis_programs, settings.redis_programs)),
        ("redis-cli", "-h", cache.host, "-p", str(cache.port or 6379)),
        settings.redis_password or cache.password,
    )
    password = settings.postgresql_password or database.password
    env = {
        "PGHOST": database.host,
        "PGPORT": str(database.port or 5432),
        "PGUSER": database.user or settings.postgresql_user,
        **({"PGPASSWORD": password.reveal()} if password else {}),
    }
    return Reach(
        postgresql=programs(
            database, partial(postgresql_programs, settings.postgresql_programs, server=False)
        ),
        postgresql_env=env,
        database=database.path or settings.postgresql_database,
        redis=talk.runner,
        redis_cli=talk.cli,
        redis_password=talk.password,
        redis_way=ReplicaWay(talk, cache.host, cache.port or 6379, master),
        storage=LocalRunner(),
        scratch=MachineScratch(settings.scratch, settings.postgresql_programs, settings.redis_programs),
        images=dict,
        services=NoServices(),
        stack=NoStack(),
        code=None,
        logs=None,
    )


@dataclass(frozen=True)
class _Url:
    host: str
    port: int | None
    user: str
    password: Secret | None
    path: str
    unset: UnsetRunner | None = None


def _url(variable: str, given: Secret | None, schemes: tuple[str, ...]) -> _Url:
    if given is None:
        why = f"BACKUP_RUNNER is local, and {variable} is not set"
        hint = f"set {variable}={schemes[0]}://… or BACKUP_RUNNER=docker"
        return _Url("127.0.0.1", None, "", None, "", UnsetRunner(why, hint))
    try:
        parts = urlsplit(given.reveal())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in schemes or not parts.hostname:
        raise SettingsError(
            f"{variable} is not a URL of a server", hint=f"write it as {schemes[0]}://user:password@host:port"
        )
    password = Secret(unquote(parts.password)) if parts.password else None
    return _Url(parts.hostname, port, unquote(parts.username or ""), password, unquote(parts.path.strip("/")))


def in_docker(settings: Settings) -> Reach:
    """Reach services in their containers."""
    from bookreader_backup_assets.runners import docker
    from bookreader_backup_assets.runners.compose import Compose
    from bookreader_backup_assets.runners.docker_files import DockerFiles
    from bookreader_backup_assets.runners.docker_logs import DockerLogs
    from bookreader_backup_assets.runners.docker_services import DockerServices
    from bookreader_backup_assets.runners.docker_stack import DockerStack
    from bookreader_backup_assets.servers.containers import ContainerScratch
    from bookreader_backup_assets.servers.machine import MachineScratch
    from bookreader_backup_assets.servers.nearest import NearestScratch

    engine = docker.Engine()

    def runner(sought: docker.Sought, configured: str | None) -> docker.DockerRunner:
        return docker.DockerRunner(engine, sought, settings.compose_project, configured)

    postgresql = runner(docker.POSTGRESQL, settings.postgresql_container)
    redis = runner(docker.REDIS, settings.redis_container)
    password = settings.postgresql_password
    return Reach(
        postgresql=postgresql,
        postgresql_env={
            "PGHOST": "127.0.0.1",  # its own: a local socket would want the operating system's user
            "PGPORT": "5432",
            "PGUSER": settings.postgresql_user,
            **({"PGPASSWORD": password.reveal()} if password else {}),
        },
        database=settings.postgresql_database,
        redis=redis,
        redis_cli=("redis-cli",),
        redis_password=settings.redis_password,
        redis_way=FilesWay(Talk(redis, ("redis-cli",), settings.redis_password), DockerFiles(redis)),
        storage=runner(docker.STORAGE, settings.storage_container),
        scratch=NearestScratch(
            ContainerScratch(engine, postgresql, redis),
            MachineScratch(settings.scratch, settings.postgresql_programs, settings.redis_programs),
        ),
        images=partial(docker.images, engine, project=settings.compose_project),
        services=DockerServices(engine, settings.compose_project, settings.services),
        stack=DockerStack(
            Compose(
                settings.config_root.absolute(), engine, settings.compose_project, settings.compose_files
            ),
            (settings.postgresql_container, settings.redis_container),
        ),
        code=runner(docker.BACKEND, None),
        logs=DockerLogs(engine, settings.compose_project),
    )
