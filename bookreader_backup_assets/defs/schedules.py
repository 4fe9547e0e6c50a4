"""When: the plan's times, and the seal at its deadline, in the plan's timezone.

They run without a click: a backup that waits for somebody to throw a switch is none.

They are no schedules "from partitions": Dagster catches those up after a pause, and a capture that is
made today cannot be filed under yesterday. `max_catchup_runs: 0` does not turn that off, it lifts the limit
(`ticks[-0:]` are all ticks). What today's clock missed is the `missed_captures` sensor's.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.jobs import SEAL, job_name
from bookreader_backup_assets.defs.unsealed import newer_manifest
from bookreader_backup_assets.plan import Plan

GRACE = timedelta(minutes=10)
"""How long after its time the clock begins a capture; from then on it counts as missed, for the sensor.

Without this border, both would capture when a daemon comes back.
"""


def schedules(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> list[dg.ScheduleDefinition]:
    """Return one daily schedule for each planned component, and the seal's at the plan's deadline."""
    captures = [
        _daily(installation, jobs[job_name(component)], row.at, f"Captures {component}, as the plan says.")
        for component, row in plan.rows.items()
    ]
    sealing = "Seals the day's set, whatever it lacks; skipped where its manifest says it all already."
    return [*captures, _daily(installation, jobs[SEAL], plan.deadline, sealing)]


def due(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return the instant (UTC) at which the clock of a zone has shown `at` for the last time that day.

    In the night that has an hour twice, Dagster's schedules mean the second, too. A time that the clocks
    skip comes after the gap.
    """
    return max(datetime.combine(day, at.replace(fold=fold), zone).astimezone(UTC) for fold in (0, 1))


def _daily(installation: Installation, job: Any, at: time, description: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job.name}_daily",
        job=job,
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=installation.zone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.astimezone(installation.zone).date().isoformat()
        if installation.now() - context.scheduled_execution_time > GRACE:
            return dg.SkipReason(f"too late for {at:%H:%M} of {day}; a sensor makes up for today's")
        if day != installation.today():
            return dg.SkipReason(f"{day} is over")
        if job.name == SEAL and newer_manifest(installation, Catalog(installation.vault), day) is None:
            return dg.SkipReason(f"{day} is sealed, and nothing has changed since")
        return dg.RunRequest(run_key=day, partition_key=day)

    return schedule
