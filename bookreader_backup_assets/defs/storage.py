"""The storage files' asset: books, generated images and covers in one seekable archive."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.steps import CaptureConfig, captured, check_specs, checked


def storage(installation: Installation, daily: dg.DailyPartitionsDefinition) -> list[Any]:
    """Return the asset and checks of the storage files."""

    @dg.asset(key_prefix="storage", group_name="storage", kinds={"file"}, partitions_def=daily)
    def archive(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """Books, generated images and covers as one `.tar.gz`, and an index that finds any file in it.

        By hand: `tar -xpzf FILE` unpacks all of it.
        """
        return captured(context, config, installation)

    @dg.multi_asset_check(
        specs=check_specs("storage/archive", installation.component("storage/archive"), daily),
        can_subset=True,
    )
    def archive_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the whole archive again and compare every file with the index."""
        yield from checked(context, installation)

    return [archive, archive_integrity]
