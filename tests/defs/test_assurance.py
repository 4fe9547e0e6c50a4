"""The monthly drill in Dagster: when it runs, what it shows, and what is red."""

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.drill_report import DrillComponent, reports_of
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import drill_ground
from bookreader_backup_assets.defs.assurance import KEY, report_unknown_drills, scenario_of

from .conftest import PLAN


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


def checks_of(result):
    """Which checks passed."""
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


@pytest.fixture
def drilled(planned, run_of, clock):
    """Drill Redis and storage in Dagster with other objectives, after a capture; `damage` comes between."""

    def run(month=None, objectives="database = 1, storage = 2, system = 4, file = 0.25", damage=None):
        installation, _, definitions = planned(f"{PLAN}\n[drill]\nrto_hours = {{ {objectives} }}\n")
        for asset in ("redis/rdb", "storage/archive"):
            component = installation.component(asset)
            entry, _ = capture(installation, component, installation.today())
            verify(installation, component, entry)
            if damage:
                damage(installation, entry)
        return run_of(definitions, "restore_drill", month or installation.today()[:7])

    return run


@pytest.mark.parametrize("month", ["2025-10", "2025-11"])
def test_the_month_says_how_much(drilled, clock, month):
    """All of it in one month of each quarter, a part of it in the others."""
    clock.set(f"{month}-24T12:00:00+00:00")
    (made,) = drilled().asset_materializations_for_node("assurance__restore_drill")
    assert made.metadata["scenario"].value == scenario_of(month)
    assert ("system_seconds" in made.metadata) == (month == "2025-10")


def test_an_objective_of_nothing_is_red(drilled, clock):
    """What came back is equal, and late."""
    clock.set("2025-10-24T12:00:00+00:00")
    result = drilled(objectives="database = 0, storage = 2, system = 4, file = 0.25")
    assert not result.success
    found = checks_of(result)
    assert (found["compared"], found["within_rto"]) == (True, False)


def test_what_comes_back_different_is_red(drilled, clock):
    """A byte was flipped on the disk after the verification."""

    def flip(installation, entry):
        path = installation.vault.root / entry.name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)

    clock.set("2025-10-24T12:00:00+00:00")
    result = drilled(damage=flip)
    assert not result.success
    assert checks_of(result)["compared"] is False


def test_a_month_that_is_over_is_refused(drilled, clock):
    """What is measured now is today's: nothing is filed under another month."""
    clock.set("2025-10-24T12:00:00+00:00")
    drilled()
    clock.set("2025-11-02T12:00:00+00:00")
    result = drilled("2025-10")
    assert not result.success
    failures = [event.step_failure_data for event in result.all_node_events if event.is_step_failure]
    assert "not the running month" in str(failures[0].user_failure_data)


def test_the_command_lines_drill_is_reported(captured, settings, instance):
    """A drill made without Dagster shows in it, with its checks, once."""
    with drill_ground(settings, captured) as ground:
        entry, _ = drill(captured, ground, "redis")
    component = DrillComponent()
    verify(captured, component, entry)
    assert report_unknown_drills(captured, instance) == [entry.name]
    assert report_unknown_drills(captured, instance) == []
    latest = instance.get_latest_materialization_event(KEY)
    assert latest.asset_materialization.partition == captured.today()[:7]
