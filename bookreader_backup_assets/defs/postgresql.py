"""PostgreSQL's assets: the dump, the roles and grants beside it, and the dump as SQL."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.steps import CaptureConfig, captured, check_specs, checked

RESTORABLE = "restorable"


def postgresql(installation: Installation, daily: dg.DailyPartitionsDefinition) -> list[Any]:
    """Return the assets and checks of PostgreSQL."""
    dump_component = installation.component("postgresql/dump")
    quick = [name for name in dump_component.checks if name != RESTORABLE]

    @dg.asset(key_prefix="postgresql", group_name="postgresql", kinds={"postgres"}, partitions_def=daily)
    def dump(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """The database as one `pg_dump` custom-format file, from one exported snapshot.

        The rows of every table, and digests where the plan asks, were counted in that same snapshot.
        By hand: `pg_restore --list FILE` shows what is in it, `pg_restore -d DATABASE FILE` brings it back.
        """
        return captured(context, config, installation)

    @dg.asset(
        name="globals",
        key_prefix="postgresql",
        group_name="postgresql",
        kinds={"postgres", "gpg"},
        partitions_def=daily,
    )
    def roles_and_grants(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """Roles and grants (`pg_dumpall --globals-only`), encrypted, since they hold password hashes.

        A restore needs them before the dump, or nobody owns what comes back.
        By hand: `gpg -d FILE | gunzip | psql`.
        """
        return captured(context, config, installation)

    @dg.asset(
        key_prefix="postgresql",
        group_name="postgresql",
        kinds={"postgres", "file"},
        partitions_def=daily,
        deps=[dump],
    )
    def sql(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """The same dump as plain SQL, to look into: made of the dump, so it costs the database nothing.

        A restore does not need it. By hand: `gunzip -c FILE | less`.
        """
        return captured(context, config, installation)

    @dg.multi_asset_check(
        specs=check_specs("postgresql/dump", dump_component, daily, names=["not_empty", "sha256", *quick]),
        can_subset=True,
    )
    def dump_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the dump again and have pg_restore list it."""
        yield from checked(context, installation)

    @dg.multi_asset_check(
        specs=check_specs(
            "postgresql/dump", dump_component, daily, names=[RESTORABLE], after=["postgresql/globals"]
        ),
        can_subset=True,
    )
    def dump_restorable(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Restore the dump into a scratch server, roles first, and compare it with its fingerprint."""
        yield from checked(context, installation)

    @dg.multi_asset_check(
        specs=check_specs("postgresql/globals", installation.component("postgresql/globals"), daily),
        can_subset=True,
    )
    def globals_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the roles again and decrypt them."""
        yield from checked(context, installation)

    @dg.multi_asset_check(
        specs=check_specs("postgresql/sql", installation.component("postgresql/sql"), daily), can_subset=True
    )
    def sql_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the SQL to its end, and count its rows."""
        yield from checked(context, installation)

    return [dump, roles_and_grants, sql, dump_integrity, dump_restorable, globals_integrity, sql_integrity]
