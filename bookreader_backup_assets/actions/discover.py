"""Discover: which of the containers on an engine are a BookReader, by what runs in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.runners.docker import POSTGRESQL, REDIS, Sought
from bookreader_backup_assets.runners.docker_project import Container, Mount

INIT = "bookreader-backup init"
Named = tuple[str | None, str | None]
_NAMED = 8  # compose projects named in an error
_POSTGRESQL_PROGRAMS = frozenset({"postgres", "postmaster"})
_REDIS_PROGRAMS = frozenset({"redis-server", "valkey-server", "keydb-server"})
_POSTGRESQL_IMAGES = re.compile(r"(postgres(ql)?|postgis|pgvector|timescaledb(-ha)?)")
_REDIS_IMAGES = re.compile(r"(redis(-stack(-server)?)?|valkey|keydb)")


@dataclass(frozen=True)
class BookReader:
    """The containers of one BookReader. `project` is None where compose did not make them."""

    project: str | None
    postgresql: Container
    redis: Container
    others: tuple[Container, ...] = ()

    @property
    def folder(self) -> Path | None:
        """The folder of its compose file, as the engine's host has it."""
        return next((one.folder for one in (self.postgresql, self.redis, *self.others) if one.folder), None)

    @property
    def files(self) -> tuple[str, ...]:
        """Its compose files, as compose was given them."""
        return next((one.files for one in (self.postgresql, self.redis, *self.others) if one.files), ())

    @property
    def data(self) -> frozenset[str]:
        """The sources of mounts that are the servers' own, and nobody's storage."""
        return frozenset(mount.source for one in (self.postgresql, self.redis) for mount in one.mounts)

    def mounted(self) -> list[tuple[Container, Mount]]:
        """Return what the others mount."""
        return [(one, mount) for one in self.others for mount in one.mounts if mount.source not in self.data]


@dataclass(frozen=True)
class _Group:
    """The containers of one compose project, and those of them that are servers, running or not."""

    project: str | None
    all: list[Container]
    postgresql: list[Container]
    redis: list[Container]

    @property
    def runs(self) -> bool:
        return all(any(one.running for one in kind) for kind in (self.postgresql, self.redis))

    def bookreader(self, named: Named) -> BookReader:
        postgresql, redis = _one(self.postgresql, POSTGRESQL, named[0]), _one(self.redis, REDIS, named[1])
        return BookReader(
            self.project, postgresql, redis, tuple(one for one in self.all if one not in (postgresql, redis))
        )

    def __str__(self) -> str:
        folder = next((f"in {one.folder}, " for one in self.all if one.folder), "")
        servers = ", ".join(one.name for one in (*self.postgresql, *self.redis) if one.running)
        return f"{self.project or 'without compose'} ({folder}{servers})"

    @property
    def lacking(self) -> str:
        """Why it does not run, where it has one of the two."""
        kinds = (("PostgreSQL", self.postgresql), ("Redis", self.redis))
        said = [f"has no {name}" for name, there in kinds if not there]
        said += [
            f"has {there[0].name}, which does not run"
            for _, there in kinds
            if there and not any(one.running for one in there)
        ]
        return f"{self.project or 'what compose did not make'} {' and '.join(said)}"


def choose(
    containers: Iterable[Container], *, project: str | None = None, named: Named = (None, None)
) -> BookReader:
    """Return the one BookReader that runs, of `project` if that is given.

    `named` are the containers of PostgreSQL and Redis where somebody has said which. Raises `RefusedError`
    that names what there is, where none runs, or several could be meant.
    """
    containers = list(containers)
    groups = [group for group in _groups(containers, named) if project is None or group.project == project]
    running = [group for group in groups if group.runs]
    if len(running) == 1:
        return running[0].bookreader(named)
    if running:
        told = next(group.project for group in running if group.project)
        raise RefusedError(
            f"several run here that could be BookReader: {'; '.join(map(str, running))}",
            hint=f"say which: {INIT} --project {told}",
        )
    partly = [group.lacking for group in groups if group.postgresql or group.redis]
    what = f"of compose project {project} " if project else ""
    said = f": {'; '.join(partly)}" if partly else f"; compose projects here: {_projects(containers)}"
    raise RefusedError(
        f"no BookReader {what}runs here, which would be a PostgreSQL and a Redis{said}",
        hint="start it in its folder (docker compose up -d), and come back",
    )


def _groups(containers: list[Container], named: Named) -> list[_Group]:
    found = []
    for project in sorted({one.project for one in containers}, key=lambda name: (name is None, name or "")):
        group = [one for one in containers if one.project == project]
        postgresql = _servers(group, _POSTGRESQL_PROGRAMS, _POSTGRESQL_IMAGES)
        redis = _servers(group, _REDIS_PROGRAMS, _REDIS_IMAGES)
        if project is None:  # what compose did not make may have nothing to do with each other
            postgresql = [one for one in postgresql if one.name in (*POSTGRESQL.names, named[0])]
            redis = [one for one in redis if one.name in (*REDIS.names, named[1])]
        found.append(_Group(project, group, postgresql, redis))
    return found


def _servers(group: list[Container], programs: frozenset[str], images: re.Pattern[str]) -> list[Container]:
    """Return the servers of that kind: what runs such a program; where none does, what looks like it.

    A server that has just been started runs a script first, or initdb; one that is stopped runs nothing; and
    the engine may not tell.
    """
    return [one for one in group if one.programs & programs] or [
        one for one in group if _looks_like(one, programs, images)
    ]


def _looks_like(one: Container, programs: frozenset[str], images: re.Pattern[str]) -> bool:
    """Whether its command, its image or the place of its data is that of such a server."""
    words = {word.rpartition("/")[2] for word in one.words}
    image = one.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    data = {mount.target for mount in one.mounts if mount.target.startswith("/var/lib/")}
    named = [image, *(path.split("/")[3] for path in data)]
    return bool(words & programs) or any(images.fullmatch(name) for name in named)


def _one(found: list[Container], sought: Sought, named: str | None) -> Container:
    """Return the server of a project that is meant: the one named, or of a usual name, or the only one."""
    running = [one for one in found if one.running]
    usual = [one for one in running if one.service in sought.services or one.name in sought.names]
    best = [one for one in running if one.name == named] or usual or running
    if len(best) > 1:
        raise RefusedError(
            f"several servers could be meant: {', '.join(one.name for one in best)}",
            hint=f"say which: {sought.setting}={best[0].name} {INIT}",
        )
    return best[0]


def _projects(containers: list[Container]) -> str:
    names = sorted({one.project for one in containers if one.project})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"
