"""What a vault keeps, and why: the guide's two tables, and each rule and refusal on its own."""

from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.core.hour import key_of
from bookreader_backup_assets.core.retention import (
    Decision,
    Held,
    Keep,
    Pin,
    Policy,
    decide,
    still_wanted,
)
from tests.fixtures.held import HERE, development, held_of, night, production

TODAY = date(2026, 11, 28)
"""A Saturday."""
NOW = night(TODAY, 6)
SUNDAY = date(2026, 11, 22)
LABELLED = "2026-10-20_14-05-00_pre-deploy"
WHOLE = {"share": 1.0}


def ago(days, hour=2, minute=0):
    """Return an instant of a night so many days ago."""
    return night(TODAY - timedelta(days), hour, minute)


def nights(what, days, **more):
    """Return one artifact of each of those nights, by their age in days."""
    return [held_of(what, ago(day), **more) for day in days]


def why(held, policy=None, *, now=NOW, pins=()):
    """Return the reasons for each artifact, by its age in days and its asset."""
    verdict = decide(held, policy or production(**WHOLE), now, installation=HERE, pins=pins)
    return {one.entry.name: one.because for one in verdict.decisions}


def reasons(one, *others, policy=None, **more):
    """Return why `one` is kept, in a vault where `others` are, too."""
    return why([one, *others], policy, **more)[one.entry.name]


def refused(held, policy=None, *, now=NOW):
    """Return why nothing is removed."""
    verdict = decide(held, policy or production(), now, installation=HERE)
    if verdict.refusals:
        assert verdict.removed == ()
    return verdict.refusals


def ages(numbers):
    """Return days as ranges: `0-7 13 20`."""
    runs = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def table(policy, *, weekly_only=(), nightly=("postgresql", "redis", "storage", "config")):
    """Return the ages in days of what is kept of a hundred nights, on a Saturday: Sunday was 6 days ago."""
    fulls = [day for day in range(100) if policy.full_on(TODAY - timedelta(day))]
    held = [one for what in nightly for one in nights(what, fulls if what in weekly_only else range(100))]
    held += nights("manifest", range(100))
    held += nights("weekly", fulls) + nights("code", fulls)
    held += [held_of("logs", at, key_of(at)) for at in (ago(0, 5), *(ago(day, 12) for day in range(1, 100)))]
    held += [
        held_of(
            "postgresql", ago(day, 14), f"{TODAY - timedelta(day)}_14-05-00_pre-deploy", label="pre-deploy"
        )
        for day in range(1, 100)
    ]
    kept: dict[str, list[int]] = {}
    for one in decide(held, policy, NOW, installation=HERE).decisions:
        asset = "labelled sets" if one.entry.label else one.entry.asset
        if one.kept:
            day = one.entry.captured_at.astimezone(policy.zone).date()
            kept.setdefault(asset, []).append((TODAY - day).days)
    return "".join(f"{asset:20} {ages(kept[asset])}\n" for asset in sorted(kept))


def test_production_keeps_the_guides_table_locally():
    """A week of databases and files, three days of Redis, ten configurations, a month of logs, four fulls."""
    assert table(production(**WHOLE)) == (
        "backup_set/manifest  0-9 13 20 27\n"
        "backup_set/weekly    6 13 20 27\n"
        "code/bundle          6 13 20 27\n"
        "config/archive       0-9 13 20 27\n"
        "labelled sets        1-30\n"
        "logs/archive         0-30\n"
        "postgresql/dump      0-7 13 20 27\n"
        "redis/rdb            0-3 6 13 20 27\n"
        "storage/archive      0-7 13 20 27\n"
    )


def test_production_keeps_the_guides_table_offsite():
    """Thirty days of databases and files there, and of Redis what is in a weekly full."""
    assert table(production("offsite", **WHOLE), weekly_only=("redis",)) == (
        "backup_set/manifest  0-30\n"
        "backup_set/weekly    6 13 20 27\n"
        "code/bundle          6 13 20 27\n"
        "config/archive       0-9 13 20 27\n"
        "labelled sets        1-30\n"
        "logs/archive         0-30\n"
        "postgresql/dump      0-30\n"
        "redis/rdb            6 13 20 27\n"
        "storage/archive      0-30\n"
    )


def test_development_keeps_the_guides_second_table():
    """Three days of databases, two weeks of files, five configurations; what it has no row for stays."""
    assert table(development(**WHOLE), nightly=("postgresql", "storage", "config")) == (
        "backup_set/manifest  0-14\n"
        "config/archive       0-4\n"
        "labelled sets        1-14\n"
        "logs/archive         0-99\n"
        "postgresql/dump      0-3\n"
        "storage/archive      0-14\n"
    )


@pytest.mark.parametrize(("days", "kept"), [(7, ("of the last 7 days",)), (8, ())])
def test_days_are_those_after_the_day_of_the_set(days, kept):
    """Seven days keep the night of seven days ago, and not the one before."""
    assert reasons(*nights("storage", [days, 0]), policy=production(weekly=Keep(1, "days"), **WHOLE)) == kept


def test_days_are_calendar_days_of_the_plans_timezone():
    """In a zone that is still in yesterday, a set is kept one day longer than where today has begun."""
    held = [held_of("redis", ago(4), "2026-11-24"), *nights("redis", [0])]
    for zone, kept in (("Pacific/Kiritimati", False), ("America/Los_Angeles", True)):
        policy = production(zone=ZoneInfo(zone), **WHOLE)
        assert bool(reasons(*held, policy=policy)) == kept


def test_the_day_is_the_sets_and_not_the_captures():
    """What was filed late under a past day has that day's age; what no id tells has that of its capture."""
    newest = nights("redis", [0])
    late = held_of("redis", ago(0, 1), "2026-11-20", label="late", late=True)
    assert reasons(late, *newest) == ()
    assert reasons(held_of("redis", ago(2), "no day"), *newest) == ("of the last 3 days",)
    assert reasons(held_of("redis", ago(4), "no day"), *newest) == ()


def test_an_hour_of_logs_has_its_own_local_day():
    """An hour that is 22:00 of October 28th in UTC is of the 29th in Moscow, which is thirty days ago."""
    newest = held_of("logs", ago(0, 5), key_of(ago(0, 5)))
    for hour, kept in (("2026-10-28-21:00", ("of the last 30 days",)), ("2026-10-28-20:00", ())):
        assert reasons(held_of("logs", ago(29), hour), newest) == kept


def test_unchanged_artifacts_are_as_old_as_the_last_set_that_they_are_in():
    """A dump that is found unchanged three days ago is kept for days from then."""
    old = held_of("redis", ago(21), sets=["2026-11-20", "2026-11-25"])
    assert reasons(old, *nights("redis", [0])) == ("of the last 3 days",)
    gone = held_of("redis", ago(21), sets=["2026-11-20", "2026-11-24"])
    assert reasons(gone, *nights("redis", [0])) == ()


def test_versions_count_the_verified_ones():
    """An unproven version displaces no proven one, and goes when as many proven ones are newer."""
    held = [
        *nights("config", range(1, 12, 2)),  # 1 3 5 7 9 11
        *nights("config", [0, 4, 8, 10], verified=False),
    ]
    policy = production(rows={"config": Keep(3, "versions")}, weekly=Keep(1, "days"), **WHOLE)
    said = list(why(held, policy).values())
    assert said == [
        *[()] * 5,
        ("version 3 of the last 3",),
        ("not verified, among the last 3 versions",),
        ("version 2 of the last 3",),
        ("version 1 of the last 3", "newest verified config/archive"),
        ("not verified, among the last 3 versions", "newest config/archive"),
    ]


def test_versions_that_are_fewer_than_the_limit_displace_nothing():
    """Where there are not as many proven ones yet, unproven ones stay, however old."""
    held = [*nights("config", [0]), *nights("config", [300], verified=False)]
    assert why(held)[held[1].entry.name] == ("not verified, among the last 10 versions",)


def test_versions_are_counted_by_asset_and_without_labelled_ones():
    """What was captured before deployments does not push out what was captured on change."""
    policy = production(rows={"config": Keep(1, "versions")}, **WHOLE)
    held = [
        *nights("config", [5]),
        held_of("config/other", ago(1)),
        held_of("config", ago(1), "2026-11-27_14-05-00_pre-deploy", label="pre-deploy"),
    ]
    assert reasons(*held, policy=policy)[0] == "version 1 of the last 1"


@pytest.mark.parametrize(
    ("component", "vault", "reason"),
    [
        ("redis", "local", "weekly full of 2026-11-01, kept 4 weeks"),
        ("redis", "offsite", "weekly full of 2026-11-01, kept 4 weeks"),
        ("code", "local", "weekly full of 2026-11-01, kept 4 weeks"),
    ],
)
def test_members_of_a_weekly_full_are_kept_as_long_as_it(component, vault, reason):
    """Redis, too, which has three days of its own here, and no row at all offsite."""
    newest = nights(component, [6, *([0] if vault == "local" else [])])
    assert reason in reasons(held_of(component, ago(27)), *newest, policy=production(vault, **WHOLE))
    assert reasons(held_of(component, ago(34)), *newest, policy=production(vault, **WHOLE)) == ()


def test_what_is_unchanged_on_a_sunday_is_in_its_weekly_full():
    """A configuration of last year that a full refers to is kept with it, version or not."""
    old = held_of("config", ago(300), sets=["2026-11-08"])
    newer = nights("config", range(10))
    assert reasons(old, *newer) == ("weekly full of 2026-11-08, kept 4 weeks",)


def test_hours_of_a_sunday_are_not_in_the_weekly_full():
    """Logs have hours, and no day's set has them."""
    policy = production(rows={"logs": Keep(1, "days")}, **WHOLE)
    at = night(SUNDAY, 12)
    newest = held_of("logs", ago(0, 5), key_of(ago(0, 5)))
    assert reasons(held_of("logs", at, key_of(at)), newest, policy=policy) == ()


def test_weekly_fulls_and_labelled_sets_can_be_counted():
    """A plan may say versions there, too: the newest proven ones of each asset."""
    policy = production(weekly=Keep(2, "versions"), labels=Keep(1, "versions"), **WHOLE)
    assert table(policy).splitlines()[4:] == [
        "labelled sets        1",
        "logs/archive         0-30",
        "postgresql/dump      0-7 13",
        "redis/rdb            0-3 6 13",
        "storage/archive      0-7 13",
    ]


def test_labelled_sets_have_their_own_limit():
    """Thirty days, whatever the row of the component says; the state before a restore is one, too."""
    newest = nights("redis", [0])
    for label in ("pre-deploy", "pre-restore"):
        kept = held_of("redis", ago(30), f"2026-10-29_02-00-00_{label}", label=label)
        gone = held_of("redis", ago(31), f"2026-10-28_02-00-00_{label}", label=label)
        said = (f"labelled set 2026-10-29_02-00-00_{label}, kept 30 days",)
        assert reasons(kept, gone, *newest) == said
        assert reasons(gone, kept, *newest) == ()


def test_no_limit_is_for_ever():
    """What a row, the weekly or the labelled ones have no limit for is never removed."""
    policy = production(rows={"redis": None}, weekly=None, labels=None, **WHOLE)
    labelled = held_of("postgresql", ago(39), LABELLED, label="pre-deploy")
    held = [*nights("redis", [400, 0]), labelled, *nights("storage", [405, 0])]
    said = list(why(held, policy).values())
    assert said[:3] == [
        ("weekly full of 2025-10-19, and the plan sets no limit",),
        ("the plan sets no limit for redis",),
        (f"labelled set {LABELLED}, and the plan sets no limit", "newest verified postgresql/dump"),
    ]


def test_a_million_days_are_no_limit_either():
    """Some plan will say it."""
    policy = production(rows={"redis": Keep(10**9, "days")}, weekly=Keep(10**9, "weeks"), **WHOLE)
    assert reasons(*nights("redis", [404, 0]), policy=policy) == ("of the last 1000000000 days",)


def test_what_has_no_row_is_not_removed():
    """Nobody gave it a limit: a component that the plan no longer has, or a vault that it was not for."""
    held = nights("redis", [400, 0])
    assert reasons(*held, policy=production("offsite")) == ("the plan has no row for it here",)


def test_reports_of_drills_have_no_limit_unless_the_plan_sets_one():
    """They are labelled, and belong to no labelled set."""
    held = [
        held_of("report", ago(day), f"{TODAY - timedelta(day)}_04-00-00_drill", label="drill")
        for day in (400, 1)
    ]
    assert reasons(*held) == ("the plan sets no limit for assurance",)
    limited = production(rows={**production().rows, "assurance": Keep(100, "days")}, **WHOLE)
    assert reasons(*held, policy=limited) == ()
    assert reasons(held[1], policy=limited) == (
        "of the last 100 days",
        "newest verified assurance/restore_drill",
    )


def test_adopted_artifacts_are_kept_by_their_rows():
    """What the guide's script made is of its day, and no labelled extra."""
    newest = nights("storage", [0])
    adopted = [held_of("storage", ago(day), label="adopted", late=True) for day in (7, 8)]
    assert reasons(adopted[0], *newest) == ("of the last 7 days",)
    assert reasons(adopted[1], *newest) == ()


def test_a_manifest_lives_as_long_as_something_of_its_set():
    """Older seals of the set, too; and with the last of its members it goes."""
    members = [held_of("postgresql", ago(8)), held_of("redis", ago(8))]
    seals = [held_of("manifest", ago(8, 5)), held_of("manifest", ago(8, 7))]
    newest = [*nights("postgresql", [0]), *nights("redis", [0]), *nights("manifest", [0])]
    for day in (7, 8):
        rows = {"postgresql": Keep(day, "days"), "redis": Keep(3, "days")}
        said = why([*members, *seals, *newest], production(rows=rows, **WHOLE))
        expected = ("of the set 2026-11-20",) if day == 8 else ()
        assert [said[one.entry.name] for one in seals] == [expected, expected]


def test_the_manifest_of_a_labelled_set_lives_with_it():
    """Thirty days, as its members."""
    set_id = "2026-10-29_02-00-00_pre-deploy"
    member = held_of("redis", ago(30), set_id, label="pre-deploy")
    manifest = held_of("backup_set/labelled", ago(30), set_id, label="pre-deploy", verified=False)
    newest = nights("redis", [0])
    assert reasons(manifest, member, *newest) == (f"of the set {set_id}",)
    set_id = "2026-10-28_02-00-00_pre-deploy"
    over = [held_of(what, ago(31), set_id, label="pre-deploy") for what in ("backup_set/labelled", "redis")]
    newer = held_of("backup_set/labelled", ago(30), "2026-10-29_02-00-00_pre-deploy", label="pre-deploy")
    assert reasons(*over, newer, *newest) == ()


def test_one_unchanged_artifact_does_not_keep_the_manifests_of_a_year():
    """It keeps those of the sets that other rows keep; so a night that had nothing else is told of."""
    days = [TODAY - timedelta(day) for day in range(300)]
    config = held_of("config", ago(300), sets=[str(day) for day in days])
    said = why([config, *nights("manifest", range(301))])
    kept = {name for name, because in said.items() if because and name.startswith("backup_set")}
    assert len(kept) == 32
    assert min(kept) == "backup_set/manifest_2026-02-01_02-00-00.x"  # of the set that captured it


def test_the_manifest_of_a_full_lives_as_long_as_the_full():
    """Also where all that is left of it is what it found unchanged."""
    policy = production(rows={"config": Keep(1, "versions")}, **WHOLE)
    config = held_of("config", ago(300), sets=[str(TODAY - timedelta(day)) for day in range(100)])
    said = why([config, *nights("weekly", [34, 27, 6]), *nights("manifest", [27, 26, 0])], policy)
    assert [bool(because) for because in said.values()] == [True, False, True, True, False, True, True]


def test_archives_that_an_archive_needs_are_kept():
    """Transitively; and what nothing kept needs goes."""
    full = held_of("storage", ago(40))
    first = held_of("storage", ago(12), needs=[full.entry.name])
    again = held_of("storage", ago(0, 1), needs=[first.entry.name])
    last = held_of("storage", ago(0), needs=[first.entry.name, "storage/of_another_vault.x"])
    itself = Held(again.entry, True, again.sets, again.needs | {again.entry.name})
    other = held_of("storage", ago(41), needs=[full.entry.name])
    held = [other, full, first, itself, last]
    assert list(why(held).values()) == [
        (),
        ("storage/archive of 2026-11-16 needs it",),
        ("storage/archive of 2026-11-28 needs it",),
        ("of the last 7 days",),
        ("of the last 7 days", "newest verified storage/archive"),
    ]


def test_archives_that_need_each_other_come_to_an_end():
    """A ring, which only damage can make, hangs nothing."""
    one, other = (held_of("storage", ago(day)) for day in (40, 41))
    ring = [
        Held(one.entry, True, one.sets, frozenset({other.entry.name, one.entry.name})),
        Held(other.entry, True, other.sets, frozenset({one.entry.name})),
    ]
    assert [bool(said) for said in why([*ring, *nights("storage", [0])]).values()] == [False, False, True]
    assert all(why([*ring, *nights("storage", [0], needs=[one.entry.name])]).values())


def test_pinned_sets_stay_until_their_day_inclusive():
    """With what they found unchanged, their manifest, and what they need."""
    full = held_of("storage", ago(60))
    members = [
        held_of("storage", ago(40), needs=[full.entry.name]),
        held_of("config", ago(70), sets=["2026-10-19"]),
        held_of("manifest", ago(40)),
    ]
    newer = [*nights("storage", [0]), *nights("config", range(10)), *nights("manifest", [0])]
    pins = [Pin("2026-10-19", TODAY, "audit"), Pin("2026-10-19", TODAY - timedelta(1), "over")]
    said = why([full, *members, *newer], pins=pins)
    assert said[full.entry.name] == ("storage/archive of 2026-10-19 needs it",)
    assert said[members[0].entry.name] == ("pinned until 2026-11-28: audit",)
    assert said[members[1].entry.name] == ("pinned until 2026-11-28: audit",)
    assert said[members[2].entry.name][0] == "pinned until 2026-11-28: audit"
    over = why([full, *members, *newer], pins=pins, now=NOW + timedelta(hours=18))
    assert not any(over[one.entry.name] for one in (full, *members))


def test_locked_artifacts_stay_as_long_as_the_lock():
    """The vault would refuse, anyway."""
    newest = nights("redis", [0])
    locked = held_of("redis", ago(10), locked=NOW + timedelta(hours=1))
    assert reasons(locked, *newest) == ("locked by the vault until 2026-11-28 07:00 MSK",)
    assert reasons(held_of("redis", ago(10), locked=NOW), *newest) == ()


def test_what_an_unfinished_deed_holds_stays():
    """With what it needs, as any other that is kept."""
    full = held_of("storage", ago(60))
    one = held_of("storage", ago(40), needs=[full.entry.name])
    undo = Held(one.entry, True, one.sets, one.needs, held_by=("the restore x can still be undone",))
    said = list(why([full, undo, *nights("storage", [0])]).values())
    assert said[:2] == [
        ("storage/archive of 2026-10-19 needs it",),
        ("the restore x can still be undone",),
    ]


def test_the_newest_verified_of_an_asset_stays():
    """However old; and beside it the newest, which was not proven, but may be all there is of that day."""
    policy = production(objectives={}, **WHOLE)
    held = [*nights("redis", [70, 60]), *nights("redis", [50, 40], verified=False)]
    assert list(why(held, policy).values()) == [
        (),
        ("newest verified redis/rdb",),
        (),
        ("newest redis/rdb",),
    ]


def test_the_newest_verified_may_be_a_labelled_one():
    """Only where no other is verified: a state before a deployment is better than nothing."""
    policy = production(objectives={}, **WHOLE)
    labelled = [
        held_of("redis", ago(day), f"{TODAY - timedelta(day)}_02-00-00_x", label="x") for day in (90, 80)
    ]
    unproven = nights("redis", [70], verified=False)
    assert [bool(said) for said in why([*labelled, *unproven], policy).values()] == [False, True, True]
    proven = nights("redis", [100])
    assert [bool(said) for said in why([*proven, *labelled], policy).values()] == [True, False, False]


def test_what_has_no_proven_copy_elsewhere_stays():
    """As long as the other vault is down, this one keeps what was to be there."""
    newest = nights("redis", [0])
    assert reasons(held_of("redis", ago(9), lacks=["offsite"]), *newest) == ("no proven copy in offsite",)
    lacking = held_of("redis", ago(9), lacks=["offsite", "nas"])
    assert reasons(lacking, *newest) == ("no proven copy in nas and offsite",)
    kept = held_of("redis", ago(3), lacks=["offsite"])
    assert reasons(kept, *newest) == ("of the last 3 days",)


def test_a_copy_whose_time_is_over_is_not_waited_for():
    """What a vault would not keep if it had it, it does not lack; nor what it never wanted."""
    full = held_of("storage", ago(34))
    held = [
        full,
        held_of("storage", ago(31)),
        held_of("storage", ago(30), needs=[full.entry.name]),
        *nights("manifest", [31, 30]),
        *nights("redis", [34, 27, 1]),  # fulls, and a night
        *nights("config", range(11)),
        held_of("redis", ago(40), LABELLED, label="pre-deploy"),
        held_of("storage", ago(29), installation="there"),
        held_of("report", ago(1), "2026-11-27_04-00-00_drill", label="drill"),
    ]
    wanted = still_wanted(held, production("offsite"), NOW, installation=HERE)
    assert sorted(wanted - {one.entry.name for one in held[-14:-3]}) == [
        "backup_set/manifest_2026-10-29_02-00-00.x",
        "redis/rdb_2026-11-01_02-00-00.x",
        "storage/archive_2026-10-25_02-00-00.x",
        "storage/archive_2026-10-29_02-00-00.x",
    ]
    assert len(wanted) == 4 + 10  # versions


def test_a_manifest_without_a_copy_stays():
    """As any other artifact."""
    manifest = held_of("manifest", ago(90), lacks=["offsite"])
    assert reasons(manifest, *nights("manifest", [0])) == ("no proven copy in offsite",)


def test_what_another_installation_wrote_is_not_ours_to_remove():
    """It stays, and it counts for nothing: it is no newest, no version, and no reason to refuse."""
    ours = nights("redis", [8, 2, 0])
    theirs = [
        held_of("redis", NOW + timedelta(days=3), installation="there", needs=[ours[0].entry.name]),
        held_of("redis", ago(400), installation="there"),
    ]
    verdict = decide([*ours, *theirs], production(), NOW, installation=HERE)
    assert verdict.refusals == ()
    assert verdict.removed == (ours[0].entry,)
    assert verdict.decisions[0] == Decision(theirs[1].entry, ("of another installation",))
    assert decide(theirs, production(), NOW, installation=HERE).refusals == ()


def test_an_outage_is_no_time_to_delete():
    """With a newest that is too old, nothing of that component goes; of others it does."""
    redis, storage = nights("redis", [9, 3]), nights("storage", [9, 0])
    said = why([*redis, *storage])
    assert said[redis[0].entry.name] == ("the newest redis is 3 days old: an outage is no time to delete",)
    assert said[storage[0].entry.name] == ()
    assert reasons(held_of("redis", ago(9)), held_of("redis", ago(1, 3))) != ()
    assert reasons(held_of("redis", ago(9)), held_of("redis", ago(1, 4))) == ()


def test_a_labelled_artifact_ends_no_outage():
    """Nor does one that was filed late under a recent day end it: its moment is what counts."""
    outage = nights("redis", [9, 3])
    labelled = held_of("redis", ago(0), "2026-11-28_02-00-00_x", label="x")
    assert reasons(*outage, labelled) != ()
    only = [held_of("redis", ago(40 - day), f"{day}_x", label="x") for day in (0, 1)]
    assert reasons(*only) == ("no redis but labelled ones: an outage is no time to delete",)


def test_what_is_found_unchanged_is_not_old():
    """The configuration of last year that was looked at this night is no outage."""
    policy = production(rows={"config": Keep(1, "versions")}, **WHOLE)
    old, newest = held_of("config", ago(200)), ago(100)
    assert reasons(old, held_of("config", newest, sets=["2026-11-28"]), policy=policy) == ()
    (said,) = reasons(old, held_of("config", newest, sets=["2026-11-26"]), policy=policy)
    assert said == "the newest config is 2 days old: an outage is no time to delete"


def test_what_comes_with_weekly_fulls_only_may_be_a_week_older():
    """Redis offsite: six days after a full is no outage, and two weeks after it is."""
    policy = production("offsite", **WHOLE)
    assert reasons(*nights("redis", [34, 6]), policy=policy) == ()
    (said,) = reasons(*nights("redis", [41, 13]), policy=policy)
    assert said == "the newest redis is 13 days old: an outage is no time to delete"
    bare = Policy("nas", policy.zone, {}, labels=Keep(1, "days"), objectives=policy.objectives, share=1)
    labelled = held_of("redis", ago(39), LABELLED, label="pre-deploy")
    assert reasons(labelled, *nights("redis", [300]), policy=bare) == ()


def test_a_clock_that_is_behind_removes_nothing():
    """One artifact of the future is enough; five minutes are none."""
    held = nights("redis", range(7))
    ahead = held_of("redis", NOW + timedelta(minutes=6))
    (said,) = refused([*held, ahead])
    assert said == (
        "redis/rdb_2026-11-28_06-06-00.x was captured at 2026-11-28 03:06 UTC, and it is 2026-11-28 03:00 UTC"
        " now: set the clock right; if it is right, take away what was captured while it was wrong"
    )
    assert refused([*held, held_of("redis", NOW + timedelta(minutes=5))]) == ()
    assert len(refused([*held, held_of("redis", NOW + timedelta(days=400))])) == 1


def test_a_clock_that_is_far_ahead_removes_nothing():
    """Or nothing was captured for a week, and longer than any objective: no time to delete, either."""
    held = nights("storage", [*range(40), 0])
    policy = production(objectives={"storage": timedelta(days=9)}, **WHOLE)
    (said,) = refused(held, policy, now=NOW + timedelta(days=10))
    assert said == (
        "nothing was captured from 2026-11-27 23:00 UTC until now: set the clock right, or see why; what"
        " there is stays until there are captures of 7 days"
    )
    assert refused(held, policy, now=NOW + timedelta(days=8)) == ()
    assert refused(held, production(objectives={}, **WHOLE), now=NOW + timedelta(days=7)) != ()


def test_what_a_clock_that_is_far_ahead_captured_changes_nothing():
    """Until captures of a week are there: then it was right, or there are as many by it."""
    policy = production(objectives={}, **WHOLE)
    held = nights("storage", range(50, 90))
    for days, refusing in (([0], True), (range(7), True), (range(9), False)):
        said = refused([*held, *nights("storage", days)], policy)
        assert bool(said) == refusing
    (said,) = refused([*held, *nights("storage", [0])], policy)
    assert said.startswith("nothing was captured from 2026-10-08 23:00 UTC until 2026-11-27 23:00 UTC: ")


def test_what_was_found_unchanged_is_a_sign_of_life():
    """A vault that has configurations alone gets nothing new for months, and may be pruned all the same."""
    policy = production(rows={"config": Keep(1, "versions")}, objectives={}, **WHOLE)
    days = [str(TODAY - timedelta(day)) for day in range(100)]
    held = [held_of("config", ago(200)), held_of("config", ago(100), sets=days)]
    assert refused(held, policy) == ()
    assert refused([held[0], held_of("config", ago(100), sets=days[8:])], policy) != ()


def test_too_much_at_once_removes_nothing():
    """A share of the vault's own artifacts at most; a larger one is the operator's to allow."""
    held = nights("redis", [0, 5, 10])
    (said,) = refused(held)
    assert said == (
        "2 of 3 artifacts would be removed at once, more than 50%: look at the clock and the plan;"
        " if it is meant, allow a larger share for once"
    )
    assert refused(held, production(share=0.67)) == ()
    assert refused(nights("redis", [0, 5, 10, 1])) == ()
    assert refused([*held, *nights("redis", [90, 91], installation="there")]) != ()


def test_an_empty_vault_has_nothing_to_say():
    """No decision, and no refusal."""
    verdict = decide([], production(), NOW, installation=HERE)
    assert (verdict.decisions, verdict.refusals, verdict.removed) == ((), (), ())


def test_every_reason_is_told_in_one_order():
    """Row, weekly, label, pin, lock, newest: an operator sees what would have to end for it to go."""
    sunday = night(SUNDAY)
    one = held_of("postgresql", sunday, locked=NOW + timedelta(days=1), lacks=["offsite"])
    pins = [Pin("2026-11-22", date(2027, 1, 31), "audit"), Pin("2026-11-22", date(2026, 12, 1), "move")]
    assert reasons(one, pins=pins) == (
        "of the last 7 days",
        "weekly full of 2026-11-22, kept 4 weeks",
        "pinned until 2026-12-01: move",
        "pinned until 2027-01-31: audit",
        "locked by the vault until 2026-11-29 06:00 MSK",
        "newest verified postgresql/dump",
    )


def test_decisions_are_oldest_first():
    """By the moment of the capture, then by name."""
    held = [*nights("storage", [3, 1, 2]), *nights("redis", [2])]
    ordered = decide(held, production(), NOW, installation=HERE).decisions
    assert [one.entry.name[:24] for one in ordered] == [
        "storage/archive_2026-11-25"[:24],
        "redis/rdb_2026-11-26_02-00-00.x"[:24],
        "storage/archive_2026-11-26"[:24],
        "storage/archive_2026-11-27"[:24],
    ]
    assert all(one.entry.captured_at.tzinfo is UTC for one in ordered)
