"""A simulated year of the clock: one capture per night, one full per Sunday, whatever the clocks do."""

import collections
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._utils.schedules import schedule_execution_time_iterator

from bookreader_backup_assets.defs.sensors import PARTITION
from bookreader_backup_assets.plan import SHIPPED

PRODUCTION = (SHIPPED / "production.toml").read_text(encoding="utf-8")
DEVELOPMENT = (SHIPPED / "development.toml").read_text(encoding="utf-8")
NIGHTLY = ("capture_postgresql", "capture_redis", "capture_storage", "capture_config")
YEAR = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
ZONES = ["Europe/Berlin", "America/New_York"]


@pytest.fixture
def instance():
    """An instance in memory: one on a disk is opened again for each of two thousand ticks."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def fired(planned, clock, instance):
    """A way to let every schedule of a plan tick through the year; what each requests, by job."""

    def through(plan, zone):
        clock.set("2026-01-01T00:00:00+00:00")
        definitions = planned(plan, BACKUP_TIMEZONE=zone, BACKUP_FIRST_DAY="2025-12-01")[2]
        repository = definitions.get_repository_def()
        found = collections.defaultdict(list)
        for schedule in definitions.schedules:
            if not schedule.job_name.startswith("capture_") or schedule.job_name == "capture_logs":
                continue
            ticks = schedule_execution_time_iterator(
                datetime.combine(YEAR[0], datetime.min.time(), UTC).timestamp(),
                schedule.cron_schedule,
                schedule.execution_timezone,
                ascending=True,
            )
            for tick in ticks:
                if tick.date() > YEAR[-1]:
                    break
                clock.at = tick.astimezone(UTC)
                context = dg.build_schedule_context(
                    instance=instance, scheduled_execution_time=tick, repository_def=repository
                )
                for request in schedule.evaluate_tick(context).run_requests:
                    found[schedule.job_name].append(date.fromisoformat(request.partition_key))
        return found

    return through


@pytest.mark.parametrize("zone", ZONES)
def test_production_captures_every_night_once_and_a_full_every_sunday(fired, zone):
    """In 365 nights, two of other lengths: each component once, and on Sundays all of them in one run."""
    found = fired(PRODUCTION, zone)
    sundays = [day for day in YEAR if day.weekday() == 6]
    others = [day for day in YEAR if day.weekday() != 6]
    assert {job: found[job] for job in NIGHTLY} == dict.fromkeys(NIGHTLY, others)
    assert found["capture_full"] == sundays
    assert found.get("capture_code", sundays) == sundays
    assert len(sundays) == 52


@pytest.mark.parametrize("zone", ZONES)
def test_development_captures_storage_once_a_week(fired, zone):
    """The guide's second table: the database each night, storage each Sunday, no weekly full."""
    found = fired(DEVELOPMENT, zone)
    sundays = [day for day in YEAR if day.weekday() == 6]
    assert found == {"capture_postgresql": YEAR, "capture_storage": sundays, "capture_config": YEAR}


@pytest.mark.parametrize(
    ("zone", "first"),
    [("Europe/Berlin", "2026-03-28"), ("Europe/Berlin", "2026-10-24"), ("America/New_York", "2026-10-31")],
)
def test_a_daemon_that_was_down_makes_up_for_each_night_once(planned, clock, instance, zone, first):
    """Nights without a daemon around the change of clocks: the sensor asks once, on Sundays for the full."""
    clock.set(f"{first}T00:00:00+00:00")
    installation, plan, definitions = planned(PRODUCTION, BACKUP_TIMEZONE=zone, BACKUP_FIRST_DAY="2026-01-01")
    sensor = definitions.resolve_sensor_def("missed_captures")
    repository = definitions.get_repository_def()
    origin = RemoteRepositoryOrigin(
        RegisteredCodeLocationOrigin("bookreader_backup_assets"), "__repository__"
    )
    days = [date.fromisoformat(first) + timedelta(days=number) for number in range(3)]
    found = collections.Counter()
    for day in days:
        begins = datetime.combine(day, datetime.min.time(), installation.zone).astimezone(UTC)
        for half in range(2 * 7):
            clock.at = begins + timedelta(minutes=30 * half)
            if installation.today() != day.isoformat():
                break
            with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
                requests = sensor.evaluate_tick(context).run_requests
            for request in requests:
                if request.job_name == "capture_code":
                    continue
                found[request.job_name, request.partition_key] += 1
                tags = {PARTITION: request.partition_key}
                remote = RemoteJobOrigin(origin, request.job_name)
                instance.add_run(
                    DagsterRun(
                        job_name=request.job_name,
                        status=dg.DagsterRunStatus.SUCCESS,
                        tags=tags,
                        remote_job_origin=remote,
                    )
                )
                assert clock.at >= plan.due("redis" if plan.full_on(day) else request.job_name[8:], day)
    wanted = {
        (job, day.isoformat()): 1
        for day in days
        for job in (("capture_full",) if day.weekday() == 6 else NIGHTLY)
    }
    assert found == wanted
