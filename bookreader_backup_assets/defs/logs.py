"""Logs: an archive of each hour, captured when it is over, and, alone of all assets, long after, too."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.hours import archive_hour, mend_next, missing_hours
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components.logs import LOGS
from bookreader_backup_assets.core.hour import HOUR, begin_of, key_of
from bookreader_backup_assets.defs.jobs import job_name
from bookreader_backup_assets.defs.reconcile import report_check
from bookreader_backup_assets.defs.schedules import GRACE
from bookreader_backup_assets.defs.sensors import PARTITION, UNFINISHED
from bookreader_backup_assets.defs.steps import check_specs, checked, entry_metadata, failures_shown
from bookreader_backup_assets.plan_rows import LogsRow

JOB = job_name("logs")
FAILING = 3
"""How many hours are tried within one hour in vain: with an engine that is away, the others fail as well."""
BEFORE = timedelta(days=30)
"""How long before the first day hours are to be had: an engine has what was logged before that."""


def logs(installation: Installation, hours: dg.HourlyPartitionsDefinition) -> list[Any]:
    """Return the asset and checks of the logs."""

    @dg.asset(key_prefix="logs", group_name="logs", kinds={"docker", "file"}, partitions_def=hours)
    def archive(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """What BookReader's containers and this program logged in one hour of UTC, as text.

        A past hour is captured as well as the last one, as far as the engine still has it: a backfill works.
        Dagster's own output of runs is not in it.
        By hand: `zcat FILE | grep backend`.
        """
        hour = context.partition_key
        with failures_shown():
            entry, new = archive_hour(installation, hour)
            mended = mend_next(installation, hour) if new else None
        if mended is not None:
            after, proof = mended
            for outcome in proof.checks:
                report_check(context.instance, context.asset_key, after.set, after, outcome)
        for problem in entry.problems:
            context.log.warning("%s: %s", problem.where, problem.what)
        return dg.MaterializeResult(
            metadata=entry_metadata(entry, new=new), data_version=dg.DataVersion(entry.sha256)
        )

    @dg.multi_asset_check(specs=check_specs(LOGS, installation.component(LOGS), hours), can_subset=True)
    def logs_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the archive again, count its lines, and look whether it goes on where the one before ends."""
        yield from checked(context, installation)

    return [archive, logs_integrity]


def logs_job(hours: dg.HourlyPartitionsDefinition) -> Any:
    """Return the job that archives an hour."""
    return dg.define_asset_job(
        JOB,
        dg.AssetSelection.groups("logs"),
        description="Archive the logs of one hour, and check them.",
        partitions_def=hours,
    )


def logs_schedule(installation: Installation, row: LogsRow, job: Any) -> dg.ScheduleDefinition:
    """Return the schedule: each hour at the plan's minute of the next. One that is late is as true."""

    @dg.schedule(
        name=f"{JOB}_hourly",
        job=job,
        cron_schedule=f"{row.minute} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Archives the logs of the hour that is over.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        hour = key_of(context.scheduled_execution_time.astimezone(UTC) - HOUR)
        if Catalog(installation.vault).newest(LOGS, set_id=hour, verified=True) is not None:
            return dg.SkipReason(f"{hour} is archived already")
        return dg.RunRequest(run_key=hour, partition_key=hour)

    return schedule


def missed_hours(installation: Installation, row: LogsRow, job: Any) -> dg.SensorDefinition:
    """Return the sensor that archives what the clock missed, one hour after the other, the oldest first.

    So each finds the one before it, and a host that comes back is not taken by it.
    """

    @dg.sensor(
        name="missed_hours",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Archives the hours of logs, at most 48, that nobody archived while the daemon was down.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return to_archive(installation, row, context.instance)

    return sensor


def to_archive(
    installation: Installation, row: LogsRow, instance: dg.DagsterInstance
) -> dg.RunRequest | dg.SkipReason:
    """Return the request to archive the oldest missing hour, or why there is none.

    An hour whose run failed is tried again, as often as hours have passed: the engine has it still.
    """
    if instance.get_run_records(dg.RunsFilter(job_name=JOB, statuses=UNFINISHED), limit=1):
        return dg.SkipReason("an hour is being archived")
    late = row.minute + GRACE // timedelta(minutes=1)
    missing = missing_hours(installation, Catalog(installation.vault), late)
    failed = dg.RunsFilter(
        job_name=JOB, statuses=[dg.DagsterRunStatus.FAILURE], created_after=installation.now() - HOUR
    )
    if sum(run.tags.get(PARTITION) in missing for run in instance.get_runs(failed)) >= FAILING:
        return dg.SkipReason(f"{len(missing)} hours are missing, and {FAILING} have failed in this one")
    for hour in missing:
        tried = instance.get_runs_count(dg.RunsFilter(job_name=JOB, tags={PARTITION: hour}))
        if tried <= (installation.now() - begin_of(hour) - HOUR) // HOUR:
            return dg.RunRequest(run_key=f"missed:{hour}:{tried}", partition_key=hour)
    return dg.SkipReason("no hour was missed")
