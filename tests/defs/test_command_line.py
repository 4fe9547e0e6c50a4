"""Runs that the command line launches: the schedules' jobs, in its own process, seen by Dagster."""

import os
import signal
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dagster as dg
import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.cli.dagster_runs import dagster_home, with_dagster
from bookreader_backup_assets.components.storage import StorageArchive
from bookreader_backup_assets.core.errors import BackupError


@pytest.fixture
def home(environ, monkeypatch, tmp_path):
    """A `DAGSTER_HOME` that is not there yet, and the settings in the environment."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "state" / "dagster"))
    return tmp_path / "state" / "dagster"


def test_runs_are_seen_by_dagster(home, installation):
    """The jobs' runs are in Dagster's storage, the day is sealed once, and the home is this user's only."""
    assert with_dagster(installation, ("storage", "config", "code"))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
    assert {run.job_name: run.status for run in runs} == {
        "capture_storage": dg.DagsterRunStatus.SUCCESS,
        "capture_config": dg.DagsterRunStatus.SUCCESS,
        "capture_code": dg.DagsterRunStatus.SUCCESS,
        "seal": dg.DagsterRunStatus.FAILURE,  # the plan wants PostgreSQL and Redis, too
    }
    for run in runs:
        week = run.job_name == "capture_code"
        day = installation.week_of("code") if week else installation.today()
        assert run.tags["dagster/partition"] == day
    assert len(Catalog(installation.vault).entries(asset="backup_set/manifest")) == 1


def test_one_that_fails_does_not_stop_the_next(home, installation):
    """Config lacks a path that it should have, storage is captured all the same, and the answer is no."""
    config = replace(installation.component("config/archive"), paths=("absent",))
    broken = replace(installation, components={**installation.components, "config/archive": config})
    assert not with_dagster(broken, ("config", "storage"))
    assert Catalog(installation.vault).newest("storage/archive", verified=True)
    assert Catalog(installation.vault).newest("config/archive", verified=True) is None


def test_ctrl_c_ends_it(home, installation):
    """Ctrl-C in the middle of a capture ends the command: no next component, no seal, no half artifact."""

    @dataclass(frozen=True)
    class Interrupted:
        """Storage, in the middle of whose capture somebody presses Ctrl-C."""

        storage: StorageArchive

        def __getattr__(self, name):
            return getattr(self.storage, name)

        @contextmanager
        def capture(self):
            with self.storage.capture() as source:
                yield replace(source, chunks=self.interrupted(source.chunks))

        def interrupted(self, chunks):
            yield next(chunks)
            os.kill(os.getpid(), signal.SIGINT)
            yield from chunks

    storage = Interrupted(installation.component("storage/archive"))
    interrupted = replace(installation, components={**installation.components, "storage/archive": storage})
    with pytest.raises(KeyboardInterrupt):
        with_dagster(interrupted, ("storage", "config"))
    catalog = Catalog(installation.vault)
    assert [failure.error for failure in catalog.failures(installation.today())] == ["it was stopped"]
    assert list(installation.vault.list("storage/")) == []
    assert catalog.entries() == []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert [(run.job_name, run.status) for run in instance.get_runs()] == [
            ("capture_storage", dg.DagsterRunStatus.FAILURE)
        ]


def test_own_configuration_is_kept(home):
    """A `dagster.yaml` that is there already is left alone."""
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    assert dagster_home() == home
    assert (home / "dagster.yaml").read_text(encoding="utf-8") == "telemetry: {enabled: false}\n"


def test_storage_gone(home, installation):
    """Where Dagster's storage cannot be used, the hint says how to capture without it."""
    home.parent.mkdir()
    home.write_text("no folder", encoding="utf-8")
    with pytest.raises(BackupError) as caught:
        with_dagster(installation, ("storage",))
    assert "--without-dagster" in caught.value.hint
    assert Catalog(installation.vault).entries() == []


def test_storage_damaged(home, installation):
    """A database that is none is Dagster's storage gone, too."""
    (home / "history").mkdir(parents=True)
    (home / "history" / "runs.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(BackupError) as caught:
        with_dagster(installation, ("storage",))
    assert "--without-dagster" in caught.value.hint
