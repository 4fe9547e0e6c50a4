"""The past cannot be captured: what is read now is today's, whatever name it is given."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, ArtifactName
from bookreader_backup_assets.core.errors import RefusedError

LATE = "late"
"""The label of an artifact that was filed under a day that was over."""


def first_day(installation: Installation) -> date:
    """Return the first day that the vault knows of: the day it was made, or that of an adopted backup."""
    days = [installation.since, date.fromisoformat(installation.today())]  # a clock may have been set back
    for stored in installation.vault.list():
        if stored.name.endswith(ENTRY_SUFFIX):
            with suppress(RefusedError):
                days.append(ArtifactName.parse(stored.name.removesuffix(ENTRY_SUFFIX)).taken.date())
    return min(days)


def label_for(
    installation: Installation, day: str, *, allow_late: bool = False, current: str | None = None
) -> str | None:
    """Return the label of a capture filed under `day` now: none today, `late` for a day that is over.

    `current` is the day whose set is open now, if it is not today: the one on which this week began.

    Raises `RefusedError` for a past day unless `allow_late`, and for a day that has not begun.
    """
    try:
        asked, today = date.fromisoformat(day), date.fromisoformat(current or installation.today())
    except ValueError:
        raise RefusedError(f"{day!r} is not a day", hint="write it as 2025-10-24") from None
    if asked == today:
        return None
    if asked > today:
        raise RefusedError(f"{day} has not begun", hint=f"today is {today}, in {installation.zone.key}")
    if not allow_late:
        raise RefusedError(
            f"{day} is over: a capture now would file today's data under it",
            hint=f"capture today's partition, {today}; or set allow_late, which labels the artifact as late",
        )
    return LATE
