"""When nothing at all may be removed: the clock cannot be right, or too much would go at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bookreader_backup_assets.core.artifact import Entry

AHEAD = timedelta(minutes=5)
"""How far an artifact may be ahead of the clock: two hosts never quite agree."""
STALE = timedelta(days=7)
"""With the newest artifact older than this, either nothing is captured any more, or the clock is wrong."""


def refusals(
    entries: Sequence[Entry], *, removed: int, share: float, longest: timedelta, now: datetime
) -> tuple[str, ...]:
    """Return why nothing may be removed of a vault's own `entries`, of which `removed` would go.

    `share` is the part that may go at once, `longest` the longest age at which a newest one is no outage.
    """
    if not entries:
        return ()
    said = []
    newest = max(entries, key=lambda entry: (entry.captured_at, entry.name))
    age = now - newest.captured_at
    if age < -AHEAD:
        said.append(
            f"{newest.name} was captured at {moment(newest.captured_at)}, and it is {moment(now)} now:"
            " set the clock right; if it is right, take away what was captured while it was wrong"
        )
    if age > max(STALE, longest):
        said.append(
            f"the newest artifact, {newest.name}, is {spoken(age)} old: set the clock right, or see why"
            " nothing is captured; what there is stays until there is something newer"
        )
    if removed > share * len(entries):
        said.append(
            f"{removed} of {len(entries)} artifacts would be removed at once, more than {share:.0%}: look at"
            " the clock and the plan; if it is meant, allow a larger share for once"
        )
    return tuple(said)


def moment(instant: datetime) -> str:
    """Return an instant for people, to the minute, with its zone."""
    return f"{instant:%Y-%m-%d %H:%M %Z}"


def spoken(age: timedelta) -> str:
    """Return an age for people: hours up to two days, then days."""
    hours = int(age.total_seconds() // 3600)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
