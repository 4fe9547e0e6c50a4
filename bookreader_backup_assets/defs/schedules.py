"""When: the plan's times, and the seals at its deadline, in the plan's timezone.

They run without a click: a backup that waits for somebody to throw a switch is none.

They are no schedules "from partitions": Dagster catches those up after a pause, and a capture that is
made today cannot be filed under yesterday. `max_catchup_runs: 0` does not turn that off, it lifts the limit
(`ticks[-0:]` are all ticks). What today's clock missed is the `missed_captures` sensor's.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.seal import MANIFEST, WEEKLY
from bookreader_backup_assets.defs.jobs import CAPTURE_FULL, SEAL, SEAL_WEEKLY, job_name
from bookreader_backup_assets.defs.unsealed import newer_manifest
from bookreader_backup_assets.plan import Plan
from bookreader_backup_assets.plan_rows import WEEKDAYS

GRACE = timedelta(minutes=10)
"""How long after its time the clock begins a capture; from then on it counts as missed, for the sensor.

Without this border, both would capture when a daemon comes back.
"""
_SEALS = {SEAL: MANIFEST, SEAL_WEEKLY: WEEKLY}
_MONDAY = date(2001, 1, 1)


def schedules(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> list[dg.ScheduleDefinition]:
    """Return a schedule for each planned component, for the weekly full, and for the seals at the deadline.

    A day of the weekly full has that one run instead of the components' own.
    """
    return list(_schedules(installation, plan, jobs))


def _schedules(
    installation: Installation, plan: Plan, jobs: Mapping[str, Any]
) -> Iterator[dg.ScheduleDefinition]:
    week = [_MONDAY + timedelta(days=number) for number in range(7)]
    for component, row in plan.rows.items():
        days = [day for day in week if row.due_on(day) and not plan.full_on(day)]
        if days:
            said = f"Captures {component}, as the plan says."
            suffix = "daily" if row.every == "day" else "weekly"
            yield _schedule(installation, jobs[job_name(component)], row.at, said, days, suffix)
    sealing = "Seals the {} set, whatever it lacks; skipped where its manifest says it all already."
    yield _schedule(installation, jobs[SEAL], plan.deadline, sealing.format("day's"), week)
    if plan.weekly is not None:
        full = [day for day in week if plan.full_on(day)]
        said = "Captures everything close together, instead of that night's captures."
        yield _schedule(installation, jobs[CAPTURE_FULL], plan.weekly.at, said, full, "weekly")
        said = sealing.format("weekly")
        yield _schedule(installation, jobs[SEAL_WEEKLY], plan.deadline, said, full, "")
    if plan.code is not None:
        days = [day for day in week if plan.code.due_on(day)]
        said = "Captures the code, as the plan says."
        yield _schedule(installation, jobs[job_name("code")], plan.code.at, said, days, "weekly")


def _schedule(  # noqa: PLR0917 - one each
    installation: Installation,
    job: Any,
    at: time,
    description: str,
    days: Iterable[date],
    suffix: str = "daily",
) -> dg.ScheduleDefinition:
    numbers = sorted((WEEKDAYS.index(f"{day:%A}".lower()) + 1) % 7 for day in days)  # cron's Sunday is 0
    on = "*" if len(numbers) == 7 else ",".join(map(str, numbers))

    @dg.schedule(
        name="_".join(filter(None, [job.name, suffix])),
        job=job,
        cron_schedule=f"{at.minute} {at.hour} * * {on}",
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
        manifest = _SEALS.get(job.name)
        if manifest and newer_manifest(installation, Catalog(installation.vault), day, manifest) is None:
            return dg.SkipReason(f"{day} is sealed, and nothing has changed since")
        return dg.RunRequest(run_key=day, partition_key=day)

    return schedule
