"""Hours of logs under Dagster: on time, late, backfilled, refused, made up for after a silent night."""

import gzip
import itertools
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.hours import archive_hour
from bookreader_backup_assets.actions.report import ages
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import objectives
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.hour import begin_of
from bookreader_backup_assets.defs.sensors import PARTITION

PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[redis]
at = "02:30"
[logs]
minute = 5
"""
LOGS = dg.AssetKey(["logs", "archive"])
NIGHT = "2026-06-10T00:00:00+00:00"


@pytest.fixture
def own_log(tmp_path):
    """The log of this program over two days: a line every twenty minutes."""
    path = tmp_path / "own.log"
    begin = datetime.fromisoformat(NIGHT) - timedelta(days=1)
    stamps = [begin + timedelta(minutes=20 * number) for number in range(3 * 48)]
    path.write_text("".join(f"{at:%Y-%m-%dT%H:%M:%S.%f}Z INFO capture redis/rdb done\n" for at in stamps))
    return path


@pytest.fixture
def logged(planned, own_log, clock):
    """Installation, plan and definitions in a June night, whose logs are this program's own."""
    clock.set(NIGHT)
    return planned(PLAN, BACKUP_LOG=str(own_log), BACKUP_FIRST_DAY="2026-06-09")


def text_of(installation, hour):
    """What the archive of an hour says."""
    entry = Catalog(installation.vault).newest("logs/archive", set_id=hour)
    return gzip.decompress(b"".join(installation.vault.open(entry.name))).decode()


def outcomes(result):
    """Which checks a run made, and whether they passed."""
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def asks(definitions, instance):
    """What the sensor asks for: an hour, or why there is nothing to do."""
    sensor = definitions.resolve_sensor_def("missed_hours")
    with dg.build_sensor_context(
        instance=instance, repository_def=definitions.get_repository_def()
    ) as context:
        said = sensor.evaluate_tick(context)
    return said.run_requests[0].partition_key if said.run_requests else said.skip_message


def test_an_hour_is_archived_and_checked(logged, run_of, instance):
    """An hour's lines, and no others, are in its archive, and Dagster knows its checks by partition."""
    installation, _, definitions = logged
    result = run_of(definitions, "capture_logs", "2026-06-09-23:00")
    assert result.success
    assert outcomes(result) == {"not_empty": True, "sha256": True, "readable": True, "no_gap": True}
    assert [line[:43] for line in text_of(installation, "2026-06-09-23:00").splitlines()] == [
        f"bookreader-backup 2026-06-09T23:{minute:02}:00.00000" for minute in (0, 20, 40)
    ]
    (record,) = instance.fetch_materializations(LOGS, limit=5).records
    assert record.asset_materialization.partition == "2026-06-09-23:00"
    assert record.asset_materialization.metadata["lines"].value == 3


def test_an_hour_that_is_not_over_is_refused(logged, clock):
    """What is still being logged is no partition, cannot be archived by hand either, and is no artifact."""
    installation, _, definitions = logged
    clock.set("2026-06-10T00:59:59+00:00")
    hours = definitions.resolve_asset_graph().get(LOGS).partitions_def
    assert hours.get_partition_keys(current_time=clock())[-1] == "2026-06-09-23:00"
    with pytest.raises(RefusedError, match="is not over") as raised:
        archive_hour(installation, "2026-06-10-00:00")
    assert "--label" in raised.value.hint
    assert Catalog(installation.vault).entries() == []
    (failure,) = Catalog(installation.vault).failures("2026-06-10-00:00")
    assert "is not over" in failure.error
    clock.set("2026-06-10T01:00:00+00:00")
    assert archive_hour(installation, "2026-06-10-00:00")[1]


def test_a_backfill_of_past_hours_is_true(logged, run_of, clock):
    """Hours long over hold what was logged in them, in any order, and the age of the newest is the last's."""
    installation, plan, definitions = logged
    keys = ["2026-06-09-10:00", "2026-06-09-08:00", "2026-06-09-09:00"]
    results = {key: run_of(definitions, "capture_logs", key) for key in keys}
    assert results["2026-06-09-10:00"].success
    assert all(text_of(installation, key).count(f"2026-06-09T{key[11:13]}:") == 3 for key in keys)
    assert [e.set for e in Catalog(installation.vault).entries(asset="logs/archive")] == sorted(keys)
    (age,) = [
        a for a in ages(Catalog(installation.vault), objectives(plan), clock()) if a.asset == "logs/archive"
    ]
    assert age.newest.set == "2026-06-09-10:00"
    assert age.age == timedelta(hours=13)
    assert not age.good


def test_a_filled_hole_mends_what_comes_after(logged, run_of, instance):
    """The hour after a hole is red; when the hole is filled, it is looked at again, in Dagster, too."""
    installation, _, definitions = logged
    assert run_of(definitions, "capture_logs", "2026-06-09-08:00").success
    result = run_of(definitions, "capture_logs", "2026-06-09-10:00")
    assert outcomes(result)["no_gap"] is False
    assert run_of(definitions, "capture_logs", "2026-06-09-09:00").success
    after = Catalog(installation.vault).newest("logs/archive", set_id="2026-06-09-10:00")
    assert Catalog(installation.vault).standing(after).verdict is Verdict.PASSED
    key = dg.AssetCheckKey(LOGS, "no_gap")
    made = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    told = [r.event.dagster_event.asset_check_evaluation_data for r in made if r.event]
    assert [one.passed for one in told if one.partition == "2026-06-09-10:00"] == [True, False]


def test_an_archived_hour_is_not_archived_again(logged, run_of, own_log):
    """Later, a log has less of the hour: the verified archive stays the one that counts."""
    installation, _, definitions = logged
    assert run_of(definitions, "capture_logs", "2026-06-09-08:00").success
    own_log.write_text("")
    assert run_of(definitions, "capture_logs", "2026-06-09-08:00").success
    assert len(Catalog(installation.vault).entries(asset="logs/archive")) == 1


def test_an_emptied_log_is_a_gap(logged, run_of, own_log, instance):
    """Lines that were there at the last archive and are gone: the run is red and names the two instants."""
    _, _, definitions = logged
    assert run_of(definitions, "capture_logs", "2026-06-09-08:00").success
    lines = own_log.read_text().splitlines(keepends=True)
    own_log.write_text("".join(line for line in lines if line >= "2026-06-09T09:40"))
    result = run_of(definitions, "capture_logs", "2026-06-09-09:00")
    assert not result.success
    (bad,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert "from 2026-06-09 09:00:00 UTC to 2026-06-09 09:40:00 UTC" in bad.description


def test_the_clock_asks_for_the_hour_that_is_over(logged, instance, clock):
    """At each hour's minute the hour before is asked for, in UTC, through a night that has an hour twice."""
    from dagster._utils.schedules import schedule_execution_time_iterator

    _, _, definitions = logged
    schedule = next(one for one in definitions.schedules if one.name == "capture_logs_hourly")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("5 * * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    begin = datetime.fromisoformat("2026-10-24T21:30:00+00:00")
    instants = itertools.islice(
        schedule_execution_time_iterator(
            begin.timestamp(), schedule.cron_schedule, schedule.execution_timezone, ascending=True
        ),
        6,
    )
    keys = []
    for instant in instants:
        clock.at = instant.astimezone(UTC)
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=instant,
            repository_def=definitions.get_repository_def(),
        )
        (request,) = schedule.evaluate_tick(context).run_requests
        keys.append(request.partition_key)
    first = begin_of("2026-10-24-21:00")
    assert [begin_of(key) for key in keys] == [first + timedelta(hours=number) for number in range(6)]


def test_a_night_without_a_daemon_is_made_up_for(logged, run_of, instance, clock):
    """Every hour of the night is asked for, one after the other from the oldest on, and none is a gap."""
    installation, _, definitions = logged
    assert run_of(definitions, "capture_logs", "2026-06-09-20:00").success
    clock.set("2026-06-10T05:14:00+00:00")
    made = []
    while (hour := asks(definitions, instance)) != "no hour was missed":
        assert run_of(definitions, "capture_logs", hour).success, hour
        made.append(hour)
    assert made == [f"2026-06-09-{hour}:00" for hour in (21, 22, 23)] + [
        f"2026-06-10-{hour:02}:00" for hour in range(4)
    ], "that of 04:00 is the clock's for another minute"
    catalog = Catalog(installation.vault)
    assert all(catalog.standing(e).verdict is Verdict.PASSED for e in catalog.entries(asset="logs/archive"))
    clock.set("2026-06-10T05:15:00+00:00")
    assert asks(definitions, instance) == "2026-06-10-04:00"


def test_only_so_much_is_made_up_for(logged, instance, clock):
    """After a week's silence two days of hours are asked for, oldest first; the rest is a backfill's."""
    installation, _, definitions = logged
    archive_hour(installation, "2026-06-09-20:00")
    clock.set("2026-06-17T05:15:00+00:00")
    assert asks(definitions, instance) == "2026-06-15-05:00"


def test_the_first_hour_is_the_last_that_is_over(logged, instance, clock):
    """A new installation begins with the hour that has just ended, and with none of the past."""
    _, _, definitions = logged
    assert asks(definitions, instance) == "2026-06-09-22:00", "23:00 is the clock's, five minutes later"


def test_a_failed_hour_is_tried_again_each_hour(logged, instance, clock):
    """An engine that was away has the hour still: it is asked for again, once in an hour, and not at once."""
    installation, _, definitions = logged
    entry, _ = archive_hour(installation, "2026-06-09-20:00")
    verify(installation, installation.component("logs/archive"), entry)
    clock.set("2026-06-09T22:20:00+00:00")
    assert asks(definitions, instance) == "2026-06-09-21:00"
    failed = has_run(instance, dg.DagsterRunStatus.FAILURE, "2026-06-09-21:00")
    assert asks(definitions, instance) == "no hour was missed"
    clock.set("2026-06-09T23:10:00+00:00")
    assert asks(definitions, instance) == "2026-06-09-21:00"
    has_run(instance, dg.DagsterRunStatus.STARTED, "2026-06-09-21:00")
    assert asks(definitions, instance) == "an hour is being archived"
    assert failed


def test_an_engine_that_is_away_is_not_asked_all_night(logged, instance, clock):
    """Of many missing hours three are tried in vain within an hour, and the others wait for the next."""
    installation, _, definitions = logged
    archive_hour(installation, "2026-06-09-20:00")
    clock.set("2026-06-10T08:30:00+00:00")
    asked = []
    while (hour := asks(definitions, instance)).startswith("2026"):
        asked.append(hour)
        has_run(instance, dg.DagsterRunStatus.FAILURE, hour)
        assert len(asked) < 10
    assert asked == ["2026-06-09-21:00"] * 3
    assert hour == "11 hours are missing, and 3 have failed in this one"


def test_what_was_archived_without_dagster_is_reported(logged, instance, clock):
    """An hour archived without Dagster is reported to it; one that a run is working on is left to that."""
    installation, _, definitions = logged
    entry, _ = archive_hour(installation, "2026-06-09-20:00")
    verify(installation, installation.component("logs/archive"), entry)
    run = has_run(instance, dg.DagsterRunStatus.STARTED, "2026-06-09-20:00")
    sensor, repository = definitions.resolve_sensor_def("reconcile"), definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        assert sensor.evaluate_tick(context).skip_message == "nothing to report"
        instance.delete_run(run)
        assert entry.name in sensor.evaluate_tick(context).skip_message
    (record,) = instance.fetch_materializations(LOGS, limit=5).records
    assert record.asset_materialization.partition == "2026-06-09-20:00"


def test_without_a_row_no_clock(planned):
    """A plan without logs has neither schedule nor sensor for them; the job can still be asked for."""
    definitions = planned()[2]
    assert "capture_logs_hourly" not in {schedule.name for schedule in definitions.schedules}
    assert "missed_hours" not in {sensor.name for sensor in definitions.sensors}
    assert "capture_logs" in {job.name for job in definitions.jobs}


def has_run(instance, status, hour):
    """Note a run of an hour in Dagster's storage."""
    code = RegisteredCodeLocationOrigin("bookreader_backup_assets")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(code, "__repository__"), "capture_logs")
    run = DagsterRun(job_name="capture_logs", status=status, tags={PARTITION: hour}, remote_job_origin=origin)
    instance.add_run(run)
    return run.run_id
