"""Dagster runs from the command line: the schedules' own jobs, executed in this process.

The only module of the command line that imports Dagster, which takes seconds.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    import dagster as dg

    from bookreader_backup_assets.actions.installation import Installation

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_WITHOUT = "`bookreader-backup backup --without-dagster` works without it, and Dagster is told later"


def dagster_home() -> Path:
    """Return Dagster's folder: `DAGSTER_HOME`, or one in this user's state folder, made if need be."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    home = Path(os.environ.get("DAGSTER_HOME") or Path(state) / "bookreader-backup" / "dagster")
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = home / "dagster.yaml"
        if not config.exists():
            config.write_text(_shipped_config().read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise BackupError(
            f"Dagster's folder {home} cannot be used: {error.strerror}",
            hint=f"set DAGSTER_HOME to a folder that this user can write; {_WITHOUT}",
        ) from None
    return home.resolve()


def with_dagster(installation: Installation, components: tuple[str, ...]) -> bool:
    """Run the components' jobs for today, and then the seal's; say whether every capture succeeded.

    A seal that finds the set incomplete has succeeded; one that could not write a manifest has not.

    A job that fails does not stop the next; Ctrl-C does. Raises `BackupError` where Dagster's storage
    cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dagster's previews; pyproject.toml pins what was tested
        from dagster import DagsterInstance

        from bookreader_backup_assets.definitions import define
        from bookreader_backup_assets.defs.jobs import SEAL, job_name

        definitions = define(installation, load_settings())
        os.environ["DAGSTER_HOME"] = str(dagster_home())
        try:
            with DagsterInstance.get() as instance:
                day = installation.today()
                keys = {one: installation.set_of(f"{one}/") for one in components}
                runs = (_run(definitions, job_name(one), keys[one], instance) for one in components)
                fine = [run.success for run in runs]
                sealed = _run(definitions, SEAL, day, instance)
                fine.append(any(event.is_step_materialization for event in sealed.all_events))
        except BackupError:
            raise
        except Exception as error:
            raise BackupError(
                f"Dagster's storage in {os.environ['DAGSTER_HOME']} cannot be used: {error}", hint=_WITHOUT
            ) from error
    return all(fine)


def drill_with_dagster(installation: Installation) -> bool:
    """Run this month's drill, and say whether it was filed. What it found is in its report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from dagster import DagsterInstance

        from bookreader_backup_assets.definitions import define
        from bookreader_backup_assets.defs.assurance import JOB

        definitions = define(installation, load_settings())
        os.environ["DAGSTER_HOME"] = str(dagster_home())
        with DagsterInstance.get() as instance:
            result = _run(definitions, JOB, installation.today()[:7], instance)
    return any(event.is_step_materialization for event in result.all_events)


def _run(
    definitions: dg.Definitions, job: str, day: str, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=day, raise_on_error=False, run_config=_QUIET
    )
    if any(event.is_job_failure and _interrupted(event) for event in result.all_events):
        raise KeyboardInterrupt  # Dagster makes a failed run of it, and the next would begin
    for event in result.all_events:
        if event.is_step_failure and (said := event.step_failure_data.user_failure_data):
            click.echo(f"{job}: {said.description}", err=True)
    return result


def _interrupted(event: dg.DagsterEvent) -> bool:
    reason = event.job_failure_data.failure_reason
    return reason is not None and reason.value == "UNEXPECTED_TERMINATION"


def _shipped_config() -> Path:
    package = Path(__file__).parents[1]
    for candidate in (package / "dagster.yaml", package.parent / "dagster.yaml"):
        if candidate.exists():
            return candidate
    raise RefusedError("dagster.yaml was not installed with this program", hint="install it again")
