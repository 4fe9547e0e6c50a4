"""What `init` proposes: settings for the BookReader that was found, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.actions import init_access, init_folders
from bookreader_backup_assets.actions.discover import BookReader, Named, choose
from bookreader_backup_assets.actions.init_access import Access
from bookreader_backup_assets.actions.init_plan import Proposal, host_zone
from bookreader_backup_assets.actions.init_writes import git_top
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners import docker_project
from bookreader_backup_assets.runners.docker import POSTGRESQL, REDIS, STORAGE, Sought, find_container
from bookreader_backup_assets.runners.docker_engine import Engine


@dataclass(frozen=True)
class Told:
    """What somebody has said already: the compose project, the containers, and how servers let us in."""

    project: str | None = None
    named: Named = (None, None)
    database: Access = field(default_factory=Access)
    redis_password: Secret | None = None


@dataclass(frozen=True)
class _Look:
    """What was found of one BookReader. `root` is the folder of its configuration, and of `paths`."""

    there: BookReader
    database: Access
    cache: Access
    storage: init_folders.Storage | None
    root: Path
    paths: tuple[str, ...]
    using: tuple[str, ...]
    urls: tuple[str, ...]

    def seen(self) -> Iterator[tuple[str, str]]:
        """What is shown."""
        there, place, root = self.there, self.storage, self.root
        yield "project", f"{there.project or 'not compose'}, in {there.folder or 'no folder that it names'}"
        if self.database.said:
            yield "database", self.database.said
        if self.cache.said:
            yield "redis", f"{self.cache.said}; {'with' if self.cache.password else 'without'} a password"
        if place:
            seen = f"{place.path} in {place.container.name}; shared by {', '.join(place.shared)}"
            yield "storage", f"{place.source}, {seen}"
        yield "config", f"{', '.join(self.paths) or 'nothing'} in {root}"
        yield "services", f"{', '.join(self.using) or 'none'}: stopped while a restore replaces what they use"
        yield "health", ", ".join(self.urls) or "nothing answers on a published port"
        top = git_top(root)
        yield "code", f"a git repository in {top}" if top else f"no git repository in {root}"

    def problems(self) -> Iterator[str]:
        """What could not be found out, and what to set."""
        if why := self.database.why:
            yield f"nothing found opens the database: {why}; set BACKUP_POSTGRESQL_USER and …_PASSWORD"
        if why := self.cache.why:
            yield f"Redis does not answer: {why}; set BACKUP_REDIS_PASSWORD"
        if self.storage is None:
            yield "no folder looks like storage: set BACKUP_STORAGE_CONTAINER and BACKUP_STORAGE_PATH"
        if not self.paths:
            where = self.there.folder or "a folder that compose does not name"
            yield f"the compose file, in {where}, is not on this machine: set BACKUP_CONFIG_ROOT and …_PATHS"


def propose(engine: Engine, told: Told, *, here: Path, vault: Path) -> Proposal:
    """Look at what runs on `engine`, and return what it wants to be backed up with.

    `here` is the current folder, for a BookReader whose own is not known. Raises `RefusedError` where there
    is none, or several; and what the engine raises.
    """
    there = choose(docker_project.look(engine, told.project), project=told.project, named=told.named)
    place = init_folders.storage(there)
    root = there.folder if there.folder and there.folder.is_dir() else here
    apart = [str(vault), *([place.source] if place else [])]
    look = _Look(
        there=there,
        database=init_access.database(engine, there, told.database),
        cache=init_access.redis(engine, there, told.redis_password),
        storage=place,
        root=root,
        paths=init_folders.config_paths(there, root, apart),
        using=init_folders.services(there, place),
        urls=init_folders.health_urls(there),
    )
    top = git_top(root)
    values = {
        "BACKUP_COMPOSE_PROJECT": there.project or "",
        **dict(_containers(engine, there, place)),
        "BACKUP_POSTGRESQL_DATABASE": look.database.database,
        "BACKUP_POSTGRESQL_USER": look.database.user,
        "BACKUP_STORAGE_PATH": place.path if place else "",
        "BACKUP_CONFIG_ROOT": str(root),
        "BACKUP_CONFIG_PATHS": ",".join(look.paths),
        "BACKUP_COMPOSE_FILES": ",".join(init_folders.compose_files(there, root)),
        "BACKUP_CODE_PATH": str(top) if top and top != root else "",
        "BACKUP_SERVICES": ",".join(look.using),
        "BACKUP_HEALTH_URLS": ",".join(look.urls) or ",",
        "BACKUP_TIMEZONE": host_zone(),
    }
    secrets = {
        "BACKUP_POSTGRESQL_PASSWORD": look.database.password,
        "BACKUP_REDIS_PASSWORD": look.cache.password,
    }
    return Proposal(
        values={name: value for name, value in values.items() if value},
        secrets={name: secret for name, secret in secrets.items() if secret},
        seen=tuple(look.seen()),
        problems=tuple(look.problems()),
        storage=place.source if place else "",
    )


def _containers(
    engine: Engine, found: BookReader, place: init_folders.Storage | None
) -> Iterator[tuple[str, str]]:
    """Yield the containers that would not be found by themselves."""
    sought: list[tuple[Sought, str]] = [(POSTGRESQL, found.postgresql.name), (REDIS, found.redis.name)]
    sought += [(STORAGE, place.container.name)] if place else []
    for one, name in sought:
        by_itself = None
        with suppress(BackupError):
            by_itself = find_container(engine, one, project=found.project)
        if by_itself != name:
            yield one.setting, name
