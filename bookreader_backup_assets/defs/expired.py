"""What was pruned is told to Dagster: an observation on each partition that the artifact was of.

A partition cannot be taken back. Its newest observation stands above its materialization in the UI, and
says that the file is gone, since when, and why.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.prune import prunes
from bookreader_backup_assets.actions.prune_records import Pruned, Removal
from bookreader_backup_assets.actions.replicate_set import place_of
from bookreader_backup_assets.defs.replicas import replica_key

EXPIRED, SUPERSEDED = "expired", "superseded"
"""The lifecycle of a partition whose artifact was removed: nothing of it is left here, or a newer one is."""
_RECENT = timedelta(days=14)
_MANY = 5000


def report_removals(installation: Installation, instance: dg.DagsterInstance) -> list[str]:
    """Tell Dagster, once, what was removed in the last 14 days, and return the artifacts' names."""
    since = installation.now() - _RECENT
    told: dict[dg.AssetKey, set[tuple[str, str]]] = {}
    reported = []
    catalog = Catalog(installation.vault)
    for pruned in prunes(installation, since) if installation.known_id else ():
        if not pruned.ended:  # killed, or under way: what it names may be there still
            pruned = _gone(pruned, catalog)  # noqa: PLW2901 - as far as can be told
        for key, partition, removal in _places(installation, pruned):
            if key not in told:
                told[key] = _told(instance, key, (since - timedelta(days=1)).timestamp())
            if (partition, removal.artifact) in told[key]:
                continue
            left = pruned.vault == LOCAL and catalog.of_day(removal.asset, partition) is not None
            instance.report_runless_asset_event(
                _observation(key, partition, pruned, removal, SUPERSEDED if left else EXPIRED)
            )
            reported.append(removal.artifact)
    return reported


def _gone(pruned: Pruned, catalog: Catalog) -> Pruned:
    """Return what a prune that has not ended has removed for sure."""
    here = {entry.name for entry in catalog.entries()}
    gone = (one for one in pruned.removed if pruned.vault == LOCAL and one.artifact not in here)
    return replace(pruned, removed=tuple(gone))


def _places(installation: Installation, pruned: Pruned) -> Iterator[tuple[dg.AssetKey, str, Removal]]:
    """Yield the partitions that removed artifacts were of; those of drills have no set that is one."""
    for removal in pruned.removed:
        for set_id in removal.sets if not removal.asset.startswith("assurance/") else ():
            asset, partition = place_of(installation, pruned.vault, removal.asset, set_id)
            local = pruned.vault == LOCAL
            key = dg.AssetKey(asset.split("/")) if local else replica_key(pruned.vault, asset)
            yield key, partition, removal


def _told(instance: dg.DagsterInstance, key: dg.AssetKey, since: float) -> set[tuple[str, str]]:
    filters = dg.AssetRecordsFilter(asset_key=key, after_timestamp=since)
    found = set()
    for record in instance.fetch_observations(filters, limit=_MANY).records:
        seen = record.event_log_entry.asset_observation
        named = seen.metadata.get("artifact") if seen else None
        if seen is not None and seen.partition is not None and named is not None:
            found.add((seen.partition, str(named.value)))
    return found


def _observation(
    key: dg.AssetKey, partition: str, pruned: Pruned, removal: Removal, lifecycle: str
) -> dg.AssetObservation:
    return dg.AssetObservation(
        key,
        partition=partition,
        description=f"removed from {pruned.vault}: {removal.why}",
        metadata={
            "lifecycle": lifecycle,
            "vault": pruned.vault,
            "artifact": removal.artifact,
            "bytes": removal.bytes,
            "captured_at": dg.MetadataValue.timestamp(removal.captured_at),
            "pruned_at": dg.MetadataValue.timestamp(pruned.at),
            "why": removal.why,
        },
    )
