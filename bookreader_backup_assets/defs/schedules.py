"""When: the plan's times, and the seal at its deadline, in the plan's timezone.

They run without a click: a backup that waits for somebody to throw a switch is none.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from bookreader_backup_assets.defs.jobs import SEAL, job_name
from bookreader_backup_assets.plan import Plan


def schedules(plan: Plan, jobs: Mapping[str, Any]) -> list[Any]:
    """Return one daily schedule for each planned component, and the seal's at the plan's deadline."""
    times = {job_name(component): row.at for component, row in plan.rows.items()} | {SEAL: plan.deadline}
    return [
        dg.build_schedule_from_partitioned_job(
            jobs[name],
            name=f"{name}_daily",
            hour_of_day=time.hour,
            minute_of_hour=time.minute,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for name, time in times.items()
    ]
