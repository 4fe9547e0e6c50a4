"""The vault is the truth and Dagster's log follows it: what was captured without Dagster is reported.

That is what `backup --without-dagster` made while Dagster's storage was gone.
"""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.defs.steps import entry_metadata

WINDOW = timedelta(days=14)
"""How far back entries are compared with Dagster's log."""
_SETTLED = timedelta(hours=1)


def reconcile(installation: Installation, days: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Return the sensor that reports entries which Dagster does not know."""

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
    """Report each entry of the last days that Dagster does not know, and return their names."""
    catalog = Catalog(installation.vault)
    known_days = set(days.get_partition_keys())
    reported = []
    for entry in unknown(installation, catalog, instance):
        if entry.set not in known_days:
            continue
        key = dg.AssetKey([entry.component, entry.artifact])
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=entry.set, metadata=entry_metadata(entry, new=True))
        )
        for outcome in latest_outcomes(catalog, entry).values():
            instance.report_runless_asset_event(_evaluation(key, entry, outcome))
        reported.append(entry.name)
    return reported


def unknown(installation: Installation, catalog: Catalog, instance: dg.DagsterInstance) -> Iterator[Entry]:
    """Yield the unlabelled entries of the last days that no materialization names.

    An entry whose checks are still being made is left for later, an hour at most.
    """
    now = installation.now()
    for entry in catalog.entries():
        age = now - entry.captured_at
        if age > WINDOW or (entry.label is not None and not entry.late):
            continue
        if catalog.standing(entry).verdict is None and age < _SETTLED:
            continue
        if not _known(instance, entry):
            yield entry


def latest_outcomes(catalog: Catalog, entry: Entry) -> dict[str, Outcome]:
    """Return the latest outcome of each check that was made of an entry."""
    proofs = [proof for proof in catalog.proofs(entry) if proof.sha256 == entry.sha256]
    return {o.check: o for proof in proofs for o in proof.checks if o.check in entry.checks}


def _known(instance: dg.DagsterInstance, entry: Entry) -> bool:
    key = dg.AssetKey([entry.component, entry.artifact])
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[entry.set])
    for record in instance.fetch_materializations(filters, limit=50).records:
        materialization = record.asset_materialization
        named = materialization.metadata.get("artifact") if materialization else None
        if named is not None and named.value == entry.name:
            return True
    return False


def _evaluation(key: dg.AssetKey, entry: Entry, outcome: Outcome) -> dg.AssetCheckEvaluation:
    failed = outcome.verdict is Verdict.FAILED
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=outcome.check,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        description=outcome.message,
        metadata={"artifact": entry.name, "verdict": str(outcome.verdict)},
        blocking=True,
        partition=entry.set,
    )
