"""The job of a labelled set, for somebody in front of the UI who is about to deploy."""

from typing import Any

import dagster as dg
from pydantic import Field

from bookreader_backup_assets.actions.back_up import back_up_labelled, labelled_assets
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.seal import LABELLED
from bookreader_backup_assets.defs.backup_set import LABELLED_SETS
from bookreader_backup_assets.defs.reconcile import report
from bookreader_backup_assets.defs.steps import failures_shown


class LabelConfig(dg.Config):
    """Which label."""

    label: str = Field(description="Such as pre-deploy or post-update.")


def labelled_job() -> dg.JobDefinition:
    """Return `backup_labelled`."""

    @dg.op(name="labelled_set")
    def labelled_set(
        context: dg.OpExecutionContext, config: LabelConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """Everything that is planned, and the logs, now, as a set of its own."""
        complaints: list[str] = []
        with failures_shown():
            set_id, fine = back_up_labelled(
                installation,
                config.label,
                labelled_assets(installation),
                lambda error: complaints.append(error.message),
            )
        catalog = Catalog(installation.vault)
        entry = catalog.of_day(LABELLED, set_id)
        assert entry is not None
        context.instance.add_dynamic_partitions(str(LABELLED_SETS.name), [set_id])
        report(catalog, context.instance, set_id, entry)
        if not fine:
            raise dg.Failure(f"{set_id} is not complete: {'; '.join(complaints) or 'see its manifest'}")

    @dg.job(
        name="backup_labelled",
        description="Capture everything now, as a set with a label of its own: before a deployment.",
    )
    def backup_labelled() -> Any:
        labelled_set()

    return backup_labelled
