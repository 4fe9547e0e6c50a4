"""Restores as Dagster jobs: the plan first, the rest only when it is confirmed."""

import os
import re
from pathlib import Path

import dagster as dg
import pytest

from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.settings import load_settings
from tests.defs.conftest import QUIET
from tests.fixtures.living import with_settings


@pytest.fixture
def launch(embedded_bookreader, instance):
    """Run a restore job with some config, and return its result."""
    there = with_settings(embedded_bookreader, health_urls=",", file_columns=",")
    settings = load_settings(there.environ, env_file=Path(os.devnull))
    definitions = define(there.installation, settings)

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


@pytest.mark.parametrize(
    ("scenario", "config"),
    [
        ("table", {"tables": ["users"]}),
        ("redis", {}),
        ("storage", {}),
        ("file", {"paths": ["covers/*"]}),
        ("config", {}),
        ("code", {}),
        ("system", {}),
    ],
)
def test_every_scenario_is_a_job(launch, embedded_bookreader, scenario, config):
    """Its plan names what is typed back; confirmed with that, it restores what was damaged, and shows it."""
    there = embedded_bookreader
    there.back_up()
    good = (there.rows(), there.keys(), there.config.joinpath(".env").read_text())
    covers = there.files()[b"covers/2.bin"]
    there.sql("UPDATE users SET email = 'x' || id")
    there.cache("FLUSHDB", database=1)
    (there.storage / "covers/2.bin").write_bytes(b"junk")
    (there.config / ".env").write_text("junk")
    (there.code / "README.md").unlink()
    damaged = there.everything()
    planned = launch(f"restore_{scenario}", **config)
    assert planned.success
    assert there.everything() == damaged
    target = re.search(r"confirm with\*\*: `(.+)`", said(planned)["plan"])[1]
    done = launch(f"restore_{scenario}", **config, plan_only=False, confirm=target)
    assert done.success, done.all_events[-1]
    assert said(done)["result"] == "restored"
    whole = scenario == "system"
    assert (there.rows() == good[0]) == (whole or scenario == "table")
    assert (there.keys() == good[1]) == (whole or scenario == "redis")
    assert (there.files()[b"covers/2.bin"] == covers) == (whole or scenario in {"storage", "file"})
    assert (there.config.joinpath(".env").read_text() == good[2]) == (whole or scenario == "config")
    assert (there.code / "README.md").exists() == (scenario == "code")


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
