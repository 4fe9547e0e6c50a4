"""Prune in a bucket: what the service has locked stays, and what it has not goes for good."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.prune import plan_prune, prune
from bookreader_backup_assets.vaults.base import Terms
from bookreader_backup_assets.vaults.s3_place import Bucket
from tests.fixtures.filled import fill, make
from tests.fixtures.held import production


@pytest.fixture
def offsite(tmp_path, clock, locking_bucket):
    """An installation whose dumps are kept for seven days in a bucket that can lock them."""
    made = make(tmp_path, clock)
    policy = replace(
        production("offsite"), rows=production("local").rows, weekly=None, full_on=lambda _day: False
    )
    return replace(
        made, outside={"offsite": Outside(Bucket(locking_bucket), policy, {"postgresql": Terms()})}
    )


def test_what_is_locked_stays_and_the_rest_goes(offsite, clock):
    """The lock of the artifact is enough; the others are gone with every version of every file."""
    now = datetime.now(UTC)
    vault = offsite.outside["offsite"].vault(offsite.id)
    locking = replace(vault, lock_days=2)
    entries = [
        fill(locking if days_ago == 9 else vault, "postgresql", now - timedelta(days=days_ago))
        for days_ago in (10, 9, 8, 2, 1, 0)
    ]
    because = {one.entry.name: one.because for one in plan_prune(offsite, "offsite").verdict.decisions}
    assert "locked by the vault until" in because[entries[1].name][0]
    pruned = prune(offsite, "offsite")
    assert (pruned.good, [one.artifact for one in pruned.removed]) == (
        True,
        [entries[0].name, entries[2].name],
    )
    left = [stored.name for stored in vault.list()]
    assert not [name for name in left if name.startswith((entries[0].name, entries[2].name))]
    assert [name for name in left if name.startswith(entries[1].name)]
    assert prune(offsite, "offsite").id == ""
