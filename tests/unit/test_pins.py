"""Pins: a set stays until a day, in every vault, because somebody said so, and why."""

import dataclasses
import json
from datetime import date

import pytest

from bookreader_backup_assets.actions.pins import FOLDER, pin, pins, standing_pins, unpin
from bookreader_backup_assets.actions.prune import plan_prune
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.filled import fill, make, night

UNTIL = date(2027, 1, 31)


@pytest.fixture
def installation(tmp_path, clock, nas):
    """An installation with a NAS and twenty nights of dumps, at 09:00 in Moscow."""
    clock.set("2026-03-20T06:00:00+00:00")
    made = make(tmp_path, clock, nas=nas)
    for days_ago in range(20):
        fill(made.vault, "postgresql", night(days_ago, clock()))
    return made


def there(installation):
    """Return the NAS's vault of this installation."""
    return installation.outside["nas"].vault(installation.id)


def test_a_pin_is_in_every_vault(installation):
    """It is written once, here and outside, and says who, until when and why."""
    said, missed = pin(installation, "2026-03-02", UNTIL, " the audit ")
    assert missed == ()
    assert [(one.set, one.until, one.because, one.host) for one in standing_pins(installation)] == [
        ("2026-03-02", UNTIL, "the audit", "here")
    ]
    for vault in (installation.vault, there(installation)):
        assert json.loads(b"".join(vault.open(said.name)))["until"] == "2027-01-31"


def test_a_later_pin_replaces_and_one_can_be_taken_back(installation, clock):
    """The newest counts, also one of the same instant, or by a clock that was set back; nothing is erased."""
    pin(installation, "2026-03-02", UNTIL, "first")
    pin(installation, "2026-03-02", date(2026, 4, 1), "second")
    clock.forward(hours=-5)
    pin(installation, "2026-03-02", date(2026, 5, 1), "third")
    assert [one.because for one in standing_pins(installation)] == ["third"]
    unpin(installation, "2026-03-02")
    assert standing_pins(installation) == []
    assert len(list(installation.vault.list(FOLDER))) == 4
    with pytest.raises(RefusedError, match="is not pinned"):
        unpin(installation, "2026-03-02")


def test_it_ends_with_its_day(installation, clock):
    """Through the last day of the plan's timezone, and not a minute longer."""
    pin(installation, "2026-03-02", date(2026, 3, 21), "one day")
    clock.set("2026-03-21T20:59:00+00:00")
    assert standing_pins(installation)
    clock.set("2026-03-21T21:00:00+00:00")
    assert not standing_pins(installation)


@pytest.mark.parametrize(
    ("set_id", "until", "because", "said"),
    [
        ("2026-03-02", date(2026, 3, 20), "x", "is not to come"),
        ("2026-03-02", UNTIL, "  ", "needs a reason"),
        ("2025-03-02", UNTIL, "x", "no set '2025-03-02'"),
    ],
)
def test_what_makes_no_pin(installation, set_id, until, because, said):
    """A day that is not to come, no reason, no such set: refused, and nothing is written."""
    with pytest.raises(RefusedError, match=said):
        pin(installation, set_id, until, because)
    assert list(installation.vault.list(FOLDER)) == []


def test_a_set_can_be_pinned_by_any_of_its_ids(installation):
    """A set that only found something unchanged is one; and so is an hour of logs, colon and all."""
    fill(installation.vault, "config", night(9, installation.now()), unchanged=("2026-03-15", "2026-03-16"))
    fill(installation.vault, "logs", night(9, installation.now()), "2026-03-10-23:00")
    for set_id in ("2026-03-16", "2026-03-10-23:00"):
        pin(installation, set_id, UNTIL, "x")
    assert {one.set for one in standing_pins(installation)} == {"2026-03-16", "2026-03-10-23:00"}


def test_what_is_only_outside_can_be_pinned(installation, clock):
    """A set that the local vault has no more is known by the NAS."""
    fill(there(installation), "postgresql", night(28, clock()))
    assert pin(installation, "2026-02-20", UNTIL, "x")[1] == ()


def test_a_vault_that_was_away_keeps_it_all_the_same(installation, nas, clock):
    """The pin is named as missing there, and every prune of it from here goes by it."""
    fill(there(installation), "postgresql", night(45, clock()), "2026-03-02")
    fill(there(installation), "postgresql", night(46, clock()))
    for days_ago in range(10):
        fill(there(installation), "postgresql", night(days_ago, clock()))
    (nas / MARKER).unlink()
    _, missed = pin(installation, "2026-03-02", UNTIL, "audit")
    assert [error.message for error in missed] == [f"the NAS is not mounted at {nas}: there is no {MARKER}"]
    (nas / MARKER).touch()
    assert list(there(installation).list(FOLDER)) == []
    because = {one.entry.set: one.because for one in plan_prune(installation, "nas").verdict.decisions}
    assert "pinned until 2027-01-31: audit" in because["2026-03-02"]
    assert because["2026-02-02"] == ()


def test_an_unreadable_pin_is_not_passed_over(installation):
    """It may be of any set: nothing is planned, and nothing is removed, until it is seen to."""
    installation.vault.put(f"{FOLDER}2026-03-02_x.json", [b'{"format_version": 1, "set": "2026-03-02"}'])
    with pytest.raises(DamagedError, match="is no pin"):
        pins(installation)
    with pytest.raises(DamagedError, match="is no pin"):
        plan_prune(installation, "local")


def test_pins_of_nobody(installation):
    """An installation that has pinned nothing has no pins, and its fields are its format."""
    assert pins(installation) == []
    said, _ = pin(installation, "2026-03-02", UNTIL, "x")
    stored = json.loads(b"".join(installation.vault.open(said.name)))
    assert set(stored) == {field.name for field in dataclasses.fields(said)}
