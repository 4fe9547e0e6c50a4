"""Whole sets into a vault away from the host, without Dagster."""

import pytest

from bookreader_backup_assets.actions.back_up import back_up_labelled, back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicate_set import (
    chosen,
    compare_set,
    lacking,
    place_of,
    replicate_set,
    replicated_assets,
)
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST
from bookreader_backup_assets.core.errors import RefusedError


@pytest.fixture
def captured(with_nas, installation):
    """An installation with a NAS, today's set, and a labelled one of two components."""
    assert back_up_today(
        installation, ("redis/rdb", "config/archive"), lambda error: pytest.fail(error.message)
    )
    return installation


@pytest.fixture
def labelled(captured):
    """The id of that labelled set."""
    set_id, fine = back_up_labelled(captured, "pre-deploy", ("redis/rdb", "config/archive"), pytest.fail)
    assert fine
    return set_id


def there(installation):
    """What the NAS has."""
    return Catalog(installation.vault_outside("nas").vault(installation.id))


def test_an_asset_of_a_day_comes_alone(captured):
    """Nothing but what was asked for is sent, and the day's manifest is one of those things."""
    copy = replicate_set(captured, MANIFEST, captured.today(), "nas")
    assert [entry.asset for entry in there(captured).entries()] == [MANIFEST]
    assert copy.outcome.passed
    assert copy.here


def test_a_labelled_set_comes_whole(captured, labelled):
    """Its members first; of the day nothing."""
    copy = replicate_set(captured, LABELLED, labelled, "nas")
    assert {entry.asset for entry in there(captured).entries()} == {"redis/rdb", "config/archive", LABELLED}
    assert copy.all[-1].entry.asset == LABELLED
    assert copy.outcome.measured["artifacts"] == 3
    assert compare_set(captured, LABELLED, labelled, "nas")[1].passed


def test_what_lacks_is_told_by_its_place(captured, labelled):
    """Each artifact of the day by itself, the labelled set once; after that, nothing."""
    places = lacking(captured, Catalog(captured.vault), "nas")
    today = captured.today()
    assert set(places) == {
        ("redis/rdb", today), ("config/archive", today), (MANIFEST, today), (LABELLED, labelled),
    }  # fmt: skip
    for asset, set_id in places:
        replicate_set(captured, asset, set_id, "nas")
    assert lacking(captured, Catalog(captured.vault), "nas") == {}


def test_what_is_nowhere_is_refused(captured):
    """With what can be done."""
    with pytest.raises(RefusedError, match="neither here nor in nas") as caught:
        replicate_set(captured, "redis/rdb", "2020-01-01", "nas")
    assert "--vault nas" in caught.value.hint
    assert not compare_set(captured, "redis/rdb", "2020-01-01", "nas")[1].passed


def test_places(captured):
    """Where an artifact stands, here and there; drills are of no set."""
    assert place_of(captured, "local", "redis/rdb", "2026-06-14") == ("redis/rdb", "2026-06-14")
    labelled = "2026-06-14_12-00-00_pre-deploy"
    assert place_of(captured, "nas", "redis/rdb", labelled) == (LABELLED, labelled)
    assert place_of(captured, "local", "assurance/restore_drill", labelled)[0] == "assurance/restore_drill"
    assert replicated_assets(captured, "local") == ()
    assert MANIFEST in replicated_assets(captured, "nas")
    assert chosen(Catalog(captured.vault), "redis/rdb", "2020-01-01") is None
