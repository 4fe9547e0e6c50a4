"""What brings copies about, and tells Dagster of those that it did not bring about.

Automation makes a copy when its source was captured, and is proven. It handles each of those moments once:
what failed then, because the network was away, or was there before the vault was set up, is a sensor's.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from bookreader_backup_assets.actions.arrivals import Arrival, arrivals
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.replicate_set import chosen, lacking, place_of, replicated_assets
from bookreader_backup_assets.actions.seal import LABELLED
from bookreader_backup_assets.core.artifact import Entry, parse_utc
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.defs.backup_set import LABELLED_SETS
from bookreader_backup_assets.defs.reconcile import (
    SETTLED,
    WINDOW,
    Partitions,
    keys_of,
    known,
    report_check,
)
from bookreader_backup_assets.defs.replicas import copy_metadata, replica_key
from bookreader_backup_assets.defs.sensors import PARTITION, under_way

GRACE = timedelta(minutes=30)
"""How long automation is left alone with what was proven; each time in vain, twice as long."""
REPLICA = "bookreader_backup/replica"
"""The tag of runs that were asked for because a copy was missing: the key of its asset."""
_AT_ONCE, _READ = 20, 100


def replication(installation: Installation, partitions: Partitions) -> list[dg.SensorDefinition]:
    """Return the sensors of the vaults away from this host."""
    return [
        replicate_after(installation),
        missing_replicas(installation, partitions),
        report_replicas(installation, partitions),
    ]


def replicate_after(installation: Installation) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that makes copies after captures: the default one would have to be clicked on."""
    return dg.AutomationConditionSensorDefinition(
        "replicate_after",
        target=dg.AssetSelection.groups(*installation.outside),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Copies what was captured, when its checks have passed.",
    )


def missing_replicas(installation: Installation, partitions: Partitions) -> dg.SensorDefinition:
    """Return the sensor that asks for copies which should have been made by now."""

    @dg.sensor(
        name="missing_replicas",
        asset_selection=dg.AssetSelection.groups(*installation.outside),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Copies what is proven here and still missing outside: what failed is tried again.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        found, said = to_replicate(installation, partitions, context.instance)
        yield from found
        if not found:
            yield dg.SkipReason(said or "nothing is missing")

    return sensor


def to_replicate(
    installation: Installation, partitions: Partitions, instance: dg.DagsterInstance
) -> tuple[list[dg.RunRequest], str]:
    """Return requests for at most 20 missing copies, oldest first; and which vaults could not be asked."""
    requests: list[dg.RunRequest] = []
    said = []
    catalog = Catalog(installation.vault)
    for vault in installation.outside:
        try:
            missing = lacking(installation, catalog, vault)
        except BackupError as error:
            said.append(error.message)
            continue
        assets = {asset for asset, _ in missing}
        keys = {asset: keys_of(partitions[asset], installation, instance) for asset in assets}
        for (asset, partition), entry in missing.items():
            if len(requests) < _AT_ONCE and partition in keys[asset] and not under_way(instance, partition):
                key = replica_key(vault, asset)
                tags = {PARTITION: partition, REPLICA: key.to_user_string()}
                tried = instance.get_runs_count(dg.RunsFilter(tags=tags))
                if installation.now() - _proven(catalog, entry) > GRACE * 2**tried:
                    requests.append(_request(key, partition, tried))
    return requests, "; ".join(said)


def _proven(catalog: Catalog, entry: Entry) -> datetime:
    return min((proof.at for proof in catalog.stored_proofs(entry)), default=entry.captured_at)


def _request(key: dg.AssetKey, partition: str, tried: int) -> dg.RunRequest:
    name = key.to_user_string()
    return dg.RunRequest(
        run_key=f"missing:{name}:{partition}:{tried}",
        asset_selection=[key],
        partition_key=partition,
        tags={REPLICA: name},
    )


def report_replicas(installation: Installation, partitions: Partitions) -> dg.SensorDefinition:
    """Return the sensor that reports copies which `bookreader-backup replicate` made."""

    @dg.sensor(
        name="report_replicas",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports to Dagster the copies that were made without it.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        since: dict[str, str] = json.loads(context.cursor or "{}")
        said = []
        for vault in installation.outside:
            begin = parse_utc(since[vault]) if vault in since else None
            try:
                reported, end = report_arrivals(installation, vault, partitions, context.instance, begin)
            except BackupError as error:
                said.append(error.message)
                continue
            since |= {vault: end.isoformat()} if end else {}
            said += [f"reported: {', '.join(reported)}"] if reported else []
        context.update_cursor(json.dumps(since))
        return dg.SkipReason("; ".join(said) or "nothing to report")

    return sensor


def report_arrivals(
    installation: Installation,
    vault: str,
    partitions: Partitions,
    instance: dg.DagsterInstance,
    since: datetime | None,
) -> tuple[list[str], datetime | None]:
    """Report copies that came since then and Dagster does not know; return their names, and how far that is.

    It stops at what a run is working on: that one reports it. Raises `VaultError`.
    """
    catalog = Catalog(installation.vault)
    reported: list[str] = []
    for one in arrivals(installation, vault, since, _READ):
        for set_id in _news(installation, vault, partitions, catalog, instance, one):
            settled = one.at is not None and installation.now() - one.at >= SETTLED
            if under_way(instance, set_id) and not settled:
                return reported, since
            report_copy(installation, vault, instance, set_id, one)
            reported.append(one.entry.name)
        since = one.at or since
    return reported, since


def report_copy(
    installation: Installation, vault: str, instance: dg.DagsterInstance, partition: str, copy: Arrival
) -> None:
    """Tell Dagster of a copy in a partition, and of what was found when its bytes were compared."""
    key = replica_key(vault, copy.entry.asset)
    if copy.entry.asset == LABELLED:
        instance.add_dynamic_partitions(str(LABELLED_SETS.name), [partition])
    metadata = copy_metadata(installation, vault, copy.entry, copy.outcome)
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=metadata))
    if copy.outcome is not None:
        report_check(instance, key, partition, copy.entry, copy.outcome)


def _news(  # noqa: PLR0917 - one each
    installation: Installation,
    vault: str,
    partitions: Partitions,
    catalog: Catalog,
    instance: dg.DagsterInstance,
    copy: Arrival,
) -> Iterator[str]:
    """Yield the sets of a copy that Dagster should know it by, and does not."""
    asset = copy.entry.asset
    if asset not in replicated_assets(installation, vault):
        return
    key, definition = replica_key(vault, asset), partitions[asset]
    held = {set_id for set_id in copy.sets if place_of(installation, vault, asset, set_id) == (asset, set_id)}
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):  # others are added as they come
        held &= keys_of(definition, installation, instance)
    materialized = instance.get_materialized_partitions(key) if held else set()
    for number, set_id in enumerate(sorted(held, reverse=True)):
        here = chosen(catalog, asset, set_id)
        superseded = here is not None and here.name != copy.entry.name
        older = set_id in materialized and (here is None or number >= WINDOW)
        if not (superseded or older) and not known(instance, key, set_id, copy.entry):
            yield set_id
