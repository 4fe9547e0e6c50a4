"""What happens by itself besides the clock: missed nights are captured, ended days are sealed.

Both sensors look at what there is, in the vault and among Dagster's runs, and not at events: a tick that
fails loses nothing, and what the command line did counts like everything else.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.jobs import SEAL, job_name
from bookreader_backup_assets.defs.schedules import GRACE, due
from bookreader_backup_assets.defs.unsealed import newer_manifest
from bookreader_backup_assets.plan import Plan

PARTITION = "dagster/partition"
"""The tag by which Dagster says what day a run is for."""
_DAY = timedelta(days=1)
_UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]


def missed_captures(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that captures today what the clock missed, while the daemon was down."""

    @dg.sensor(
        name="missed_captures",
        jobs=[jobs[job_name(component)] for component in plan.rows],
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Captures today's partition where its time has passed and nothing was started.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        day = installation.today()
        missed = [job_name(component) for component in missed_today(installation, plan, context.instance)]
        yield from (
            dg.RunRequest(run_key=f"missed:{job}:{day}", job_name=job, partition_key=day) for job in missed
        )
        if not missed:
            yield dg.SkipReason("nothing was missed today")

    return sensor


def missed_today(installation: Installation, plan: Plan, instance: dg.DagsterInstance) -> list[str]:
    """Return the components whose time has passed today, without artifact and without a run.

    A run that failed was not missed: it is red already.
    """
    day = installation.today()
    catalog = Catalog(installation.vault)
    return [
        component
        for component in plan.rows
        if _is_past(installation, plan, component)
        and not all(catalog.of_day(asset, day) for asset in _assets(installation, component))
        and not _has_run(instance, component, day)
    ]


def seal_after(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that seals a day when the last of its components has ended, well or badly.

    A later capture seals the day again. What has not ended by the plan's deadline is sealed by the clock.
    """

    @dg.sensor(
        name="seal_after",
        job=jobs[SEAL],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Seals a day's set when all of it has ended, and again when something of it changes.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        catalog = Catalog(installation.vault)
        found = [
            to_seal(installation, plan, catalog, context.instance, day)
            for day in _recent(installation, catalog)
        ]
        requests = [one for one in found if isinstance(one, dg.RunRequest)]
        yield from requests
        if not requests:
            reasons = [one.skip_message or "" for one in found if isinstance(one, dg.SkipReason)]
            yield dg.SkipReason("; ".join(reasons))

    return sensor


def to_seal(
    installation: Installation, plan: Plan, catalog: Catalog, instance: dg.DagsterInstance, day: str
) -> dg.RunRequest | dg.SkipReason:
    """Return the request to seal a day now, or why it is not to be sealed."""
    if under_way(instance, day):
        return dg.SkipReason(f"{day}: something is under way")
    held = [asset for asset in installation.planned if catalog.of_day(asset, day)]
    ended = {asset.split("/")[0] for asset in held} | {f.asset.split("/")[0] for f in catalog.failures(day)}
    if not ended:
        return dg.SkipReason(f"{day}: nothing to seal")
    for component in plan.rows if day == installation.today() else ():
        to_come = not _is_past(installation, plan, component) and not _has_run(instance, component, day)
        if component not in ended and to_come:
            return dg.SkipReason(f"{day}: {component} is still to come")
    key = newer_manifest(installation, catalog, day)
    if key is None:
        return dg.SkipReason(f"{day}: sealed, and nothing has changed since")
    return dg.RunRequest(run_key=f"seal:{day}:{key}", partition_key=day)


def under_way(instance: dg.DagsterInstance, day: str) -> bool:
    """Whether a run for that day has not ended."""
    return bool(instance.get_run_records(dg.RunsFilter(tags={PARTITION: day}, statuses=_UNFINISHED), limit=1))


def _recent(installation: Installation, catalog: Catalog) -> list[str]:
    """Return today, yesterday, whose captures may have ended after midnight, and days captured late."""
    today = date.fromisoformat(installation.today())
    since = installation.now() - _DAY
    late = {entry.set for entry in catalog.entries() if entry.late and entry.captured_at > since}
    return sorted({today.isoformat(), (today - _DAY).isoformat(), *late})


def _assets(installation: Installation, component: str) -> list[str]:
    return [asset for asset in installation.planned if asset.startswith(f"{component}/")]


def _is_past(installation: Installation, plan: Plan, component: str) -> bool:
    today = date.fromisoformat(installation.today())
    return installation.now() >= due(today, plan.rows[component].at, installation.zone) + GRACE


def _has_run(instance: dg.DagsterInstance, component: str, day: str) -> bool:
    filters = dg.RunsFilter(job_name=job_name(component), tags={PARTITION: day})
    return bool(instance.get_run_records(filters, limit=1))
