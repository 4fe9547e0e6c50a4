"""One job per component, and one that seals the set.

Their steps, like those that the UI launches, run in one process (`definitions.py`): they share nothing
but the vault, and importing Dagster once instead of per step (2 s) saves more time than running them side
by side on a host that is busy with BookReader.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg

SEAL = "seal"


def job_name(component: str) -> str:
    """The name of the job that captures a component."""
    return f"capture_{component}"


def jobs(components: Iterable[str], daily: dg.DailyPartitionsDefinition) -> dict[str, Any]:
    """Return the jobs by name: `capture_<component>` each, and `seal`."""
    made = {
        job_name(component): dg.define_asset_job(
            job_name(component),
            dg.AssetSelection.groups(component),
            description=f"Capture {component} and check it.",
            partitions_def=daily,
        )
        for component in components
    }
    made[SEAL] = dg.define_asset_job(
        SEAL,
        dg.AssetSelection.groups("backup_set"),
        description="Fold the day's artifacts into a manifest, and look whether it is complete.",
        partitions_def=daily,
    )
    return made
