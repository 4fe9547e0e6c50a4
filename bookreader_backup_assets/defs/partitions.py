"""Days, weeks and hours: a partition is what a set belongs to, the running one included.

Only partitions belong here; hours are the schedules'.
"""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from bookreader_backup_assets.plan_rows import WEEKDAYS


def daily(first_day: date, zone: ZoneInfo) -> dg.DailyPartitionsDefinition:
    """Return the days from `first_day` through today in `zone`.

    `end_offset=1` makes the running day the last partition: at 02:00 on day D it is D that is captured.
    """
    return dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), timezone=zone.key, end_offset=1)


def weekly(first_day: date, zone: ZoneInfo, weekday: str = "sunday") -> dg.WeeklyPartitionsDefinition:
    """Return the weeks from that of `first_day` through the running one; the key of one is its `weekday`."""
    begins = WEEKDAYS.index(weekday)
    first = first_day - timedelta(days=(first_day.weekday() - begins) % 7)
    return dg.WeeklyPartitionsDefinition(
        start_date=first.isoformat(), timezone=zone.key, day_offset=(begins + 1) % 7, end_offset=1
    )


def hourly(first_day: date) -> dg.HourlyPartitionsDefinition:
    """Return the hours from `first_day` through the last that is over, in UTC: no hour comes twice there."""
    return dg.HourlyPartitionsDefinition(start_date=f"{first_day.isoformat()}-00:00", timezone="UTC")
