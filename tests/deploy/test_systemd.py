"""The units of `deploy/systemd`, on a host that boots systemd: power cut, booted again, killed, stopped."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.vaults.local import LocalVault
from tests.deploy.conftest import ROOT, commands, write_plan
from tests.fixtures.compose import PASSWORD, REDIS_PASSWORD, Project
from tests.fixtures.docker import LABEL, _remove_left_over

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("deploy")]

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("code", "webserver", "daemon")
HOST = """\
FROM {image}
RUN apt-get update && apt-get install -y --no-install-recommends systemd dbus
# the checkout of the page, with its environment made: the image's own
RUN ln -s /opt/bookreader-backup /opt/bookreader-backup/.venv
CMD ["/lib/systemd/systemd"]
"""


class Booted:
    """A host under systemd: a container that has one as its first process."""

    def __init__(self, engine: Engine, name: str, settings: Path, vault: LocalVault) -> None:
        self.engine, self.name, self.settings, self.vault = engine, name, settings, vault

    def type(self, text: str, *, status: int | None = 0) -> str:
        """Have the host's shell run commands, and return what they say."""
        made = self.engine.api.exec_create(self.name, ["sh", "-ec", text])
        said = self.engine.api.exec_start(made["Id"]).decode("utf-8", "replace")
        ended = self.engine.api.exec_inspect(made["Id"])["ExitCode"]
        assert status is None or ended == status, f"{text}\n{said}\n{self.journal()}"
        return said

    def boot(self) -> None:
        """Switch it on, and return when systemd answers."""
        self.engine.api.start(self.name)
        self.until("systemd", lambda: "running" in self.type("systemctl is-system-running", status=None))

    def cut_power(self) -> None:
        """All of its processes end at once, and nobody writes anything down."""
        self.engine.api.kill(self.name)

    def active(self, *services: str) -> bool:
        """Whether units are up: the code location has to serve for that."""
        units = " ".join(f"bookreader-backup-{one}" for one in services or SERVICES)
        return set(self.type(f"systemctl is-active {units}", status=None).split()) == {"active"}

    def captured(self) -> list:
        """The unlabelled artifacts of Redis."""
        return [one for one in Catalog(self.vault).entries() if one.asset == "redis/rdb" and not one.label]

    def journal(self) -> str:
        """The end of what its units have said, for a test that fails."""
        made = self.engine.api.exec_create(self.name, ["journalctl", "--no-pager", "-n", "80"])
        return self.engine.api.exec_start(made["Id"]).decode("utf-8", "replace")

    def until(self, what: str, done: Callable[[], object], within: float = 180) -> None:
        """Wait until `done` answers something true."""
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s\n{self.journal()}"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def booted(
    engine: Engine, beside: Project, project_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """The host, with a power cut behind it, in which the time of Redis has passed."""
    folder = tmp_path_factory.mktemp("booted")
    (folder / "Dockerfile").write_text(HOST.format(image=project_image), encoding="utf-8")
    tag = f"bookreader-test-systemd:{project_image.rpartition(':')[2]}"
    if not engine.api.images(tag):
        for line in engine.api.build(path=str(folder), tag=tag, network_mode="host", rm=True, decode=True):
            assert "error" not in line, line["error"]
    settings, vault = folder / "etc", folder / "vault"
    vault.mkdir(mode=0o700)
    settings.mkdir(mode=0o700)
    _write_settings(settings, beside)
    write_plan(settings, redis="23:50")
    _remove_left_over(engine)
    name = f"booted-{os.getpid()}"
    host = engine.api.create_host_config(
        network_mode="none",
        cap_add=["SYS_ADMIN"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        tmpfs={"/run": "", "/run/lock": "", "/tmp": ""},
        binds=[
            f"{settings}:/etc/bookreader-backup",
            f"{vault}:/var/backups/bookreader",
            f"{beside.folder}:{beside.folder}",
            f"{engine.address.removeprefix('unix://')}:/var/run/docker.sock",
            f"{ROOT / 'deploy'}:/opt/bookreader-backup/deploy:ro",
            f"{ROOT / 'dagster.yaml'}:/opt/bookreader-backup/dagster.yaml:ro",
        ],
    )
    host["CgroupnsMode"] = "private"
    engine.api.create_container(
        tag,
        name=name,
        environment={"container": "docker"},
        host_config=host,
        labels={LABEL: str(os.getpid())},
    )
    there = Booted(engine, name, settings, LocalVault(vault))
    try:
        there.boot()
        lines = commands("systemd").replace("enable --now", "enable").splitlines()
        there.type("\n".join(line for line in lines if "pip install" not in line and "doctor" not in line))
        there.type("systemctl start --no-block bookreader-backup-code bookreader-backup-daemon")
        there.cut_power()
        write_plan(settings, redis="00:05")
        there.boot()
        yield there
    finally:
        with contextlib.suppress(Exception):
            engine.api.remove_container(name, force=True, v=True)


def _write_settings(folder: Path, project: Project) -> None:
    secrets = {"key": "a passphrase", "postgresql": PASSWORD, "redis": REDIS_PASSWORD}
    for name, text in secrets.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)
    said = {
        "BACKUP_CONFIG_ROOT": project.folder,
        "BACKUP_CONFIG_PATHS": "docker-compose.yml,.env",
        "BACKUP_COMPOSE_PROJECT": project.name,
        "BACKUP_POSTGRESQL_USER": "bookreader",
        "BACKUP_PLAN": "/etc/bookreader-backup/plan.toml",
    }
    shipped = (ROOT / "deploy" / "env.example").read_text(encoding="utf-8").splitlines()
    kept = [one for one in shipped if one.partition("=")[0] not in {*said, "BACKUP_TIMEZONE"}]
    lines = [*kept, *(f"{name}={value}" for name, value in said.items())]
    (folder / "bookreader-backup.env").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_units_are_well_formed(booted: Booted) -> None:
    """Systemd has nothing to say about them; what they call is where the page puts it."""
    said = booted.type("systemd-analyze verify /etc/systemd/system/bookreader-backup-*")
    assert said.strip() == ""


def test_what_was_missed_is_captured_once_after_the_reboot(booted: Booted) -> None:
    """Nobody has started anything: the units were enabled, and the power came back."""
    booted.until("the missed capture", booted.captured)
    booted.until("the webserver", booted.active)
    assert len(booted.captured()) == 1


def test_killed_units_start_again(booted: Booted) -> None:
    """All three, by themselves; what has been captured is not captured again."""
    units = [f"bookreader-backup-{one}" for one in SERVICES]
    booted.type(f"systemctl kill --signal KILL {' '.join(units)}")
    show = f"systemctl show --property NRestarts {' '.join(units)}"
    booted.until("a restart of each", lambda: booted.type(show).split() == ["NRestarts=1"] * len(units))
    booted.until("the code location is up again", lambda: booted.active("code"))
    running = booted.type("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", status=None)
    assert (
        "bookreader_backup_assets.defs.interrupted" in running
    )  # what was cut off is looked for, from now on
    booted.until("all is up again", booted.active)
    assert len(booted.captured()) == 1


def test_the_status_unit_fails_where_a_backup_is_missing(booted: Booted) -> None:
    """So that `OnFailure=` tells; its log names what is missing."""
    booted.type("systemctl start bookreader-backup-status", status=1)
    assert "postgresql/dump" in booted.type("journalctl --no-pager -u bookreader-backup-status")
    assert "bookreader-backup-status.timer" in booted.type("systemctl list-timers --no-pager")


def test_the_deploy_line_makes_a_set_of_its_own(booted: Booted) -> None:
    """The same settings, on the command line, and without it nothing is deployed."""
    line = commands("systemd-deploy")
    booted.type(
        line.replace("--label pre-deploy", "--label pre-deploy redis config")
    )  # the rest takes longer
    made = {one.asset.split("/")[0] for one in Catalog(booted.vault).entries() if one.label == "pre-deploy"}
    assert made == {"redis", "config", "backup_set"}


def test_only_the_code_location_sees_secrets_and_the_vault(booted: Booted) -> None:
    """For the others those folders are not there, and nobody may write to the system."""
    for unit, seen in (("code", True), ("webserver", False), ("daemon", False)):
        pid = booted.type(f"systemctl show --property MainPID --value bookreader-backup-{unit}").strip()
        inside = f"nsenter --target {pid} --mount"
        for path in ("/etc/bookreader-backup/key", "/var/backups/bookreader/installation.json"):
            found = booted.type(f"{inside} ls {path} 2>&1", status=None)
            assert ("cannot" not in found) is seen, f"{unit} {path}: {found}"
        assert "Read-only" in booted.type(f"{inside} touch /usr/x 2>&1", status=None)


def test_they_end_in_time_when_told(booted: Booted) -> None:
    """Within 20 seconds, and nothing half is left."""
    began = time.monotonic()
    booted.type("systemctl stop 'bookreader-backup-*'")
    assert time.monotonic() - began < 20
    assert [path for path in booted.vault.root.rglob("*") if ".partial" in path.name] == []


def test_each_path_in_a_unit_is_one_of_the_page() -> None:
    """The units and the page speak of the same places."""
    page = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    for unit in UNITS.iterdir():
        for path in re.findall(r"/(?:opt|etc|var/lib|var/backups)/[\w-]+", unit.read_text(encoding="utf-8")):
            assert path in page, f"{unit.name}: {path}"
