"""The vault is the truth and Dagster's log follows it: what was captured without Dagster is reported.

That is what `backup --without-dagster` and `backup --label` made, what was adopted, what was pruned, and all
that a vault holds whose Dagster storage is gone.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.hour import is_hour
from bookreader_backup_assets.defs.expired import report_removals
from bookreader_backup_assets.defs.sensors import under_way
from bookreader_backup_assets.defs.steps import check_metadata, entry_metadata, severity

WINDOW = 14
"""How many of the newest partitions are compared by artifact; of older ones, whether there is any."""
SETTLED = timedelta(hours=1)
"""How old an artifact is at which nobody is working on it any more, whatever it looks like."""

Partitions = Mapping[str, dg.PartitionsDefinition[Any]]
"""How each asset is partitioned: by day, week or hour, or by labelled set."""


def reconcile(installation: Installation, partitions: Partitions) -> dg.SensorDefinition:
    """Return the sensor that reports artifacts which Dagster does not know."""

    @dg.sensor(
        name="reconcile",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports to Dagster what the vault holds and Dagster does not know.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        reported = report_unknown(installation, partitions, context.instance)
        reported += report_removals(installation, context.instance)
        return dg.SkipReason(f"reported: {', '.join(reported)}" if reported else "nothing to report")

    return sensor


def report_unknown(
    installation: Installation, partitions: Partitions, instance: dg.DagsterInstance
) -> list[str]:
    """Report what sets hold and Dagster does not know, and return the artifacts' names."""
    catalog = Catalog(installation.vault)
    reported = []
    for asset, definition in partitions.items():
        for key, entry in unknown(installation, asset, definition, catalog, instance):
            if isinstance(definition, dg.DynamicPartitionsDefinition):
                instance.add_dynamic_partitions(str(definition.name), [key])
            report(catalog, instance, key, entry)
            reported.append(entry.name)
    return reported


def report(catalog: Catalog, instance: dg.DagsterInstance, partition: str, entry: Entry) -> None:
    """Tell Dagster of an artifact in a partition, and of what its checks found."""
    key = dg.AssetKey([entry.component, entry.artifact])
    metadata = entry_metadata(entry, new=entry.set == partition)
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=metadata))
    for outcome in latest_outcomes(catalog, entry).values():
        report_check(instance, key, partition, entry, outcome)


def unknown(
    installation: Installation,
    asset: str,
    definition: dg.PartitionsDefinition[Any],
    catalog: Catalog,
    instance: dg.DagsterInstance,
) -> Iterator[tuple[str, Entry]]:
    """Yield partition and entry where a set has an artifact that no materialization of the partition names.

    What is younger than an hour is left for later while it is being checked, or its set is being worked on.
    """
    held = catalog.sets_of(asset)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        held &= keys_of(definition, installation, instance)
    if not held:
        return
    name = dg.AssetKey(asset.split("/"))
    materialized = instance.get_materialized_partitions(name)
    for number, key in enumerate(sorted(held, reverse=True)):
        entry = catalog.of_day(asset, key)
        if entry is None or (number >= WINDOW and key in materialized):
            continue
        busy = under_way(instance, key)
        backfilled = busy and is_hour(key)  # its instant is old, and its run is at work
        settled = installation.now() - entry.captured_at > SETTLED and not backfilled
        unfinished = catalog.standing(entry).verdict is None or busy
        if (settled or not unfinished) and not (key in materialized and known(instance, name, key, entry)):
            yield key, entry


def keys_of(
    definition: dg.PartitionsDefinition[Any], installation: Installation, instance: dg.DagsterInstance
) -> set[str]:
    """Return the keys that there are now."""
    keys = definition.get_partition_keys(current_time=installation.now(), dynamic_partitions_store=instance)
    return set(keys)


def latest_outcomes(catalog: Catalog, entry: Entry) -> dict[str, Outcome]:
    """Return the latest outcome of each check that was made of an entry."""
    proofs = [proof for proof in catalog.proofs(entry) if proof.sha256 == entry.sha256]
    return {o.check: o for proof in proofs for o in proof.checks if o.check in entry.checks}


def known(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, entry: Entry) -> bool:
    """Whether a materialization of that partition names the artifact."""
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    for record in instance.fetch_materializations(filters, limit=50).records:
        materialization = record.asset_materialization
        named = materialization.metadata.get("artifact") if materialization else None
        if named is not None and named.value == entry.name:
            return True
    return False


def report_check(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, entry: Entry, outcome: Outcome
) -> None:
    """Tell Dagster of an outcome, about the latest materialization of a partition.

    One that names no materialization stands beside it in the UI, and no automation goes by it.
    """
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    made = next(iter(instance.fetch_materializations(filters, limit=1).records), None)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=outcome.check,
            passed=outcome.passed,
            severity=severity(outcome),
            description=outcome.message,
            metadata=check_metadata(outcome, entry),
            blocking=True,
            partition=partition,
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
            )
            if made
            else None,
        )
    )
