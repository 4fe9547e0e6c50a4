"""Who is compared, and exactly what is run for each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from data import DATABASE
from table import EVERYTHING

from bookreader_backup_assets.servers.postgresql import Server
from bookreader_backup_assets.servers.redis import RedisServer

PARTS = ("postgresql", "redis", "storage", "config")
SCRIPT = Path(__file__).with_name("guide_script.sh")
DATE = "2025-10-24_02-00-00"
PASSPHRASE = "not-a-secret"
# the seal's job alone: Dagster started, a run made, a few kB written
_IDLE = """
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli.dagster_runs import with_dagster
from bookreader_backup_assets.settings import load_settings
with_dagster(assemble(load_settings()), ())
"""


@dataclass(frozen=True)
class System:
    """What is backed up, and the folder in which everything of this bench lies."""

    folder: Path
    database: Server
    redis: RedisServer
    storage: Path
    configuration: Path


@dataclass(frozen=True)
class Command:
    """One command to watch: `output` is where its result stays, `temporary` where nothing should."""

    argv: tuple[str, ...]
    env: dict[str, str]
    output: Path
    temporary: tuple[Path, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    patience: float = field(default=7200.0)


def guide(system: System, part: str) -> Command:
    """Return one part of the guide's own script."""
    env = _env(system, "guide") | {
        "DATE": DATE,
        "BACKUP_DIR": str(system.folder / "guide" / "out"),
        "DB_NAME": DATABASE,
        "REDIS_PORT": str(system.redis.port),
        "REDIS_DIR": str(system.redis.folder),
        "STORAGE_DIR": str(system.storage),
        "CONFIG_DIR": str(system.configuration),
        "PASSPHRASE_FILE": str(_passphrase(system)),
        **system.database.env,
        **system.redis.env,
    }
    return _command(system, "guide", ("bash", str(SCRIPT), part), env)


def ours(system: System, part: str) -> Command:
    """Return the command that runs the Dagster job of one component, or of all, and the seal's job."""
    parts = () if part == EVERYTHING else (part,)
    argv = (sys.executable, "-m", "bookreader_backup_assets", "backup", *parts)
    return _command(system, "ours", argv, _settings(system, "ours"))


def idle(system: System) -> Command:
    """Return a Dagster run of this project that captures nothing: what memory is compared with."""
    return _command(system, "idle", (sys.executable, "-c", _IDLE), _settings(system, "idle"))


def restic(system: System, *verb: str) -> Command:
    """Return a restic command. It always encrypts; its compression is its default."""
    env = _env(system, "restic") | {
        "RESTIC_REPOSITORY": str(system.folder / "restic" / "out"),
        "RESTIC_PASSWORD": PASSPHRASE,
        "RESTIC_CACHE_DIR": str(system.folder / "restic" / "tmp" / "cache"),
    }
    before = (("restic", "init", "--quiet"),) if verb[0] == "backup" else ()
    return _command(system, "restic", ("restic", "--quiet", *verb), env, before)


def borg(system: System, *verb: str) -> Command:
    """Return a borg command: not encrypted, lz4, its default compression."""
    env = _env(system, "borg") | {
        "BORG_REPO": str(system.folder / "borg" / "out" / "borg"),
        "BORG_BASE_DIR": str(system.folder / "borg" / "tmp"),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    }
    before = (("borg", "init", "--encryption=none"),) if verb[0] == "create" else ()
    return _command(system, "borg", ("borg", *verb), env, before)


def prepare(command: Command) -> None:
    """Do what comes before the watch begins. Raises `RuntimeError` if it fails."""
    for argv in command.before:
        done = subprocess.run(argv, env=command.env, capture_output=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{argv[0]} {argv[1]}: {done.stderr.decode(errors='replace')}")


@dataclass(frozen=True)
class Phase:
    """A stretch of our command's time, in clock times and seconds.

    `kind` is capture, until the artifact is written and synced; read back, until its entry is; checks; or
    restorable.
    """

    kind: str
    asset: str
    begin: float
    end: float
    seconds: float


def phases(command: Command, since: float) -> list[Phase]:
    """Return what our command did since then, as the vault's entries and proofs say.

    An entry is written when its capture ends, a proof when its checks have; each says its seconds.
    """
    found = []
    for path in sorted(command.output.rglob("*.json")):
        end = path.stat().st_mtime
        if end < since or "backup_set" in path.parts:
            continue
        document = json.loads(path.read_bytes())
        if path.name.endswith(".entry.json"):
            asset = f"{document['component']}/{document['artifact']}"
            artifact = path.with_name(path.name.removesuffix(".entry.json"))
            synced = artifact.stat().st_ctime  # of its rename to the final name
            begin = end - document["seconds"]
            found.append(Phase("capture", asset, begin, synced, synced - begin))
            found.append(Phase("read back", asset, synced, end, end - synced))
            continue
        if ".proof-" in path.name:
            asset = document["artifact"]
            names = [check["check"] for check in document["checks"]]
            kind = "restorable" if names == ["restorable"] else "checks"
        else:
            continue
        found.append(Phase(kind, asset, end - document["seconds"], end, document["seconds"]))
    return found


def absent(program: str) -> bool:
    """Whether a program that is compared is not on this machine."""
    return shutil.which(program) is None


def versions(system: System) -> dict[str, str]:
    """Return the versions of everything compared."""
    clients = str(system.database.programs / "pg_dump")
    programs = {
        "PostgreSQL": clients,
        "restic": "restic",
        "borg": "borg",
        "tar": "tar",
        "gzip": "gzip",
        "gpg": "gpg",
    }
    said = {"Redis": system.redis.version}
    for name, program in programs.items():
        if not absent(program):
            argv = [program, "version" if name == "restic" else "--version"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
            match = re.search(r"\d+(\.\d+)+", done.stdout)
            said[name] = match[0] if match else "unknown"
    return said


def _command(
    system: System,
    who: str,
    argv: tuple[str, ...],
    env: dict[str, str],
    before: tuple[tuple[str, ...], ...] = (),
) -> Command:
    own = system.folder / who
    for folder in (own / "out", own / "tmp", own / "home"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    temporary = (own / "tmp", system.redis.folder)
    return Command(argv, env, own / "out", temporary, before)


def _env(system: System, who: str) -> dict[str, str]:
    path = f"{system.database.programs}:{Path(system.redis.cli[0]).parent}:{os.environ['PATH']}"
    own = system.folder / who
    return {"PATH": path, "HOME": str(own / "home"), "TMPDIR": str(own / "tmp"), "LANG": "C.UTF-8"}


def _settings(system: System, who: str) -> dict[str, str]:
    password = system.database.password
    redis_password = system.redis.password
    assert password is not None
    assert redis_password is not None
    database = f"{system.database.user}:{password.reveal()}@127.0.0.1:{system.database.port}/{DATABASE}"
    return _env(system, who) | {
        "BACKUP_RUNNER": "local",
        "BACKUP_VAULT": str(system.folder / who / "out"),
        "BACKUP_KEY_FILE": str(_passphrase(system)),
        "BACKUP_POSTGRESQL_URL": f"postgresql://{database}",
        "BACKUP_POSTGRESQL_PROGRAMS": str(system.database.programs),
        "BACKUP_REDIS_URL": f"redis://:{redis_password.reveal()}@127.0.0.1:{system.redis.port}",
        "BACKUP_REDIS_PROGRAMS": str(Path(system.redis.cli[0]).parent),
        "BACKUP_STORAGE_PATH": str(system.storage),
        "BACKUP_CONFIG_ROOT": str(system.configuration),
        "DAGSTER_HOME": str(system.folder / who / "dagster"),
    }


def _passphrase(system: System) -> Path:
    path = system.folder / "passphrase"
    if not path.exists():
        path.write_text(PASSPHRASE + "\n", encoding="ascii")
        path.chmod(0o600)
    return path
