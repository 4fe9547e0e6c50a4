"""The configuration's asset: always encrypted, a new artifact only for new content."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.steps import CaptureConfig, captured, check_specs, checked


def config(installation: Installation, daily: dg.DailyPartitionsDefinition) -> list[Any]:
    """Return the asset and checks of the configuration."""

    @dg.asset(key_prefix="config", group_name="config", kinds={"file", "gpg"}, partitions_def=daily)
    def archive(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """Compose file, `.env`, nginx and certificates, encrypted with AES256.

        Where nothing has changed since the last one, the day's set refers to that one.
        By hand: `gpg -d FILE | tar -xzp`.
        """
        return captured(context, config, installation)

    @dg.multi_asset_check(
        specs=check_specs("config/archive", installation.component("config/archive"), daily), can_subset=True
    )
    def config_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the archive again, decrypt it and unpack it in memory."""
        yield from checked(context, installation)

    return [archive, config_integrity]
