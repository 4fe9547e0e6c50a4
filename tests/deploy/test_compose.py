"""The services of `deploy/compose.yml` beside a BookReader: started as the page says, killed, started again.

One host lives through all of it: the tests are in the order in which things happen to it.
"""

import json
import signal
import socket
from datetime import UTC, datetime

import pytest

from tests.deploy.conftest import SERVICES, Deployed, commands
from tests.fixtures.compose import PASSWORD, REDIS_PASSWORD

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("deploy")]

LATE, MISSED = "23:50", "00:05"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@pytest.fixture(scope="module")
def deployed(host: Deployed) -> Deployed:
    """The host, when what the page says has been typed."""
    for line in commands("host").splitlines():
        if "docker build" in line or "run --rm capture" in line:
            continue  # the image is made, and this day's capture is to be missed
        if "doctor" in line:
            problems = [one for one in host.type(line, status=1).splitlines() if one.startswith("problem")]
            assert ["nothing was captured yet" in one for one in problems] == [True], problems
            continue
        host.type(line)
        if "up --detach" in line:  # or its sensors would have looked already, and look again in a minute only
            host.type("docker compose -f deploy/compose.yml kill daemon")
        if "env.example" in line:
            host.correct()
            host.plan(redis=LATE)
    return host


def loaded(deployed: Deployed) -> bool:
    """Whether the UI shows what there is."""
    said = deployed.live.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")[
        "repositoriesOrError"
    ]
    return bool(said.get("nodes"))


def runs(deployed: Deployed, job: str) -> list[dict]:
    """The runs of a job."""
    return deployed.live.runs(pipelineName=job)


def captured(deployed: Deployed, asset: str) -> list:
    """The unlabelled artifacts of an asset."""
    return [entry for entry in deployed.catalog().entries() if entry.asset == asset and not entry.label]


def half(deployed: Deployed) -> set[str]:
    """The half files in the vault, which nobody takes for a backup."""
    return {path.name for path in deployed.vault.root.rglob("*") if ".partial" in path.name}


def test_it_starts_as_the_page_says(deployed: Deployed) -> None:
    """The UI has the code location's assets, and the services that are only called are not started."""
    deployed.until("the UI", lambda: loaded(deployed))
    assert len(deployed.containers()) == len(SERVICES)


def test_the_ui_is_for_this_host_only(deployed: Deployed) -> None:
    """It answers at 127.0.0.1, and at no other address of it; no other service is published."""
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", deployed.port), 5):
        pass
    for one in deployed.containers():
        published = [bind for binds in (one["HostConfig"]["PortBindings"] or {}).values() for bind in binds]
        expected = [{"HostIp": "127.0.0.1", "HostPort": str(deployed.port)}]
        assert published == (expected if "webserver" in one["Name"] else []), one["Name"]


def test_no_secret_can_be_inspected(deployed: Deployed) -> None:
    """Not in what the engine tells of the containers, nor in their logs, nor in what compose says."""
    key = (deployed.settings / "key").read_text(encoding="utf-8").strip()
    said = json.dumps(deployed.containers()) + deployed.logs()
    said += deployed.type("docker compose -f deploy/compose.yml config")
    assert len(key) > 40
    for secret in (key, PASSWORD, REDIS_PASSWORD):
        assert secret not in said


def test_only_the_filter_has_the_engine(deployed: Deployed) -> None:
    """Only the code location has secrets, vault and BookReader's files; nobody has root's rights."""
    engine, vault = deployed.engine.address.removeprefix("unix://"), str(deployed.vault.root)
    for one in deployed.containers():
        service = one["Config"]["Labels"]["com.docker.compose.service"]
        mounts = {mount["Source"]: mount["RW"] for mount in one["Mounts"]}
        assert (engine in mounts) is (service == "engine")
        assert (str(deployed.settings) in mounts) is (service == "code")
        assert mounts.get(vault, False) is (service == "code")
        assert mounts.get(str(deployed.project.folder)) is (False if service == "code" else None)
        host = one["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] in ((["DAC_READ_SEARCH"],) if service == "code" else (None, []))
        assert host["ReadonlyRootfs"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"]["max-size"]


def test_everything_is_killed_and_starts_again(deployed: Deployed) -> None:
    """Meanwhile the time of Redis has passed. After it, the UI is there without a click."""
    deployed.type("docker compose -f deploy/compose.yml kill")
    assert {one["State"]["Status"] for one in deployed.containers()} == {"exited"}
    assert captured(deployed, "redis/rdb") == []
    deployed.plan(redis=MISSED)
    deployed.type("docker compose -f deploy/compose.yml up --detach")
    deployed.until("the UI", lambda: loaded(deployed))
    assert {one["State"]["Status"] for one in deployed.containers(*SERVICES)} == {"running"}


def test_the_deploy_line_makes_a_set_of_its_own(deployed: Deployed) -> None:
    """Of every component, labelled, verified; and by `|| exit 1` a failed backup ends the deployment."""
    deployed.type(commands("deploy"))
    made = [entry for entry in deployed.catalog().entries() if entry.label == "pre-deploy"]
    assert {"postgresql", "redis", "storage", "config"} <= {entry.asset.split("/")[0] for entry in made}
    assert "pre-deploy" in deployed.type(
        "docker compose -f deploy/compose.yml exec code bookreader-backup list"
    )
    line = commands("deploy").replace("pre-deploy", "no/label")
    deployed.type(f"{line}\ntouch deployed", status=1)
    assert not (deployed.checkout / "deployed").exists()


def test_what_was_missed_while_all_was_down_is_captured_once(deployed: Deployed) -> None:
    """By the sensor, although a labelled set has been made meanwhile."""
    deployed.until("the missed capture", lambda: captured(deployed, "redis/rdb"))
    deployed.until("its run's end", lambda: runs(deployed, "capture_redis")[0]["status"] in ENDED)
    [run] = runs(deployed, "capture_redis")
    assert run["status"] == "SUCCESS", deployed.logs()
    assert len(captured(deployed, "redis/rdb")) == 1


def test_a_capture_that_was_killed_is_made_once_more(deployed: Deployed) -> None:
    """Its run has failed as soon as the code location is there again, and Dagster's daemon makes another."""
    [day] = {entry.set for entry in captured(deployed, "redis/rdb")}
    first = deployed.live.launch("capture_storage", day)
    deployed.until("a run", lambda: runs(deployed, "capture_storage")[0]["status"] == "STARTED")
    deployed.kill("code")
    deployed.until("a second run", lambda: len(runs(deployed, "capture_storage")) == 2)
    deployed.until("its end", lambda: runs(deployed, "capture_storage")[0]["status"] in ENDED)
    status = {run["runId"]: run["status"] for run in runs(deployed, "capture_storage")}
    assert status.pop(first) == "FAILURE"
    assert list(status.values()) == ["SUCCESS"]
    # one, or two where the first had committed its artifact and was killed as it checked it
    assert len(captured(deployed, "storage/archive")) in (1, 2)
    assert len(runs(deployed, "capture_redis")) == 1
    [code] = deployed.containers("code")
    assert code["RestartCount"] == 1


def test_a_restore_says_its_plan(deployed: Deployed) -> None:
    """By the page's command, in a container of its own; with Dagster's services up or not."""
    made = next(entry.set for entry in deployed.catalog().entries() if entry.label)
    said = deployed.type(commands("restore").replace("--plan", f"--from {made} --plan"))
    assert "bookreader" in said


def test_the_other_commands_of_the_page(deployed: Deployed) -> None:
    """What there is, and whether it is young enough, whose answer is an exit status."""
    status, *lines = commands("others").splitlines()
    assert "redis/rdb" in deployed.type(status, status=1)
    deployed.type("\n".join(lines))


def test_it_ends_in_time_when_told(deployed: Deployed) -> None:
    """In the middle of a capture, all of it has ended after 20 seconds, and left no half file."""
    [day] = {entry.set for entry in captured(deployed, "redis/rdb")}
    killed = half(deployed)  # what was killed before may have left something, which counts for nothing
    deployed.live.launch("capture_postgresql", day)
    deployed.until("a run", lambda: runs(deployed, "capture_postgresql")[0]["status"] == "STARTED")
    began = datetime.now(UTC)
    deployed.type("docker compose -f deploy/compose.yml stop")
    states = [one["State"] for one in deployed.containers()]
    assert {state["Status"] for state in states} == {"exited"}
    ended = max(datetime.fromisoformat(state["FinishedAt"][:19] + "+00:00") for state in states)
    assert (ended - began).total_seconds() < 20
    catalog = deployed.catalog()
    assert catalog.entries()
    assert catalog.unreadable == []
    [code] = deployed.containers("code")
    if code["State"]["ExitCode"] != 128 + signal.SIGKILL:  # as on a host that is too busy to end in time
        assert half(deployed) == killed
