"""What happens by itself besides the clock: missed nights are captured, ended days are sealed.

A tick only asks for runs: an error in a run status sensor would lose its event.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.jobs import SEAL, job_name
from bookreader_backup_assets.plan import Plan

GRACE = timedelta(minutes=10)
"""How long after its time a capture may begin before it counts as missed."""
_PARTITION = "dagster/partition"
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def missed_captures(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that captures today what the clock missed, while the daemon was down.

    The scheduler's own catching up is off: it would launch yesterday's capture today, which is refused.
    """

    @dg.sensor(
        name="missed_captures",
        jobs=[jobs[job_name(component)] for component in plan.rows],
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Captures today's partition where its time has passed and nothing was started.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        missed = list(missed_today(installation, plan, context.instance))
        yield from (
            dg.RunRequest(run_key=f"missed:{name}:{day}", job_name=name, partition_key=day)
            for name, day in missed
        )
        if not missed:
            yield dg.SkipReason("nothing was missed today")

    return sensor


def missed_today(
    installation: Installation, plan: Plan, instance: dg.DagsterInstance
) -> Iterator[tuple[str, str]]:
    """Yield job and day of each component whose time has passed today without artifact or run.

    A run that failed was not missed: it is red already.
    """
    now = installation.now().astimezone(installation.zone)
    day = installation.today()
    catalog = Catalog(installation.vault)
    for component, row in plan.rows.items():
        due = datetime.combine(now.date(), row.at, installation.zone)
        assets = [asset for asset in installation.planned if asset.startswith(f"{component}/")]
        if now < due + GRACE or all(catalog.of_day(asset, day) for asset in assets):
            continue
        if not _runs(instance, job_name(component), day):
            yield job_name(component), day


def seal_after(
    installation: Installation, plan: Plan, jobs: Mapping[str, Any]
) -> list[dg.RunStatusSensorDefinition]:
    """Return the sensors that seal a day when the last of its components has ended, well or badly.

    A later capture seals the day again. What has not ended by the plan's deadline is sealed by the clock.
    """

    def made(name: str, status: dg.DagsterRunStatus) -> dg.RunStatusSensorDefinition:
        @dg.run_status_sensor(
            name=name,
            run_status=status,
            request_job=jobs[SEAL],
            minimum_interval_seconds=30,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Seals the day's set when nothing of it is under way any more.",
        )
        def sensor(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
            run = context.dagster_run
            reason = not_yet(installation, plan, context.instance, run.job_name, run.tags.get(_PARTITION))
            if reason is not None:
                return dg.SkipReason(reason)
            day = run.tags[_PARTITION]
            return dg.RunRequest(run_key=f"seal:{day}:{run.run_id}", partition_key=day)

        return sensor

    return [
        made("seal_after_success", dg.DagsterRunStatus.SUCCESS),
        made("seal_after_failure", dg.DagsterRunStatus.FAILURE),
        made("seal_after_cancellation", dg.DagsterRunStatus.CANCELED),
    ]


def not_yet(
    installation: Installation, plan: Plan, instance: dg.DagsterInstance, ended: str, day: str | None
) -> str | None:
    """Return why a day is not to be sealed now that a run of job `ended` is over, or None."""
    if ended == SEAL or day is None:
        return "the run captured no day's components"
    if day != installation.today() and not Catalog(installation.vault).entries(set_id=day):
        return f"{day} is over, and has nothing to seal"
    for component in plan.rows:
        runs = _runs(instance, job_name(component), day)
        if any(run.dagster_run.status in _UNDER_WAY for run in runs):
            return f"{component} is under way"
        if not runs and day == installation.today() and not _due_soon_passed(installation, plan, component):
            return f"{component} is still to come"
    return None


def _due_soon_passed(installation: Installation, plan: Plan, component: str) -> bool:
    now = installation.now().astimezone(installation.zone)
    due = datetime.combine(
        date.fromisoformat(installation.today()), plan.rows[component].at, installation.zone
    )
    held = Catalog(installation.vault).entries(component=component, set_id=installation.today())
    return bool(held) or now > due + GRACE


def _runs(instance: dg.DagsterInstance, job: str, day: str) -> list[dg.RunRecord]:
    filters = dg.RunsFilter(job_name=job, tags={_PARTITION: day})
    return list(instance.get_run_records(filters, limit=20))
