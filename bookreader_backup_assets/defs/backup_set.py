"""The day's set, folded into its manifest: one document that names what is missing and why.

It has a run of its own: in the components' run, a dead Redis would cost PostgreSQL its manifest.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.seal import ManifestComponent
from bookreader_backup_assets.defs.steps import MANIFEST, check_specs, checked, sealed


def backup_set(installation: Installation, daily: dg.DailyPartitionsDefinition) -> list[Any]:
    """Return the manifest and its check."""

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

    return [manifest, manifest_complete]
