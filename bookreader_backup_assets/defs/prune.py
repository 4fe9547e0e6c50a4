"""The daily prune: a job, since it does something, and the sensor that asks for it after replication."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.locks import OFFSITE, lock_rows, renew
from bookreader_backup_assets.actions.prune import PrunePlan, plan_prune, prune
from bookreader_backup_assets.actions.replicate_set import lacking, replicated_assets
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.defs.expired import report_removals
from bookreader_backup_assets.defs.replicas import replica_key
from bookreader_backup_assets.defs.sensors import UNFINISHED
from bookreader_backup_assets.plan import Plan, due

JOB = "prune"
PATIENCE = timedelta(hours=3)
"""How long the prune waits for copies: then it goes on, and spares what has none that is proven."""
_SHOWN = 1000  # rows of a table in the UI


class PruneConfig(dg.Config):
    """Run config of a prune."""

    vaults: list[str] = Field([], description="Such as local or offsite; without any, all that are set up.")


def prune_job() -> dg.JobDefinition:
    """Return `prune`. One vault after the other: two prunes at once would refuse each other."""

    @dg.op(name="prune_vaults")
    def prune_vaults(
        context: dg.OpExecutionContext, config: PruneConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """Remove what the plan does not keep any more; lock anew what it keeps, where its row asks for it.

        Where that is refused or fails, the run is red.
        """
        wrong: list[str] = []
        shown: dict[str, Any] = {}
        for vault in config.vaults or [LOCAL, *installation.outside]:
            wrong += _prune_one(context, installation, vault, shown)
        wrong += _renew_locks(context, installation)
        report_removals(installation, context.instance)
        if wrong:
            raise dg.Failure("\n".join(wrong), metadata=shown, allow_retries=False)
        context.add_output_metadata(shown)

    @dg.job(
        name=JOB,
        description="Remove from each vault what the plan does not keep any more; never the last good copy.",
    )
    def job() -> Any:
        prune_vaults()

    return job


def prune_daily(installation: Installation, plan: Plan, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor that asks for the prune once a day, when the night's copies are where they belong."""

    @dg.sensor(
        name="prune_daily",
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Prunes once a day, after the plan's time, when nothing is left to replicate;"
        " after three hours in any case: what has no proven copy is spared.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = installation.today()
        if context.cursor == today:
            return dg.SkipReason(f"{today}: was asked for")
        if why := to_wait(installation, plan, context.instance):
            return dg.SkipReason(why)
        context.update_cursor(today)
        return dg.RunRequest(run_key=f"{JOB}:{today}")

    return sensor


def to_wait(installation: Installation, plan: Plan, instance: dg.DagsterInstance) -> str:
    """Return why it is not the time to prune today, "" if it is."""
    at = due(date.fromisoformat(installation.today()), plan.prune.at, plan.timezone)
    if installation.now() < at:
        return f"not before {plan.prune.at:%H:%M}"
    if installation.now() >= at + PATIENCE:
        return ""
    keys = {
        replica_key(vault, asset)
        for vault in installation.outside
        for asset in replicated_assets(installation, vault)
    }
    runs = (record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)))
    if any(keys & set(run.asset_selection or ()) for run in runs):
        return "replicas are under way"
    catalog = Catalog(installation.vault)
    for vault in installation.outside:
        try:
            found = lacking(installation, catalog, vault)
        except BackupError as error:
            return error.message
        if found:
            return f"{len(found)} artifacts are to be replicated to {vault} first"
    return ""


def _prune_one(
    context: dg.OpExecutionContext, installation: Installation, vault: str, shown: dict[str, Any]
) -> Iterator[str]:
    """Prune one vault, add its plan to what is `shown`, and yield what was wrong."""
    try:
        plan = plan_prune(installation, vault)
        shown[vault] = plan_table(plan)
        context.log.info("%s: %s artifacts, %s bytes go", vault, len(plan.removals), plan.bytes)
        pruned = prune(installation, vault)
    except BackupError as error:
        yield f"{vault}: {'; '.join(filter(None, (error.message, error.hint)))}"
        return
    for removal in pruned.removed:
        context.log.info("%s: %s is removed: %s", vault, removal.artifact, removal.why)
    shown[f"{vault}_removed"] = len(pruned.removed)
    shown[f"{vault}_bytes"] = pruned.bytes
    yield from (f"{vault}: nothing was removed: {refusal}" for refusal in pruned.refusals)
    yield from (f"{vault}: {trouble.name} stays: {trouble.error}" for trouble in pruned.failed)


def _renew_locks(context: dg.OpExecutionContext, installation: Installation) -> Iterator[str]:
    """Lock anew offsite what the plan keeps, and yield what was wrong."""
    if OFFSITE not in installation.outside or not lock_rows(installation):
        return
    try:
        for one in renew(installation):
            if one.error is not None:
                yield f"the lock of {one.entry.name} was not renewed: {one.error.message}"
            else:
                context.log.info("%s is locked until %s", one.entry.name, one.until)
    except BackupError as error:
        yield f"locks: {'; '.join(filter(None, (error.message, error.hint)))}"


def plan_table(plan: PrunePlan) -> dg.TableMetadataValue:
    """Return what becomes of each artifact in a vault, and why, as a table: what goes comes first."""
    why = {removal.artifact: removal.why for removal in plan.removals}
    rows = [
        dg.TableRecord(
            {
                "artifact": one.entry.name,
                "set": one.entry.set,
                "becomes": "removed" if one.entry.name in why else "kept",
                "because": why.get(one.entry.name) or "; ".join(one.because) or "removing was refused",
                "bytes": one.entry.size,
            }
        )
        for one in sorted(plan.verdict.decisions, key=lambda one: one.kept)
    ]
    return dg.MetadataValue.table(rows[:_SHOWN], dg.TableSchema(columns=_COLUMNS))


_COLUMNS = [
    dg.TableColumn(name, "int" if name == "bytes" else "string")
    for name in ("artifact", "set", "becomes", "because", "bytes")
]
