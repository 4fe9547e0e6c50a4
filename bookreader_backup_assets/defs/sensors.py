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
from bookreader_backup_assets.actions.seal import MANIFEST, WEEKLY, planned_of
from bookreader_backup_assets.defs.jobs import CAPTURE_FULL, SEAL, SEAL_WEEKLY, job_name
from bookreader_backup_assets.defs.schedules import GRACE
from bookreader_backup_assets.defs.unsealed import newer_manifest
from bookreader_backup_assets.plan import Plan

PARTITION = "dagster/partition"
"""The tag by which Dagster says what day a run is for."""
_DAY = timedelta(days=1)
UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]


def missed_captures(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that captures today what the clock missed, while the daemon was down."""
    names = [*map(job_name, plan.rows), job_name("code"), CAPTURE_FULL]

    @dg.sensor(
        name="missed_captures",
        jobs=[jobs[name] for name in names],
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Captures today's partition where its time has passed and nothing was started.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        missed = missed_today(installation, plan, context.instance)
        yield from (
            dg.RunRequest(run_key=f"missed:{job}:{day}", job_name=job, partition_key=day)
            for job, day in missed
        )
        if not missed:
            yield dg.SkipReason("nothing was missed today")

    return sensor


def missed_today(
    installation: Installation, plan: Plan, instance: dg.DagsterInstance
) -> list[tuple[str, str]]:
    """Return job and partition of what is due by now, today or this week, without artifact and without run.

    A run that failed was not missed: it is red already.
    """
    today, day = date.fromisoformat(installation.today()), installation.today()
    catalog = Catalog(installation.vault)
    absent = [
        component
        for component in plan.rows
        if plan.due_on(component, today)
        and _is_past(installation, plan, component)
        and not all(_is_captured(catalog, asset, day) for asset in _assets(installation, component))
        and not _has_run(instance, component, day)
    ]
    whole = plan.full_on(today)  # and close together, also where a part of it was captured by itself
    missed = [(CAPTURE_FULL if whole else job_name(one), day) for one in absent]
    if week := installation.week_of("code"):
        first = date.fromisoformat(week)
        begun = first >= installation.since  # before that there was nothing to miss
        past = installation.now() >= plan.due("code", first) + GRACE
        held = catalog.of_day("code/bundle", week) or _has_run(instance, "code", week)
        if begun and past and not held:
            missed.append((job_name("code"), week))
    return list(dict.fromkeys(missed))


def seal_after(installation: Installation, plan: Plan, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that seals a set when the last of its components has ended, well or badly.

    A later capture seals it again. What has not ended by the plan's deadline is sealed by the clock.
    """

    @dg.sensor(
        name="seal_after",
        jobs=[jobs[SEAL], jobs[SEAL_WEEKLY]],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Seals a set when all of it has ended, and again when something of it changes.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        catalog = Catalog(installation.vault)
        days = _recent(installation, catalog)
        found = [to_seal(installation, plan, catalog, context.instance, day) for day in days]
        found += [
            to_seal(installation, plan, catalog, context.instance, day, WEEKLY)
            for day in days
            if plan.full_on(date.fromisoformat(day))
        ]
        requests = [one for one in found if isinstance(one, dg.RunRequest)]
        yield from requests
        if not requests:
            reasons = [one.skip_message or "" for one in found if isinstance(one, dg.SkipReason)]
            yield dg.SkipReason("; ".join(reasons))

    return sensor


def to_seal(  # noqa: PLR0917 - one each
    installation: Installation,
    plan: Plan,
    catalog: Catalog,
    instance: dg.DagsterInstance,
    day: str,
    asset: str = MANIFEST,
) -> dg.RunRequest | dg.SkipReason:
    """Return the request to seal a set now, or why it is not to be sealed."""
    if under_way(instance, day):
        return dg.SkipReason(f"{day}: something is under way")
    planned = planned_of(installation, day, asset)
    today = day == installation.today()
    has = _is_captured if today else Catalog.of_day  # what was adopted today ends nothing
    held = [one for one in planned if has(catalog, one, day)]
    ended = {one.split("/")[0] for one in held} | {f.asset.split("/")[0] for f in catalog.failures(day)}
    components = dict.fromkeys(one.split("/")[0] for one in planned)
    if not ended & components.keys():
        return dg.SkipReason(f"{day}: nothing to seal")
    for component in components if today else ():
        to_come = not _is_past(installation, plan, component) and not _has_run(instance, component, day)
        if component not in ended and to_come:
            return dg.SkipReason(f"{day}: {component} is still to come")
    key = newer_manifest(installation, catalog, day, asset)
    if key is None:
        return dg.SkipReason(f"{day}: sealed, and nothing has changed since")
    job = SEAL if asset == MANIFEST else SEAL_WEEKLY
    return dg.RunRequest(run_key=f"{job}:{day}:{key}", job_name=job, partition_key=day)


def under_way(instance: dg.DagsterInstance, day: str) -> bool:
    """Whether a run for that day has not ended."""
    return bool(instance.get_run_records(dg.RunsFilter(tags={PARTITION: day}, statuses=UNFINISHED), limit=1))


def _recent(installation: Installation, catalog: Catalog) -> list[str]:
    """Return today, yesterday, whose captures may have ended after midnight, and days captured late."""
    today = date.fromisoformat(installation.today())
    since = installation.now() - _DAY
    late = {entry.set for entry in catalog.entries() if entry.late and entry.captured_at > since}
    return sorted({today.isoformat(), (today - _DAY).isoformat(), *late})


def _is_captured(catalog: Catalog, asset: str, day: str) -> bool:
    """Whether a day has an artifact of its own night: one that was adopted, filed later, is not that."""
    entry = catalog.of_day(asset, day)
    return entry is not None and not entry.late


def _assets(installation: Installation, component: str) -> list[str]:
    return [asset for asset in installation.planned if asset.startswith(f"{component}/")]


def _is_past(installation: Installation, plan: Plan, component: str) -> bool:
    today = date.fromisoformat(installation.today())
    return installation.now() >= plan.due(component, today) + GRACE


def _has_run(instance: dg.DagsterInstance, component: str, day: str) -> bool:
    jobs = [job_name(component), *([CAPTURE_FULL] if component != "code" else [])]
    filters = [dg.RunsFilter(job_name=job, tags={PARTITION: day}) for job in jobs]
    return any(instance.get_run_records(one, limit=1) for one in filters)
