"""`verify SET` holds a vault against the set's manifest: what that names has to be there."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.members import absent_members
from bookreader_backup_assets.actions.prune_records import Pruned, Removal, begin, end
from bookreader_backup_assets.cli.replicate import bring
from bookreader_backup_assets.core.check import Verdict

ASSETS = ("storage/archive", "config/archive")
LOST = "the manifest names it, and it is not there"


@pytest.fixture
def captured(with_nas, installation):
    """An installation whose storage and configuration of today are here, and on the NAS."""
    assert back_up_today(installation, ASSETS, lambda error: pytest.fail(error.message))
    assert all(row["ok"] for row in bring(installation, ["nas"]))
    return installation


@pytest.fixture
def run(environ, tmp_path):
    """Run the program, and return its exit status and what it printed as JSON."""

    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "bookreader_backup_assets", *arguments, "--json"],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    return call


def _absent(installation, vault="local", set_id=None):
    vaults = installation.reading(vault)
    found = absent_members(installation, Catalog(vaults.vault), set_id or installation.today(), vault)
    return {one.asset: one.outcome for one in found}


@pytest.mark.parametrize("vault", ["local", "nas"])
def test_a_member_whose_entry_is_lost_has_failed(captured, run, vault):
    """The set does not pass without it: it is named, and the exit status is 1."""
    folder = captured.reading(vault).vault
    entry = Catalog(folder).newest("storage/archive")
    assert _absent(captured, vault) == {}
    folder.delete(entry.entry_name)
    assert _absent(captured, vault)["storage/archive"].verdict is Verdict.FAILED
    status, said = run("verify", captured.today(), "--vault", vault)
    found = {one["artifact"]: {c["check"]: c for c in one["checks"]} for one in said["artifacts"]}
    assert status == 1
    assert LOST in found[entry.name]["there"]["message"]
    assert found[entry.name]["there"]["verdict"] == "failed"
    only = run("verify", captured.today(), "--vault", vault, "--asset", "config/archive")
    assert only[0] == 0


def test_a_set_that_has_lost_all_is_no_unknown_set(captured, run):
    """With nothing left but its manifest, each member is named."""
    for asset in ASSETS:
        captured.vault.delete(Catalog(captured.vault).newest(asset).entry_name)
    status, said = run("verify", captured.today())
    assert (status, len(said["artifacts"])) == (1, 2)


def test_what_retention_has_removed_is_not_lost(captured, clock):
    """A pruned member passes, and so does one that the plan keeps no longer; a lost one does not."""
    day, config = captured.today(), Catalog(captured.vault).newest("config/archive")
    clock.forward(days=60)
    for _ in range(2):
        clock.forward(days=1)
        assert back_up_today(captured, ASSETS, lambda error: pytest.fail(error.message))
        assert all(row["ok"] for row in bring(captured, ["nas"]))
    captured.vault.delete(config.entry_name)  # one of ten versions: that is wanted for years
    assert _absent(captured, set_id=day)["config/archive"].verdict is Verdict.FAILED
    storage = next(e for e in Catalog(captured.vault).entries(asset="storage/archive") if e.set == day)
    captured.vault.delete(storage.entry_name)
    assert "the plan keeps it no longer" in _absent(captured, set_id=day)["storage/archive"].message
    gone = Removal(config.name, config.asset, (day,), config.size, config.captured_at, "as a test has it")
    begun = begin(captured.vault, Pruned("", captured.id, "local", captured.now()))
    end(captured.vault, begun, [gone], [])
    assert _absent(captured, set_id=day)["config/archive"].passed
    assert "a prune has it on record" in _absent(captured, set_id=day)["config/archive"].message


def test_what_is_wanted_elsewhere_only_is_not_missed(captured):
    """A vault that the plan wants no copies of a component in has not lost them."""
    nas = captured.outside["nas"]
    terms = {row: one for row, one in nas.terms.items() if row not in {"storage", "weekly"}}
    less = replace(captured, outside={"nas": replace(nas, terms=terms)})
    away = captured.reading("nas").vault
    away.delete(Catalog(away).newest("storage/archive").entry_name)
    assert _absent(captured, "nas").keys() == {"storage/archive"}
    assert _absent(less, "nas") == {}


def test_a_manifest_that_cannot_be_read_has_failed(captured):
    """Nobody can tell what the set had."""
    manifest = Catalog(captured.vault).newest("backup_set/manifest")
    path = captured.vault.local_path(manifest.name)
    path.chmod(0o600)
    path.write_bytes(b"{")
    assert "cannot be told" in _absent(captured)["backup_set/manifest"].message
