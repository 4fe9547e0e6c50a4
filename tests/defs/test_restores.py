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
from tests.fixtures.living import embedded, with_settings

pytestmark = pytest.mark.xdist_group("restores")  # all on one worker, for one BookReader
COVER = b"covers/2.bin"
SCENARIOS = [
    ("table", {"tables": ["users"]}, {"rows"}),
    ("redis", {}, {"keys"}),
    ("file", {"paths": ["covers/*"]}, {"cover"}),
    ("config", {}, {".env"}),
    ("storage", {}, {"cover"}),
    ("system", {}, {"rows", "keys", "cover", ".env"}),
]
"""Each with its job's config, and what it brings back."""


@pytest.fixture(scope="module")
def there(system, redis_folder, shared_scratch, tmp_path_factory):
    """One BookReader, backed up, that all tests here damage and restore."""
    with embedded(system, redis_folder, tmp_path_factory.mktemp("restores"), shared_scratch) as living:
        made = with_settings(living, health_urls=",", file_columns=",")
        made.back_up()
        yield made


@pytest.fixture(scope="module")
def good(there):
    """What it held when it was backed up."""
    return held(there)


@pytest.fixture(scope="module")
def definitions(there):
    """The definitions over it."""
    return define(there.installation, load_settings(there.environ, env_file=Path(os.devnull)))


@pytest.fixture
def launch(good, definitions, instance):
    """Run a restore job with some config, and return its result."""

    def run(job, **config):
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            run_config={"ops": {f"{job.removeprefix('restore_')}_restore": {"config": config}}, **QUIET},
            raise_on_error=False,
        )

    return run


def held(there):
    """What is damaged here."""
    return {
        "rows": there.rows(),
        "keys": there.keys(),
        "cover": there.files()[COVER],
        ".env": there.config.joinpath(".env").read_text(),
    }


def damage(there):
    """Damage all of it, and return what it holds then."""
    there.sql("UPDATE users SET email = 'x' || id")
    there.cache("FLUSHDB", database=1)
    (there.storage / os.fsdecode(COVER)).write_bytes(b"junk")
    (there.config / ".env").write_text("junk")
    return held(there)


def said(result):
    """What the one step says, as metadata."""
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_a_job_shows_its_plan_and_touches_nothing(launch, there):
    """Launched as it is, a job only says what it would do."""
    damage(there)
    before, known = there.everything(), [journal.id for journal in journals(there.installation)]
    result = launch("restore_postgresql")
    assert result.success
    assert there.database in said(result)["plan"]
    assert there.everything() == before
    assert [journal.id for journal in journals(there.installation)] == known


def test_every_scenario_is_a_job(launch, there, good):
    """Its plan names what is typed back and touches nothing; confirmed with that, it restores what was
    damaged, that and nothing else, and shows it.
    """
    for scenario, config, brought in SCENARIOS:
        damaged = damage(there)
        assert all(damaged[part] != good[part] for part in good)
        before = there.everything()
        planned = launch(f"restore_{scenario}", **config)
        assert planned.success
        assert there.everything() == before
        target = re.search(r"confirm with\*\*: `(.+)`", said(planned)["plan"])[1]
        done = launch(f"restore_{scenario}", **config, plan_only=False, confirm=target)
        assert done.success, done.all_events[-1]
        assert said(done)["result"] == "restored"
        assert held(there) == {part: (good if part in brought else damaged)[part] for part in good}, scenario


def test_a_confirmed_job_restores_and_another_undoes_it(launch, there, good):
    """With the name typed back it restores; the report's id undoes that."""
    damage(there)
    before = there.rows()
    assert before != good["rows"]
    result = launch("restore_postgresql", plan_only=False, confirm=there.database)
    assert result.success
    assert said(result)["result"] == "restored"
    assert there.rows() == good["rows"]
    back = launch("restore_undo", report=said(result)["report"], confirm=there.database)
    assert said(back)["result"] == "undone"
    assert there.rows() == before


def test_a_job_that_is_not_confirmed_fails_and_says_why(launch, there):
    """Red, with the name to type back, and nothing done."""
    before = there.everything()
    result = launch("restore_postgresql", plan_only=False, confirm="")
    assert not result.success
    (event,) = result.get_step_failure_events()
    assert f"--confirm {there.database}" in event.step_failure_data.user_failure_data.description
    assert there.everything() == before
