"""The code's asset: a git bundle a week, a new one only for new commits."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.code_remote import CODE, ON_REMOTE, deployed_on_remote
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.defs.jobs import job_name
from bookreader_backup_assets.defs.steps import CaptureConfig, captured, check_result, check_specs, checked

JOB = job_name("code")


def code(installation: Installation, weekly: dg.WeeklyPartitionsDefinition) -> list[Any]:
    """Return the asset and checks of the code."""

    @dg.asset(key_prefix="code", group_name="code", kinds={"git"}, partitions_def=weekly)
    def bundle(
        context: dg.AssetExecutionContext, config: CaptureConfig, installation: dg.ResourceParam[Installation]
    ) -> dg.MaterializeResult[Any]:
        """All refs of BookReader's git repository, and which commit is deployed.

        Files that differ from that commit are named: a bundle has only what is committed. Where nothing
        has changed since the last one, the week refers to that one.
        By hand: `git clone FILE bookreader`.
        """
        return captured(context, config, installation)

    @dg.multi_asset_check(specs=check_specs(CODE, installation.component(CODE), weekly), can_subset=True)
    def code_integrity(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[dg.AssetCheckResult]:
        """Make a repository of the bundle in a scratch folder, and compare it."""
        yield from checked(context, installation)

    @dg.asset_check(asset=bundle, name=ON_REMOTE, partitions_def=weekly)
    def code_on_remote(
        context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> dg.AssetCheckResult:
        """The commit deployed that week is on a branch or tag of a remote, and not only on this host.

        It blocks nothing: the bundle is as good without it. Without a remote, or where none can be asked,
        it warns.
        """
        (key,) = context.selected_asset_check_keys
        entry = Catalog(installation.vault).of_day(CODE, context.partition_key)
        commit = entry.fingerprint["commit"] if entry else ""
        return check_result(key, deployed_on_remote(installation, commit), entry)

    return [bundle, code_integrity, code_on_remote]


def code_job(weekly: dg.WeeklyPartitionsDefinition) -> Any:
    """Return the job that captures the code."""
    return dg.define_asset_job(
        JOB,
        dg.AssetSelection.groups("code"),
        description="Bundle the code's repository, and check the bundle.",
        partitions_def=weekly,
    )
