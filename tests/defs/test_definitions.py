"""The definitions load wherever they are, say what is wrong with settings, and read well in the UI."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from bookreader_backup_assets.definitions import COMPONENTS, build
from bookreader_backup_assets.settings import load_settings

ROOT = Path(__file__).parents[2]
NOWHERE = {
    "BACKUP_RUNNER": "local",
    "BACKUP_POSTGRESQL_URL": "postgresql://nobody:secret@127.0.0.1:9/none",
    "BACKUP_REDIS_URL": "redis://127.0.0.1:9",
    "BACKUP_STORAGE_PATH": "/nowhere/storage",
    "BACKUP_CONFIG_ROOT": "/nowhere",
    "BACKUP_VAULT": "/nowhere/vault",
}
ASSETS = [
    "assurance/restore_drill",
    "backup_set/labelled",
    "backup_set/manifest",
    "backup_set/weekly",
    "code/bundle",
    "config/archive",
    "logs/archive",
    "postgresql/dump",
    "postgresql/globals",
    "postgresql/sql",
    "redis/rdb",
    "storage/archive",
]


def built(**environ: str) -> dg.Definitions:
    """Return the definitions of settings that name nothing that exists."""
    return build(load_settings({**NOWHERE, **environ}, env_file=Path(os.devnull)))


DUE = {
    "assurance": "04:00 UTC, day 1 of the month",
    "postgresql": "02:00 UTC",
    "redis": "02:30 UTC",
    "storage": "03:00 UTC",
    "config": "03:15 UTC",
    "code": "sunday, 03:00 UTC",
    "backup_set": "05:00 UTC",
    "logs": "minute 5 of each hour, for the one before",
}


@pytest.fixture(scope="module")
def graph():
    """The asset graph of an installation of which nothing is there."""
    return built().resolve_asset_graph()


@pytest.mark.parametrize("runner", ["local", "docker"])
def test_loads_with_everything_absent(runner):
    """Servers, Docker, key, paths and vault may all be absent: nothing is contacted at load."""
    dg.Definitions.validate_loadable(built(BACKUP_RUNNER=runner))


@pytest.mark.parametrize("arguments", ["-m bookreader_backup_assets.definitions", "-w workspace.yaml"])
def test_dagster_validates(arguments, tmp_path):
    """`dagster definitions validate` accepts the module, and the workspace."""
    assert validate(arguments.split(), tmp_path, NOWHERE).returncode == 0


def test_wrong_settings_are_said(tmp_path):
    """A wrong setting stops the code location with the variable's name and what it might be."""
    done = validate(["-w", "workspace.yaml"], tmp_path, {**NOWHERE, "BACKUP_VALT": "x"})
    assert done.returncode != 0
    assert "BACKUP_VALT is not a setting; did you mean BACKUP_VAULT?" in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr


def validate(arguments, folder, environ):
    """Have Dagster validate the code location with these settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKUP_")}
    return subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", *arguments],
        cwd=ROOT,
        env={**clean, **environ, "DAGSTER_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_assets_are_grouped_by_component(graph):
    """There is one group for each component, with the component's name, one for the set, one for drills."""
    found = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert sorted(found) == ASSETS
    assert all(asset.split("/")[0] == group for asset, group in found.items())
    assert set(found.values()) == {*COMPONENTS, "code", "logs", "backup_set", "assurance"}


@pytest.mark.parametrize("asset", ASSETS)
def test_assets_explain_themselves(graph, asset):
    """Each asset says at 3 a.m. what it is, how to read its file by hand, when it is due, and where it is."""
    node = graph.get(dg.AssetKey(asset.split("/")))
    assert len(node.description) > 80
    assert node.kinds
    assert node.partitions_def
    assert "/nowhere/vault" in str(node.metadata["folder"].value)
    assert node.metadata["due"] == DUE[node.group_name]
    assert "By hand" in node.description


def test_graph_reads_from_components_to_manifest(graph):
    """The manifest depends on everything that is planned, and nothing depends on it."""
    manifest = graph.get(dg.AssetKey(["backup_set", "manifest"]))
    planned = {key.to_user_string() for key in manifest.parent_keys}
    assert planned == {
        one for one in ASSETS if not one.startswith(("backup_set/", "assurance/", "code/", "logs/"))
    }
    assert not manifest.child_keys


def test_checks_block_and_are_partitioned(graph):
    """Every check of an artifact blocks what follows, has the days of its asset, says what it proves."""
    keys = graph.asset_check_keys
    assert {(key.asset_key.to_user_string(), key.name) for key in keys} >= {
        ("postgresql/dump", "restorable"),
        ("postgresql/globals", "sha256"),
        ("redis/rdb", "not_empty"),
        ("backup_set/manifest", "complete"),
    }
    for key in keys:
        node = graph.get(key)
        assert node.blocking == (key.name != "on_remote"), key  # that is about a remote, not the artifact
        assert node.partitions_def == graph.get(key.asset_key).partitions_def, key
        assert node.description, key


def test_assets_have_all_their_checks(graph):
    """An asset has every check that its component makes, and the two of every artifact, once."""
    by_asset = {}
    for key in graph.asset_check_keys:
        by_asset.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    for asset, names in by_asset.items():
        assert len(names) == len(set(names)), asset
        assert {"not_empty", "sha256"} <= set(names), asset
    assert sorted(by_asset) == ASSETS


def test_first_day_is_a_setting():
    """The first partition is BACKUP_FIRST_DAY, and today is the last."""
    graph = built(BACKUP_FIRST_DAY="2026-11-01").resolve_asset_graph()
    days = graph.get(dg.AssetKey(["redis", "rdb"])).partitions_def
    assert days.get_first_partition_key() == "2026-11-01"


def test_a_first_day_to_come_is_refused():
    """A first day in the future would leave no partition to capture."""
    with pytest.raises(Exception, match="BACKUP_FIRST_DAY") as caught:
        built(BACKUP_FIRST_DAY="2999-01-01")
    assert caught.value.hint


def test_every_step_runs_in_one_process():
    """Runs launched from the UI use the same executor as the jobs."""
    repository = built().get_repository_def()
    for job in repository.get_all_jobs():
        assert job.executor_def.name == "in_process", job.name
