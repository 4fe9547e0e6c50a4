"""A copy that is gone, short, altered or proven damaged is found, and replaced by what is whole here."""

import os
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions import replicate as replicating
from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.prune import plan_prune
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.actions.replicate_set import lacking
from bookreader_backup_assets.actions.restore import restore
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import drill_ground
from bookreader_backup_assets.cli.replicate import bring
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, RefusedError, VaultError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.vaults.nas import NasVault
from tests.fixtures.code import git
from tests.integration.test_offsite_cli import copied, reach

ASSETS = ("storage/archive", "config/archive")


@pytest.fixture
def copied_to_nas(with_nas, installation):
    """An installation whose storage and configuration of today are here, and on the NAS."""
    assert back_up_today(installation, ASSETS, lambda error: pytest.fail(error.message))
    assert all(row["ok"] for row in bring(installation, ["nas"]))
    return installation


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _there(installation, vault="nas"):
    """The copies, and where the newest archive of storage lies among them."""
    catalog = Catalog(installation.reading(vault).vault)
    entry = catalog.newest("storage/archive")
    return catalog, entry, catalog.vault.local_path(entry.name)


def _stands(installation, entry, vault="nas"):
    return Catalog(installation.reading(vault).vault).standing(entry).verdict


def _gone(path):
    path.unlink()


def _short(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("harm", [_gone, _short])
@pytest.mark.parametrize("index", [False, True], ids=["artifact", "companion"])
def test_what_a_listing_tells_is_missing_is_sent_again(copied_to_nas, harm, index):
    """A file that is absent, or has another size, is waited for by sensors too; after that nothing is."""
    _, entry, path = _there(copied_to_nas)
    name = entry.companion("index").name if index else entry.name
    harm(path.parent.parent / name)
    here = Catalog(copied_to_nas.vault)
    assert waiting(copied_to_nas, here, "nas") == [entry]
    assert list(lacking(copied_to_nas, here, "nas").values()) == [entry]
    (row,) = bring(copied_to_nas, ["nas"])
    assert row["ok"]
    assert _stands(copied_to_nas, entry) is Verdict.PASSED
    assert copied_to_nas.reading("nas").vault.digest(entry.name) == entry.sha256
    assert waiting(copied_to_nas, here, "nas") == bring(copied_to_nas, ["nas"]) == []


@pytest.mark.parametrize("how", ["verify", "compare"])
def test_what_is_proven_damaged_there_is_replaced(copied_to_nas, how):
    """A flipped byte that was found there is taken away, and the copy stands verified again."""
    _, entry, path = _there(copied_to_nas)
    _flip(path)
    if how == "compare":
        assert not compare(copied_to_nas, entry, "nas").passed
    else:
        away = copied_to_nas.reading("nas")
        verify(away, away.component(entry.asset), entry)
    assert _stands(copied_to_nas, entry) is Verdict.FAILED
    (row,) = bring(copied_to_nas, ["nas"])
    assert "instead of other bytes" in row["found"]
    assert _stands(copied_to_nas, entry) is Verdict.PASSED
    assert copied_to_nas.reading("nas").vault.digest(entry.name) == entry.sha256
    assert compare(copied_to_nas, entry, "nas").passed
    assert bring(copied_to_nas, ["nas"]) == []


def test_a_damaged_index_there_is_replaced(copied_to_nas):
    """What fails there because of a companion is mended by the companion alone."""
    _, entry, path = _there(copied_to_nas)
    _flip(path.parent.parent / entry.companion("index").name)
    before, away = path.stat().st_mtime_ns, copied_to_nas.reading("nas")
    verify(away, away.component(entry.asset), entry)
    assert _stands(copied_to_nas, entry) is Verdict.FAILED
    assert [row["ok"] for row in bring(copied_to_nas, ["nas"])] == [True]
    assert _stands(copied_to_nas, entry) is Verdict.PASSED
    assert path.stat().st_mtime_ns == before


def test_nothing_there_is_removed_for_what_is_damaged_here(copied_to_nas):
    """Where ours has other bytes as well, what is there stays; ours is on record as failed."""
    _, entry, path = _there(copied_to_nas)
    _flip(path)
    compare(copied_to_nas, entry, "nas")
    _flip(copied_to_nas.vault.local_path(entry.name))
    with pytest.raises(DamagedError, match="not what was captured any more") as raised:
        replicate(copied_to_nas, entry, "nas")
    assert f"{entry.name} stands as failed in local" in raised.value.hint
    assert path.stat().st_size == entry.size
    assert Catalog(copied_to_nas.vault).standing(entry).verdict is Verdict.FAILED


@pytest.mark.parametrize("content", [b"{", b"changed"], ids=["garbage", "other"])
def test_an_entry_that_is_not_ours_is_never_taken_for_it(copied_to_nas, content):
    """It fails with the file to remove; after that the copy stands verified again."""
    _, entry, path = _there(copied_to_nas)
    there = path.parent.parent / entry.entry_name
    there.chmod(0o600)
    text = there.read_bytes()
    there.write_bytes(content if content == b"{" else text.replace(entry.sha256.encode(), b"0" * 64))
    with pytest.raises(DamagedError, match=r"entry\.json") as raised:
        replicate(copied_to_nas, entry, "nas")
    assert f"remove {there} by hand" in raised.value.hint
    assert [row["ok"] for row in bring(copied_to_nas, ["nas"])] == [False]
    there.unlink()
    assert [row["ok"] for row in bring(copied_to_nas, ["nas"])] == [True]
    assert _stands(copied_to_nas, entry) is Verdict.PASSED
    assert bring(copied_to_nas, ["nas"]) == []


def test_a_damaged_proof_there_is_put_again(copied_to_nas):
    """One that is from here is replaced; one that was made there is named, to be removed."""
    catalog, entry, path = _there(copied_to_nas)
    ours = {proof.proof_name for proof in Catalog(copied_to_nas.vault).stored_proofs(entry)}
    theirs = {proof.proof_name for proof in catalog.stored_proofs(entry)} - ours
    folder = path.parent.parent
    (folder / min(ours)).write_bytes(b"{")
    assert [row["ok"] for row in bring(copied_to_nas, ["nas"])] == [True]
    assert bring(copied_to_nas, ["nas"]) == []
    (folder / min(theirs)).write_bytes(b"{")
    with pytest.raises(DamagedError) as raised:
        replicate(copied_to_nas, entry, "nas")
    assert f"remove {folder / min(theirs)} by hand" in raised.value.hint
    (folder / min(theirs)).unlink()
    assert bring(copied_to_nas, ["nas"]) == []
    assert _stands(copied_to_nas, entry) is Verdict.PASSED


def test_what_may_not_be_removed_is_named(copied_to_nas, monkeypatch):
    """An account that may write and not delete is told which file, and who may."""
    _, entry, path = _there(copied_to_nas)
    _short(path)

    def refuse(self, name):
        raise VaultError(f"not allowed: {name}")

    monkeypatch.setattr(NasVault, "delete", refuse)
    with pytest.raises(
        VaultError, match=f"{entry.name} is damaged in nas, and could not be removed"
    ) as raised:
        replicate(copied_to_nas, entry, "nas")
    assert "BACKUP_OFFSITE_PRUNE_ACCESS_KEY" in raised.value.hint


def test_a_bucket_is_mended_too(environ, bucket, tmp_path, request):
    """An object deleted, one cut off, one altered and found out: all are whole there again."""
    installation = (reach(environ, bucket, tmp_path), request.getfixturevalue("installation"))[1]
    copied(installation, *ASSETS)
    away = installation.reading("offsite")
    entries = [Catalog(away.vault).newest(asset) for asset in ASSETS]
    data = b"".join(away.vault.open(entries[1].name))
    for entry in entries:
        away.vault.delete(entry.name)
    away.vault.put(entries[1].name, [bytes([data[0] ^ 1]), data[1:]])
    assert not compare(installation, entries[1], "offsite").passed
    assert {row["artifact"] for row in bring(installation, ["offsite"])} == {e.name for e in entries}
    assert {_stands(installation, entry, "offsite") for entry in entries} == {Verdict.PASSED}
    assert {away.vault.digest(entry.name) for entry in entries} == {entry.sha256 for entry in entries}
    assert bring(installation, ["offsite"]) == []


# damage that is met on the way


def test_a_restore_that_meets_damage_has_it_on_record(copied_to_nas, tmp_path, clock):
    """The copy stands failed from then on, once; the one that is good here is not pruned for it."""
    _, entry, path = _there(copied_to_nas)
    _flip(path)
    away = copied_to_nas.reading("nas")
    options = Options(into=str(tmp_path / "into"))
    with pytest.raises(DamagedError) as raised:
        restore(replace(copied_to_nas, source_named="nas"), "storage", options=options, confirm="")
    assert f"{entry.name} stands as failed in nas from now on" in raised.value.hint
    assert _stands(copied_to_nas, entry) is Verdict.FAILED
    proofs = len(Catalog(away.vault).stored_proofs(entry))
    with pytest.raises(DamagedError, match="has failed its checks"):
        restore(replace(copied_to_nas, source_named="nas"), "storage", options=options, confirm="")
    assert len(Catalog(away.vault).stored_proofs(entry)) == proofs
    # what is found here says nothing of it
    verify(copied_to_nas, copied_to_nas.component(entry.asset), entry)
    assert _stands(copied_to_nas, entry) is Verdict.FAILED
    clock.forward(days=29)  # when the plan has let it go here, and not there
    assert back_up_today(copied_to_nas, ASSETS[:1], lambda error: pytest.fail(error.message))
    plan = plan_prune(copied_to_nas, "local")
    (because,) = [d.because for d in plan.verdict.decisions if d.entry.name == entry.name]
    assert "no proven copy in nas" in because


def test_what_replicate_finds_damaged_here_is_on_record(with_nas, installation):
    """A flipped byte here is found while it is read to be sent: from then on it stands failed here."""
    assert back_up_today(installation, ASSETS, lambda error: pytest.fail(error.message))
    entry = Catalog(installation.vault).newest("storage/archive")
    _flip(installation.vault.local_path(entry.name))
    with pytest.raises(DamagedError, match="not what was captured any more"):
        replicate(installation, entry, "nas")
    assert Catalog(installation.vault).standing(entry).verdict is Verdict.FAILED
    assert entry not in waiting(installation, Catalog(installation.vault), "nas")


# which set, and who else


@pytest.mark.parametrize("nonsense", ["nonsense", "1999-01-01", "../../x"])
def test_a_set_that_there_is_not_is_refused(copied_to_nas, nonsense):
    """Never `nothing is missing`: it is refused with the sets there are."""
    with pytest.raises(RefusedError, match="there is no set") as raised:
        bring(copied_to_nas, ["nas"], nonsense)
    assert copied_to_nas.today() in raised.value.hint
    assert raised.value.exit_code == 2


def test_two_at_once_both_end_well(with_nas, installation):
    """Every copy is there, each compared, and neither of the two calls that an error."""
    assert back_up_today(installation, ASSETS, lambda error: pytest.fail(error.message))
    rows, begin = [], threading.Barrier(2)

    def run():
        begin.wait(10)
        rows.append(bring(installation, ["nas"]))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(rows) == 2
    assert all(row["ok"] for one in rows for row in one)
    assert bring(installation, ["nas"]) == []


def test_what_another_is_still_at_is_said(with_nas, installation, monkeypatch):
    """One that holds the name for longer than a moment is named; when it has ended, all is well."""
    assert back_up_today(installation, ASSETS, lambda error: pytest.fail(error.message))
    monkeypatch.setattr(replicating, "_PATIENCE", 0.3)
    entry = Catalog(installation.vault).newest("storage/archive")
    target = installation.vault_outside("nas").vault(installation.id)
    ended, begun = threading.Event(), threading.Event()

    def slowly():
        begun.set()
        ended.wait(30)
        yield from installation.vault.open(entry.name)

    thread = threading.Thread(target=target.put, args=(entry.name, slowly()))
    thread.start()
    try:
        assert begun.wait(10)
        with pytest.raises(NameTakenError, match="another replicate is at work on"):
            replicate(installation, entry, "nas")
        found = {row["artifact"]: row["ok"] for row in bring(installation, ["nas"])}
        assert [name for name, ok in found.items() if not ok] == [entry.name]
    finally:
        ended.set()
        thread.join(30)
    assert all(row["ok"] for row in bring(installation, ["nas"]))
    assert _stands(installation, entry) is Verdict.PASSED


def test_what_somebody_committed_over_it_is_mended(with_git, installation, git_remote, tmp_path):
    """Other bytes of the same size, on the branch: compared, they are found, and ours is put again."""
    assert back_up_today(installation, ["config/archive"], lambda error: pytest.fail(error.message))
    assert all(row["ok"] for row in bring(installation, ["git"]))
    entry = Catalog(installation.vault).newest("config/archive")
    clone = tmp_path / "clone"
    branch = f"bookreader-backups/{installation.id}"
    git(tmp_path, "clone", "--quiet", "--branch", branch, git_remote.as_uri(), str(clone))
    _flip(clone / entry.name)
    git(clone, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-am", "harm")
    git(clone, "push", "--quiet", "origin", branch)
    assert not compare(installation, entry, "git").passed
    (row,) = bring(installation, ["git"])
    assert row["ok"]
    assert _stands(installation, entry, "git") is Verdict.PASSED
    assert installation.reading("git").vault.digest(entry.name) == entry.sha256


def test_a_drill_that_meets_damage_has_it_on_record(copied_to_nas, settings):
    """The copy stands failed until it is replaced, whatever is proven of the artifact here."""
    _, entry, path = _there(copied_to_nas)
    _flip(path)
    with drill_ground(settings, copied_to_nas, read="nas") as ground:
        _, report = drill(copied_to_nas, ground, "storage")
    assert not report.good
    verify(copied_to_nas, copied_to_nas.component(entry.asset), entry)
    away = copied_to_nas.reading("nas").vault
    for proof in Catalog(copied_to_nas.vault).stored_proofs(entry):
        with suppress(NameTakenError):
            away.put(proof.proof_name, [proof.to_json()])
    assert _stands(copied_to_nas, entry) is Verdict.FAILED
    assert all(row["ok"] for row in bring(copied_to_nas, ["nas"]))
    assert _stands(copied_to_nas, entry) is Verdict.PASSED


def test_where_no_proof_is_taken_that_is_said(copied_to_nas, tmp_path, monkeypatch):
    """A restore from a NAS that is mounted read-only says that the damage is not on record there."""
    _, entry, path = _there(copied_to_nas)
    _flip(path)

    def refuse(self, name, chunks, *, size=None):
        raise VaultError(f"read-only: {name}")

    monkeypatch.setattr(NasVault, "put", refuse)
    options = Options(into=str(tmp_path / "into"))
    with pytest.raises(DamagedError) as raised:
        restore(replace(copied_to_nas, source_named="nas"), "storage", options=options, confirm="")
    assert f"that {entry.name} is damaged in nas is not on record there: read-only" in raised.value.hint
