"""`bookreader-backup restore` as an operator meets it: plan, refusals, report, and the way back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.cli.restore import command

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]


@pytest.fixture
def run(embedded_bookreader, tmp_path):
    """Run the program on a BookReader of the test's own, in an empty folder; return what came of it."""
    home = tmp_path / "home"
    home.mkdir()

    def call(*arguments, **more):
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=home,
            env={**os.environ, "HOME": str(home), **embedded_bookreader.environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_a_restore_from_the_plan_to_the_undo(run, embedded_bookreader):
    """What is printed is what is typed next: plan, confirm, report, undo."""
    there = embedded_bookreader
    there.back_up("postgresql")
    good = there.rows()
    there.sql("DELETE FROM alembic_version")
    damaged = there.rows()
    planned = run("restore", "postgresql", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert f"add: --confirm {there.database}" in planned.stdout
    assert "verified" in planned.stdout
    assert there.rows() == damaged
    done = run("restore", "postgresql", "--confirm", there.database)
    assert done.returncode == 0, done.stderr
    assert there.rows() == good
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("to go back: ")]
    undone = run(*command.removeprefix("to go back: bookreader-backup ").split())
    assert undone.returncode == 0, undone.stderr
    assert there.rows() == damaged
    listed = json.loads(run("restore", "reports", "--json").stdout)
    assert [row["result"] for row in listed] == ["undone"]


def test_without_a_confirmation_the_plan_is_shown(run, embedded_bookreader):
    """Exit status 2, the plan, and nothing done."""
    embedded_bookreader.back_up("postgresql")
    done = run("restore", "postgresql")
    assert done.returncode == 2
    assert "nothing is done yet" in done.stdout
    assert "typed back" in done.stderr
    assert json.loads(run("restore", "reports", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["postgresql", "--from", "2001-01-01", "--confirm", "x"], "there are: "),
        (["postgresql", "--vault", "/nonexistent", "--plan"], "is not a vault"),
        (["table"], "--table users"),
        (["file"], "--path"),
        (["undo", "2001-01-01_00-00-00_postgresql"], "nothing was restored yet"),
        (["accept", "x"], "nothing was restored yet"),
        (["finish", "--leave", "x"], "nothing was restored yet"),
    ],
)
def test_a_refusal_says_what_to_do(run, embedded_bookreader, arguments, said):
    """What cannot be is refused with exit status 2 and a hint."""
    if "postgresql" in arguments:
        embedded_bookreader.back_up("postgresql")
    done = run("restore", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    as_json = run("restore", *arguments, *(["--json"] if "accept" not in arguments else []))
    assert as_json.returncode == 2


def test_a_copy_of_the_vault_is_enough(run, embedded_bookreader, tmp_path):
    """From a copy on another disk, with the vault itself gone, and Dagster never started."""
    there = embedded_bookreader
    there.back_up("postgresql")
    good = there.rows()
    shutil.move(tmp_path / "vault", tmp_path / "copy")
    there.sql(f'DROP DATABASE "{there.database}" WITH (FORCE)', "postgres")
    argv = ["restore", "postgresql", "--vault", str(tmp_path / "copy"), "--confirm", there.database]
    done = run(*argv, "--json", DAGSTER_HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["good"] is True
    assert there.rows() == good


def test_a_killed_restore_is_named_by_doctor_and_finished(run, embedded_bookreader):
    """`doctor` says what to type, and after `restore finish` it is content."""
    there = embedded_bookreader
    there.back_up()
    argv = [*PROGRAM, "restore", "postgresql", "--confirm", there.database]
    running = subprocess.Popen(argv, env={**os.environ, **there.environ}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((there.installation.vault.root / "restores").glob("*/*_beside.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    assert "restore finish" in run("doctor").stdout
    done = run("restore", "finish")
    assert done.returncode == 0, done.stderr
    assert "abandoned" in done.stdout
    assert run("doctor").returncode == 0
    assert "no restore was killed" in run("restore", "finish").stdout


def test_help_teaches():
    """Every command of `restore` says what it does and shows its options."""
    said = CliRunner().invoke(command, ["--help"]).output
    for name in command.commands:
        assert f"\n  {name}" in said
        shown = CliRunner().invoke(command, [name, "--help"])
        assert shown.exit_code == 0
        assert "--vault" in shown.output
    assert {"postgresql", "table", "redis", "storage", "file", "config", "code", "system"} <= set(
        command.commands
    )
