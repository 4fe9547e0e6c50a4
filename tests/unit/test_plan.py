"""The plan: the shipped one is the guide's table, and a malformed one is told its line."""

from datetime import date, time, timedelta

import pytest

from bookreader_backup_assets.core.errors import SettingsError
from bookreader_backup_assets.plan import SHIPPED, load_plan

PRODUCTION = (SHIPPED / "production.toml").read_text(encoding="utf-8")


@pytest.fixture
def plan(tmp_path):
    """Write a plan, and load it."""

    def load(text, **options):
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
        return load_plan(str(tmp_path / "plan.toml"), **options)

    return load


def _line(text):
    return next(number for number, line in enumerate(PRODUCTION.splitlines(), 1) if line.startswith(text))


def test_production_is_the_guides_table():
    """Database 02:00, Redis 02:30, storage 03:00; daily ones are too old after 26 hours."""
    plan = load_plan("production")
    assert {name: row.at for name, row in plan.rows.items()} == {
        "postgresql": time(2),
        "redis": time(2, 30),
        "storage": time(3),
        "config": time(3, 15),
    }
    assert {row.rpo_hours for row in plan.rows.values()} == {26}
    assert plan.deadline == time(5)
    assert plan.timezone.key == "UTC"
    assert plan.postgresql.digests == ["public.users", "public.subscriptions"]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_plans_parse(path):
    """Every plan in the package loads by its name and by its path."""
    assert load_plan(path.stem) == load_plan(str(path))


def test_a_component_without_a_row_is_not_planned(plan):
    """A plan may leave components out; capture order stays."""
    found = plan(
        "timezone='Europe/Moscow'\ndeadline='05:00'\n[redis]\nat='02:30'\n[postgresql]\nat=02:00:00\n"
    )
    assert list(found.rows) == ["postgresql", "redis"]
    assert (found.redis.rpo_hours, found.postgresql.digests) == (26, False)
    assert found.timezone.key == "Europe/Moscow"


def test_the_timezone_can_be_replaced():
    """`BACKUP_TIMEZONE` wins over the plan; a wrong one is not blamed on the file."""
    assert load_plan("production", timezone="Asia/Omsk").timezone.key == "Asia/Omsk"
    with pytest.raises(SettingsError, match=r"^BACKUP_TIMEZONE: 'Mars/Base' is not a timezone such as"):
        load_plan("production", timezone="Mars/Base")


def test_production_is_the_guides_retention():
    """As the guide's first table says, local: 4 weeks, 7 days, 3 days, 10 versions, 30 days."""
    plan = load_plan("production")
    rows = {**plan.rows, "weekly": plan.weekly, "code": plan.code, "logs": plan.logs, "labels": plan.labels}
    assert {name: str(row.keep) for name, row in rows.items()} == {
        "weekly": "4 weeks",
        "postgresql": "7 days",
        "redis": "3 days",
        "storage": "7 days",
        "config": "10 versions",
        "code": "4 weeks",
        "logs": "30 days",
        "labels": "30 days",
    }


def test_development_is_the_guides_second_table():
    """Database daily at 03:00, 3 days; storage weekly, 2 weeks; configuration on change, 5 versions."""
    plan = load_plan("development")
    assert {name: (row.at, row.every, str(row.keep)) for name, row in plan.rows.items()} == {
        "postgresql": (time(3), "day", "3 days"),
        "storage": (time(3, 30), "week", "2 weeks"),
        "config": (time(3, 45), "day", "5 versions"),
    }
    assert (plan.weekly, plan.code, plan.logs) == (None, None, None)
    sunday, monday = date(2026, 11, 29), date(2026, 11, 30)
    assert [plan.due_on("storage", day) for day in (sunday, monday)] == [True, False]
    assert plan.objectives["storage"] == timedelta(days=7, hours=2)


def test_the_weekly_full_takes_the_place_of_its_days_rows():
    """On its day every component is due at its time; on the others each at its own."""
    plan = load_plan("production")
    sunday, monday = date(2026, 11, 29), date(2026, 11, 30)
    assert {f"{plan.due(name, sunday):%H:%M}" for name in plan.rows} == {"03:00"}
    assert [f"{plan.due(name, monday):%H:%M}" for name in plan.rows] == ["02:00", "02:30", "03:00", "03:15"]
    assert [plan.due_on("code", day) for day in (sunday, monday)] == [True, False]


REDIS, DUMP = _line("[redis]"), _line("[postgresql]")
TIME = "it must be a time of day such as '02:30'"
ZONE = "it must be a timezone such as 'UTC' or 'Europe/Moscow'"
DIGESTS = "postgresql.digests: it must be true, false, or a list of tables such as"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('"02:30"', '"25:30"', REDIS + 1, f"redis.at: {TIME}"),
        ('"02:30"', '"02:30:30"', REDIS + 1, f"redis.at: {TIME}"),
        ('"02:30"', '"02:30+03:00"', REDIS + 1, f"redis.at: {TIME}"),
        ('"02:30"', "2", REDIS + 1, f"redis.at: {TIME}"),
        ('"05:00"', '"late"', _line("deadline"), f"deadline: {TIME}"),
        ('at = "02:30"', "", REDIS, "redis.at: it is missing"),
        ('"UTC"', '"Mars/Base"', _line("timezone"), f"timezone: {ZONE}"),
        ('"UTC"', '"Europe"', _line("timezone"), f"timezone: {ZONE}"),
        ('"UTC"', '"../../etc/passwd"', _line("timezone"), f"timezone: {ZONE}"),
        ("[redis]", "[redi]", REDIS, "redi: unknown; there may be: timezone, deadline"),
        ("[redis]", "[redis]\nkept = 3", REDIS + 1, "redis.kept: unknown; there may be: at, every"),
        ("{ days = 3 }", "3", REDIS + 3, "redis.keep: it must be as { days = 7 }"),
        ("{ days = 3 }", "{ days = 0 }", REDIS + 3, "redis.keep.days: Input should be greater than"),
        ("{ days = 3 }", "{ moons = 3 }", REDIS + 3, "redis.keep.moons: unknown; there may be: days, weeks"),
        ("{ days = 3 }", "{}", REDIS + 3, "redis.keep: it must be one of days, weeks and versions"),
        ("{ days = 3 }", "{ days = 3, weeks = 1 }", REDIS + 3, "redis.keep: it must be one of days"),
        ('weekday = "sunday"', 'weekday = "sun"', _line("[weekly]") + 1, "weekly.weekday: Input should be"),
        ("minute = 5", "minute = 60", _line("minute"), "logs.minute: Input should be less than"),
        ("[redis]", "[redis]\ngit = { days = 3 }", REDIS + 1, "redis.git: only [config] goes to a git"),
        ("[config]", "[config]\nencrypt = false", _line("[config]"), "config: it must be without `encrypt"),
        ("[redis]", "[redis]\ndigests = true", REDIS + 1, "redis.digests: unknown; there may be: at"),
        ("rpo_hours = 26", "rpo_hours = 0", DUMP + 2, "postgresql.rpo_hours: Input"),
        ("rpo_hours = 26", "rpo_hours = 'day'", DUMP + 2, "postgresql.rpo_hours: Input"),
        ('["public.users", "public.subscriptions"]', '"all"', _line("digests"), DIGESTS),
        ('["public.users", "public.subscriptions"]', '["users"]', _line("digests"), DIGESTS),
        ('["public.users", "public.subscriptions"]', "1", _line("digests"), DIGESTS),
    ],
)  # fmt: skip
def test_a_mistake_is_told_its_line_and_what_may_stand_there(plan, old, new, line, said):
    """The file, the line, the key and the allowed values."""
    assert old in PRODUCTION
    with pytest.raises(SettingsError) as refused:
        plan(PRODUCTION.replace(old, new, 1))
    assert f"plan.toml: line {line}, {said}" in refused.value.message


def test_a_missing_key_of_the_top_is_named(plan):
    """There is no line to name where nothing stands."""
    with pytest.raises(SettingsError, match=r"plan\.toml: deadline: it is missing"):
        plan("timezone = 'UTC'\n")


def test_a_section_that_is_none_is_named(plan):
    """A component is a section, not a value."""
    with pytest.raises(SettingsError, match=r"line 3, redis: it must be a section: \[redis\]"):
        plan("timezone='UTC'\ndeadline='05:00'\nredis='02:30'\n")


def test_what_is_not_toml_is_refused_with_the_line(plan):
    """A value without its quotes is named with its line."""
    with pytest.raises(SettingsError, match=r"is not TOML: .*line 2"):
        plan("timezone = 'UTC'\ndeadline = noon\n")


@pytest.mark.parametrize("name", ["absent", "/", "/dev/null/x"])
def test_an_absent_plan_is_refused_with_the_shipped_names(name):
    """A hint lists the plans there are."""
    with pytest.raises(SettingsError) as refused:
        load_plan(name)
    assert f"there is no plan '{name}'" in refused.value.message
    assert "production" in refused.value.hint


def test_a_plan_that_is_no_text_is_refused(tmp_path):
    """Bytes that are not UTF-8 are said to be none."""
    (tmp_path / "p.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"p\.toml is not text"):
        load_plan(str(tmp_path / "p.toml"))


def test_a_plan_that_captures_nothing_is_refused(plan):
    """An empty plan would be content with an empty vault."""
    with pytest.raises(SettingsError, match="at least one component: postgresql, redis"):
        plan('timezone = "UTC"\ndeadline = "05:00"\n')
