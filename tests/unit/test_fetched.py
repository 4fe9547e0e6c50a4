"""What is fetched for a restore: kept only if it is whole and as captured, and gone afterwards."""

import resource
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bookreader_backup_assets.actions.fetched import fetched
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.core.errors import SpaceError
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.filled import fill, make
from tests.fixtures.installation import Clock

AT = datetime(2026, 3, 19, 6, tzinfo=UTC)


class Far(LocalVault):
    """A vault whose files lie on no disk of this host, and that counts how often one is opened."""

    opened = 0

    def local_path(self, name):
        return None

    def open(self, name, offset=0, length=None):
        type(self).opened += 1
        return super().open(name, offset, length)


@pytest.fixture
def far(tmp_path):
    """An installation over such a vault, and an artifact in it."""
    made = make(tmp_path, Clock(AT), vault_named="far")
    vault = Far(tmp_path / "vault")
    Far.opened = 0
    entry = fill(made.vault, "redis", AT)
    return replace(made, vault=vault), entry


def test_it_is_fetched_once(far):
    """The second reading, the path and a range of it are of the file here, which nobody else may read."""
    made, entry = far
    with fetched(made, "redis", entry) as kept:
        stored = StoredArtifact(made, entry, fetched=kept)
        assert stored.path is None
        first = b"".join(stored.open_range(0, entry.size))
        assert b"".join(stored.open_range(0, entry.size)) == first
        assert b"".join(stored.open_range(3, 4)) == first[3:7]
        assert Far.opened == 1
        assert stored.path.stat().st_mode & 0o777 == 0o600
        folder = stored.path.parent
    assert not folder.exists()


def test_what_is_not_whole_is_not_kept(far):
    """Broken off, or other bytes than were captured: the next reading asks the vault again."""
    made, entry = far
    with fetched(made, "redis", entry) as kept:
        half = kept.keep(entry, iter([b"half", b"of it"]))
        next(half)
        half.close()
        assert kept.path(entry) is None
        assert b"".join(kept.keep(entry, iter([b"x" * entry.size]))) == b"x" * entry.size
        assert kept.path(entry) is None
        assert list(kept.folder.iterdir()) == []


def test_what_a_killed_restore_left_goes(far):
    """Also where the next restore fetches nothing."""
    made, entry = far
    left = made.lock.with_name(".fetched")
    left.mkdir()
    (left / "old").write_bytes(b"x")
    with fetched(made, "storage", entry) as kept:
        assert kept is None
    assert not left.exists()
    assert ".fetched" not in "".join(stored.name for stored in made.vault.list())


def test_no_room_is_said(far):
    """With what to do; nothing half-written stays."""
    made, entry = far
    with fetched(made, "redis", entry) as kept:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk: a write fails
        try:
            with pytest.raises(SpaceError, match="cannot be kept") as said:
                list(kept.keep(entry, iter([b"x" * 5000])))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "free space" in said.value.hint
        assert list(kept.folder.iterdir()) == []
