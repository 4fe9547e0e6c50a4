"""BookReader's containers: which of them run, ended when they are stopped, and back when they are started."""

import os
from dataclasses import replace

import pytest

from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.docker_services import DockerServices

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
PROJECT = f"services-{os.getpid()}"


@pytest.fixture
def service(start_container):
    """Make a container of a compose service that runs a line of shell."""

    def made(name, script="sleep 1000", project=PROJECT, **given):
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": name}
        trapped = ["sh", "-c", f"trap 'exit 0' TERM; {script} & wait"]
        return start_container(
            "busybox", f"services-{name}", command=given.pop("command", trapped), labels=labels, **given
        )

    return made


@pytest.fixture
def services(engine, request):
    """The services of a project of this test's own."""
    return DockerServices(engine, f"{PROJECT}-{request.node.name}", settled=0.3, within=20)


def _state(engine, name):
    return engine.api.inspect_container(name)["State"]["Status"]


def test_only_what_runs_is_named_in_the_order_of_starting(engine, service, services):
    """A service that was stopped by hand is not named, and one of several containers of a service is."""
    worker = service("celery-worker", project=services.project)
    service("celery-worker", project=services.project, running=False)
    backend = service("backend", project=services.project)
    service("celery-beat", project=services.project, running=False)
    service("redis", project=services.project)
    service("backend", project="another")
    assert services.running() == (backend, worker)


def test_stopped_then_started_only_these_run(engine, service, services):
    """What was stopped has ended; what is started runs; what did not run still does not."""
    first, second = (service("backend", project=services.project) for _ in range(2))
    idle = service("celery-beat", project=services.project, running=False)
    for name in (ran := services.running()):
        services.stop(name)
    assert [_state(engine, name) for name in (first, second, idle)] == ["exited", "exited", "created"]
    assert services.running() == ()
    for name in ran:
        services.stop(name)  # again, after a crash
        services.start(name)
        services.start(name)
    assert [_state(engine, name) for name in (first, second, idle)] == ["running", "running", "created"]
    assert services.running() == ran == (first, second)


def test_a_service_that_ignores_the_signal_is_killed(engine, service, services):
    """Stopping does not wait for ever for a worker that does not listen."""
    deaf = service("celery-worker", project=services.project, command=["sleep", "1000"])
    replace(services, grace=1).stop(deaf)
    assert _state(engine, deaf) == "exited"


def test_one_that_ends_at_its_start_is_an_error_with_its_log(service, services):
    """It says why the service is not back."""
    command = ["sh", "-c", "echo no such table: books; exit 3"]
    broken = service("backend", project=services.project, running=False, command=command)
    with pytest.raises(SourceError, match=r"has ended, with status 3.*no such table: books") as raised:
        services.start(broken)
    assert raised.value.hint == f"docker logs {broken}"


def test_one_that_restarts_in_a_loop_is_an_error(service, services):
    """A restart policy does not hide that it never stays up."""
    policy = {"Name": "always", "MaximumRetryCount": 0}
    broken = service(
        "backend",
        project=services.project,
        command=["sh", "-c", "echo wrong password; exit 1"],
        restart_policy=policy,
    )
    with pytest.raises(SourceError, match=r"restarted again and again, with status 1.*wrong password"):
        services.start(broken)
    services.stop(broken)
    assert services.running() == ()


def test_one_that_is_gone_is_fine_to_stop_and_an_error_to_start(services):
    """What is not there does not run, and cannot be made to."""
    services.stop("services-that-is-not-there")
    with pytest.raises(SourceAbsentError, match="cannot be started") as raised:
        services.start("services-that-is-not-there")
    assert raised.value.hint == "docker compose up --detach"


def test_two_projects_are_refused(engine, service, services):
    """Services of somebody else are not stopped for want of a setting."""
    service("only-here", project=services.project)
    service("only-here", project=f"{services.project}-2")
    either = DockerServices(engine, names=("only-here",))
    with pytest.raises(RefusedError, match="several compose projects") as raised:
        either.running()
    assert "BACKUP_COMPOSE_PROJECT" in raised.value.hint


def test_a_paused_one_is_refused(engine, service, services):
    """It would wake up with the data from before."""
    name = service("backend", project=services.project)
    engine.api.pause(name)
    with pytest.raises(RefusedError, match="is paused"):
        services.running()
    engine.api.unpause(name)


def test_containers_without_labels_are_known_by_name(engine, start_container):
    """They need not be compose's."""
    name = start_container("busybox", "services-plain")
    assert DockerServices(engine, PROJECT, names=(name, "other")).running() == (name,)
