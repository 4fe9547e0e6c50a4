"""Which artifact a restore takes: what is proven, before what is new."""

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.restore_source import choose, newest_set, passed_over
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.errors import DamagedError

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
