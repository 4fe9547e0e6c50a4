"""The monthly drill: part of a set in most months, all of it in January, April, July and October."""

from collections.abc import Iterator
from datetime import date
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.drill_report import (
    DRILL,
    DrillComponent,
    month_of,
    read_report,
    reports_of,
)
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.restore_source import LATEST
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import drill_ground
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.drill import PARTIAL, SYSTEM, DrillReport
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.defs.reconcile import SETTLED, known, latest_outcomes, report_check
from bookreader_backup_assets.defs.sensors import under_way
from bookreader_backup_assets.defs.steps import check_result, check_specs, failures_shown
from bookreader_backup_assets.plan import Plan
from bookreader_backup_assets.settings import Settings

KEY = dg.AssetKey(DRILL.split("/"))
JOB = "restore_drill"
_FULL = (1, 4, 7, 10)
_MONTH = "%Y-%m"


class DrillConfig(dg.Config):
    """Run config of a drill. Without any, the month says which, and the newest verified set is taken."""

    scenario: Literal["by month", "partial", "system", "postgresql", "redis", "storage", "file", "config"] = (
        Field("by month", description="What is brought back; `system` is everything.")
    )
    from_set: str = Field(LATEST, description="A backup set, such as 2025-10-24, or `latest` verified.")


def monthly(first_day: date, installation: Installation) -> dg.MonthlyPartitionsDefinition:
    """Return the months from that of `first_day` through the running one: `2025-10`."""
    return dg.MonthlyPartitionsDefinition(
        start_date=f"{first_day:{_MONTH}}", timezone=installation.zone.key, fmt=_MONTH, end_offset=1
    )


def scenario_of(month: str) -> str:
    """Return what is drilled in a month: everything in one of each quarter."""
    return SYSTEM if int(month[-2:]) in _FULL else PARTIAL


def assurance(
    installation: Installation, months: dg.MonthlyPartitionsDefinition, plan: Plan, settings: Settings
) -> list[Any]:
    """Return the drill and its checks."""

    @dg.asset(
        key=KEY,
        group_name="assurance",
        kinds={"json"},
        partitions_def=months,
        deps=[dg.AssetDep(asset.split("/"), partition_mapping=_ANY_DAY) for asset in installation.planned],
        metadata={
            "folder": dg.MetadataValue.path(str(settings.vault / "assurance")),
            "due": f"{plan.drill.at:%H:%M} {plan.timezone.key}, day {plan.drill.day} of the month",
        },
        tags={"component": "assurance"},
    )
    def restore_drill(
        context: dg.AssetExecutionContext, config: DrillConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """A set brought back into scratch servers and folders, compared and timed. Production is not touched.

        Recovery times (RTO) and ages (RPO) are held against the guide's appendix C. A drill that finds
        something different, late or old is filed, and its checks are red.
        By hand: read the `.txt` beside the report.
        """
        month = context.partition_key
        scenario = scenario_of(month) if config.scenario == "by month" else config.scenario
        with failures_shown():
            _require_current(installation, month)
            with drill_ground(settings, installation) as ground:
                entry, report = drill(installation, ground, scenario, config.from_set)
        return dg.MaterializeResult(
            metadata=drill_metadata(entry, report), data_version=dg.DataVersion(entry.sha256)
        )

    @dg.multi_asset_check(specs=check_specs(DRILL, DrillComponent(), months), can_subset=True)
    def restore_drill_good(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Look whether what came back was equal, in time, and young enough."""
        month = context.partition_key
        keys = sorted(context.selected_asset_check_keys)
        with failures_shown():
            filed = reports_of(installation, month)
            if not filed:
                raise RefusedError(f"{month} had no drill", hint="materialize assurance/restore_drill")
            names = [key.name for key in keys]
            proof = verify(installation, DrillComponent(), filed[-1], names=names)
        made = {outcome.check: outcome for outcome in proof.checks}
        yield from (check_result(key, made[key.name], filed[-1]) for key in keys)

    return [restore_drill, restore_drill_good]


def drill_job(months: dg.MonthlyPartitionsDefinition) -> Any:
    """Return the job of the drill."""
    return dg.define_asset_job(
        JOB,
        dg.AssetSelection.groups("assurance"),
        description="Bring a set back into scratch servers and folders, compare it, and time it.",
        partitions_def=months,
    )


def drill_schedule(installation: Installation, plan: Plan, job: Any) -> dg.ScheduleDefinition:
    """Return the schedule of the drill. One that was missed is made up for in the same month."""

    @dg.schedule(
        name=f"{JOB}_monthly",
        job=job,
        cron_schedule=f"{plan.drill.at.minute} {plan.drill.at.hour} {plan.drill.day} * *",
        execution_timezone=installation.zone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A part of the newest set in most months, all of it in one of each quarter.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        month = f"{context.scheduled_execution_time.astimezone(installation.zone):{_MONTH}}"
        if month != _current(installation):
            return dg.SkipReason(f"{month} is over")
        return dg.RunRequest(run_key=month, partition_key=month)

    return schedule


def report_drills(installation: Installation) -> dg.SensorDefinition:
    """Return the sensor that reports the command line's drills to Dagster."""

    @dg.sensor(
        name="report_drills",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports to Dagster the drills that were made without it.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        reported = report_unknown_drills(installation, context.instance)
        return dg.SkipReason(f"reported: {', '.join(reported)}" if reported else "nothing to report")

    return sensor


def report_unknown_drills(installation: Installation, instance: dg.DagsterInstance) -> list[str]:
    """Report this month's drills that Dagster does not know, and return the names of their reports."""
    catalog = Catalog(installation.vault)
    month = _current(installation)
    reported: list[str] = []
    if under_way(instance, month):
        return reported
    for entry in reports_of(installation, month, catalog):
        settled = installation.now() - entry.captured_at > SETTLED
        unchecked = catalog.standing(entry).verdict is None and not settled
        if unchecked or known(instance, KEY, month, entry):
            continue
        metadata = drill_metadata(entry, read_report(installation, entry))
        instance.report_runless_asset_event(
            dg.AssetMaterialization(KEY, partition=month_of(installation, entry), metadata=metadata)
        )
        for outcome in latest_outcomes(catalog, entry).values():
            report_check(instance, KEY, month, entry, outcome)
        reported.append(entry.name)
    return reported


def drill_metadata(entry: Entry, report: DrillReport) -> dict[str, Any]:
    """Return a report as metadata: seconds per scenario, rates and ages are numbers, and plot over time."""
    seconds = {f"{one.scenario}_seconds": float(one.seconds) for one in report.results}
    ages = {f"{o.scenario}_age_hours": round(o.age / 3600, 3) for o in report.results if o.age is not None}
    return {
        "artifact": entry.name,
        "scenario": report.scenario,
        "set": report.set,
        "vault": report.vault,
        "key": report.key,
        "captured_at": dg.MetadataValue.timestamp(entry.captured_at),
        "bytes": sum(part.bytes for part in report.parts),
        "bytes_per_second": float(report.bytes_per_second),
        **seconds,
        **ages,
        **({"rpo_hours": round(report.age / 3600, 3)} if report.age is not None else {}),
        "report": dg.MetadataValue.md(f"```\n{report.to_text()}```"),
    }


_ANY_DAY = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def _require_current(installation: Installation, month: str) -> None:
    """Raise `RefusedError` unless it is the running month: what is measured now is today's."""
    if month != _current(installation):
        raise RefusedError(
            f"{month} is not the running month: a drill measures what is there today",
            hint=f"materialize the partition {_current(installation)}",
        )


def _current(installation: Installation) -> str:
    return installation.today()[:7]
