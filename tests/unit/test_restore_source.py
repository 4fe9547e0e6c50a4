"""Which artifact a restore takes: what is proven, before what is new."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.report import ages
from bookreader_backup_assets.actions.restore import plan
from bookreader_backup_assets.actions.restore_source import (
    choose,
    newest_set,
    passed_over,
    set_passed_over,
)
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.artifact import Proof
from bookreader_backup_assets.core.check import passed
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.core.manifest import UNCHANGED

ASSET = "config/archive"
DAY = "2026-06-10"


@pytest.fixture
def damaged(installation, clock):
    """Two captures of one day, of which the second is damaged and has failed; returns both."""
    component = installation.component(ASSET)
    found = []
    for hour in (3, 9):
        clock.set(f"{DAY}T0{hour}:15:00+00:00")
        found.append(capture(installation, component, DAY, label="adopted", late=True)[0])
        if hour == 9:
            path = installation.vault.local_path(found[-1].name)
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        verify(installation, component, found[-1])
    return found


def test_of_a_day_the_verified_one_is_taken(installation, damaged):
    """As its manifest does; and the plan of the restore says which one was passed over, and why."""
    good, bad = damaged
    catalog = Catalog(installation.vault)
    assert choose(catalog, ASSET, DAY) == good
    assert choose(catalog, ASSET, "latest") == good
    assert newest_set(catalog, [ASSET]) == DAY
    said = passed_over(catalog, ASSET, DAY)
    assert bad.name in said
    assert f"`{DAY}` is {good.name}" in said


def test_where_none_is_verified_it_is_refused(installation, damaged):
    """What has failed its checks is never restored."""
    good, _ = damaged
    path = installation.vault.local_path(good.name)
    path.chmod(0o600)
    path.write_bytes(b"nothing")
    verify(installation, installation.component(ASSET), good)
    with pytest.raises(DamagedError, match="has failed its checks"):
        choose(Catalog(installation.vault), ASSET, DAY)


FUTURE = "2027-01-03"
HOURS = {ASSET: timedelta(hours=26)}


@pytest.fixture
def ahead(installation, clock):
    """A verified capture of now, and one that was made while the clock was five weeks ahead; returns both."""
    component = installation.component(ASSET)
    made = []
    for day in (installation.today(), FUTURE):
        clock.at = None if day != FUTURE else datetime.fromisoformat(f"{FUTURE}T03:15:00+00:00")
        entry, _ = capture(installation, component, day, label="adopted", late=True)
        if day == FUTURE:  # the component itself looks at the clock on the wall
            installation.vault.delete(entry.entry_name)
            entry = replace(entry, captured_at=clock())
            installation.vault.put(entry.entry_name, [entry.to_json()])
        verify(installation, component, entry)
        made.append(entry)
    clock.at = None
    return made


def test_what_a_wrong_clock_made_is_passed_over_and_named(installation, ahead):
    """A capture of the future is the newest to nobody: not to a restore of `latest`, not to `status`."""
    good, wrong = ahead
    catalog = Catalog(installation.vault).at(installation.now())
    assert choose(catalog, ASSET, "latest") == good
    said = f"{wrong.name}: captured in the future (2027-01-03 03:15 UTC): the clock was wrong"
    assert passed_over(catalog, ASSET).startswith(said)
    assert passed_over(catalog, ASSET).endswith(f"`bookreader-backup list {FUTURE}`")
    (age,) = ages(Catalog(installation.vault), HOURS, installation.now())
    assert (age.newest, age.good) == (good, True)
    assert newest_set(catalog, [ASSET]) == good.set
    assert set_passed_over(catalog, [ASSET], good.set).startswith(said)
    planned = plan(installation, "config")
    assert (planned.artifact, planned.preview.notes[0].startswith(said)) == (good.name, True)


def test_what_a_wrong_clock_made_can_be_named(installation, ahead):
    """By its id; and where it is all there is: then this clock may be the wrong one, and that is said."""
    good, wrong = ahead
    catalog = Catalog(installation.vault).at(installation.now())
    assert choose(catalog, ASSET, FUTURE) == wrong
    assert plan(installation, "config", FUTURE).artifact == wrong.name
    installation.vault.delete(good.entry_name)
    planned = plan(installation, "config")
    assert planned.artifact == wrong.name
    assert f"{wrong.name}: captured in the future" in planned.preview.notes[0]
    assert "the clock was wrong, or is" in planned.preview.notes[0]
    assert newest_set(Catalog(installation.vault).at(installation.now()), [ASSET]) == FUTURE
    (age,) = ages(catalog, HOURS, installation.now())
    assert age.good, "of a reading from before the other was gone"
    assert not ages(Catalog(installation.vault), HOURS, installation.now())[0].good


def test_five_minutes_are_none(installation, ahead, clock):
    """Clocks differ; and what was ahead is the newest when its time has come."""
    _, wrong = ahead
    for minutes, taken in ((4, True), (6, False), (-60, True)):
        clock.at = wrong.captured_at - timedelta(minutes=minutes)
        catalog = Catalog(installation.vault).at(clock())
        assert (choose(catalog, ASSET, "latest") == wrong) is taken


def test_what_is_found_unchanged_is_of_that_day(installation, ahead):
    """Looked at with the right clock and found to be what the source holds, it counts from then on."""
    _, wrong = ahead
    day = installation.today()
    looked = (passed(UNCHANGED, "the source still equals it", set=day),)
    installation.keep(Proof(installation.id, wrong.name, wrong.sha256, installation.now(), looked))
    catalog = Catalog(installation.vault).at(installation.now())
    assert choose(catalog, ASSET, "latest") == wrong
    (age,) = ages(catalog, HOURS, datetime.now(UTC))
    assert age.good
    assert age.age < timedelta(minutes=5)
    assert passed_over(catalog, ASSET) == ""
