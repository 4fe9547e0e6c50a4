"""A drill's rules: what is in time, what is too old, and what its report keeps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.core.check import Verdict, failed, inconclusive, passed
from bookreader_backup_assets.core.drill import (
    CHECKS,
    OBJECTIVES,
    SCENARIOS,
    DrillReport,
    Objective,
    Part,
    judge,
)
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.core.restore_plan import StepTaken
from bookreader_backup_assets.plan import load_plan

NOW = datetime(2026, 10, 1, 4, tzinfo=UTC)
GOOD = passed("restorable", "restored and equal", rows=3)


def part(scenario, seconds=10.0, age=2.0, outcomes=(GOOD,)):
    """A part that took `seconds`, of what was `age` hours old."""
    return Part(
        scenario,
        f"{scenario}/x",
        NOW - timedelta(hours=age),
        bytes=1000,
        steps=(StepTaken("read", 1.0, 1000), StepTaken("restore", seconds - 1.0)),
        outcomes=tuple(outcomes),
    )


def report(scenario, *parts, **objectives):
    """The report of a drill against the guide's objectives, or others."""
    held = {**load_plan("production").drill.objectives, **objectives}
    return DrillReport(
        installation="i",
        host="h",
        scenario=scenario,
        set="2026-10-01",
        vault="local",
        key="none",
        began_at=NOW,
        ended_at=NOW + timedelta(minutes=1),
        parts=parts,
        results=judge(scenario, parts, held, NOW),
    )


def verdicts(made):
    """What the checks of a report say."""
    return {name: str(made.check(name).verdict) for name in CHECKS}


ALL_PASSED = dict.fromkeys(CHECKS, "passed")


def test_the_objectives_are_the_guides():
    """Appendix C: database 1 h, storage 2 h, system 4 h, file 15 min; a day, and a week for the system."""
    hours = {
        row: (objective.rto / 3600, objective.rpo / 3600)
        for row, objective in load_plan("production").drill.objectives.items()
    }
    assert hours == {"database": (1, 24), "storage": (2, 24), "system": (4, 168), "file": (0.25, 24)}
    assert {one for parts in SCENARIOS.values() for one in parts} | {"system"} == set(OBJECTIVES)


def test_a_good_drill():
    """Everything came back equal, in time, and young enough; all steps count into the time."""
    made = report("system", part("postgresql", 60.0), part("storage", 30.5), part("file", 5.0))
    assert verdicts(made) == ALL_PASSED
    assert made.good
    assert {one.scenario: (one.seconds, one.rto) for one in made.results} == {
        "postgresql": (60.0, 3600),
        "storage": (30.5, 7200),
        "file": (5.0, 900),
        "system": (90.5, 14400),  # the file is in storage, and is not restored twice
    }


def test_the_system_is_as_old_as_its_oldest_part():
    """One part of last week makes last week's system."""
    made = report("system", part("postgresql", age=2), part("config", age=150))
    (system,) = (one for one in made.results if one.scenario == "system")
    assert (system.age / 3600, system.within_rpo) == (150, True)
    assert made.check("within_rpo").verdict is Verdict.FAILED, "a file of 150 h is too old by itself"


@pytest.mark.parametrize(("rto", "good"), [(10.0, True), (9.999, False), (0.0, False)])
def test_in_time_or_not(rto, good):
    """The objective is the last second that is in time, and nothing is ever in time for none at all."""
    made = report("postgresql", part("postgresql", 10.0), database=Objective(rto, 1e6))
    assert made.check("within_rto").passed is good
    assert made.check("compared").passed


def test_nothing_meets_an_objective_of_nothing():
    """Not even what took no time."""
    made = report("redis", replace(part("redis"), steps=()), database=Objective(0.0, 1e6))
    assert made.check("within_rto").verdict is Verdict.FAILED


@pytest.mark.parametrize(("age", "good"), [(24, True), (24.01, False), (-0.05, True), (-1, False)])
def test_young_enough_or_not(age, good):
    """A day is the guide's limit for a database; what was captured in an hour from now is nonsense."""
    assert report("postgresql", part("postgresql", age=age)).check("within_rpo").passed is good


def test_what_came_back_different_was_not_recovered():
    """However fast it was."""
    bad = part("redis", outcomes=[failed("keys_equal", "keys differ: 0: expected 9, found 8")])
    made = report("partial", part("postgresql"), bad)
    assert verdicts(made) == {"compared": "failed", "within_rto": "failed", "within_rpo": "passed"}
    assert "expected 9, found 8" in made.check("compared").message
    assert "redis was not recovered" in made.check("within_rto").message


def test_what_could_not_be_told_is_no_pass():
    """A scratch server that is too old proves nothing: a warning, and no recovery."""
    made = report("redis", part("redis", outcomes=[inconclusive("keys_equal", "no server")]))
    assert verdicts(made)["compared"] == "inconclusive"
    assert not made.good


def test_nothing_is_no_recovery():
    """A part without an artifact, one that nobody compared, and a drill of nothing are failures."""
    absent = Part("redis", "", None, outcomes=(failed("there", "the set has none"),))
    assert set(verdicts(report("redis", absent)).values()) == {"failed"}
    assert verdicts(report("redis", part("redis", outcomes=[])))["compared"] == "failed"
    assert set(verdicts(report("redis")).values()) == {"failed"}


def test_a_report_is_read_as_it_was_written():
    """Every field survives; what is no report is refused."""
    made = report("system", part("postgresql"), Part("redis", "", None), part("file", outcomes=[GOOD]))
    assert DrillReport.from_json(made.to_json()) == made
    assert made.to_json().startswith(b'{\n "format_version": 1')
    for data in (b"{}", b'{"format_version": 1}', made.to_json().replace(b'"parts"', b'"party"')):
        with pytest.raises(DamagedError):
            DrillReport.from_json(data)


def test_a_report_reads_well():
    """The text names every part, step, time and verdict, whatever bytes a path has."""
    odd = part("file", outcomes=[passed("file_equal", "'caf\udce9', as captured")])
    text = report("partial", part("postgresql"), odd).to_text()
    text.encode("utf-8")
    for said in (
        "postgresql: postgresql/x",
        "read: 1.00 s",
        "10.0 s of 3600 s",
        "24.0 h allowed",
        "compared:",
    ):
        assert said in text
