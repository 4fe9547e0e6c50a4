"""The vault is the truth and Dagster's log follows it: what was captured without Dagster is reported.

That is what `backup --without-dagster` made while Dagster's storage was gone.
"""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.defs.sensors import under_way
from bookreader_backup_assets.defs.steps import MANIFEST, check_metadata, entry_metadata, severity

WINDOW = 14
"""How many days, today included, are compared with Dagster's log."""
SETTLED = timedelta(hours=1)
"""How old an artifact is at which nobody is working on it any more, whatever it looks like."""


def reconcile(installation: Installation, days: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Return the sensor that reports artifacts which Dagster does not know."""

    @dg.sensor(
        name="reconcile",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports to Dagster what the vault holds and Dagster does not know.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        reported = report_unknown(installation, days, context.instance)
        return dg.SkipReason(f"reported: {', '.join(reported)}" if reported else "nothing to report")

    return sensor


def report_unknown(
    installation: Installation, days: dg.DailyPartitionsDefinition, instance: dg.DagsterInstance
) -> list[str]:
    """Report what the last days' sets hold and Dagster does not know, and return the artifacts' names."""
    catalog = Catalog(installation.vault)
    reported = []
    for day, entry in unknown(installation, days, catalog, instance):
        key = dg.AssetKey([entry.component, entry.artifact])
        metadata = entry_metadata(entry, new=entry.set == day)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, metadata=metadata))
        for outcome in latest_outcomes(catalog, entry).values():
            instance.report_runless_asset_event(evaluation(key, day, entry, outcome))
        reported.append(entry.name)
    return reported


def unknown(
    installation: Installation,
    days: dg.DailyPartitionsDefinition,
    catalog: Catalog,
    instance: dg.DagsterInstance,
) -> Iterator[tuple[str, Entry]]:
    """Yield day and entry where a day's set has an artifact that no materialization of that day names.

    What is younger than an hour is left for later while it is being checked, or its day is being worked on.
    """
    for day in days.get_partition_keys(current_time=installation.now())[-WINDOW:]:
        held = [entry for asset in _assets(installation) if (entry := catalog.of_day(asset, day))]
        busy = bool(held) and under_way(instance, day)
        for entry in held:
            settled = installation.now() - entry.captured_at > SETTLED
            unfinished = busy or catalog.standing(entry).verdict is None
            if (settled or not unfinished) and not known(instance, day, entry):
                yield day, entry


def latest_outcomes(catalog: Catalog, entry: Entry) -> dict[str, Outcome]:
    """Return the latest outcome of each check that was made of an entry."""
    proofs = [proof for proof in catalog.proofs(entry) if proof.sha256 == entry.sha256]
    return {o.check: o for proof in proofs for o in proof.checks if o.check in entry.checks}


def _assets(installation: Installation) -> tuple[str, ...]:
    return (*installation.components, MANIFEST)


def known(instance: dg.DagsterInstance, day: str, entry: Entry) -> bool:
    """Whether a materialization of that partition names the artifact."""
    key = dg.AssetKey([entry.component, entry.artifact])
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day])
    for record in instance.fetch_materializations(filters, limit=50).records:
        materialization = record.asset_materialization
        named = materialization.metadata.get("artifact") if materialization else None
        if named is not None and named.value == entry.name:
            return True
    return False


def evaluation(key: dg.AssetKey, day: str, entry: Entry, outcome: Outcome) -> dg.AssetCheckEvaluation:
    """Return an outcome as Dagster is told of it."""
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=outcome.check,
        passed=outcome.passed,
        severity=severity(outcome),
        description=outcome.message,
        metadata=check_metadata(outcome, entry),
        blocking=True,
        partition=day,
    )
