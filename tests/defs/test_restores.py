"""Restores as Dagster jobs: the plan first, the rest only when it is confirmed."""

import os
from pathlib import Path

import dagster as dg
import pytest

from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.settings import load_settings
from tests.defs.conftest import QUIET


@pytest.fixture
def launch(embedded_bookreader, instance):
    """Run a restore job with some config, and return its result."""
    settings = load_settings(embedded_bookreader.environ, env_file=Path(os.devnull))
    definitions = define(embedded_bookreader.installation, settings)

    def run(job, **config):
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            run_config={"ops": {f"{job.removeprefix('restore_')}_restore": {"config": config}}, **QUIET},
            raise_on_error=False,
        )

    return run


def said(result):
    """What the one step says, as metadata."""
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_a_job_shows_its_plan_and_touches_nothing(launch, embedded_bookreader):
    """Launched as it is, a job only says what it would do."""
    there = embedded_bookreader
    there.back_up("postgresql")
    there.sql("DELETE FROM alembic_version")
    before = there.rows()
    result = launch("restore_postgresql")
    assert result.success
    assert there.database in said(result)["plan"]
    assert there.rows() == before
    assert journals(there.installation) == []


def test_a_confirmed_job_restores_and_another_undoes_it(launch, embedded_bookreader):
    """With the name typed back it restores; the report's id undoes that."""
    there = embedded_bookreader
    good = there.rows()
    there.back_up("postgresql")
    there.sql("DELETE FROM alembic_version")
    before = there.rows()
    result = launch("restore_postgresql", plan_only=False, confirm=there.database)
    assert result.success
    assert said(result)["result"] == "restored"
    assert there.rows() == good
    back = launch("restore_undo", report=said(result)["report"], confirm=there.database)
    assert said(back)["result"] == "undone"
    assert there.rows() == before


def test_a_job_that_is_not_confirmed_fails_and_says_why(launch, embedded_bookreader):
    """Red, with the name to type back, and nothing done."""
    there = embedded_bookreader
    there.back_up("postgresql")
    result = launch("restore_postgresql", plan_only=False, confirm="")
    assert not result.success
    (event,) = result.get_step_failure_events()
    assert f"--confirm {there.database}" in event.step_failure_data.user_failure_data.description
