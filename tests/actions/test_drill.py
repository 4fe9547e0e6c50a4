"""Drills on real servers: what comes back is compared and timed, and production is never touched."""

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import drill_ground


@pytest.fixture
def captured(installation):
    """The installation, with everything captured and verified."""
    day = installation.today()
    for component in installation.components.values():
        verify(installation, component, capture(installation, component, day)[0])
    return installation


@pytest.fixture
def ground(settings, captured):
    """Where the drills take place."""
    with drill_ground(settings, captured) as made:
        yield made


def test_system(captured, ground):
    """Everything comes back, equal, and in time."""
    entry, report = drill(captured, ground, "system")
    assert [part.scenario for part in report.parts] == ["config", "postgresql", "redis", "storage", "file"]
    assert all(part.equal for part in report.parts)
    assert str(Catalog(captured.vault).standing(entry)) == "verified"
