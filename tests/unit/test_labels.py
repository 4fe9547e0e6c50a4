"""Labelled sets: opened once each, sealed with what was asked for, and no part of any day."""

import json
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.back_up import back_up_labelled, unproven
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.labels import labelled_sets, open_set, opened
from bookreader_backup_assets.actions.report import ages
from bookreader_backup_assets.actions.restore_source import choose
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST, seal
from bookreader_backup_assets.actions.system_plan import choose_parts
from bookreader_backup_assets.assembly import objectives
from bookreader_backup_assets.core.check import failed, passed
from bookreader_backup_assets.core.errors import DamagedError, NotFoundError, RefusedError
from bookreader_backup_assets.plan import load_plan

ASSETS = ("redis/rdb", "config/archive")


def manifest(installation, set_id, asset=LABELLED):
    """The manifest of a set."""
    entry = Catalog(installation.vault).of_day(asset, set_id)
    return json.loads(b"".join(installation.vault.open(entry.name)))


def test_a_labelled_set_is_whole_at_once(installation, clock):
    """Captured, verified and sealed under its own id, its label in every name, and listed as opened."""
    clock.set("2026-06-10T12:05:00+00:00")
    set_id, fine = back_up_labelled(installation, "pre-deploy", ASSETS, pytest.fail)
    assert (set_id, fine) == ("2026-06-10_12-05-00_pre-deploy", True)
    entries = Catalog(installation.vault).entries(set_id=set_id)
    assert {entry.asset for entry in entries} == {*ASSETS, LABELLED}
    assert all("_pre-deploy." in entry.name and entry.label == "pre-deploy" for entry in entries)
    said = manifest(installation, set_id)
    assert [one["asset"] for one in said["members"]] == list(ASSETS)
    assert said["missing"] == []
    assert labelled_sets(installation) == [set_id]
    assert Catalog(installation.vault).strays() == {}


def test_two_of_one_second_are_two(installation, clock):
    """The second has a number; each has its own artifacts, and its own manifest."""
    clock.set("2026-06-10T12:05:00+00:00")
    ids = [back_up_labelled(installation, "pre-deploy", ("redis/rdb",), pytest.fail)[0] for _ in range(2)]
    assert ids == ["2026-06-10_12-05-00_pre-deploy", "2026-06-10_12-05-00_2_pre-deploy"]
    names = [manifest(installation, one)["members"][0]["name"] for one in ids]
    assert len(set(names)) == 2


def test_it_is_no_part_of_the_day(installation):
    """The day's manifest goes without it, and `latest` takes nothing of it; its id does."""
    set_id, _ = back_up_labelled(installation, "pre-deploy", ASSETS, pytest.fail)
    day = installation.today()
    seal(installation, day)
    assert manifest(installation, day, MANIFEST)["members"] == []
    catalog = Catalog(installation.vault)
    assert catalog.of_day("redis/rdb", day) is None
    with pytest.raises(RefusedError, match="has no redis/rdb"):
        choose(catalog, "redis/rdb", "latest")
    assert choose(catalog, "redis/rdb", set_id).set == set_id


def test_what_fails_is_named_and_the_rest_is_there(installation, tmp_path):
    """One that cannot be captured stops no other, and the manifest says why it is missing."""
    broken = replace(installation.component("storage/archive"), path=str(tmp_path / "nowhere"))
    installation = replace(installation, components={**installation.components, "storage/archive": broken})
    complaints = []
    set_id, fine = back_up_labelled(
        installation, "pre-deploy", ("redis/rdb", "storage/archive"), complaints.append
    )
    assert not fine
    (complaint,) = complaints
    assert "nowhere" in complaint.message
    said = manifest(installation, set_id)
    assert [one["asset"] for one in said["members"]] == ["redis/rdb"]
    ((asset, why),) = [(one["asset"], one["why"]) for one in said["missing"]]
    assert asset == "storage/archive"
    assert "nowhere" in why


def test_a_whole_system_comes_from_it(installation):
    """A restore of the system from a labelled set knows its manifest, and with it the images it ran on."""
    set_id, _ = back_up_labelled(installation, "pre-deploy", ("config/archive",), pytest.fail)
    choice = choose_parts(installation, set_id, without=("postgresql", "redis", "storage"))
    assert (choice.manifest.asset, choice.manifest.set) == (LABELLED, set_id)


def test_what_has_hours_and_weeks_is_due_when_they_are_over(installation, settings, clock):
    """No logs an hour after the first backup are nothing wrong; five hours after they are."""
    clock.set("2026-06-10T12:05:00+00:00")
    back_up_labelled(installation, "pre-deploy", ("redis/rdb",), pytest.fail)
    wanted = objectives(load_plan(settings.plan))

    def found(hours):
        clock.set("2026-06-10T12:05:00+00:00")
        clock.forward(hours=hours)
        report = {age.asset: age for age in ages(Catalog(installation.vault), wanted, clock())}
        return {one: (report[one].due, report[one].good) for one in ("logs/archive", "code/bundle")}

    assert found(1) == {"logs/archive": (False, True), "code/bundle": (False, True)}
    assert found(5) == {"logs/archive": (True, False), "code/bundle": (False, True)}
    assert found(200)["code/bundle"] == (True, False)


@pytest.mark.parametrize("label", ["late", "pre-restore", "adopted"])
def test_labels_that_this_program_gives_are_refused(installation, label):
    """What they say would not be true."""
    with pytest.raises(RefusedError, match="is given by this program itself"):
        open_set(installation, label, ASSETS)
    assert labelled_sets(installation) == []


def test_a_crash_leaves_a_set_that_says_what_it_lacks(installation):
    """Opened, and then nothing: it can still be sealed, and names every asset."""
    set_id = open_set(installation, "pre-deploy", ASSETS)
    capture(installation, installation.component("redis/rdb"), set_id, label="pre-deploy")
    assert opened(installation, set_id).assets == ASSETS
    seal(installation, set_id, LABELLED)
    assert {one["asset"] for one in manifest(installation, set_id)["missing"]} == set(ASSETS), "unverified"


def test_a_set_that_was_never_opened_cannot_be_sealed(installation):
    """Nobody knows what it was to have."""
    with pytest.raises(NotFoundError):
        seal(installation, "2026-06-10_12-05-00_pre-deploy", LABELLED)


def test_a_damaged_opening_is_said(installation):
    """It names the file."""
    name = "sets/2026-06-10_12-05-00_x.json"
    installation.vault.put(name, [b'{"format_version": 1, "set": "2026-06-10_12-05-00_x"}'])
    with pytest.raises(DamagedError, match=r"sets/2026-06-10_12-05-00_x\.json opens no set"):
        opened(installation, "2026-06-10_12-05-00_x")


def test_a_gap_in_the_logs_is_named_and_holds_up_nothing():
    """Of a labelled set: what was rotated away cannot be had again. Of an hour it counts, as all else."""
    gap, damage = failed("no_gap", "rotated away"), failed("sha256", "other bytes")
    assert unproven([gap, passed("readable", "")], "pre-deploy") == []
    assert unproven([gap], None) == [gap]
    assert unproven([gap, damage], "pre-deploy") == [damage]


def test_one_that_was_stopped_says_what_it_lacks(installation, monkeypatch):
    """Ctrl-C in the middle: the set is sealed as far as it came, and names the rest."""

    def stop(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(installation.component("config/archive")), "capture", stop)
    with pytest.raises(KeyboardInterrupt):
        back_up_labelled(installation, "pre-deploy", ASSETS, pytest.fail)
    (set_id,) = labelled_sets(installation)
    missing = {one["asset"]: one["why"] for one in manifest(installation, set_id)["missing"]}
    assert missing["config/archive"] == "it was stopped"
    assert "never made" in missing["redis/rdb"]
