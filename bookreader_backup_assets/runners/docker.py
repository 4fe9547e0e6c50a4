"""The runner for a service in a container: found by its compose labels or its name, reached by exec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError
from bookreader_backup_assets.runners import child, docker_tree
from bookreader_backup_assets.runners.base import NO_ENV, STALL, Result, Session, Tree
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_exec import Exec

__all__ = [
    "BACKEND",
    "ONE_OFF",
    "POSTGRESQL",
    "PROJECT",
    "REDIS",
    "SERVICE",
    "STORAGE",
    "DockerRunner",
    "Engine",
    "Sought",
    "containers",
    "find_container",
    "images",
    "name_of",
]

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ONE_OFF = "com.docker.compose.oneoff"
_NAMED = 12  # containers named in an error


@dataclass(frozen=True)
class Sought:
    """How a container is recognised: its compose service, in order of preference, or its name.

    `setting` is the variable with which an operator names it.
    """

    services: tuple[str, ...]
    names: tuple[str, ...]
    setting: str


POSTGRESQL = Sought(
    ("postgres", "postgresql", "db"),
    ("bookreader_postgres", "bookreader-postgres", "bookreader_db", "bookreader-db"),
    "BACKUP_POSTGRESQL_CONTAINER",
)
REDIS = Sought(("redis",), ("bookreader_redis", "bookreader-redis"), "BACKUP_REDIS_CONTAINER")
STORAGE = Sought(
    ("backend", "celery-worker", "nginx"),
    ("bookreader_backend", "bookreader-backend"),
    "BACKUP_STORAGE_CONTAINER",
)

BACKEND = Sought(("backend",), ("bookreader_backend", "bookreader-backend"), "BACKUP_COMPOSE_PROJECT")


def find_container(
    engine: Engine, sought: Sought, *, project: str | None = None, configured: str | None = None
) -> str:
    """Return the name of the container that is meant, running or not.

    The configured name wins; otherwise compose labels, in `project` if given, and the known names.
    Raises `SourceAbsentError` if there is none, `RefusedError` if it could be one of several.
    """
    with engine.guarded():
        listed = engine.api.containers(all=True)
    there = {name_of(container): container["Labels"] or {} for container in listed}
    if configured is not None:
        if configured in there:
            return configured
        raise SourceAbsentError(
            f"there is no container {configured}{_existing(there)}", hint=f"correct {sought.setting}"
        )
    ranked = {
        name: rank
        for name, labels in there.items()
        if (rank := _rank(name, labels, sought, project)) is not None
    }
    if not ranked:
        where = f" in compose project {project}" if project else ""
        raise SourceAbsentError(
            f"there is no container of a service {' or '.join(sought.services)}{where}{_existing(there)}",
            hint=f"start it (docker compose up -d), or name it with {sought.setting}",
        )
    best = sorted(name for name, rank in ranked.items() if rank == min(ranked.values()))
    if len(best) > 1:
        which = ", ".join(f"{name} (project {there[name].get(PROJECT, 'none')})" for name in best)
        raise RefusedError(
            f"several containers could be meant: {which}",
            hint=f"say which with BACKUP_COMPOSE_PROJECT or {sought.setting}",
        )
    return best[0]


def images(engine: Engine, *, project: str | None = None) -> dict[str, dict[str, str]]:
    """Return `image`, `id` and, if it came from a registry, `digest` of BookReader's containers.

    By compose service, or by name for a container without. Raises like `Engine.guarded`.
    """
    return {
        (container["Labels"] or {}).get(SERVICE) or name_of(container): _image(
            engine, container["Image"], container["ImageID"]
        )
        for container in containers(engine, project=project)
    }


def containers(engine: Engine, *, project: str | None = None) -> list[dict[str, Any]]:
    """Return what the engine lists of BookReader's containers, running or not, by name.

    Without a `project`, it is the one that the containers of PostgreSQL, Redis or storage are in. One-off
    containers (`docker compose run`) are none of it. Raises like `Engine.guarded`.
    """
    with engine.guarded():
        listed = engine.api.containers(all=True)
    known = [
        container
        for container in listed
        if any(
            _rank(name_of(container), container["Labels"] or {}, sought, project) is not None
            for sought in (POSTGRESQL, REDIS, STORAGE)
        )
    ]
    projects = {project, *((container["Labels"] or {}).get(PROJECT) for container in known)} - {None}
    ours = [c for c in listed if (c["Labels"] or {}).get(PROJECT) in projects or c in known]
    return sorted((c for c in ours if (c["Labels"] or {}).get(ONE_OFF) != "True"), key=name_of)


@dataclass(frozen=True)
class DockerRunner:
    """Reaches the service in one container. Making one contacts nothing: each call looks it up anew.

    Programs run as the container's own user. The container is looked for as `find_container` does.
    """

    engine: Engine
    sought: Sought
    project: str | None = None
    configured: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        stall: float = STALL,
    ) -> Iterator[bytes]:
        """See `Runner.stream`."""
        yield from child.follow(self._started(argv, env, fed=stdin is not None), stdin, stall)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        timeout: float = STALL,
    ) -> Result:
        """See `Runner.run`."""
        return child.gather(self._started(argv, env, fed=stdin is not None), stdin, timeout)

    @contextmanager
    def session(self, argv: Sequence[str], *, env: Mapping[str, str] = NO_ENV) -> Iterator[Session]:
        """See `Runner.session`."""
        program = self._started(argv, env, fed=True)
        try:
            yield child.Talk(program)
        finally:
            program.close()

    def read_tree(self, path: str) -> Tree:
        """See `Runner.read_tree`; the container may be stopped, or never have been started."""
        return docker_tree.read_tree(self.engine, self.inspect(), path)

    def local_folder(self, path: str) -> Path | None:
        """See `Runner.local_folder`; the container may be stopped."""
        return docker_tree.local_folder(self.engine, self.inspect(), path)

    def describe(self) -> dict[str, str]:
        """See `Runner.describe`: `runner`, `container`, `image`, `image_id`, `image_digest` if any."""
        found = self.inspect()
        image = _image(self.engine, found["Config"]["Image"], found["Image"])
        named = {"image": image.pop("image"), **{f"image_{key}": value for key, value in image.items()}}
        return {"runner": "docker", "container": found["Name"].lstrip("/"), **named}

    def inspect(self) -> dict[str, Any]:
        """Return what the engine says of the container, running or not. Raises like `find_container`."""
        name = find_container(self.engine, self.sought, project=self.project, configured=self.configured)
        with self.engine.guarded():
            found: dict[str, Any] = self.engine.api.inspect_container(name)
            return found

    def _started(self, argv: Sequence[str], env: Mapping[str, str], *, fed: bool) -> Exec:
        found = self.inspect()
        name, state = found["Name"].lstrip("/"), found["State"]
        if not state["Running"] or state["Paused"]:
            ended = f" (exit status {state['ExitCode']})" if state["Status"] == "exited" else ""
            verb = "unpause" if state["Paused"] else "start"
            raise SourceAbsentError(
                f"container {name} is {state['Status']}{ended}", hint=f"docker {verb} {name}"
            )
        return Exec(self.engine, name, argv, env={**self.env, **env}, stdin=fed)


def name_of(listed: Mapping[str, Any]) -> str:
    """Return a listed container's own name: its others are aliases that links have given it."""
    return str(min(listed["Names"], key=lambda name: name.count("/"))).lstrip("/")


def _rank(name: str, labels: Mapping[str, str], sought: Sought, project: str | None) -> int | None:
    """How well a container fits, 0 best, or None."""
    if labels.get(ONE_OFF) == "True" or (project and labels.get(PROJECT, project) != project):
        return None
    if labels.get(SERVICE) in sought.services:
        return sought.services.index(labels[SERVICE])
    return 0 if name in sought.names else None


def _existing(there: Iterable[str]) -> str:
    names = sorted(there)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"; there are {', '.join(names[:_NAMED])}{more}" if names else "; there are no containers at all"


def _image(engine: Engine, tag: str, identity: str) -> dict[str, str]:
    digests: list[str] = []
    with suppress(SourceAbsentError), engine.guarded():  # a container can outlive its image
        digests = engine.api.inspect_image(identity).get("RepoDigests") or []
    return {"image": tag, "id": identity, **({"digest": digests[0]} if digests else {})}
