"""Fixtures: a Dagster instance of the test's own, as this project configures it, and its definitions."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.settings import Settings
from tests.fixtures.installation import Clock

ROOT = Path(__file__).parents[2]

PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[redis]
at = "02:30"
[storage]
at = "03:00"
"""
"""Two components, quick to capture, so that the clockwork can be watched."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def dagster_home(folder: Path) -> Path:
    """Make a `DAGSTER_HOME` with this project's own configuration."""
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    return folder


@pytest.fixture(scope="session")
def worker_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A real instance, configured by the project's `dagster.yaml`: making one takes a second."""
    home = dagster_home(tmp_path_factory.mktemp("home") / "dagster")
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture
def instance(worker_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """The instance, with nothing in it."""
    worker_instance.wipe()
    return worker_instance


@pytest.fixture
def definitions(installation: Installation, settings: Settings) -> dg.Definitions:
    """The definitions over `installation`."""
    return define(installation, settings)


@pytest.fixture
def run_of(instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    """A way to run a job of some definitions for a day, and be told how it went."""

    def execute(definitions: dg.Definitions, job: str, day: str, **config: Any) -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=day,
            raise_on_error=False,
            run_config={**QUIET, **config},
        )

    return execute


@pytest.fixture
def run(
    definitions: dg.Definitions, installation: Installation, run_of: Callable[..., dg.ExecuteInProcessResult]
) -> Callable[..., dg.ExecuteInProcessResult]:
    """A way to run a job of `definitions` for a day (default: today)."""

    def execute(job: str, day: str | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        return run_of(definitions, job, day or installation.today(), **config)

    return execute


@pytest.fixture
def planned(environ: dict[str, str], tmp_path: Path, clock: Clock) -> Callable[..., Any]:
    """A way to have another plan: give its text, and get installation, settings, plan and definitions."""
    from bookreader_backup_assets.assembly import assemble
    from bookreader_backup_assets.plan import load_plan
    from bookreader_backup_assets.settings import load_settings

    def made(text: str = PLAN, **variables: str) -> Any:
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        settings = load_settings(
            {**environ, "BACKUP_PLAN": str(path), **variables}, env_file=tmp_path / "absent"
        )
        installation = assemble(settings, now=clock)
        plan = load_plan(settings.plan, timezone=settings.timezone)
        return installation, plan, define(installation, settings)

    return made


@pytest.fixture
def away(planned: Callable[..., Any], nas: Path, clock: Clock, instance: dg.DagsterInstance) -> Any:
    """An installation in June of 2026 with a NAS, where storage is wanted each day, and Redis on Sundays."""
    from tests.defs.away import DAY, PLAN, Away

    clock.set(f"{DAY}T03:10:00+02:00")
    made = planned(PLAN, BACKUP_FIRST_DAY="2026-06-01", BACKUP_NAS=str(nas))
    return Away(made, clock, instance)
