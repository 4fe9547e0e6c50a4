"""What holds of retention whatever a vault holds, whatever the plan says, and whatever the clock does."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.core.hour import key_of
from bookreader_backup_assets.core.retention import Held, Keep, Pin, Policy, decide
from tests.fixtures.held import ASSETS, HERE, entry_of, sunday

ZONES = [ZoneInfo(name) for name in ("Europe/Moscow", "Europe/Berlin", "America/Havana", "Pacific/Apia")]
MOMENTS = [
    datetime(2028, 3, 1, 1, 30, tzinfo=UTC),  # after a leap day
    datetime(2027, 3, 28, 2, 30, tzinfo=UTC),  # after the clocks of Berlin went forward
    datetime(2027, 10, 31, 0, 30, tzinfo=UTC),  # between its two hours from two to three
    datetime(2027, 1, 1, 12, tzinfo=UTC),
]
COUNTS = st.integers(1, 12)
DATED = st.builds(Keep, COUNTS, st.sampled_from(["days", "weeks"]))
KEEPS = st.one_of(st.none(), DATED, st.builds(Keep, COUNTS, st.just("versions")))
steady = settings(max_examples=80, deadline=None)  # a busy machine is no bug
COMPONENTS = ["postgresql", "redis", "storage", "config", "logs", "assurance"]


@st.composite
def policies(draw, keeps=KEEPS):
    """Any plan, for any vault."""
    hours = st.integers(1, 2000).map(lambda hours: timedelta(hours=hours))
    return Policy(
        "local",
        draw(st.sampled_from(ZONES)),
        rows=draw(st.dictionaries(st.sampled_from(COMPONENTS), keeps)),
        weekly=draw(keeps),
        labels=draw(keeps),
        full_on=draw(st.sampled_from([sunday, lambda _: False])),
        objectives=draw(st.dictionaries(st.sampled_from(COMPONENTS), hours, max_size=2)),
        share=draw(st.sampled_from([0.1, 0.5, 1.0])),
    )


@st.composite
def vaults(draw):
    """A moment, and anything that a vault may hold then: the ages in hours, no two in one second."""
    now = draw(st.sampled_from(MOMENTS))
    zone = draw(st.sampled_from(ZONES))
    held: list[Held] = []
    for number, hours in enumerate(draw(st.lists(st.integers(0, 24 * 100), max_size=25))):
        what = draw(st.sampled_from(sorted(ASSETS)))
        at = now - timedelta(hours=hours, seconds=number)
        label = draw(st.sampled_from([None, None, None, "pre-deploy", "late"]))
        label = "drill" if what == "report" else label
        local = at.astimezone(zone)
        set_id = f"{local:%Y-%m-%d_%H-%M-%S}_{label}" if label not in (None, "late") else None
        set_id = key_of(at) if what == "logs" and label is None else set_id
        days = draw(st.lists(st.integers(0, 30), max_size=2)) if label is None and what != "logs" else []
        later = {str((local + timedelta(day)).date()) for day in days if local + timedelta(day) <= now}
        installation = draw(st.sampled_from([HERE, HERE, HERE, "there"]))
        entry = entry_of(
            what, at, set_id, zone=zone, label=label, late=label == "late", installation=installation
        )
        names = [one.entry.name for one in held]
        needs = draw(st.sets(st.sampled_from(names), max_size=2)) if names else set()
        held.append(
            Held(
                entry,
                draw(st.booleans()),
                frozenset({entry.set, *later}),
                frozenset(needs),
                draw(st.sampled_from([(), (), (), ("offsite",)])),
                draw(st.sampled_from([None, None, None, now + timedelta(days=1), now - timedelta(days=1)])),
            )
        )
    return now, held


@st.composite
def pinnings(draw, held, now):
    """Some of the sets, pinned."""
    ids = sorted({set_id for one in held for set_id in one.sets}) or ["2026-11-22"]
    days = st.integers(-2, 40).map(lambda days: now.date() + timedelta(days))
    return draw(st.lists(st.builds(Pin, st.sampled_from(ids), days, st.just("audit")), max_size=2))


def kept(held, policy, now, pins=()):
    """Return the names of what has a reason to stay."""
    verdict = decide(held, policy, now, installation=HERE, pins=pins)
    return {one.entry.name for one in verdict.decisions if one.kept}


def left(held, policy, now, pins=()):
    """Return what is there after a prune."""
    removed = decide(held, policy, now, installation=HERE, pins=pins).removed
    return [one for one in held if one.entry not in removed]


def longer(keep, by):
    """Return the same limit, later."""
    return keep and Keep(keep.count + by, keep.unit)


@steady
@given(vaults(), policies())
def test_the_newest_verified_of_each_asset_survives(vault, policy):
    """Whatever the plan says: a regular one if any is verified, or else the newest labelled one."""
    now, held = vault
    after = left(held, policy, now)
    own = [one for one in held if one.entry.installation == HERE]
    for asset in {one.entry.asset for one in own if one.verified}:
        proven = [one for one in own if one.verified and one.entry.asset == asset]
        assert max(proven, key=lambda one: (one.entry.regular, one.entry.captured_at)) in after


@steady
@given(vaults(), policies())
def test_nothing_of_another_installation_is_touched_or_asked(vault, policy):
    """All of it is kept, and what is decided of ours is the same without it."""
    now, held = vault
    ours = [one for one in held if one.entry.installation == HERE]
    verdict, alone = (decide(some, policy, now, installation=HERE) for some in (held, ours))
    assert all(one.installation == HERE for one in verdict.removed)
    assert tuple(one for one in verdict.decisions if one.entry.installation == HERE) == alone.decisions
    assert verdict.refusals == alone.refusals


@steady
@given(vaults(), policies(), st.data(), st.integers())
def test_the_order_of_reading_does_not_matter(vault, policy, data, seed):
    """Neither of what is held, nor of pins."""
    now, held = vault
    pins = data.draw(pinnings(held, now))
    shuffled = random.Random(seed).sample(held, len(held))
    assert decide(held, policy, now, installation=HERE, pins=pins) == decide(
        shuffled, policy, now, installation=HERE, pins=pins[::-1]
    )


@steady
@given(vaults(), policies(), st.data())
def test_deciding_again_removes_nothing_more(vault, policy, data):
    """What one prune left, the next one of the same moment leaves, too."""
    now, held = vault
    pins = data.draw(pinnings(held, now))
    after = left(held, policy, now, pins)
    assert left(after, policy, now, pins) == after


@steady
@given(vaults(), policies(), st.data())
def test_a_longer_plan_never_removes_more(vault, policy, data):
    """More days, weeks, versions, pins or patience, or no limit at all: what was kept is kept."""
    now, held = vault
    pins = data.draw(pinnings(held, now))
    longest = data.draw(st.booleans())
    by = data.draw(st.integers(0, 20))

    def grown(keep):
        return None if longest and data.draw(st.booleans()) else longer(keep, by)

    grown_policy = replace(
        policy,
        rows={name: grown(keep) for name, keep in policy.rows.items()},
        weekly=grown(policy.weekly),
        labels=grown(policy.labels),
    )
    assert kept(held, policy, now) <= kept(held, grown_policy, now, pins)


@steady
@given(vaults(), policies())
def test_a_missing_copy_or_a_lock_never_removes_more(vault, policy):
    """What the other vault lacks, and what this one locks, only ever adds."""
    now, held = vault
    lacking = [replace(one, lacks=("offsite",), locked_until=now + timedelta(days=1)) for one in held]
    assert kept(held, policy, now) <= kept(lacking, policy, now)
    assert left(lacking, policy, now) == lacking


@steady
@given(vaults(), policies(DATED))
def test_the_members_of_a_set_live_as_long_as_the_set(vault, policy):
    """Of a weekly full or a labelled set within its time, no member is missing."""
    now, held = vault
    own = [one for one in held if one.entry.installation == HERE]
    there = kept(held, policy, now)
    today = now.astimezone(policy.zone).date()
    for one in own:
        days = [date.fromisoformat(name) for name in one.sets if len(name) == 10]
        full = one.entry.regular and any(
            policy.full_on(day) and (today - day).days <= policy.weekly.days for day in days
        )
        moment = None if one.entry.regular else date.fromisoformat(one.entry.set[:10])
        labelled = moment and (today - moment).days <= policy.labels.days
        if one.entry.component not in ("backup_set", "assurance") and (full or labelled):
            assert one.entry.name in there


@steady
@given(vaults(), policies(), st.data())
def test_what_is_kept_is_kept_whole(vault, policy, data):
    """With what it needs and the manifests of the set that captured it; and a pin keeps all of a set."""
    now, held = vault
    pins = data.draw(pinnings(held, now))
    own = [one for one in held if one.entry.installation == HERE]
    there = kept(held, policy, now, pins)
    today = now.astimezone(policy.zone).date()
    artifacts = [one for one in own if one.entry.component != "backup_set"]
    living = {one.entry.set for one in artifacts if one.entry.name in there}
    for one in own:
        if one.entry.component == "backup_set":
            assert one.entry.set not in living or one.entry.name in there
        elif one.entry.name in there:
            assert one.needs & {other.entry.name for other in artifacts} <= there
        assert one.entry.name in there or not any(pin.set in one.sets and today <= pin.until for pin in pins)


@steady
@given(vaults(), policies())
def test_a_refusal_removes_nothing(vault, policy):
    """And there is one whenever more than the share would go."""
    now, held = vault
    verdict = decide(held, policy, now, installation=HERE)
    own = [one for one in held if one.entry.installation == HERE]
    gone = [one for one in verdict.decisions if not one.kept]
    assert verdict.removed == (() if verdict.refusals else tuple(one.entry for one in gone))
    assert len(verdict.removed) <= policy.share * len(own)
    assert not any(one.captured_at > now + timedelta(minutes=5) for one in verdict.removed)


@steady
@given(vaults(), policies(), st.integers(6, 1000))
def test_a_clock_that_is_behind_removes_nothing(vault, policy, minutes):
    """As soon as anything of ours is from the future."""
    held = vault[1]
    own = [one.entry.captured_at for one in held if one.entry.installation == HERE]
    if own:
        assert left(held, policy, max(own) - timedelta(minutes=minutes)) == held


@steady
@given(
    st.sampled_from([*ZONES, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/Sao_Paulo")]),
    st.integers(0, 20 * 365 * 24).map(
        lambda hours: datetime(2011, 6, 1, tzinfo=UTC) + timedelta(hours=hours)
    ),
    DATED,
)
def test_days_are_counted_in_the_calendar(zone, now, keep):
    """In nights of 23, 24 and 25 hours, in leap years, and where a day was left out, by the date alone."""
    held = [
        Held(entry, True, frozenset({entry.set}))
        for day in range(100)
        for entry in [entry_of("redis", now - timedelta(hours=24 * day), zone=zone)]
    ]
    verdict = decide(held, Policy("local", zone, {"redis": keep}), now, installation=HERE)
    first = now.astimezone(zone).date() - timedelta(keep.count * (7 if keep.unit == "weeks" else 1))
    assert {one.entry.set for one in verdict.decisions if one.kept} == {
        one.entry.set for one in held if date.fromisoformat(one.entry.set) >= first
    }


@pytest.mark.parametrize(
    ("now", "zone", "oldest"),
    [
        ("2028-03-05T10:00Z", "Europe/Moscow", "2028-02-27"),  # over February 29th
        ("2027-03-05T10:00Z", "Europe/Moscow", "2027-02-26"),
        ("2027-03-29T00:30Z", "Europe/Berlin", "2027-03-22"),  # the day before had 23 hours
        ("2027-11-01T00:30Z", "Europe/Berlin", "2027-10-25"),  # and here 25
        ("2012-01-02T10:00Z", "Pacific/Apia", "2011-12-27"),  # which had no December 30th
    ],
)
def test_a_week_in_the_calendar(now, zone, oldest):
    """The night of the same weekday a week ago is the oldest that seven days keep."""
    zone, now = ZoneInfo(zone), datetime.fromisoformat(now)
    held = [
        Held(entry, True, frozenset({entry.set}))
        for day in range(30)
        for entry in [entry_of("redis", now - timedelta(days=day), zone=zone)]
    ]
    verdict = decide(held, Policy("local", zone, {"redis": Keep(7, "days")}), now, installation=HERE)
    assert min(one.entry.set for one in verdict.decisions if one.kept) == oldest
