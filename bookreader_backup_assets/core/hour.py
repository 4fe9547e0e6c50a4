"""Hours of logs: the set that each is filed under, and instants written so that they sort as text.

Hours are UTC's: a night in which the clocks go back has no hour twice there.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bookreader_backup_assets.core.errors import RefusedError

HOUR = timedelta(hours=1)
_KEY = "%Y-%m-%d-%H:%M"


def key_of(instant: datetime) -> str:
    """Return the set id of the hour that an instant lies in: `2025-10-24-02:00`."""
    return instant.astimezone(UTC).replace(minute=0).strftime(_KEY)


def is_hour(set_id: str) -> bool:
    """Whether a set is an hour's."""
    try:
        begin_of(set_id)
    except RefusedError:
        return False
    return True


def begin_of(key: str) -> datetime:
    """Return the instant (UTC) at which an hour begins. Raises `RefusedError` for anything but such a key."""
    try:
        begin = datetime.strptime(key, _KEY).replace(tzinfo=UTC)
    except ValueError:
        begin = None
    if begin is None or key_of(begin) != key:
        raise RefusedError(f"{key!r} is not an hour", hint="write it in UTC, as 2025-10-24-02:00")
    return begin


def stamp(instant: datetime) -> str:
    """Return an instant to the nanosecond, in UTC: two of them compare as text like the instants do."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


def instant_of(text: str) -> datetime:
    """Return the instant of a stamp, to the microsecond. Raises `ValueError` for anything else."""
    return datetime.strptime(f"{text[:26]}{text[29:]}", "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def brief(text: str) -> str:
    """Return a stamp for people: `2025-10-24 02:00:00.123 UTC`, without a fraction that is nothing."""
    return f"{text[:10]} {text[11:23]}".removesuffix(".000") + " UTC"
