"""Vaults away from the host are listed, verified and restored from, by a machine that has nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.away import plan_with
from tests.fixtures.living import Living, with_settings
from tests.fixtures.missing import missing
from tests.fixtures.trees import look

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]


@pytest.fixture
def there(embedded_bookreader, nas, tmp_path) -> Living:
    """A BookReader whose set of today is on the NAS, and whose local vault is gone."""
    plan = plan_with(tmp_path, nas="{ days = 30 }")
    told = {"nas": str(nas), "plan": str(plan), "health_urls": ",", "file_columns": ","}
    living = with_settings(embedded_bookreader, **told)
    living.back_up()
    for entry in waiting(living.installation, Catalog(living.installation.vault), "nas"):
        replicate(living.installation, entry, "nas")
    (tmp_path / "vault").rename(tmp_path / "gone")
    (tmp_path / "vault").mkdir(mode=0o700)
    return living


@pytest.fixture
def run(there, tmp_path):
    """Run the program in an empty folder; return what came of it."""
    home = tmp_path / "home"
    home.mkdir()

    def call(*arguments, status=0, **more):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=home,
            env={**os.environ, "HOME": str(home), **there.environ, "DAGSTER_HOME": "/nonexistent", **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return call


def in_nas(there):
    """What the NAS has."""
    return Catalog(there.installation.reading("nas").vault)


def proofs_in_nas(there):
    """How many proofs lie there beside each artifact: manifests are not verified with their sets."""
    catalog = in_nas(there)
    held = [entry for entry in catalog.entries() if entry.component != "backup_set"]
    return {entry.name: len(catalog.stored_proofs(entry)) for entry in held}


def test_a_vault_is_listed(run, there, nas):
    """What is in it, as it is in the local one; an empty one, and one that is not mounted, say so."""
    listed = json.loads(run("list", "--vault", "nas", "--json").stdout)
    assert {one["artifact"] for one in listed} == {entry.name for entry in in_nas(there).entries()}
    assert {one["standing"] for one in listed} == {"verified"}
    assert "is empty: `bookreader-backup backup`" in run("list").stdout
    assert "BACKUP_OFFSITE_BUCKET" in run("list", "--vault", "offsite", status=2).stderr
    assert "there are: local, nas" in run("list", "--vault", "tape", status=2).stderr
    (nas / MARKER).unlink()
    refused = run("list", "--vault", "nas", status=1)
    assert "is not mounted" in refused.stderr
    (nas / MARKER).touch()
    shutil.rmtree(nas / "bookreader-backups")
    assert "nothing was ever replicated to nas" in run("list", "--vault", "nas", status=2).stderr


def test_a_copy_is_verified_where_it_is(run, there):
    """Read and restored again from there; the proof is kept there, and nothing is written here."""
    before = proofs_in_nas(there)
    done = json.loads(run("verify", "--vault", "nas", "--json").stdout)
    verdicts = {(check["check"], check["verdict"]) for one in done["artifacts"] for check in one["checks"]}
    assert {verdict for _, verdict in verdicts} == {"passed"}
    assert {"sha256", "same_bytes", "decrypts"} <= {check for check, _ in verdicts}
    assert proofs_in_nas(there) == {name: count + 1 for name, count in before.items()}
    assert [path.name for path in Path(there.environ["BACKUP_VAULT"]).rglob("*")] == []


def test_damage_there_stays_on_record_there(run, there, tmp_path):
    """Exit status 1; the copy counts for nothing until what is whole here has taken its place."""
    entry = in_nas(there).newest("storage/archive")
    path = there.installation.reading("nas").vault.local_path(entry.name)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = run("verify", "--vault", "nas", "--asset", "storage/archive", status=1)
    assert "the stored bytes have changed since the capture" in done.stdout
    shutil.rmtree(tmp_path / "vault")
    (tmp_path / "gone").rename(tmp_path / "vault")
    run("verify", "--asset", "storage/archive")
    assert in_nas(there).standing(entry).verdict is Verdict.FAILED
    done = run("replicate")
    assert "as captured, instead of other bytes that were there" in done.stdout
    assert in_nas(there).standing(entry).verdict is Verdict.PASSED
    assert Catalog(there.installation.vault).standing(entry).verdict is Verdict.PASSED


@pytest.fixture
def read_only(there, nas):
    """The NAS, mounted so that nobody writes to it."""
    mount = ["mount", "--bind", str(nas), str(nas)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        missing("a folder cannot be mounted read-only here (not root, or a container without that right)")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(nas)], check=True, timeout=30)
        yield nas
    finally:
        subprocess.run(["umount", "-l", str(nas)], check=True, timeout=30)


def test_a_copy_is_verified_where_nothing_may_be_written(run, there, read_only):
    """What was found is printed, that it is not kept is said, and the exit status is what was found."""
    done = run("verify", "--vault", "nas")
    assert "what was found is not kept as a proof: the nas vault at" in done.stderr
    assert "same_bytes" in done.stdout
    as_json = run("verify", "--vault", "nas", "--asset", "config/archive", "--json")
    assert [one["checks"][0]["verdict"] for one in json.loads(as_json.stdout)["artifacts"]] == ["passed"]
    other = read_only.parent / "other"
    other.write_text("the passphrase of somebody else")
    key = {"BACKUP_KEY_FILE": str(other)}
    run("verify", "--vault", "nas", "--asset", "config/archive", status=1, **key)


def test_everything_comes_back_from_it(run, there, read_only, tmp_path):
    """Into folders, and in place: equal to what was captured; the journal and the safety capture are here,
    and each restore is undone without saying where it came from.
    """
    good = there.everything()
    for scenario, root in (("config", there.config), ("storage", there.storage)):
        into = tmp_path / f"into-{scenario}"
        run("restore", scenario, "--vault", "nas", "--into", str(into))
        assert content(into) == content(root)
    file = next(there.storage.glob("books/*.bin"))
    wanted = ["--path", str(file.relative_to(there.storage)), "--into", str(tmp_path / "one")]
    run("restore", "file", "--vault", "nas", *wanted)
    (found,) = (path for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert found.read_bytes() == file.read_bytes()

    there.sql("UPDATE books SET title = 'lost'; DELETE FROM alembic_version")
    (there.config / ".env").write_text("BROKEN=1\n")
    file.write_bytes(b"overwritten")
    damaged = there.everything()
    assert damaged["rows"] != good["rows"]
    targets = {"postgresql": there.database, "config": there.config, "storage": there.storage}
    undos = []
    for scenario, target in targets.items():
        assert f"--confirm {target}" in run("restore", scenario, "--vault", "nas", "--plan").stdout
        done = run("restore", scenario, "--vault", "nas", "--confirm", str(target))
        (undo,) = re.findall(r"^to go back: bookreader-backup (.+)$", done.stdout, re.MULTILINE)
        assert "--vault" not in undo
        undos.append(undo)
    assert there.rows() == good["rows"]
    assert content(there.config) == content(tmp_path / "into-config")
    assert content(there.storage) == content(tmp_path / "into-storage")
    here = Path(there.environ["BACKUP_VAULT"])
    assert len(list(here.glob("restores/*/report.json"))) == 6
    safety = {(entry.component, entry.label) for entry in Catalog(there.installation.vault).entries()}
    assert safety == {("postgresql", "pre-restore")}  # of the others the folders themselves are kept
    for undo in undos:
        run(*undo.split())
    assert there.rows() == damaged["rows"]
    assert (there.config / ".env").read_text() == "BROKEN=1\n"
    assert file.read_bytes() == b"overwritten"


def content(root):
    """What is in a folder, but for times and what a restore keeps for its undo."""
    found = look(os.fsencode(root))
    return {
        path: (*what[:3], *what[4:])
        for path, what in found.items()
        if b".bookreader" not in path and path != b"."
    }
