"""A machine with a vault, its key and this package: no service is set, and no engine is there."""

import json
import os
import subprocess
import sys

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from tests.fixtures.away import plan_with
from tests.fixtures.living import with_settings

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
SERVICES = ("BACKUP_POSTGRESQL_URL", "BACKUP_REDIS_URL", "BACKUP_STORAGE_PATH", "BACKUP_CONFIG_ROOT")


@pytest.fixture
def there(embedded_bookreader, nas, tmp_path):
    """A BookReader whose set of today is on the NAS, and whose host is gone."""
    plan = plan_with(tmp_path, nas="{ days = 30 }")
    told = {"nas": str(nas), "plan": str(plan), "health_urls": ",", "file_columns": ","}
    living = with_settings(embedded_bookreader, **told)
    living.back_up()
    for entry in waiting(living.installation, Catalog(living.installation.vault), "nas"):
        replicate(living.installation, entry, "nas")
    (tmp_path / "vault").rename(tmp_path / "gone")
    return living


@pytest.fixture
def run(there, tmp_path):
    """Run the program with what is left, by a runner; return what came of it."""
    kept = {k: v for k, v in there.environ.items() if k not in (*SERVICES, "BACKUP_CODE_PATH")}
    host = {k: v for k, v in os.environ.items() if not k.startswith("BACKUP_")}

    def call(*arguments, runner="local", status=0):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=tmp_path,
            env={**host, **kept, "BACKUP_RUNNER": runner, "DOCKER_HOST": "unix:///nowhere/socket"},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return call


@pytest.mark.parametrize("runner", ["local", "docker"])
def test_a_vault_is_looked_at_without_services(run, runner):
    """`list`, `status`, `pin --list` and `prune --plan` read a vault, and want no service of BookReader's."""
    listed = json.loads(run("list", "--vault", "nas", "--json", runner=runner).stdout)
    assert {"postgresql/dump", "redis/rdb"} <= {one["asset"] for one in listed}
    seen = json.loads(run("status", "--vault", "nas", "--json", runner=runner).stdout)
    assert seen["ok"]
    assert "nothing is pinned" in run("pin", "--list", runner=runner).stdout
    assert "removes 0 of 0" in run("prune", "--plan", "--vault", "local", runner=runner).stdout


@pytest.mark.parametrize("runner", ["local", "docker"])
def test_a_vault_is_verified_and_drilled_without_services(run, runner):
    """The machine's own PostgreSQL and Redis take what production's images would: nothing is inconclusive."""
    done = json.loads(run("verify", "--vault", "nas", "--json", runner=runner).stdout)
    verdicts = {check["verdict"] for one in done["artifacts"] for check in one["checks"]}
    assert verdicts == {"passed"}
    for scenario in ("postgresql", "redis"):
        run("drill", scenario, "--vault", "nas", runner=runner)


def test_who_needs_a_service_is_told_its_setting(run):
    """A backup of the database fails with its name: which variable, and what may stand there."""
    refused = run("backup", "postgresql", "--without-dagster", status=1)
    assert "BACKUP_RUNNER is local, and BACKUP_POSTGRESQL_URL is not set" in refused.stderr
    assert "BACKUP_POSTGRESQL_URL=postgresql://… or BACKUP_RUNNER=docker" in refused.stderr
    assert (
        "BACKUP_REDIS_URL is not set" in run("restore", "redis", "--plan", "--vault", "nas", status=1).stderr
    )
