"""`backup --label`, `list --label` and `plan` on the command line."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]


@pytest.fixture
def run(environ, tmp_path):
    """Run the program in an empty folder with a home of its own; return what came of it."""
    home = tmp_path / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if k not in {"DAGSTER_HOME", "XDG_STATE_HOME"}}

    def call(*arguments, **more):
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=home,
            env={**clean, "HOME": str(home), **environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_before_a_deployment(run):
    """A labelled set is made without Dagster's storage, is listed, and says what a restore would take."""
    made = run("backup", "--label", "pre-deploy", "redis", "config", "--json", DAGSTER_HOME="/dev/null/x")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["set"].endswith("_pre-deploy")
    assert [one["asset"] for one in said["assets"]] == ["redis/rdb", "config/archive", "backup_set/labelled"]
    assert {one["standing"] for one in said["assets"]} == {"verified"}
    listed = run("list", "--label", "pre-deploy")
    assert listed.stdout.count("pre-deploy") >= 3
    assert "LABEL" in listed.stdout
    assert json.loads(run("list", said["set"], "--json").stdout)[0]["label"] == "pre-deploy"
    assert run("verify", said["set"]).returncode == 0
    plan = run("restore", "config", "--from", said["set"], "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "pre-deploy" in plan.stdout


def test_a_deployment_that_must_not_go_on(run):
    """A capture that fails makes the exit status 1; the rest is captured, and the manifest names it."""
    made = run("backup", "--label", "pre-deploy", "storage", "config", BACKUP_STORAGE_PATH="/nowhere/at/all")
    assert made.returncode == 1
    assert "/nowhere/at/all" in made.stderr
    assert "config_" in made.stdout


@pytest.mark.parametrize("label", ["pre/deploy", "late", "Pre", ""])
def test_what_can_be_no_label_is_refused(run, label, tmp_path):
    """With exit status 2, before anything is captured."""
    refused = run("backup", "--label", label, "config")
    assert refused.returncode == 2
    assert "label" in refused.stderr
    assert not list((tmp_path / "vault").rglob("config_*"))


def test_a_label_that_nothing_has(run):
    """It says which there are."""
    assert run("backup", "--label", "pre-deploy", "config").returncode == 0
    refused = run("list", "--label", "post-update")
    assert (refused.returncode, "pre-deploy" in refused.stderr) == (2, True)


def test_the_plan_is_the_guides_table(run, tmp_path):
    """What, when, for how long, and the next run; of a plan that ships, and of a file."""
    said = run("plan", BACKUP_TIMEZONE="Europe/Moscow").stdout
    assert said.startswith("plan production, times in Europe/Moscow")
    assert "weekly (Sunday 03:00)" in said
    rows = json.loads(run("plan", "development", "--json").stdout)["rows"]
    assert [(row["backup"], row["keep"]) for row in rows[:3]] == [
        ("Database", "3 days"),
        ("Storage files", "2 weeks"),
        ("Configuration", "5 versions"),
    ]
    assert all(row["next_run"].endswith("Z") for row in rows[:3])
    (tmp_path / "own.toml").write_text('timezone = "UTC"\ndeadline = "05:00"\n[redis]\nat = "1"\n')
    refused = run("plan", str(tmp_path / "own.toml"))
    assert refused.returncode == 2
    assert "own.toml: line 4, redis.at" in refused.stderr
