"""Days: a partition is the day a set belongs to, today's included.

Only partitions belong here; hours are the schedules'.
"""

from datetime import date
from zoneinfo import ZoneInfo

import dagster as dg


def daily(first_day: date, zone: ZoneInfo) -> dg.DailyPartitionsDefinition:
    """Return the days from `first_day` through today in `zone`.

    `end_offset=1` makes the running day the last partition: at 02:00 on day D it is D that is captured.
    """
    return dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), timezone=zone.key, end_offset=1)
