"""When nothing at all may be removed: the clock cannot be right, or too much would go at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from bookreader_backup_assets.core.artifact import Entry

AHEAD = timedelta(minutes=5)
"""How far an artifact may be ahead of the clock: two hosts never quite agree."""
STALE = timedelta(days=7)
"""With no sign of life for longer than this, either nothing was captured, or the clock is wrong."""


def refusals(
    entries: Sequence[Entry],
    signs: Iterable[datetime],
    *,
    removed: int,
    strays: int = 0,
    share: float,
    longest: timedelta,
    now: datetime,
) -> tuple[str, ...]:
    """Return why nothing may be removed of a vault's own `entries`, of which `removed` would go.

    `strays` are the artifacts without an entry that would go with them: they count as the others. `signs` of
    life are the instants at which something was captured, or found unchanged. `share` is the part that may go
    at once, `longest` the longest age at which a newest one is no outage.
    """
    said = []
    newest = max(entries, key=lambda entry: (entry.captured_at, entry.name), default=None)
    if newest is not None and newest.captured_at > now + AHEAD:
        said.append(
            f"{newest.name} was captured at {moment(newest.captured_at)}, and it is {moment(now)} now:"
            " set the clock right; if it is right, take away what was captured while it was wrong"
        )
    if newest is not None and (gap := _gap(signs, max(STALE, longest), now)) is not None:
        begin, end = gap
        until = "now" if end == now else f"{moment(end)}"
        said.append(
            f"nothing was captured from {moment(begin)} until {until}: set the clock right, or see why; what"
            f" there is stays until there are captures of {STALE.days} days"
        )
    if removed + strays > share * (there := len(entries) + strays):
        without = f", {strays} of them without an entry" if strays else ""
        said.append(
            f"{removed + strays} of {there} artifacts would be removed at once{without}, more than"
            f" {share:.0%}: look at the clock and the plan; if it is meant, allow a larger share for once"
        )
    return tuple(said)


def _gap(signs: Iterable[datetime], limit: timedelta, now: datetime) -> tuple[datetime, datetime] | None:
    """Return the last time without any sign for longer than `limit`, if it ended within the last days.

    A clock that jumped ahead leaves such a gap, also when something was captured by it already.
    """
    end = now
    for sign in sorted((sign for sign in signs if sign <= now), reverse=True):
        if end < now - STALE:
            return None
        if end - sign > limit:
            return sign, end
        end = sign
    return None


def moment(instant: datetime) -> str:
    """Return an instant for people, to the minute, with its zone."""
    return f"{instant:%Y-%m-%d %H:%M %Z}"


def spoken(age: timedelta) -> str:
    """Return an age for people: hours up to two days, then days."""
    hours = int(age.total_seconds() // 3600)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
