"""Weekly fulls, when the plan has another day for them, or none: what was sealed as one is kept as one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.locks import locks
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.prune import plan_prune, prune
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.core.policy import Keep
from bookreader_backup_assets.vaults.base import Terms
from bookreader_backup_assets.vaults.s3_place import Bucket
from tests.fixtures.filled import copy, fill, make, night
from tests.fixtures.held import production

NOW = datetime(2026, 3, 20, 6, tzinfo=UTC)
FULLS = ("2026-03-01", "2026-03-08")
WHAT = ("postgresql", "redis", "storage")


@pytest.fixture
def clock(clock):
    """Friday, 09:00 in Moscow."""
    clock.at = NOW
    return clock


@pytest.fixture
def made(tmp_path, clock, nas):
    """Twenty nights, of which the Sundays were sealed as weekly fulls; the fulls are on the NAS, too."""
    made = make(tmp_path, clock, nas=nas)
    outside = made.outside["nas"]
    policy = replace(outside.policy, rows={}, weekly=Keep(12, "weeks"))
    terms = {"weekly": Terms()}
    made = replace(made, outside={"nas": Outside(outside.place, policy, terms)})
    for days_ago in range(20):
        at = night(days_ago, NOW)
        for what in (*WHAT, *(("config", "code") if days_ago == 0 else ())):
            fill(made.vault, what, at)
        fill(made.vault, "manifest", at + timedelta(hours=1))
        if f"{at + timedelta(hours=3):%Y-%m-%d}" in FULLS:
            fill(made.vault, "weekly", at + timedelta(hours=1))
    fill(made.vault, "logs", night(0, NOW, 8))
    return made


def changed(made, full_on, weekly):
    """Return the installation under a plan that has its fulls on other days, kept so long."""

    def plan(policy):
        return replace(policy, full_on=full_on, weekly=weekly)

    outside = {n: replace(one, policy=plan(one.policy)) for n, one in made.outside.items()}
    if weekly is None:
        outside = {name: replace(one, terms={}) for name, one in outside.items()}
    return replace(made, policy=plan(made.policy), outside=outside)


def members(made, name="local"):
    """Return why the members of the old fulls stay in a vault."""
    decisions = plan_prune(made, name).verdict.decisions
    return {
        (one.entry.component, one.entry.set): one.because
        for one in decisions
        if one.entry.set in FULLS and one.entry.component in WHAT
    }


WEDNESDAYS = (lambda day: day.weekday() == 2, Keep(4, "weeks"))
NONE = (lambda _day: False, None)


def test_another_weekday_takes_nothing_from_the_old_fulls(made):
    """They stay for as long as a full does, member by member, here and on the NAS."""
    for entry in Catalog(made.vault).entries():
        if entry.set in FULLS and entry.artifact != "manifest":
            copy(made, entry)
    before = {name: members(made, name) for name in ("local", "nas")}
    assert len(before["local"]) == len(before["nas"]) == 6
    later = changed(made, *WEDNESDAYS)
    assert members(later) == before["local"]
    assert all("weekly full of" in because[0] for because in members(later, "nas").values())
    prune(later, "local", share=1)
    left = {(entry.component, entry.set) for entry in Catalog(made.vault).entries()}
    assert before["local"].keys() <= left
    assert {("backup_set", full) for full in FULLS} <= left


def test_without_a_row_for_them_they_have_no_limit(made, clock):
    """Nobody says when they may go; so they stay, and the reason says why."""
    later = changed(made, *NONE)
    for because in members(later).values():
        assert because[0].startswith("weekly full of 2026-03-0")
        assert because[0].endswith("and the plan sets no limit")
    for entry in Catalog(made.vault).entries():
        if entry.set in FULLS:
            copy(made, entry)
    assert all("weekly full" in because[0] for because in members(later, "nas").values())


def test_when_their_time_is_over_they_go(made):
    """What was sealed as a full is kept as one, and not for longer."""
    later = changed(made, lambda day: day.weekday() == 2, Keep(1, "weeks"))
    assert set(members(later).values()) == {()}


def test_what_is_not_copied_yet_is_lacking(made):
    """The NAS wants the manifests of the old fulls still; they are waited for, and not removed here."""
    later = changed(made, *WEDNESDAYS)
    catalog = Catalog(later.vault)
    sealed = {entry.name for entry in catalog.entries(asset="backup_set/weekly")}
    rows = {"postgresql": Keep(2, "days")}
    outside = later.outside["nas"]
    policy = replace(outside.policy, rows=rows)
    later = replace(
        later,
        policy=replace(later.policy, weekly=Keep(1, "weeks")),
        outside={"nas": replace(outside, policy=policy, terms={"weekly": Terms(), "postgresql": Terms()})},
    )
    found = waiting(later, catalog, "nas")
    assert {entry.set for entry in found if entry.component == "postgresql"} >= set(FULLS)
    assert sealed <= {entry.name for entry in found}
    because = members(later)
    for full in FULLS:
        assert because["postgresql", full] == ("no proven copy in nas",)


def test_locks_of_old_fulls_are_renewed(tmp_path, clock, locking_bucket):
    """Their members are locked as a full is, also those that have no row of their own offsite."""
    clock.at = datetime.now(UTC)
    policy = replace(production("offsite"), rows={}, full_on=lambda _day: False)
    terms = {"weekly": Terms(lock_days=3)}
    made = replace(make(tmp_path, clock), outside={"offsite": Outside(Bucket(locking_bucket), policy, terms)})
    vault = made.outside["offsite"].vault(made.id)
    dump = fill(vault, "postgresql", clock.at - timedelta(days=5))
    full = fill(vault, "weekly", clock.at - timedelta(days=5))
    assert {lock.entry.name for lock in locks(made)} == {dump.name, full.name}
