"""Fixtures: this project's image, and its services beside a small BookReader, started as the page says."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.runners.compose import Compose
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.vaults.local import LocalVault
from tests.defs.live import Live
from tests.fixtures import compose as bookreader
from tests.fixtures import docker
from tests.fixtures.missing import missing

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy" / "README.md"
COPIED = (
    "README.md",
    "bookreader_backup_assets",
    "constraints.txt",
    "dagster.yaml",
    "deploy",
    "pyproject.toml",
)
"""What the image is made of: `.dockerignore` names the same."""
SERVICES = ("engine", "code", "webserver", "daemon")
PLAN = """
timezone = "{zone}"
deadline = "23:58"
[postgresql]
at = "23:50"
[redis]
at = "{redis}"
[storage]
at = "23:50"
[config]
at = "23:50"
"""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def write_plan(settings: Path, redis: str) -> None:
    """Write the plan: Redis at that time, on a clock where it is about noon, all else at night."""
    behind = 12 - time.gmtime().tm_hour
    zone = f"Etc/GMT{-behind:+d}" if behind else "Etc/GMT"
    (settings / "plan.toml").write_text(PLAN.format(zone=zone, redis=redis), encoding="utf-8")


def commands(mark: str) -> str:
    """The commands of the page's block of that mark."""
    found = re.search(
        rf"^```sh {mark}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found is not None, mark
    return found[1]


@pytest.fixture(scope="session")
def project_image(engine: Engine) -> str:
    """The image of this project, made by its Dockerfile unless nothing of it has changed since."""
    files = sorted(
        path
        for name in COPIED
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and path.name not in ("README.md", ".env", "compose.yml")
    )
    content = hashlib.sha256()
    for path in files:
        content.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    tag = f"bookreader-test-project:{content.hexdigest()[:12]}"
    docker.CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(docker.CACHE / "project.lock"):
        if not engine.api.images(tag):
            docker._provide_base(engine)
            _build(engine, tag)
    return tag


def _build(engine: Engine, tag: str) -> None:
    """Build as the page says, but on the network of this machine, whose certificates it may need."""
    with contextlib.ExitStack() as cleared:
        folder = docker.CACHE / f"context-{os.getpid()}"
        cleared.callback(shutil.rmtree, folder, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__", ".env", "ca.crt")
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=skipped)
            else:
                folder.mkdir(exist_ok=True, parents=True)
                shutil.copy2(ROOT / name, folder)
        if CERTIFICATES.exists():
            shutil.copy2(CERTIFICATES, folder / "deploy" / "ca.crt")
        for line in engine.api.build(
            path=str(folder),
            dockerfile="deploy/Dockerfile",
            tag=tag,
            network_mode="host",
            rm=True,
            decode=True,
        ):
            assert "error" not in line, line["error"]


@dataclass(frozen=True)
class Deployed:
    """The services of this project beside a BookReader, both compose projects."""

    engine: Engine
    checkout: Path
    settings: Path
    vault: LocalVault
    project: bookreader.Project
    image: str
    name: str
    port: int
    environ: dict[str, str]
    live: Live

    def type(self, lines: str, within: float = 240, status: int = 0) -> str:
        """Have bash run commands of the page, with this host's paths, and return what they say."""
        text = lines
        for written, here in {
            "/opt/bookreader-backup": str(self.checkout),
            "/etc/bookreader-backup": str(self.settings),
            "/var/backups/bookreader": str(self.vault.root),
            "DB_PASSWORD": bookreader.PASSWORD,
            "REDIS_PASSWORD": bookreader.REDIS_PASSWORD,
        }.items():
            text = text.replace(written, here)
        if not _has_plugin():
            text = text.replace("docker compose", "docker-compose")
        text = re.sub(r" (exec|run --rm) ", r" \1 -T ", text)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.checkout,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == status, f"{text}\n{done.stdout[-6000:]}"
        return done.stdout

    def correct(self) -> None:
        """Correct what is in the settings file, as its writer is told to."""
        file = self.settings / "bookreader-backup.env"
        said = {
            "BACKUP_VAULT": self.vault.root,
            "BACKUP_CONFIG_ROOT": self.project.folder,
            "BACKUP_CONFIG_PATHS": "docker-compose.yml,.env",
            "BACKUP_COMPOSE_PROJECT": self.project.name,
            "BACKUP_POSTGRESQL_USER": "bookreader",
            "BACKUP_PLAN": self.settings / "plan.toml",
            "COMPOSE_PROJECT_NAME": self.name,
            "IMAGE": self.image,
            "PORT": self.port,
            "ENGINE_SOCKET": self.engine.address.removeprefix("unix://"),
            "SETTINGS_FOLDER": self.settings,
        }
        text = file.read_text(encoding="utf-8").replace("/etc/bookreader-backup", str(self.settings))
        kept = [
            line for line in text.splitlines() if line.partition("=")[0] not in {*said, "BACKUP_TIMEZONE"}
        ]
        lines = [*kept, *(f"{name}={value}" for name, value in said.items())]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def plan(self, redis: str) -> None:
        """Write the plan: Redis at that time, on a clock where it is about noon, all else at night."""
        write_plan(self.settings, redis)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What the engine says of the containers of `services` (all)."""
        wanted = {"label": f"com.docker.compose.project={self.name}"}
        listed = self.engine.api.containers(all=True, filters=wanted)
        found = [self.engine.api.inspect_container(one["Id"]) for one in listed]
        label = "com.docker.compose.service"
        return [one for one in found if not services or one["Config"]["Labels"][label] in services]

    def kill(self, *services: str) -> None:
        """Kill their processes as a crash would: the engine does not know that anybody wanted it."""
        for one in self.containers(*services):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["State"]["Pid"], signal.SIGKILL)

    def logs(self) -> str:
        """The ends of all logs, for a test that fails."""
        said = []
        for one in self.containers():
            log = self.engine.api.logs(one["Id"], tail=40).decode("utf-8", "replace")
            state = one["State"]
            health = state.get("Health", {}).get("Status")
            said.append(f"--- {one['Name']} {state['Status']} {health}\n{log}")
        return "\n".join(said)

    def catalog(self) -> Catalog:
        """What the vault holds."""
        return Catalog(self.vault)

    def until(self, what: str, done: Callable[[], Any], within: float = 180) -> Any:
        """Wait until `done` answers something true; a server that is not up yet is not an answer."""
        deadline = time.monotonic() + within
        while True:
            answer = None
            with contextlib.suppress(OSError):
                answer = done()
            if answer:
                return answer
            assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s\n{self.logs()}"
            time.sleep(0.2)


def _has_plugin() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def beside(
    engine: Engine, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[bookreader.Project]:
    """A small BookReader that runs: its database, its Redis and its files."""
    if not any(shutil.which(name) for name in ("docker", "docker-compose")):
        missing("no Docker Compose")
    if not engine.is_local or os.geteuid() != 0:
        missing("an engine of this machine, and root, whose processes can be killed")
    folder = tmp_path_factory.mktemp("bookreader")
    (folder / "backend" / "storage").mkdir(parents=True)
    (folder / "docker-compose.yml").write_text(bookreader._FILE, encoding="utf-8")
    name, port = f"beside-{os.getpid()}", bookreader._free_port()
    lines = {
        "DB_NAME": "bookreader",
        "DB_USER": "bookreader",
        "DB_PASSWORD": bookreader.PASSWORD,
        "REDIS_PASSWORD": bookreader.REDIS_PASSWORD,
        "BACKEND_PORT": port,
        "OWNER": os.getpid(),
        "POSTGRES_IMAGE": image("postgres"),
        "REDIS_IMAGE": image("redis"),
        "BACKEND_IMAGE": image("backend"),
        "WORKER_IMAGE": image("busybox"),
    }
    (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in lines.items()), encoding="utf-8")
    (folder / ".env").chmod(0o600)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    for words in (["init", "-q"], ["add", "docker-compose.yml"], ["commit", "-q", "-m", "deployed"]):
        subprocess.run([*git, *words], check=True, timeout=60)
    project = bookreader.Project(folder, Compose(folder, engine, name), engine, name, port)
    try:
        project.compose.up("backend")
        project.fill()
        subprocess.run(["chown", "-R", "1000:1000", folder], check=True, timeout=60)  # whoever deploys it
        yield project
    finally:
        bookreader._remove(project)


@pytest.fixture(scope="module")
def host(
    engine: Engine,
    beside: bookreader.Project,
    project_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    """A host on which nobody has done anything yet: a checkout, and the folders' names."""
    _remove_killed(engine, beside.compose)
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copytree(ROOT / "deploy", folder / "checkout" / "deploy", ignore=shutil.ignore_patterns(".env"))
    name, port = f"deployed-{os.getpid()}", bookreader._free_port()
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("BACKUP_", "DAGSTER_", "COMPOSE_"))
    }
    there = Deployed(
        engine=engine,
        checkout=folder / "checkout",
        settings=folder / "etc",
        vault=LocalVault(folder / "vault"),
        project=beside,
        image=project_image,
        name=name,
        port=port,
        environ={**clean, "DOCKER_HOST": engine.address},
        live=Live(f"http://127.0.0.1:{port}", folder),
    )
    try:
        yield there
    finally:
        bookreader._remove(bookreader.Project(folder, beside.compose, engine, name, port))


def _remove_killed(engine: Engine, compose: Compose) -> None:
    """Remove the services of runs of the tests that were killed: they would be started again and again."""
    for one in engine.api.containers(all=True, filters={"label": "com.docker.compose.project"}):
        name = one["Labels"]["com.docker.compose.project"]
        if re.fullmatch(r"deployed-\d+", name) and not Path("/proc", name.removeprefix("deployed-")).exists():
            bookreader._remove(bookreader.Project(Path(), compose, engine, name, 0))
