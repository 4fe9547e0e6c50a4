"""The weekly full and labelled sets, as Dagster shows them."""

import dagster as dg
import pytest

from bookreader_backup_assets.actions.back_up import back_up_labelled, back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.seal import LABELLED, WEEKLY

SUNDAY = "2026-06-14"
FULL = """
timezone = "Europe/Berlin"
deadline = "05:00"
[weekly]
at = "03:00"
keep = { weeks = 4 }
[redis]
at = "02:30"
keep = { days = 3 }
[config]
at = "03:15"
[code]
at = "03:00"
"""


@pytest.fixture
def sunday(planned, clock):
    """An installation on a Sunday of June, a few minutes past three."""
    clock.set(f"{SUNDAY}T03:05:00+02:00")
    return planned(FULL, BACKUP_FIRST_DAY="2026-06-01")


def latest(instance, asset, partition):
    """The metadata of the latest materialization of a partition, or None."""
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset.split("/")), asset_partitions=[partition])
    records = instance.fetch_materializations(filters, limit=1).records
    return {k: v.value for k, v in records[0].asset_materialization.metadata.items()} if records else None


def say(definitions, instance, name):
    """What a sensor asks for: jobs and partitions, or why there is nothing to do."""
    sensor = definitions.resolve_sensor_def(name)
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        said = sensor.evaluate_tick(context)
    return sorted((r.job_name, r.partition_key) for r in said.run_requests) or said.skip_message


def test_one_run_captures_it_all_and_its_manifest_has_the_code(sunday, run_of, instance, clock):
    """One run for the components, one for the code; then day and week are sealed, and complete."""
    installation, _, definitions = sunday
    assert run_of(definitions, "capture_full", SUNDAY).success
    assert run_of(definitions, "capture_code", SUNDAY).success
    clock.forward(minutes=5)
    assert say(definitions, instance, "seal_after") == [("seal", SUNDAY), ("seal_weekly", SUNDAY)]
    assert run_of(definitions, "seal", SUNDAY).success
    assert run_of(definitions, "seal_weekly", SUNDAY).success
    assert "nothing has changed" in say(definitions, instance, "seal_after")
    entry = Catalog(installation.vault).of_day(WEEKLY, SUNDAY)
    assert entry.fingerprint["complete"] is True
    manifest = latest(instance, WEEKLY, SUNDAY)["manifest"]
    assert all(f"{asset}: " in manifest for asset in ("redis/rdb", "config/archive", "code/bundle"))


def test_what_a_full_lacks_is_named(sunday, run_of):
    """Sealed without the code, the week is red, and says so; the day, which has no code, is not."""
    _, _, definitions = sunday
    assert run_of(definitions, "capture_full", SUNDAY).success
    sealed = run_of(definitions, "seal_weekly", SUNDAY)
    assert not sealed.success
    (complete,) = (e for e in sealed.get_asset_check_evaluations() if e.check_name == "complete")
    assert complete.description == "code/bundle: no capture was attempted"
    assert run_of(definitions, "seal", SUNDAY).success


def test_the_week_waits_for_the_code(sunday, run_of, instance, clock):
    """Before the code's time the day is sealed, and the week is not."""
    installation, _, definitions = sunday
    clock.set(f"{SUNDAY}T02:50:00+02:00")
    assert run_of(definitions, "capture_full", SUNDAY).success
    assert say(definitions, instance, "seal_after") == [("seal", SUNDAY)]
    assert installation.today() == SUNDAY


def test_a_labelled_set_is_a_partition_of_its_own(sunday, instance):
    """What the command line labelled is reported, with its checks; the day's partitions have none of it."""
    installation, _, definitions = sunday
    set_id, _ = back_up_labelled(installation, "pre-deploy", ("redis/rdb",), pytest.fail)
    assert "reported: " in say(definitions, instance, "reconcile")
    assert instance.get_dynamic_partitions("labelled_sets") == [set_id]
    told = latest(instance, LABELLED, set_id)
    assert (told["label"], told["set"]) == ("pre-deploy", set_id)
    assert latest(instance, "redis/rdb", SUNDAY) is None
    key = dg.AssetCheckKey(dg.AssetKey(LABELLED.split("/")), "complete")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert record.partition == set_id
    assert say(definitions, instance, "reconcile") == "nothing to report"


def test_the_job_makes_one(sunday, instance):
    """From the UI: a label is typed in, and the set is there, under its own partition."""
    installation, _, definitions = sunday
    result = definitions.resolve_job_def("backup_labelled").execute_in_process(
        instance=instance,
        run_config={"ops": {"labelled_set": {"config": {"label": "post-update"}}}},
        raise_on_error=False,
    )
    assert result.success
    (set_id,) = instance.get_dynamic_partitions("labelled_sets")
    assert latest(instance, LABELLED, set_id)["label"] == "post-update"
    held = {entry.component for entry in Catalog(installation.vault).entries(set_id=set_id)}
    assert held == {"redis", "config", "code", "logs", "backup_set"}, "what the plan has, and the logs"
    refused = definitions.resolve_job_def("backup_labelled").execute_in_process(
        instance=instance,
        run_config={"ops": {"labelled_set": {"config": {"label": "a/b"}}}},
        raise_on_error=False,
    )
    assert not refused.success
    assert len(Catalog(installation.vault).entries(asset=LABELLED)) == 1
    instance.delete_dynamic_partition("labelled_sets", set_id)


def test_a_vault_whose_dagster_is_lost_is_told_again(sunday, run_of, instance, clock):
    """A new Dagster storage learns of days, weeks and labels, also of long ago."""
    installation, _, definitions = sunday
    for job in ("capture_full", "capture_code", "seal", "seal_weekly"):
        assert run_of(definitions, job, SUNDAY).success
    set_id, _ = back_up_labelled(installation, "pre-deploy", ("redis/rdb",), pytest.fail)
    clock.forward(days=40)
    instance.wipe()
    assert "reported: " in say(definitions, instance, "reconcile")
    for asset in ("redis/rdb", "config/archive", "backup_set/manifest", WEEKLY, "code/bundle"):
        held = Catalog(installation.vault).of_day(asset, SUNDAY)
        assert latest(instance, asset, SUNDAY)["artifact"] == held.name, asset
    assert latest(instance, LABELLED, set_id)["set"] == set_id
    assert say(definitions, instance, "reconcile") == "nothing to report"


def test_a_missed_full_is_made_up_for_as_one(sunday, instance, clock):
    """Also where a part of it was captured by itself meanwhile: close together is what makes it a full."""
    installation, _, definitions = sunday
    back_up_today(installation, ("config/archive",), pytest.fail)
    clock.set(f"{SUNDAY}T09:00:00+02:00")
    assert ("capture_full", SUNDAY) in say(definitions, instance, "missed_captures")


def test_missed_code_is_captured_within_its_week(planned, run_of, instance, clock):
    """Days later, too, under its Sunday; once; and not for a week that began before the vault was made."""
    clock.set("2026-06-12T12:00:00+02:00")
    installation, _, definitions = planned(FULL, BACKUP_FIRST_DAY="2026-06-01")
    assert installation.id, "the vault is made on a Friday"
    assert "capture_code" not in str(say(definitions, instance, "missed_captures"))
    clock.set("2026-06-16T01:00:00+02:00")
    assert say(definitions, instance, "missed_captures") == [("capture_code", SUNDAY)]
    assert run_of(definitions, "capture_code", SUNDAY).success
    assert say(definitions, instance, "missed_captures") == "nothing was missed today"
