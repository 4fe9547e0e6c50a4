"""`status` and `doctor` on real vaults: how they fill, what is large, and what would not come back whole."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.scratch_fit import scratch_findings
from bookreader_backup_assets.actions.system import restore_system
from bookreader_backup_assets.actions.system_plan import plan_system
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.cli.main import group
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.servers.machine import MachineScratch
from tests.fixtures.missing import missing
from tests.fixtures.redis import find_redis

ASSET = "storage/archive"


@pytest.fixture
def environ(environ, system, tmp_path):
    """An installation that captures storage only, a copy of its own: quick to do."""
    storage = shutil.copytree(system.storage, tmp_path / "storage")
    (tmp_path / "plan.toml").write_text(
        'timezone = "UTC"\ndeadline = "05:00"\n[storage]\nat = "03:00"\n', encoding="utf-8"
    )
    none = {"BACKUP_HEALTH_URLS": ",", "BACKUP_FILE_COLUMNS": ","}
    own = {"BACKUP_PLAN": str(tmp_path / "plan.toml"), "BACKUP_STORAGE_PATH": str(storage)}
    return {**environ, **none, **own}


@pytest.fixture
def run(environ, tmp_path, monkeypatch):
    """Run a command in an empty folder, and return what came of it."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(group, arguments, env=environ)


@pytest.fixture
def nights(installation, clock):
    """Capture and verify storage as if it were so many days ago, and return the entries."""

    def made(*days_ago):
        entries = []
        for days in days_ago:
            clock.at = datetime.now(UTC) - timedelta(days=days)
            component = installation.component(ASSET)
            made, _ = capture(installation, component, installation.today())
            made = _aged(installation, made, clock.at)
            verify(installation, component, made)
            entries.append(made)
        return entries

    return made


def _aged(installation, entry, at):
    """Have an entry say when it was captured: the component itself looks at the clock on the wall."""
    aged = replace(entry, captured_at=at)
    installation.vault.delete(entry.entry_name)
    installation.vault.put(aged.entry_name, [aged.to_json()])
    return aged


def test_status_says_how_the_vault_fills(run, nights):
    """Sizes then and now, the rate and the days, in text and JSON; and with `--history`, each day's set."""
    entries = nights(8.5, 4.5, 3.5, 2.5, 1.5, 0.5)
    done = run("status", "--history")
    assert (done.exit_code, done.output.splitlines()[0][:3]) == (0, "OK:"), done.output
    last = next(line for line in done.output.splitlines() if line.startswith("the vault "))
    assert "a day over 8 days: full in " in last
    tables = done.output.split("\n\n")
    (row,) = (line.split() for line in tables[3].splitlines() if line.startswith(ASSET))
    assert row[1:3] == row[3:5], "as large as 7 days ago"
    assert row[5] == "-", "there was none 30 days ago"
    history = tables[4].splitlines()
    assert [line.split()[0] for line in history[1:]] == [entry.set for entry in reversed(entries)]
    document = json.loads(run("status", "--json").output)
    added = sum(entry.size + entry.companion("index").size for entry in entries[1:])
    assert document["growth"]["per_day"] == added / 8
    assert document["growth"]["days_left"] == document["growth"]["free"] / (added / 8)
    assert "history" not in document


def test_status_says_nothing_of_a_rate_on_the_second_day(run, nights):
    """A rate of one night would be a guess."""
    nights(1.5, 0.5)
    done = run("status")
    assert done.exit_code == 0
    assert done.output.splitlines()[-1].endswith("how fast it fills is told after 3 days of backups")


def test_a_vault_that_is_nearly_full_is_a_problem(run, nights, environ, installation, tmp_path):
    """Full within days, or no room for the next night: the first line says it, and the exit status is 1."""
    disk = tmp_path / "vault"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m,mode=0700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        missing("a small disk cannot be mounted here (not root, or a container without that right)")
    try:
        *_, last = nights(4.5, 3.5, 2.5, 1.5, 0.5)
        assert run("status").output.startswith("PROBLEM: the vault is full in about ")
        filler = disk / "filler"
        filler.write_bytes(bytes(installation.vault.free() - last.size))
        done = run("status")
        assert done.exit_code == 1
        assert done.output.startswith("PROBLEM: the vault has ")
        assert "the next set wants" in done.output.splitlines()[0]
        assert json.loads(run("status", "--json").output)["ok"] is False
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=30)


def test_doctor_names_what_is_large(run, nights, system):
    """Folders and files of storage with their share, from the index; without an archive it says so."""
    assert "there is no archive of it yet" in run("doctor").output
    (entry,) = nights(0.1)
    said = run("doctor").output
    files = {path: path.stat().st_size for path in system.storage.rglob("*") if path.is_file()}
    total, (largest, size) = sum(files.values()), max(files.items(), key=lambda one: one[1])
    assert f"storage in {entry.name}: {total / 1000:.1f} kB in {len(files)} files" in said
    held = json.loads(run("doctor", "--json").output)["storage"]
    assert held["bytes"] == total
    assert held["largest_files"][0] == {"path": str(largest.relative_to(system.storage)), "bytes": size}
    assert len(held["largest_files"]) == 10
    assert {folder["path"] for folder in held["largest_folders"]} == {"books", "covers", "generated_images"}
    assert sum(folder["bytes"] for folder in held["largest_folders"]) == total


def test_a_damaged_index_is_no_traceback(run, nights, installation):
    """What cannot be read is said, and `doctor` goes on to its end."""
    (entry,) = nights(0.1)
    installation.vault.local_path(entry.companion("index").name).write_bytes(b"junk")
    done = run("doctor")
    assert "the largest of storage: " in done.output
    assert isinstance(done.exception, SystemExit)


def test_latest_that_is_not_the_newest_is_said(run, nights, installation, tmp_path):
    """A restore of `latest` that takes an older one says so: in its plan, in its report, and in `status`."""
    older, newer = nights(1.2, 0.2)
    assert not any("newest" in note for note in plan(installation, "storage").preview.notes)
    installation.vault.delete(newer.name)
    said = f"the newest, {newer.name}, is not proven whole (not_empty: no {newer.name})"
    into = Options(into=str(tmp_path / "into"))
    planned = plan(installation, "storage", options=into)
    assert planned.artifact == older.name
    assert planned.preview.notes[0].startswith(said)
    asked = plan(installation, "storage", older.set, into)
    assert not any("newest" in note for note in asked.preview.notes)
    report = restore(installation, "storage", options=into, confirm="")
    assert (report.good, report.artifact) == (True, older.name)
    assert report.notes[0].startswith(said)
    done = run("status")
    assert f"{ASSET}: {said}" in done.output
    assert older.name in done.output.splitlines()[3]
    (asset,) = json.loads(run("status", "--json").output)["assets"]
    assert asset["note"].startswith(said)
    printed = run("restore", "storage", "--plan").output
    assert f"note      {said}" in printed


def test_a_system_from_an_older_set_is_said(nights, installation):
    """The newest whole set is taken; plan and report say which newer one is not whole, and why."""
    older, newer = nights(1.2, 0.2)
    installation.vault.delete(newer.name)
    said = f"the newest set, {newer.set}, is not proven whole ({ASSET}): `latest` is {older.set}"
    planned = plan_system(installation)
    assert (planned.set, planned.notes[0]) == (older.set, said)
    assert said not in plan_system(installation, older.set).notes
    report = restore_system(installation, confirm=installation.host)
    assert (report.set, report.result, report.notes) == (older.set, "restored", (said,))


def test_a_redis_older_than_the_server_is_found(run, installation, system, monkeypatch, tmp_path):
    """What is first on PATH would load the dumps: where it is too old, `doctor` says so before the night."""
    wheel, machine = find_redis("wheel"), find_redis("machine")
    scratch = MachineScratch(tmp_path)
    here = replace(installation, scratch=scratch)
    monkeypatch.setenv("PATH", f"{wheel}:{os.environ['PATH']}")
    (finding,) = scratch_findings(here)
    assert not finding.good
    assert f"older than the server, {system.redis.version}" in finding.seen
    assert "BACKUP_REDIS_PROGRAMS" in finding.hint
    done = run("doctor")
    assert done.exit_code == 1
    assert finding.seen in done.output
    (named,) = scratch_findings(replace(here, scratch=MachineScratch(tmp_path, redis_folder=machine)))
    assert named.good
    (absent,) = scratch_findings(replace(here, scratch=MachineScratch(tmp_path, redis_folder=tmp_path)))
    assert not absent.good


def test_a_password_of_the_users_own_does_not_reach_scratch_servers(installation, monkeypatch):
    """REDISCLI_AUTH in the environment is for another server: dumps are checked as ever."""
    monkeypatch.setenv("REDISCLI_AUTH", "of another server")
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, installation.today())
    proof = verify(installation, component, entry)
    assert {outcome.check: outcome.message for outcome in proof.checks if not outcome.passed} == {}
    assert str(Catalog(installation.vault).standing(entry)) == "verified"
