"""Copies in the vaults away from this host: an asset per artifact and vault, partitioned as its source is."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.replicate_set import (
    SetReplica,
    compare_set,
    replicate_set,
    replicated_assets,
)
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.manifest import SAME_BYTES
from bookreader_backup_assets.defs.steps import check_result, failures_shown
from bookreader_backup_assets.settings import Settings
from bookreader_backup_assets.vaults.base import Vault
from bookreader_backup_assets.vaults.s3 import S3Vault

POOL = "replication"
"""What uploads wait for, so that they leave room for the captures; its limit is in `dagster.yaml`."""
RETRIES = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL)
"""An upload goes on where it stopped, so that trying again is cheap."""
WINDOW = timedelta(days=7)
UNKNOWN = "INSTALLATION"
"""What stands for the id of an installation that has captured nothing yet."""
_KINDS = {"nas": "file", "offsite": "s3", "git": "git"}
_SETS = "backup_set"


def replica_key(vault: str, asset: str) -> dg.AssetKey:
    """Return the key of an asset's copies in a vault: `offsite/postgresql_dump`."""
    return dg.AssetKey([vault, asset.replace("/", "_")])


def replicas(
    installation: Installation, settings: Settings, partitions: Mapping[str, dg.PartitionsDefinition[Any]]
) -> list[Any]:
    """Return the assets and checks of all copies. `partitions` are the sources', by asset."""
    return [
        part
        for vault in installation.outside
        for asset in replicated_assets(installation, vault)
        for part in _replica(installation, settings, vault, asset, partitions[asset])
    ]


def follow(asset: str) -> dg.AutomationCondition[Any]:
    """Return when a copy is made by itself: a partition of the last days was captured, and its checks passed.

    A manifest goes when its checks were made: one that says what is missing belongs outside, too.
    """
    days = dg.AutomationCondition.in_latest_time_window(WINDOW)
    eager = dg.AutomationCondition.eager().replace("in_latest_time_window", days)
    if not asset.startswith(f"{_SETS}/"):
        return eager & dg.AutomationCondition.all_deps_blocking_checks_passed()
    made = dg.AutomationCondition.check_passed() | dg.AutomationCondition.check_failed()
    return eager & dg.AutomationCondition.all_deps_match(dg.AutomationCondition.all_checks_match(made))


def _replica(
    installation: Installation,
    settings: Settings,
    vault: str,
    asset: str,
    partitions: dg.PartitionsDefinition[Any],
) -> list[Any]:
    key = replica_key(vault, asset)

    @dg.asset(
        key=key,
        group_name=vault,
        kinds={_KINDS[vault]},
        partitions_def=partitions,
        deps=[dg.AssetKey(asset.split("/"))],
        automation_condition=follow(asset),
        retry_policy=RETRIES,
        pool=POOL,
        description=_describe(installation, settings, vault, asset),
        metadata={
            "folder": _folder(installation, vault, asset),
            "due": "when its source was captured, and its checks passed",
        },
        tags={"component": asset.partition("/")[0]},
    )
    def replica(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        return replicated(context, installation, vault, asset, read_back=settings.offsite_read_back)

    @dg.asset_check(
        asset=key,
        name=SAME_BYTES,
        blocking=True,
        partitions_def=partitions,
        pool=POOL,
        retry_policy=RETRIES,
        description=f"what {vault} has are the captured bytes: size and SHA-256 there are the entry's",
    )
    def same_bytes(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.AssetCheckResult:
        return compared(context, installation, vault, asset)

    return [replica, same_bytes]


def replicated(
    context: dg.AssetExecutionContext, installation: Installation, vault: str, asset: str, *, read_back: bool
) -> dg.MaterializeResult[Any]:
    """Bring what the partition's set has of `asset` into a vault, with what a whole set has besides."""
    with failures_shown():
        copy = replicate_set(installation, asset, context.partition_key, vault, read_back=read_back)
    for name in copy.left:
        context.log.warning("%s is left out: it is not proven here, or here no more", name)
    return dg.MaterializeResult(
        metadata=replica_metadata(installation, copy),
        data_version=dg.DataVersion(copy.replica.entry.sha256),
    )


def compared(
    context: dg.AssetCheckExecutionContext, installation: Installation, vault: str, asset: str
) -> dg.AssetCheckResult:
    """Return what this run found as it replicated; in a run of its own, read the copy back."""
    (key,) = context.selected_asset_check_keys
    with failures_shown():
        found = _found(context, key.asset_key)
        entry = None
        if found is None:
            entry, found = compare_set(installation, asset, context.partition_key, vault)
    return check_result(key, found, entry)


def replica_metadata(installation: Installation, copy: SetReplica) -> dict[str, Any]:
    """Return a copy as the metadata of a materialization."""
    entry, outcome, made = copy.replica.entry, copy.outcome, copy.all
    sent, seconds = sum(one.sent for one in made), round(sum(one.seconds for one in made), 3)
    measured = copy.replica.outcome.measured
    return {
        **copy_metadata(installation, copy.replica.vault, entry, outcome),
        "bytes_sent": sent,
        "seconds": seconds,
        **({"bytes_per_second": sent / seconds} if sent and seconds else {}),
        "new": any(one.new for one in made),
        "here": copy.here,
        **({"parts": len(measured["parts"])} if "parts" in measured else {}),
        **({"artifacts": len(made)} if copy.members else {}),
        **({"left_out": dg.MetadataValue.json(list(copy.left))} if copy.left else {}),
    }


def copy_metadata(
    installation: Installation, vault: str, entry: Entry, outcome: Outcome | None
) -> dict[str, Any]:
    """Return what there is to say of a copy, however it came there."""
    found = {"verdict": str(outcome.verdict), "message": outcome.message} if outcome else {}
    measured = dict(outcome.measured) if outcome else {}
    measured.pop("parts", None)  # a hash for each 8 MB
    return {
        "artifact": entry.name,
        "set": entry.set,
        "captured_at": dg.MetadataValue.timestamp(entry.captured_at),
        "bytes": entry.size,
        "sha256": entry.sha256,
        "sha256_found": str(measured.get("how", "not compared yet")),
        "dagster/uri": uri(installation, vault, entry.name),
        SAME_BYTES: dg.MetadataValue.json({**found, "measured": measured}),
    }


def uri(installation: Installation, vault: str, name: str) -> str:
    """Return where a file lies in a vault, as `aws s3 cp` and others take it."""
    there: Vault = installation.vault_outside(vault).vault(installation.known_id or UNKNOWN)
    if isinstance(there, S3Vault):
        return f"s3://{there.access.bucket}/{there.prefix}{name}"
    path = there.local_path(name)
    return f"file://{path}" if path else f"{vault}:{name}"


def _folder(installation: Installation, vault: str, asset: str) -> str:
    return uri(installation, vault, asset.partition("/")[0]) + "/"


def _found(context: dg.AssetCheckExecutionContext, key: dg.AssetKey) -> Outcome | None:
    logged = context.instance.get_records_for_run(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    for record in logged.records:
        made = record.asset_materialization
        if made and made.asset_key == key and made.partition == context.partition_key:
            said: Any = made.metadata[SAME_BYTES].value
            measured = {**said["measured"], "artifact": made.metadata["artifact"].value}
            return Outcome(SAME_BYTES, Verdict(said["verdict"]), said["message"], measured)
    return None


def _describe(installation: Installation, settings: Settings, vault: str, asset: str) -> str:
    folder = _folder(installation, vault, asset)
    whole = {
        "backup_set/weekly": "Every member of a weekly full that the plan wants there; its manifest last.",
        "backup_set/labelled": "Every member of a labelled set; its manifest last.",
        "backup_set/manifest": "The manifests of days, also those that name what is missing.",
    }
    source = whole.get(asset, f"Copies of `{asset}`.")
    endpoint = f" --endpoint-url {settings.offsite_endpoint}" if settings.offsite_endpoint else ""
    fetch = {
        "offsite": f"`aws{endpoint} s3 cp {folder}FILE .`",
        "nas": f"copy it from `{folder.removeprefix('file://')}`",
        "git": f"`git clone --branch bookreader-backups/{installation.known_id or UNKNOWN} REMOTE`",
    }[vault]
    return (
        f"{source} The bytes are those that were captured, encrypted or not as they are here; one SHA-256"
        f" serves both places. A backfill over past days uploads what is missing, and nothing else.\n\n"
        f"Where: `{folder}`. What there is: `bookreader-backup list --vault {vault}`.\n\n"
        f"By hand: {fetch}, and then as with the source, whose description says how it is opened."
    )
