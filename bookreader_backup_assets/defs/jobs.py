"""One job per component, one that captures all at once, and one for each kind of manifest.

Their steps, like those that the UI launches, run in one process (`definitions.py`): they share nothing
but the vault, and importing Dagster once instead of per step (2 s) saves more time than running them side
by side on a host that is busy with BookReader.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg

SEAL, SEAL_WEEKLY, CAPTURE_FULL = "seal", "seal_weekly", "capture_full"


def job_name(component: str) -> str:
    """The name of the job that captures a component."""
    return f"capture_{component}"


def jobs(
    components: Iterable[str], daily: dg.DailyPartitionsDefinition, weekly: dg.WeeklyPartitionsDefinition
) -> dict[str, Any]:
    """Return the jobs by name: `capture_<component>` each, `capture_full`, `seal` and `seal_weekly`."""
    named = tuple(components)
    made = {
        job_name(component): dg.define_asset_job(
            job_name(component),
            dg.AssetSelection.groups(component),
            description=f"Capture {component} and check it.",
            partitions_def=daily,
        )
        for component in named
    }
    made[CAPTURE_FULL] = dg.define_asset_job(
        CAPTURE_FULL,
        dg.AssetSelection.groups(*named),
        description="Capture everything close together, and check it: the weekly full.",
        partitions_def=daily,
    )
    made[SEAL] = dg.define_asset_job(
        SEAL,
        dg.AssetSelection.assets(["backup_set", "manifest"]),
        description="Fold the day's artifacts into a manifest, and look whether it is complete.",
        partitions_def=daily,
    )
    made[SEAL_WEEKLY] = dg.define_asset_job(
        SEAL_WEEKLY,
        dg.AssetSelection.assets(["backup_set", "weekly"]),
        description="Fold the weekly full into a manifest of its own, and look whether it is complete.",
        partitions_def=weekly,
    )
    return made
