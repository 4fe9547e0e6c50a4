"""The monthly drill in Dagster: when it runs, what it shows, and what is red."""

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.drill_report import reports_of
from bookreader_backup_assets.actions.verify import verify


@pytest.fixture
def captured(installation):
    """The installation, with everything captured and verified."""
    for component in installation.components.values():
        verify(installation, component, capture(installation, component, installation.today())[0])
    return installation


def test_a_drill_of_this_month(run, captured):
    """The run is green, every check passed, and what took how long, and was how old, are numbers."""
    month = captured.today()[:7]
    result = run("restore_drill", month)
    assert result.success
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == dict.fromkeys(["not_empty", "sha256", "compared", "within_rto", "within_rpo"], True)
    (made,) = result.asset_materializations_for_node("assurance__restore_drill")
    assert made.partition == month
    shown = {name: value.value for name, value in made.metadata.items()}
    assert {type(shown[name]) for name in ("postgresql_seconds", "bytes_per_second", "rpo_hours")} == {float}
    assert shown["postgresql_seconds"] > 0
    assert [entry.name for entry in reports_of(captured, month)] == [shown["artifact"]]
