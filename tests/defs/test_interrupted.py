"""Runs that a crash or a reboot has left: ended, told apart, and made once more by Dagster's daemon."""

import time

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from bookreader_backup_assets.defs.interrupted import end_interrupted

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("code"), "__repository__"), "capture_redis"
)
STATUS = dg.DagsterRunStatus
LATER = time.time() + 3600


def left(instance: dg.DagsterInstance, status: STATUS, *, origin: object = ORIGIN, **tags: str) -> str:
    """Leave a run, and return its id."""
    run = dg.DagsterRun(
        job_name="capture_redis",
        status=status,
        tags={"dagster/partition": "2025-10-24", **tags},
        remote_job_origin=origin,
    )
    instance.add_run(run)
    launched = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
    instance.event_log_storage.store_event(
        EventLogEntry(
            None, "INFO", "", run.run_id, time.time(), job_name=run.job_name, dagster_event=launched
        )
    )
    return run.run_id


@pytest.mark.parametrize("status", [STATUS.STARTING, STATUS.STARTED])
def test_what_was_under_way_has_failed_and_is_made_once_more(
    instance: dg.DagsterInstance, status: STATUS
) -> None:
    """Its failure says why, and asks for one retry."""
    run = left(instance, status)
    assert end_interrupted(instance, LATER) == [run]
    found = instance.get_run_by_id(run)
    assert found is not None
    assert found.status == STATUS.FAILURE
    assert found.tags["dagster/max_retries"] == "1"
    assert found.tags["dagster/will_retry"] == "true"
    [failure] = instance.all_logs(run, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "restart of this host" in str(failure.message)
    assert end_interrupted(instance, LATER) == []


def test_what_says_no_is_not_made_again(instance: dg.DagsterInstance) -> None:
    """Restores say so: whoever began one looks at what it left."""
    run = left(instance, STATUS.STARTED, **{"dagster/max_retries": "0"})
    assert end_interrupted(instance, LATER) == [run]
    found = instance.get_run_by_id(run)
    assert found is not None
    assert found.tags["dagster/will_retry"] == "false"


def test_what_was_being_cancelled_has_been(instance: dg.DagsterInstance) -> None:
    """It is not made again: somebody wanted its end."""
    run = left(instance, STATUS.CANCELING)
    assert end_interrupted(instance, LATER) == [run]
    found = instance.get_run_by_id(run)
    assert found is not None
    assert found.status == STATUS.CANCELED


def test_the_others_are_left_alone(instance: dg.DagsterInstance) -> None:
    """What waits its turn, what has ended, and what the command line does in a process of its own."""
    before = {left(instance, status): status for status in (STATUS.QUEUED, STATUS.SUCCESS, STATUS.FAILURE)}
    before[left(instance, STATUS.STARTED, origin=None)] = STATUS.STARTED
    assert end_interrupted(instance, LATER) == []
    before[left(instance, STATUS.STARTED)] = STATUS.STARTED
    assert end_interrupted(instance, time.time() - 60) == []  # the code location that works on it is the one
    assert {run.run_id: run.status for run in instance.get_runs()} == before
