"""Redis's asset: the RDB dump."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.steps import CaptureConfig, captured, check_specs, checked


def redis(installation: Installation, daily: dg.DailyPartitionsDefinition) -> list[Any]:
    """Return the asset and checks of Redis."""

    @dg.asset(key_prefix="redis", group_name="redis", kinds={"redis"}, partitions_def=daily)
    def rdb(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """Sessions, cache and Celery queues as an RDB dump, with the keys of each database.

        By hand: `gunzip FILE`, and start a redis-server on it, with `appendonly no`, or it is ignored.
        """
        return captured(context, config, installation)

    @dg.multi_asset_check(
        specs=check_specs("redis/rdb", installation.component("redis/rdb"), daily), can_subset=True
    )
    def rdb_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the dump again, and load it into a scratch server."""
        yield from checked(context, installation)

    return [rdb, rdb_integrity]
