"""What the engine says of every container that could be a part of a BookReader: facts, and no judgement."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError
from bookreader_backup_assets.runners.base import Runner
from bookreader_backup_assets.runners.docker import ONE_OFF, PROJECT, SERVICE, DockerRunner, Sought, name_of
from bookreader_backup_assets.runners.docker_engine import Engine

_FOLDER = "com.docker.compose.project.working_dir"
_FILES = "com.docker.compose.project.config_files"
_DEPENDS = "com.docker.compose.depends_on"
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - what a port is published on, not what we listen on
_READ = 30.0


@dataclass(frozen=True)
class Mount:
    """A mount: `source` is a path of the engine's host, or the name of a volume; `target` is inside."""

    source: str
    target: str
    volume: bool = False
    writable: bool = True


@dataclass(frozen=True)
class Container:
    """One container, running or not.

    `words` is its command with the entrypoint; `programs` are the names of what runs in it, empty where the
    engine does not tell. `folder` and `files` are those of its compose project. `published` are its ports
    and where this machine reaches them. What may hold a secret is not printed.
    """

    name: str
    image: str
    service: str = ""
    project: str | None = None
    folder: Path | None = None
    files: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    running: bool = True
    created: str = ""
    words: tuple[str, ...] = field(default=(), repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    published: tuple[tuple[int, str], ...] = ()
    healthcheck: str = field(default="", repr=False)
    programs: frozenset[str] = frozenset()


def look(engine: Engine, project: str | None = None) -> list[Container]:
    """Return every container, or those of one compose project, by name. Raises like `Engine.guarded`."""
    chosen = {"label": f"{PROJECT}={project}"} if project else {}
    with engine.guarded():
        listed = engine.api.containers(all=True, filters=chosen)
    found = []
    for one in sorted(listed, key=name_of):
        if (one["Labels"] or {}).get(ONE_OFF) == "True":
            continue
        with suppress(SourceAbsentError), engine.guarded():  # it may have gone since
            found.append(_container(engine, engine.api.inspect_container(one["Id"])))
    return found


def runner(engine: Engine, container: Container) -> Runner:
    """Return what runs programs in a container."""
    return DockerRunner(engine, Sought((), (), ""), configured=container.name)


def read(engine: Engine, container: Container, path: str) -> str | None:
    """Return a small file as a container sees it, or None: a secret, or the configuration of a server."""
    for mount in container.mounts:
        if engine.is_local and path == mount.target and not mount.volume:
            with suppress(OSError, UnicodeDecodeError):
                return Path(mount.source).read_text(encoding="utf-8")
    with suppress(BackupError, UnicodeDecodeError):
        return runner(engine, container).run(["cat", path], timeout=_READ).stdout.decode()
    return None


def _container(engine: Engine, found: Mapping[str, Any]) -> Container:
    config, labels = found["Config"], found["Config"]["Labels"] or {}
    running = bool(found["State"]["Running"])
    folder = labels.get(_FOLDER)
    return Container(
        name=found["Name"].lstrip("/"),
        image=config["Image"],
        service=labels.get(SERVICE, ""),
        project=labels.get(PROJECT),
        folder=Path(folder) if folder else None,
        files=tuple(name for name in labels.get(_FILES, "").split(",") if name),
        depends=tuple(one.split(":")[0] for one in labels.get(_DEPENDS, "").split(",") if one),
        running=running,
        created=found["Created"],
        words=(found["Path"], *found["Args"]),
        environment=dict(line.partition("=")[::2] for line in config["Env"] or ()),
        mounts=tuple(_mounts(found["Mounts"])),
        published=tuple(_published(found["NetworkSettings"]["Ports"] or {})),
        healthcheck=" ".join((config.get("Healthcheck") or {}).get("Test") or ()),
        programs=_programs(engine, found["Id"]) if running else frozenset(),
    )


def _mounts(found: list[Mapping[str, Any]]) -> Iterator[Mount]:
    for one in sorted(found, key=lambda one: str(one["Destination"])):
        if one["Type"] in {"bind", "volume"}:
            volume = one["Type"] == "volume"
            source = one["Name"] if volume else os.path.normpath(one["Source"])
            yield Mount(source, one["Destination"], volume, bool(one["RW"]))


def _published(ports: Mapping[str, list[Mapping[str, str]] | None]) -> Iterator[tuple[int, str]]:
    for port, places in sorted(ports.items()):
        number, _, kind = port.partition("/")
        for place in places or () if kind == "tcp" else ():
            address = place["HostIp"]
            if ":" not in address or address in _ANY:
                yield int(number), f"{'127.0.0.1' if address in _ANY else address}:{place['HostPort']}"


def _programs(engine: Engine, identity: str) -> frozenset[str]:
    """What runs in it, whatever its image and its command are called."""
    try:
        with engine.guarded():
            table = engine.api.top(identity)
    except BackupError:
        return frozenset()
    column = next((n for n, title in enumerate(table["Titles"]) if title in {"CMD", "COMMAND"}), -1)
    commands = (row[column].split() for row in table["Processes"] or ())
    return frozenset(os.path.basename(words[0]).rstrip(":") for words in commands if words)
