"""The past cannot be captured."""

from datetime import UTC, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.days import LATE, label_for
from bookreader_backup_assets.core.errors import RefusedError


def at(instant, zone="UTC"):
    """Return as much of an installation as tells the day."""
    key = ZoneInfo(zone)
    today = instant.astimezone(key).date().isoformat()
    return SimpleNamespace(zone=key, today=lambda: today)


NIGHT = datetime(2025, 10, 24, 23, 30, tzinfo=UTC)


def test_today_is_captured_without_a_label():
    """Today is the day in the plan's timezone, not in UTC."""
    assert label_for(at(NIGHT), "2025-10-24") is None
    assert label_for(at(NIGHT, "Europe/Moscow"), "2025-10-25") is None


def test_a_past_day_is_refused_with_a_hint():
    """The hint names the partition to capture instead."""
    with pytest.raises(RefusedError) as refused:
        label_for(at(NIGHT), "2025-10-23")
    assert "2025-10-24" in refused.value.hint
    assert "allow_late" in refused.value.hint


def test_allow_late_labels_the_artifact():
    """Who insists gets an artifact that says when it was made."""
    assert label_for(at(NIGHT), "2025-10-23", allow_late=True) == LATE


@pytest.mark.parametrize("day", ["2025-10-25", "tomorrow", "2025-13-01", ""])
def test_what_is_no_day_yet_is_refused(day):
    """A day to come, or no day at all, cannot be captured even late."""
    with pytest.raises(RefusedError):
        label_for(at(NIGHT), day, allow_late=True)
