"""Where a BookReader keeps its files and its configuration, what uses its data, and where it answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from bookreader_backup_assets.actions.discover import BookReader
from bookreader_backup_assets.actions.health import answers
from bookreader_backup_assets.runners.docker import BACKEND, STORAGE
from bookreader_backup_assets.runners.docker_project import Container, Mount
from bookreader_backup_assets.runners.docker_services import SERVICES

_STORAGE = re.compile(r"storage|media|uploads?")
_SHARED = (True, -2)
"""The least likeness of what has another name: two write to it."""
_CODE = (".git", "Dockerfile", "pyproject.toml", "requirements.txt", "alembic.ini", "package.json")
"""What a folder of code has in it."""
_CONFIG = ("/etc/", "/usr/local/etc/", "/docker-entrypoint-initdb.d")
"""Where containers have configuration mounted."""
_SYSTEMS = (
    "/etc/localtime",
    "/etc/timezone",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/passwd",
)
_NO_STORAGE = (*_CONFIG, "/var/run", "/run", "/proc", "/sys", "/dev", "/tmp", "/var/log", "/usr")  # noqa: S108
_USUAL = (".env", "nginx", "certs", "ssl", "certbot", "letsencrypt")
"""What is captured with the compose files, where it is there."""
COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDE = tuple(f"{stem}.override{suffix}" for stem, suffix in map(os.path.splitext, COMPOSE))
_PATHS = ("/api/v1/health", "/health", "/api/health", "/api/v1/books")
"""What is asked, the first that answers of each kind being kept: the guide's two, and usual ones."""
_WORKS = re.compile(r"backend|api|web|celery|worker|beat|scheduler|flower")
_NOWHERE = "/api/v1/bookreader-backup/no-such-page"
_PORTS = 6
_PATIENCE = 3.0


@dataclass(frozen=True)
class Storage:
    """The storage folder: where `container` sees it, where it comes from, and the services that share it."""

    container: Container
    path: str
    source: str
    shared: tuple[str, ...]


def storage(there: BookReader) -> Storage | None:
    """Return the mount that the backend and its workers share, or None if nothing looks like it."""
    users: dict[tuple[str, str], list[tuple[Container, Mount]]] = {}
    for one, mount in there.mounted():
        if f"{mount.target}/".startswith(_NO_STORAGE) or os.path.isfile(mount.source):
            continue
        if not any(os.path.exists(f"{mount.source}/{name}") for name in _CODE):
            users.setdefault((mount.source, ""), []).append((one, mount))
        inside = f"{mount.source}/storage"
        if not mount.volume and os.path.isdir(inside):  # the code is mounted, and storage is in it
            users.setdefault((inside, "/storage"), []).append((one, mount))
    ranked = sorted(users.items(), key=lambda item: (_likeness(*item), item[0]))
    if not ranked or _likeness(*ranked[0]) > _SHARED:
        return None
    (source, inside), found = ranked[0]
    container, mount = min(found, key=lambda use: (not use[1].writable, _rank(use[0]), use[0].created))
    return Storage(container, mount.target + inside, source, tuple(sorted(_name(one) for one, _ in found)))


def _likeness(place: tuple[str, str], found: Sequence[tuple[Container, Mount]]) -> tuple[bool, int]:
    """How much a mount is like the storage folder, least first: named so, and written by several."""
    names = {place[0].rpartition("/")[2], *(mount.target.rpartition("/")[2] for _, mount in found)}
    names |= set(re.split(r"[-_]", place[0])) if "/" not in place[0] else set()  # a volume: app_storage_data
    named = any(_STORAGE.fullmatch(name) for name in names)
    return (not named, -sum(mount.writable for _, mount in found))


def config_paths(there: BookReader, root: Path, apart: Iterable[str]) -> tuple[str, ...]:
    """Return what of the configuration is there, relative to the folder `root`, or absolute.

    Compose files, `.env`, and what containers mount where servers look for configuration. What holds, or
    lies in, a folder of `apart` is left out: storage, the vault.
    """
    found = [os.path.join(root, name) for name in (*there.files, *COMPOSE, *_OVERRIDE)]
    found += [os.path.join(root, name) for file in found for name in _named_in(Path(file))]
    found += [os.path.join(root, name) for name in _USUAL]
    for _, mount in _binds(there):
        wanted = f"{mount.target}/".startswith(_CONFIG) and not mount.target.startswith(_SYSTEMS)
        inside = Path(mount.source).is_relative_to(root) and os.path.isfile(mount.source)
        found += [mount.source] if wanted or inside else []
    there_is = [path for path in dict.fromkeys(map(os.path.normpath, found)) if os.path.exists(path)]
    good = [path for path in there_is if not any(_overlap(path, one) for one in apart)]
    tops = [path for path in good if not any(other != path and _within(path, other) for other in good)]
    return tuple(os.path.relpath(path, root) if _within(path, str(root)) else path for path in tops)


def compose_files(there: BookReader, root: Path) -> tuple[str, ...]:
    """Return the compose files, if they are not those that compose takes by itself."""
    files = [os.path.normpath(os.path.join(root, name)) for name in there.files]
    names = [os.path.relpath(file, root) if _within(file, str(root)) else file for file in files]
    usual = next((name for name in (*COMPOSE,) if (root / name).exists()), None)
    override = next((name for name in _OVERRIDE if (root / name).exists()), None)
    return () if names == [name for name in (usual, override) if name] else tuple(names)


def services(there: BookReader, place: Storage | None) -> tuple[str, ...]:
    """Return what uses the data, in the order in which it starts: writes to storage, or talks to a server."""
    servers = {name for one in (there.postgresql, there.redis) for name in (one.service, one.name) if name}
    using = [one for one in there.others if _uses(one, servers, place)]
    ordered = sorted(using, key=lambda one: (_rank(one), one.created, one.name))
    return tuple(dict.fromkeys(_name(one) for one in ordered))


def health_urls(there: BookReader) -> tuple[str, ...]:
    """Return URLs that answer now, on a published port of the backend, or else of another."""
    ports = [(one, place) for one in sorted(there.others, key=_rank) for _, place in one.published]
    for one, place in ports[:_PORTS]:
        if answers(f"http://{place}{_NOWHERE}", _PATIENCE):  # as a frontend does, whatever it is asked
            continue
        own = re.search(r"https?://[^/\s]+(/[^\s\"']*)", one.healthcheck)
        paths = dict.fromkeys([*([own[1]] if own else []), *_PATHS])
        good = [url for path in paths if answers(url := f"http://{place}{path}", _PATIENCE)]
        if good:
            health = next((url for url in good if not url.endswith("/books")), None)
            return tuple(url for url in (health, *(u for u in good if u.endswith("/books"))) if url)
    return ()


def _named_in(file: Path) -> list[str]:
    """Return the files that a compose file names for variables and secrets."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        services = document.get("services") or {}
        files = [one.get("env_file") or [] for one in services.values()]
        files += [
            one.get("file") or []
            for kind in ("secrets", "configs")
            for one in (document.get(kind) or {}).values()
        ]
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return []
    named = [name for one in files for name in ([one] if isinstance(one, str) else one)]
    return [name if isinstance(name, str) else str(name.get("path", "")) for name in named]


def _uses(one: Container, servers: set[str], place: Storage | None) -> bool:
    if place is not None and any(place.source.startswith(m.source) and m.writable for m in one.mounts):
        return True
    if servers & set(one.depends):
        return True
    said = " ".join(one.environment.values())
    if any(re.search(rf"(?:^|[\s@/]){re.escape(name)}(?:[:/\s]|$)", said) for name in servers):
        return True
    return _WORKS.search(one.service or one.name) is not None


def _rank(one: Container) -> int:
    """The backend first, workers after it, as `BACKUP_SERVICES` has them by default."""
    if one.service in BACKEND.services or one.name in (*BACKEND.names, *STORAGE.names):
        return 0
    if one.service in SERVICES:
        return SERVICES.index(one.service)
    kinds = ("backend|api|web", "celery(?!.?beat)|worker", "beat|scheduler")
    named = one.service or one.name
    return next((rank for rank, kind in enumerate(kinds) if re.search(kind, named)), len(kinds))


def _name(one: Container) -> str:
    return one.service or one.name


def _binds(there: BookReader) -> Iterator[tuple[Container, Mount]]:
    own = [(one, mount) for one in (there.postgresql, there.redis) for mount in one.mounts]
    yield from ((one, mount) for one, mount in (*own, *there.mounted()) if not mount.volume)


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def _overlap(path: str, other: str) -> bool:
    return _within(path, other) or _within(other, path)
