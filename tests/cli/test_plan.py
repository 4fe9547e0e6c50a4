"""`plan`: the guide's table, with what is kept where, and what encryption means for a restore."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.cli.main import group
from tests.fixtures.away import plan_encrypting, plan_with

KEY = {"BACKUP_KEY": "long enough to be a passphrase of somebody"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Print a plan in an empty folder; return what is said, and the JSON document."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **environ):
        env = {"BACKUP_RUNNER": "local", "BACKUP_VAULT": str(tmp_path / "vault"), **KEY, **environ}
        text = CliRunner().invoke(group, ["plan", *arguments], env=env)
        document = CliRunner().invoke(group, ["plan", *arguments, "--json"], env=env)
        assert (text.exit_code, document.exit_code) == (0, 0), text.exception or document.exception
        return text.output, json.loads(document.output)

    return call


def columns(said):
    """What each row of the second table says, by its first cell and its headings."""
    table = said.split("\n\n")[2].splitlines()
    headings = ("KEPT FOR", *table[0].removeprefix("KEPT FOR").split())
    starts = [table[0].index(heading) for heading in headings]
    ends = [*starts[1:], None]
    cells = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in table[1:]]
    return {row: dict(zip(headings[1:], rest, strict=True)) for row, *rest in cells}


def test_each_wanted_vault_has_a_column(run):
    """As the guide has it: what is where for how long, in which class; no line is too long for a terminal."""
    said, document = run("production")
    kept = columns(said)
    month = "30 days (STANDARD_IA)"
    assert kept["Database"] == {"LOCAL": "7 days", "OFFSITE": month, "GIT": ""}
    assert kept["Redis"] == {"LOCAL": "3 days", "OFFSITE": "", "GIT": ""}
    assert kept["Configuration"] == dict.fromkeys(("LOCAL", "OFFSITE", "GIT"), "10 versions")
    assert kept["Full system"]["OFFSITE"] == "4 weeks (STANDARD_IA)"
    assert max(map(len, said.splitlines())) <= 120
    rows = {row["backup"]: row for row in document["rows"]}
    assert (rows["Database"]["keep"], rows["Database"]["offsite"]) == ("7 days", month)
    assert "offsite is not set up: set BACKUP_OFFSITE_BUCKET, and a key for it" in said.splitlines()
    assert columns(run("development")[0])["Database"] == {"LOCAL": "3 days"}


def test_locks_are_shown(run, tmp_path):
    """And a row without a limit says that it has none."""
    lock = "{ days = 30, storage_class = 'GLACIER_IR', lock_days = 14 }"
    plan = plan_with(tmp_path, nas="{ weeks = 2 }", offsite=lock)
    text = plan.read_text(encoding="utf-8").replace("keep = { days = 3 }\n", "")
    plan.write_text(text, encoding="utf-8")
    kept = columns(run(str(plan))[0])
    assert kept["Redis"]["LOCAL"] == "no limit"
    said = {"LOCAL": "7 days", "NAS": "2 weeks", "OFFSITE": "30 days (GLACIER_IR, locked 14 days)"}
    assert kept["Storage files"] == said


def test_what_encryption_means_for_one_file_is_said(run, tmp_path):
    """In clear only its part of the archive is read; encrypted, all before it, too."""
    said, document = run(str(plan_with(tmp_path)))
    assert "one file is restored by reading its part of storage's archive" in said
    assert document["encrypted"] == ["config"]
    said, document = run(str(plan_encrypting(tmp_path)))
    assert "one file is restored by reading storage's archive from its start up to it" in said
    assert document["encrypted"] == ["postgresql", "redis", "storage", "config", "code", "logs"]
    mount = Path(tmp_path / "mnt")
    plan = str(plan_with(tmp_path, nas="{ days = 3 }"))
    _, document = run(plan, BACKUP_NAS=str(mount))
    assert document["encrypted"] == ["postgresql", "redis", "config", "logs"]
