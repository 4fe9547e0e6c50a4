"""The clock: the plan's times in the plan's timezone, in nights that are 23, 24 and 25 hours long."""

import itertools
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from bookreader_backup_assets.plan import due

BERLIN = ZoneInfo("Europe/Berlin")
FOUR = """
timezone = "Europe/Berlin"
deadline = "05:00"
[postgresql]
at = "02:00"
[redis]
at = "02:30"
[storage]
at = "03:00"
[config]
at = "03:15"
"""


def ticks(schedule, after, count=3):
    """The next instants at which Dagster's scheduler would evaluate a schedule."""
    from dagster._utils.schedules import schedule_execution_time_iterator

    return list(
        itertools.islice(
            schedule_execution_time_iterator(
                datetime.fromisoformat(after).timestamp(),
                schedule.cron_schedule,
                schedule.execution_timezone,
                ascending=True,
            ),
            count,
        )
    )


def evaluated(definitions, schedule, at, instance):
    """What a schedule says at a tick: run requests, or why there are none."""
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=at,
        repository_def=definitions.get_repository_def(),
    )
    return schedule.evaluate_tick(context)


def schedules_of(definitions):
    """The schedules by name."""
    return {schedule.name: schedule for schedule in definitions.schedules}


def test_times_are_the_plans(planned):
    """Every planned component is captured at its time, and the set is sealed at the deadline, unasked."""
    definitions = planned(FOUR)[2]
    found = {name: schedule.cron_schedule for name, schedule in schedules_of(definitions).items()}
    assert found == {
        "capture_postgresql_daily": "0 2 * * *",
        "capture_redis_daily": "30 2 * * *",
        "capture_storage_daily": "0 3 * * *",
        "capture_config_daily": "15 3 * * *",
        "seal_daily": "0 5 * * *",
        "restore_drill_monthly": "0 4 1 * *",
    }
    for schedule in definitions.schedules:
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "Europe/Berlin"


def test_another_plan_is_another_clock(planned):
    """Other times give other schedules, BACKUP_TIMEZONE wins, and what is not planned has no schedule."""
    text = 'timezone = "UTC"\ndeadline = "23:45"\n[redis]\nat = "22:07"\n'
    definitions = planned(text, BACKUP_TIMEZONE="Asia/Tokyo")[2]
    found = {name: schedule.cron_schedule for name, schedule in schedules_of(definitions).items()}
    assert found == {
        "capture_redis_daily": "7 22 * * *",
        "seal_daily": "45 23 * * *",
        "restore_drill_monthly": "0 4 1 * *",
    }
    assert {schedule.execution_timezone for schedule in definitions.schedules} == {"Asia/Tokyo"}
    assert "capture_postgresql" in {job.name for job in definitions.jobs}, "it can still be asked for"


@pytest.mark.parametrize(
    ("evening", "firsts"),
    [
        ("2026-06-10T12:00+02:00", ["00:00", "00:30", "01:00", "01:15", "03:00"]),
        ("2026-03-28T12:00+01:00", ["01:00", "01:00", "01:00", "01:15", "03:00"]),  # no 02:00 to 03:00
        ("2026-10-24T12:00+02:00", ["01:00", "01:30", "02:00", "02:15", "04:00"]),  # 02:00 to 03:00 twice
    ],
    ids=["a normal night", "the clocks go forward", "the clocks go back"],
)
def test_every_night_once(planned, clock, instance, evening, firsts):
    """In any night each schedule fires once, for the day it is, and `due` names the same instant."""
    _, plan, definitions = planned(FOUR, BACKUP_FIRST_DAY="2026-01-01")
    found = []
    for schedule in (each for each in definitions.schedules if each.name.endswith("_daily")):
        instants = ticks(schedule, evening)
        days = []
        for instant in instants:
            clock.at = instant.astimezone(UTC)
            (request,) = evaluated(definitions, schedule, instant, instance).run_requests
            assert request.partition_key == request.run_key
            assert request.tags["dagster/partition"] == request.partition_key
            days.append(request.partition_key)
        first = datetime.fromisoformat(evening).date().toordinal() + 1
        assert days == [date.fromordinal(first + offset).isoformat() for offset in range(3)]
        found.append(f"{instants[0].astimezone(UTC):%H:%M}")
    assert found == firsts
    named = [*(row.at for row in plan.rows.values()), plan.deadline]
    for at, fired in zip(named, firsts, strict=True):
        instant = due(date.fromordinal(first), at, BERLIN)
        assert f"{instant:%H:%M}" == fired or (at, evening[:10]) == (time(2, 30), "2026-03-28")
        assert instant.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("tick", "now"),
    [
        ("2026-06-11T02:30:00+02:00", "2026-06-12T01:00:00+02:00"),
        ("2026-06-11T02:30:00+02:00", "2026-06-11T02:40:01+02:00"),
        ("2026-06-11T23:58:00+02:00", "2026-06-12T00:01:00+02:00"),
    ],
    ids=["yesterday's", "hours ago", "a moment before midnight"],
)
def test_a_late_tick_captures_nothing(planned, clock, instance, tick, now):
    """A daemon that wakes up late leaves today to the sensor, and files nothing under yesterday."""
    definitions = planned(FOUR, BACKUP_FIRST_DAY="2026-01-01")[2]
    schedule = schedules_of(definitions)["capture_redis_daily"]
    clock.set(now)
    said = evaluated(definitions, schedule, datetime.fromisoformat(tick), instance)
    assert not said.run_requests
    assert "2026-06-11" in said.skip_message


def test_a_sealed_day_is_not_sealed_again(planned, instance, run_of):
    """The deadline seals a day that nothing has sealed, even an empty one, and leaves a sealed one alone."""
    installation, _, definitions = planned()
    schedule = schedules_of(definitions)["seal_daily"]
    tick = installation.now().astimezone(installation.zone)
    assert evaluated(definitions, schedule, tick, instance).run_requests
    assert run_of(definitions, "seal", installation.today()).success is False, "nothing planned is there"
    said = evaluated(definitions, schedule, tick, instance)
    assert not said.run_requests
    assert "sealed" in said.skip_message
    assert run_of(definitions, "capture_redis", installation.today()).success
    assert evaluated(definitions, schedule, tick, instance).run_requests
