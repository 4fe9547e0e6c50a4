"""Sets, folded into manifests: of each day, of each weekly full, and of what was labelled.

A manifest has a run of its own: in the components' run, a dead Redis would cost PostgreSQL its manifest.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST, WEEKLY, ManifestComponent
from bookreader_backup_assets.defs.steps import check_specs, checked, sealed

LABELLED_SETS = dg.DynamicPartitionsDefinition(name="labelled_sets")
"""One partition for each labelled set; its key is the set's id."""
_THAT_DAY = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def backup_set(
    installation: Installation, daily: dg.DailyPartitionsDefinition, weekly: dg.WeeklyPartitionsDefinition
) -> list[Any]:
    """Return the manifests and their checks."""

    @dg.asset(
        key_prefix="backup_set",
        group_name="backup_set",
        kinds={"json"},
        partitions_def=daily,
        deps=[dg.AssetKey(asset.split("/")) for asset in installation.planned],
    )
    def manifest(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """Everything the day's set holds: sizes, checksums, versions, images, rows; what is missing, and why.

        Sealed again, as a new file, whenever something of the day changes; the newest one counts.
        By hand: read the `.txt` beside it; the lines at its end are what `sha256sum -c` takes.
        """
        return sealed(context, installation)

    @dg.multi_asset_check(specs=check_specs(MANIFEST, ManifestComponent(), daily), can_subset=True)
    def manifest_complete(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Look whether the set has everything that the plan asks for, verified."""
        yield from checked(context, installation)

    @dg.asset(
        name="weekly",
        key_prefix="backup_set",
        group_name="backup_set",
        kinds={"json"},
        partitions_def=weekly,
        deps=[
            *(dg.AssetDep(one.split("/"), partition_mapping=_THAT_DAY) for one in installation.planned),
            *([dg.AssetKey(["code", "bundle"])] if "code/bundle" in installation.components else []),
        ],
    )
    def weekly_manifest(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """The weekly full: what one run captured close together, and the code, as one restore point.

        Its partition is the day of the full. By hand: read the `.txt` beside it.
        """
        return sealed(context, installation)

    @dg.multi_asset_check(specs=check_specs(WEEKLY, ManifestComponent(asset=WEEKLY), weekly), can_subset=True)
    def weekly_complete(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Look whether the weekly full has everything that the plan asks for, verified."""
        yield from checked(context, installation)

    labelled = dg.AssetSpec(
        LABELLED.split("/"),
        description="Sets with a label, made by `bookreader-backup backup --label` or by the job"
        " `backup_labelled`: one moment each, such as before a deployment."
        " By hand: read the `.txt` beside it.",
        group_name="backup_set",
        kinds={"json"},
        partitions_def=LABELLED_SETS,
    )

    @dg.multi_asset_check(
        specs=check_specs(LABELLED, ManifestComponent(asset=LABELLED), LABELLED_SETS), can_subset=True
    )
    def labelled_complete(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Look whether the labelled set has everything that was asked for, verified."""
        yield from checked(context, installation)

    return [manifest, manifest_complete, weekly_manifest, weekly_complete, labelled, labelled_complete]
