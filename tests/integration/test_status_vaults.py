"""`status` over all vaults: each way in which copies or drills fall short is brought about, and seen."""

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
from bookreader_backup_assets.actions.copies import Holding, three_two_one
from bookreader_backup_assets.actions.drill_report import file_report
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.actions.report import Age
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble, objectives
from bookreader_backup_assets.cli.main import group
from bookreader_backup_assets.core.check import Verdict, passed
from bookreader_backup_assets.core.drill import DrillReport, Objective, Part, judge
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import load_settings
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.missing import missing

ROWS = ("storage", "config")
TODAY = ("storage/archive", "config/archive")
DAYS = "{ days = 30 }"


@pytest.fixture
def planned(environ, tmp_path):
    """Write a plan of storage and configuration, quick to do, with copies in vaults such as `nas`; use it."""

    def write(*vaults, **only):
        text = 'timezone = "UTC"\ndeadline = "05:00"\n'
        for row, at in zip(ROWS, ("03:00", "03:15"), strict=True):
            text += f'[{row}]\nat = "{at}"\n'
            text += "".join(f"{vault} = {DAYS}\n" for vault in (*vaults, *only.get(row, ())))
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
        environ["BACKUP_PLAN"] = str(tmp_path / "plan.toml")

    return write


@pytest.fixture
def mounted(environ, other_disk):
    """A NAS, as the vault nas."""
    environ["BACKUP_NAS"] = str(other_disk)
    return other_disk


@pytest.fixture
def with_bucket(environ, bucket):
    """A bucket of a real S3 server, as the vault offsite."""
    environ |= {
        "BACKUP_OFFSITE_BUCKET": bucket.bucket,
        "BACKUP_OFFSITE_ENDPOINT": bucket.endpoint,
        "BACKUP_OFFSITE_REGION": bucket.region,
        "BACKUP_OFFSITE_ACCESS_KEY": bucket.key_id.reveal(),
        "BACKUP_OFFSITE_SECRET_KEY": bucket.secret_key.reveal(),
        "BACKUP_OFFSITE_ENCRYPTION": bucket.encryption or "none",
    }


@pytest.fixture
def made(environ, tmp_path):
    """Capture and verify today's set, replicate it into the vaults named, and return the installation."""

    def make(*vaults, assets=TODAY, now=None):
        settings = load_settings(environ, env_file=tmp_path / "none")
        installation = assemble(settings, now=now or (lambda: datetime.now(UTC)))
        for asset in assets:
            component = installation.component(asset)
            entry, fresh = capture(installation, component, installation.today())
            if fresh:
                verify(installation, component, entry)
        for vault in vaults:
            send(installation, vault)
        return installation

    return make


def send(installation, vault, **how):
    """Replicate what is missing."""
    for entry in waiting(installation, Catalog(installation.vault), vault, **how):
        replicate(installation, entry, vault)


@pytest.fixture
def status(environ, tmp_path, monkeypatch):
    """Run `status`, some hours from now; return exit status, first line, and JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, hours=0.0):
        at = datetime.now(UTC) + timedelta(hours=hours)
        monkeypatch.setattr("bookreader_backup_assets.cli.status.utc_now", lambda: at)
        text = CliRunner().invoke(group, ["status", *arguments], env=environ)
        document = CliRunner().invoke(group, ["status", *arguments, "--json"], env=environ)
        assert isinstance(text.exception, SystemExit | None), text.exception
        assert document.exit_code == text.exit_code
        found = json.loads(document.output)
        assert found["ok"] is (text.exit_code == 0)
        if not found["ok"]:
            assert text.output.splitlines()[0] == "PROBLEM: " + "; ".join(found["problems"])
        return text.exit_code, text.output, found

    return run


def test_everything_is_where_it_should_be(planned, mounted, with_bucket, made, status):
    """Young verified copies on the NAS and in the bucket: OK, four copies, three media, one away."""
    planned("nas", "offsite")
    made("nas", "offsite")
    code, said, found = status()
    assert (code, said.splitlines()[0]) == (
        0,
        "OK: every asset has a verified backup that is young enough, in nas, offsite, too",
    )
    assert "\n3-2-1: 4 copies, 3 media, 1 offsite\n" in said
    assert "\ndrill: none yet; not due before " in said
    assert max(map(len, said.splitlines())) <= 100
    assert {(one["vault"], one["ok"]) for one in found["vaults"]} == {
        ("local", True),
        ("nas", True),
        ("offsite", True),
    }
    assert found["three_two_one"] == {"copies": 4, "media": 3, "away": 1, "lacking": [], "ok": True}


def test_a_plan_that_keeps_all_here_is_content(planned, made, status):
    """It says that it keeps local copies only, and that is no problem."""
    planned()
    made()
    code, said, found = status()
    assert code == 0
    assert "\n3-2-1: the plan keeps local copies only\n" in said
    assert found["three_two_one"] is None


def test_a_copy_that_is_not_there(planned, mounted, made, status):
    """A vault without copies, and one without some: which, and where."""
    planned("nas")
    here = made()
    code, said, _ = status()
    assert code == 1
    assert said.startswith("PROBLEM: no verified copy young enough in nas of anything\n")
    entry = Catalog(here.vault).newest("config/archive")
    replicate(here, entry, "nas")
    _, said, found = status()
    assert said.startswith("PROBLEM: no verified copy young enough in nas of storage/archive\n")
    (held,) = (one for one in found["vaults"] if one["vault"] == "nas")
    assert [asset["ok"] for asset in held["assets"]] == [False, True]


def test_a_copy_that_is_too_old(planned, mounted, made, status):
    """The next night's is here and not there: 26 hours after the last copy it is too old."""
    planned("nas")
    before = datetime.now(UTC) - timedelta(hours=27)
    here = made("nas")
    for entry in Catalog(here.vault).entries():
        for vault in (here.vault, here.reading("nas").vault):
            aged = replace(entry, captured_at=before)
            vault.delete(entry.entry_name)
            vault.put(entry.entry_name, [aged.to_json()])
    made(assets=("storage/archive",))
    _, said, _ = status()
    first, *_, last = said.splitlines()[0].split("; ")
    assert first == "PROBLEM: no verified backup young enough of config/archive"
    assert last == "no verified copy young enough in nas of anything"
    assert "TOO OLD" in said
    made("nas")
    _, said, _ = status()
    assert said.startswith("PROBLEM: 3-2-1 is short")


def test_what_was_found_unchanged_is_young_there_too(planned, mounted, made, status):
    """The configuration of last month has not changed: looking makes it young, there when that arrives."""
    planned(config=("nas",))
    here = made("nas")
    (entry,) = Catalog(here.vault).entries(asset="config/archive")
    aged = replace(entry, captured_at=datetime.now(UTC) - timedelta(days=30))
    for vault in (here.vault, here.reading("nas").vault):
        vault.delete(entry.entry_name)
        vault.put(entry.entry_name, [aged.to_json()])
    assert "in nas of config/archive" in status()[1].splitlines()[0]
    here = made(assets=("config/archive",))
    assert len(Catalog(here.vault).entries(asset="config/archive")) == 1
    assert "in nas of config/archive" in status()[1].splitlines()[0]
    send(here, "nas")
    assert "in nas of" not in status()[1].splitlines()[0]


def test_a_copy_with_other_bytes_is_none(planned, mounted, made, status):
    """Found when it was compared there; it is replaced by what is proven here, and whole again."""
    planned("nas")
    here = made("nas")
    entry = Catalog(here.vault).newest("storage/archive")
    path = here.reading("nas").vault.local_path(entry.name)
    good = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(good[:-1] + b"?")
    assert not compare(here, entry, "nas").passed
    assert Catalog(here.reading("nas").vault).standing(entry).verdict is Verdict.FAILED
    assert "no verified copy young enough in nas of storage/archive" in status()[1].splitlines()[0]
    send(here, "nas", thorough=True)
    assert path.read_bytes() == good
    assert "in nas of" not in status()[1].splitlines()[0]


def test_no_copy_away_is_short_of_321(planned, mounted, made, status):
    """All that the plan wants is there, and the plan wants nothing away: what would bring it away."""
    planned("nas")
    made("nas")
    code, said, found = status()
    short = "3-2-1 is short: 3 copies, 2 media, 0 offsite of storage, config"
    assert (code, said.splitlines()[0]) == (
        1,
        f"PROBLEM: {short}: `offsite` in its row of the plan brings one away",
    )
    assert found["three_two_one"]["lacking"] == ["storage", "config"]


@pytest.mark.usefixtures("with_bucket")
def test_a_nas_on_the_disk_of_the_vault_is_no_copy(planned, environ, nas, made, status):
    """It is said, and it counts neither as a copy nor as a medium: the disk that fails takes both."""
    planned("nas", "offsite")
    environ["BACKUP_NAS"] = str(nas)
    made("nas", "offsite")
    code, said, found = status()
    assert code == 0, said
    assert "\n3-2-1: 3 copies, 2 media, 1 offsite\n" in said
    assert "\nnas is on the disk of the local vault, and counts as no copy of its own\n" in said
    assert {one["vault"]: one["same_disk"] for one in found["vaults"]} == {
        "local": False,
        "nas": True,
        "offsite": False,
    }
    planned("nas")
    assert status()[1].startswith("PROBLEM: 3-2-1 is short: 2 copies, 1 medium, 0 offsite")


def test_two_copies_are_short_of_321(planned, with_bucket, made, status):
    """Here and in the bucket with production itself are three; without the one here they are two."""
    planned("offsite")
    made("offsite")
    assert "\n3-2-1: 3 copies, 2 media, 1 offsite\n" in status()[1]
    _, _, found = status(hours=27)
    assert found["three_two_one"]["copies"] == 1


def test_the_weakest_component_counts():
    """Configuration in git makes no copy of the database."""

    def held(vault, *components):
        young = timedelta(hours=1)
        ages = [Age(f"{one}/archive", None, young, 2 * young) for one in components]
        return Holding(vault, tuple(ages))

    here, git = held("local", "storage", "config"), held("git", "config")
    found = three_two_one([here, git, held("nas", "storage")], ("storage", "config"))
    assert (found.copies, found.media, found.away, found.lacking) == (3, 2, 0, ("storage",))
    assert str(found) == "3 copies, 2 media, 0 offsite"
    bad = replace(git, error="it does not answer", ages=())
    assert three_two_one([here, bad], ("config",)).copies == 2


def test_weekly_copies_may_be_a_week_old():
    """The shipped plan: Redis is offsite with weekly fulls only; git has the configuration."""
    plan = load_plan("production")
    day, week = timedelta(hours=26), timedelta(hours=170)
    away = objectives(plan, "offsite")
    assert away["redis/rdb"] == away["code/bundle"] == week
    assert {away[asset] for asset in objectives(plan) if asset.startswith(("postgresql", "storage"))} == {day}
    assert away.keys() == objectives(plan).keys()
    assert objectives(plan, "git") == {"config/archive": day}
    assert objectives(plan, "nas") == {}


def test_a_weekly_copy_is_due_after_a_week(environ, mounted, made, status, tmp_path):
    """On the first days nobody misses it; when the first Sunday is over somebody does."""
    (tmp_path / "plan.toml").write_text(
        'timezone = "UTC"\ndeadline = "05:00"\n[weekly]\nat = "03:00"\nnas = { weeks = 4 }\n'
        '[config]\nat = "03:15"\n',
        encoding="utf-8",
    )
    environ |= {"BACKUP_PLAN": str(tmp_path / "plan.toml")}
    made(assets=("config/archive",))
    for hours, due in ((0, False), (171, True)):
        _, said, found = status(hours=hours)
        (held,) = (one for one in found["vaults"] if one["vault"] == "nas")
        assert [(one["due"], one["ok"]) for one in held["assets"]] == [(due, not due)]
        assert ("in nas of config/archive" in said.splitlines()[0]) is due


def test_a_vault_that_is_not_set_up(planned, made, status):
    """The plan wants copies in it: which setting it takes, or that the plan may do without."""
    planned("offsite")
    made()
    code, said, found = status()
    assert code == 1
    assert said.startswith(
        "PROBLEM: the plan wants copies in offsite, which is not set up: set BACKUP_OFFSITE"
    )
    assert "or take it out of the plan" in said.splitlines()[0]
    assert (
        "\n3-2-1 is short: 2 copies, 1 medium, 0 offsite of storage, config: set BACKUP_OFFSITE_BUCKET"
        in said
    )
    assert found["not_set_up"] == ["offsite"]


def test_git_alone_may_be_missing(planned, mounted, with_bucket, made, status):
    """Where another vault has the configuration, too, that is told, and no problem; where none has, it is."""
    planned("offsite", config=("git",))
    made("offsite")
    code, said, _ = status()
    assert code == 0, said
    assert "\ngit is not set up, and another vault has what it would have: set BACKUP_GIT_REMOTE" in said
    planned(config=("git",), storage=("offsite",))
    assert status()[1].startswith("PROBLEM: the plan wants copies in git, which is not set up")


@pytest.mark.usefixtures("with_bucket")
def test_a_vault_that_cannot_be_asked(planned, environ, mounted, made, status):
    """What the vault says is the problem; the others are reported all the same."""
    planned("nas", "offsite")
    made("nas", "offsite")
    (mounted / MARKER).unlink()
    code, said, found = status()
    assert code == 1
    assert said.startswith(f"PROBLEM: the vault nas cannot be asked: the NAS is not mounted at {mounted}")
    assert {one["vault"]: one["ok"] for one in found["vaults"]} == {
        "local": True,
        "nas": False,
        "offsite": True,
    }
    environ["BACKUP_OFFSITE_SECRET_KEY"] = "of somebody else"
    _, said, _ = status()
    assert "; the vault offsite cannot be asked: " in said.splitlines()[0]
    assert "somebody else" not in said


def test_one_vault_is_looked_at_alone(planned, environ, mounted, made, status):
    """`--vault local` asks nobody else; another vault alone says nothing of this disk; none is made up."""
    planned("nas", "offsite")
    made("nas")
    (mounted / MARKER).rename(mounted / "gone")
    code, said, found = status("--vault", "local")
    assert (code, said.splitlines()[0][:3], [one["vault"] for one in found["vaults"]]) == (
        0,
        "OK:",
        ["local"],
    )
    assert (found["three_two_one"], found["not_set_up"]) == (None, [])
    (mounted / "gone").rename(mounted / MARKER)
    shutil.rmtree(environ["BACKUP_VAULT"])
    code, said, found = status("--vault", "nas")
    assert (code, [one["vault"] for one in found["vaults"]]) == (0, ["nas"]), said
    assert (found["growth"], found["drill"]) == (None, None)
    for name, hint in (("offsite", "BACKUP_OFFSITE_BUCKET"), ("tape", "there are: local, nas")):
        refused = CliRunner().invoke(group, ["status", "--vault", name], env=environ)
        assert name in refused.exception.message
        assert hint in refused.exception.hint


@pytest.mark.usefixtures("mounted")
def test_copies_of_another_installation_are_not_ours(planned, environ, made, status, tmp_path):
    """Two that share a NAS do not vouch for each other."""
    planned("nas")
    made("nas")
    environ["BACKUP_VAULT"] = str(tmp_path / "another")
    made()
    assert "in nas of anything" in status()[1].splitlines()[0]


def report_of(installation, ended_at, seconds, message="as captured"):
    """A drill of the configuration that took so long."""
    objective = {"file": Objective(rto=60, rpo=26 * 3600)}
    outcome = passed("came_back", message)
    part = Part("config", "config/x", ended_at, outcomes=(outcome,))
    results = judge("config", [part], objective, ended_at)
    results = tuple(replace(one, seconds=seconds) for one in results)
    return DrillReport(
        installation=installation.id,
        host="host",
        scenario="config",
        set="2026-06-10",
        vault="local",
        key="none",
        began_at=ended_at,
        ended_at=ended_at,
        parts=(part,),
        results=results,
    )


def test_the_last_drill_counts(planned, made, status):
    """None yet, one that was good, the next that was not, and two months without."""
    planned()
    here = made()
    now = datetime.now(UTC)
    assert "\ndrill: none yet; not due before " in status("--vault", "local")[1]
    _, said, found = status(hours=63 * 24)
    assert "there was no drill yet, and 63 days went by: bookreader-backup drill" in said.splitlines()[0]
    file_report(here, report_of(here, now - timedelta(minutes=2), 12.3))
    code, said, found = status()
    assert code == 0
    assert (
        f"\ndrill: config of the set 2026-06-10, {now:%Y-%m-%d}: passed; slowest: config, 12.3 s of 1 min"
        in said
    )
    assert found["drill"]["slowest"]["seconds"] == 12.3
    assert "the last drill is old, and 63 days went by" in status(hours=63 * 24)[1].splitlines()[0]
    file_report(here, report_of(here, now - timedelta(minutes=1), 61))
    code, said, found = status()
    assert (code, found["drill"]["ok"]) == (1, False)
    failed = f"PROBLEM: the last drill (config, {now:%Y-%m-%d}) failed: config took 61.0 s, and may take 60 s"
    assert said.startswith(failed)


def test_a_vault_that_takes_nothing(planned, environ, made, status, tmp_path):
    """What is there is young enough, and tonight's cannot be kept."""
    planned()
    disk = tmp_path / "vault"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m,mode=0700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        missing("a small disk cannot be mounted here (not root, or a container without that right)")
    try:
        made()
        assert status()[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
        code, said, _ = status()
        assert code == 1
        assert said.startswith(f"PROBLEM: the local vault at {disk} cannot be written")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=30)


def test_what_a_wrong_clock_made_is_named(planned, made, status):
    """It is not the newest; and the set that it made is told."""
    planned()
    here = made()
    (entry,) = Catalog(here.vault).entries(asset="storage/archive")
    wrong = replace(entry, captured_at=datetime(2036, 1, 1, tzinfo=UTC))
    here.vault.delete(entry.entry_name)
    here.vault.put(entry.entry_name, [wrong.to_json()])
    _, said, _ = status()
    assert said.startswith("PROBLEM: no verified backup young enough of storage/archive")
    assert f"\nstorage/archive: {entry.name}: captured in the future (2036-01-01 00:00 UTC)" in said
    assert f"`bookreader-backup list {entry.set}`" in said
