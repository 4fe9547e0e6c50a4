"""What was proven here is brought into a vault away from this host, and proven there."""

from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import in_clear, waiting
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import DamagedError, RefusedError


@pytest.fixture
def captured(with_nas, installation):
    """An installation with today's set in its local vault, and an empty NAS."""
    assert back_up_today(installation, installation.planned, lambda error: pytest.fail(error.message))
    return installation


def _replicate_all(installation, vault="nas"):
    entries = waiting(installation, Catalog(installation.vault), vault)
    return [replicate(installation, entry, vault) for entry in entries]


def test_everything_that_is_wanted_is_there_and_verified(captured):
    """Every artifact of the set reaches the vault with its proofs, and stands there as it stands here."""
    done = _replicate_all(captured)
    here, there = Catalog(captured.vault), Catalog(captured.reading("nas").vault)
    assert {entry.name for entry in there.entries()} == {one.entry.name for one in done}
    assert {entry.asset for entry in there.entries()} == {*captured.planned, "backup_set/manifest"}
    for entry in there.entries():
        assert there.standing(entry).verdict is Verdict.PASSED
        assert captured.reading("nas").vault.digest(entry.name) == entry.sha256
    assert [e.to_json() for e in there.entries()] == [e.to_json() for e in here.entries()]


def test_what_is_there_is_not_sent_again(captured):
    """The second time nothing is missing, and replicating all the same sends nothing."""
    first = _replicate_all(captured)
    assert _replicate_all(captured) == []
    again = replicate(captured, first[0].entry, "nas")
    assert (again.new, again.sent, again.outcome.passed) == (False, 0, True)


def test_personal_data_leaves_encrypted(captured):
    """The database, its SQL and Redis are encrypted once, at capture; storage is not."""
    codecs = {entry.asset: entry.codecs for entry in Catalog(captured.vault).entries()}
    assert "gpg" in codecs["postgresql/dump"]
    assert "gpg" in codecs["postgresql/sql"]
    assert "gpg" in codecs["redis/rdb"]
    assert codecs["storage/archive"] == ()


def test_what_was_captured_in_clear_stays_here(environ, nas, tmp_path, installation, request):
    """An artifact from before its row was to be encrypted is refused, with what to do."""
    installation = replace(installation)
    assert back_up_today(installation, ("postgresql/globals", "postgresql/dump"), lambda error: None)
    request.getfixturevalue("with_nas")
    from bookreader_backup_assets.assembly import assemble
    from bookreader_backup_assets.settings import load_settings

    later = assemble(load_settings(environ, env_file=tmp_path / "none"))
    dump = Catalog(later.vault).newest("postgresql/dump")
    with pytest.raises(RefusedError, match="not encrypted"):
        replicate(later, dump, "nas")
    assert in_clear(later, Catalog(later.vault), "nas") == [dump.name]
    assert [entry.asset for entry in waiting(later, Catalog(later.vault), "nas")] == [
        "postgresql/globals",
        "backup_set/manifest",
    ]


def test_what_is_not_proven_here_stays_here(captured):
    """A flipped byte here is found before anything is committed there."""
    entry = Catalog(captured.vault).newest("storage/archive")
    path = captured.vault.local_path(entry.name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="not what was captured any more"):
        replicate(captured, entry, "nas")
    assert not [
        s
        for s in captured.reading("nas").vault.list()
        if s.name.startswith(entry.name) and "gz" in s.name and "index" not in s.name
    ]


def test_a_copy_that_has_changed_is_found(captured):
    """Comparing reads the copy back: a flipped byte fails, and is on record there."""
    _replicate_all(captured)
    away = captured.reading("nas")
    entry = Catalog(away.vault).newest("storage/archive")
    assert compare(captured, entry, "nas").passed
    path = away.vault.local_path(entry.name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not compare(captured, entry, "nas").passed
    assert Catalog(away.vault).standing(entry).verdict is Verdict.FAILED
    path.unlink()
    assert not compare(captured, entry, "nas").passed
