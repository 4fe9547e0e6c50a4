"""The code is captured into its week, through Dagster and without, and past weeks are refused."""

import os
from datetime import date, timedelta
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli.backup import choose
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.settings import load_settings
from tests.defs.conftest import QUIET

ASSET = "code/bundle"


def sunday(installation):
    """The day on which this week began."""
    today = date.fromisoformat(installation.today())
    return (today - timedelta(days=(today.weekday() + 1) % 7)).isoformat()


def test_a_run_captures_this_week_and_no_other(settings, installation):
    """Its partition is the week's Sunday; its checks are made; a week that is over is refused."""
    week = sunday(installation)
    past = (date.fromisoformat(week) - timedelta(days=7)).isoformat()
    settings = settings.model_copy(update={"first_day": date.fromisoformat(past)})
    job = define(installation, settings).resolve_job_def("capture_code")
    catalog = Catalog(installation.vault)
    for key, fine in ((past, False), (week, True)):
        done = job.execute_in_process(partition_key=key, raise_on_error=False, run_config=QUIET)
        assert done.success is fine
    (entry,) = catalog.entries(asset=ASSET)
    assert (entry.set, catalog.standing(entry).verdict) == (week, Verdict.PASSED)


def test_without_dagster_it_is_the_same_week(installation):
    """And again in the same week refers to what is there."""
    complaints = []
    for _ in range(2):
        back_up_today(installation, [ASSET], complaints.append)
    assert complaints == []
    assert [e.set for e in Catalog(installation.vault).entries(asset=ASSET)] == [sunday(installation)]


def test_next_week_refers_to_the_same_bundle(installation, clock):
    """Nothing has changed: no file is written again."""
    clock.set("2026-11-25T12:00:00+00:00")
    back_up_today(installation, [ASSET], pytest.fail)
    clock.forward(days=7)
    back_up_today(installation, [ASSET], pytest.fail)
    catalog = Catalog(installation.vault)
    (entry,) = catalog.entries(asset=ASSET)
    assert (entry.set, catalog.sets_of(ASSET)) == ("2026-11-22", {"2026-11-22", "2026-11-29"})


def test_a_plan_without_code(environ, tmp_path):
    """What has no [code] captures none: labelled sets leave it out, and `backup code` says why."""
    plan = tmp_path / "plan.toml"
    plan.write_text('timezone = "UTC"\ndeadline = "05:00"\n[config]\nat = "03:15"\n')
    settings = load_settings({**environ, "BACKUP_PLAN": str(plan)}, env_file=Path(os.devnull))
    made = assemble(settings)
    assert "code" not in choose(made, (), labelled=True)
    with pytest.raises(RefusedError, match="captures no code"):
        made.set_of(ASSET)
    define(made, settings).resolve_job_def("capture_code")


def test_the_code_is_where_the_setting_says(environ, tmp_path):
    """BACKUP_CODE_PATH, or else the folder of the compose file."""
    given = {k: v for k, v in environ.items() if k != "BACKUP_CODE_PATH"}
    for code, expected in ((tmp_path / "x", tmp_path / "x"), (None, Path(environ["BACKUP_CONFIG_ROOT"]))):
        more = {"BACKUP_CODE_PATH": str(code)} if code else {}
        made = assemble(load_settings({**given, **more}, env_file=Path(os.devnull)))
        assert made.component(ASSET).path == expected
