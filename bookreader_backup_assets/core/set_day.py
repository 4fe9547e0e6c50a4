"""The local day of a set, whatever its kind: a day, an hour of logs, or a labelled moment."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from zoneinfo import ZoneInfo

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.hour import begin_of
from bookreader_backup_assets.core.set_id import day_of


def local_day(set_id: str, entry: Entry, zone: ZoneInfo) -> date:
    """Return the day of a set that `entry` is in; the day of its capture if the id tells none."""
    return _told(set_id, zone) or entry.captured_at.astimezone(zone).date()


def is_day(set_id: str) -> bool:
    """Whether a set is a day's: neither an hour's nor a labelled one."""
    return len(set_id) == len("2025-10-24") and _told(set_id, None) is not None


@lru_cache(maxsize=2**14)  # a vault has the same thousand ids at each look, and an hour's is slow to read
def _told(set_id: str, zone: ZoneInfo | None) -> date | None:
    try:
        return day_of(set_id)
    except RefusedError:
        pass
    try:
        return begin_of(set_id).astimezone(zone).date()
    except RefusedError:
        return None
