"""What comes into a vault with weekly fulls only holds up nothing that comes there each day."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bookreader_backup_assets.actions.drill import _choose
from bookreader_backup_assets.actions.installation import IDENTITY
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.system_plan import choose_parts
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.vaults.base import Terms
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.filled import fill, make, night
from tests.fixtures.held import ASSETS, HERE
from tests.fixtures.installation import Clock

NOW = datetime(2026, 3, 19, 6, tzinfo=UTC)  # a Thursday
SUNDAY, TODAY = "2026-03-15", "2026-03-19"
DAILY = ("postgresql", "storage", "config")


@pytest.fixture
def there(tmp_path):
    """An installation, and a NAS with Sunday's full and a set of each day, without Redis, until today."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / MARKER).touch()
    made = make(tmp_path, Clock(NOW), nas=tmp_path / "mnt")
    nas = made.outside["nas"]
    terms = {row: held for row, held in nas.terms.items() if row != "redis"}
    made = replace(
        made,
        planned=tuple(ASSETS[one] for one in (*DAILY, "redis")),
        outside={"nas": Outside(nas.place, nas.policy, {**terms, "weekly": Terms()})},
    )
    vault = made.outside["nas"].vault(HERE)
    vault.put(IDENTITY, made.vault.open(IDENTITY))
    fill(vault, "redis", night(4, NOW))
    for days_ago in range(5):
        for one in DAILY:
            fill(vault, one, night(days_ago, NOW))
    return made


def test_the_newest_day_is_restored_and_redis_left(there):
    """A system comes back as of last night; Redis, of Sunday, would be four days older, and is left out."""
    choice = choose_parts(replace(there, source_named="nas"), "latest", ())
    assert choice.set == TODAY
    assert set(choice.entries) == set(DAILY)
    assert choice.without == ("redis",)
    assert "redis is left as it is: it comes into nas with weekly fulls only" in choice.passed_over


def test_a_set_that_is_named_is_restored_whole(there):
    """Sunday's has all parts; today's lacks one, and that is said, with the option that leaves it."""
    from_nas = replace(there, source_named="nas")
    assert set(choose_parts(from_nas, SUNDAY, ()).entries) == {*DAILY, "redis"}
    with pytest.raises(RefusedError, match="has no redis/rdb") as refused:
        choose_parts(from_nas, TODAY, ())
    assert "--without redis" in refused.value.hint


def test_on_a_sunday_nothing_is_left_out(there):
    """The weekly full is the newest, and has everything."""
    fill(there.outside["nas"].vault(HERE), "redis", night(0, NOW))
    choice = choose_parts(replace(there, source_named="nas"), "latest", ())
    assert (choice.set, choice.without, choice.passed_over) == (TODAY, (), "")
    assert set(choice.entries) == {*DAILY, "redis"}


def test_a_drill_is_of_the_newest_day_too(there):
    """It says what it left out; a drill of Redis itself takes Sunday's."""
    catalog = replace(there, source_named="nas").source_catalog()
    wanted, set_id, notes = _choose(there, catalog, "nas", "partial", "latest")
    assert (wanted, set_id) == (["postgresql", "config", "file"], TODAY)
    assert notes == ["redis was left out: it comes into nas with weekly fulls only"]
    assert _choose(there, catalog, "nas", "redis", "latest") == (["redis"], SUNDAY, [])
    assert _choose(there, catalog, "nas", "partial", SUNDAY)[0] == ["postgresql", "redis", "config", "file"]
