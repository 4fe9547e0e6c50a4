"""What the vault holds and Dagster does not know is reported to it, once, for the right day."""

from datetime import date

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.defs.partitions import daily
from bookreader_backup_assets.defs.reconcile import report_unknown
from bookreader_backup_assets.defs.sensors import PARTITION

RDB = dg.AssetKey(["redis", "rdb"])
CONFIG = dg.AssetKey(["config", "archive"])


@pytest.fixture
def reconciled(definitions, instance):
    """A way to let the sensor tick, and be told what it reported."""

    def tick():
        repository = definitions.get_repository_def()
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            said = definitions.resolve_sensor_def("reconcile").evaluate_tick(context)
        assert not said.run_requests
        reported = said.skip_message.removeprefix("reported: ")
        return set() if reported == "nothing to report" else set(reported.split(", "))

    return tick


@pytest.fixture
def known(instance):
    """A way to ask Dagster for the latest materialization of an asset's day, and its checks."""

    def ask(key, day):
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
        ).records
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    return ask


def checks_of(instance, key, day, names):
    """Whether each check of an asset's day passed, as Dagster has it."""
    found = {}
    for name in names:
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, name), limit=10
        )
        ours = [one for one in history if one.partition == day]
        assert len(ours) == 1, name
        found[name] = ours[0].event.dagster_event.asset_check_evaluation_data.passed
    return found


def test_without_dagster_is_reported_once(installation, instance, reconciled, known):
    """A day captured with Dagster's storage gone: materializations and checks of that partition, once."""
    back_up_today(installation, ("redis/rdb", "config/archive"), pytest.fail)
    day = installation.today()
    names = {name.split("_2")[0] for name in reconciled()}
    assert names == {"redis/redis_dump", "config/config", "backup_set/backup_manifest"}
    assert known(RDB, day)["keys"] == 341
    rdb = installation.component("redis/rdb")
    passed = checks_of(instance, RDB, day, ["not_empty", "sha256", *rdb.checks])
    assert set(passed.values()) == {True}
    assert reconciled() == set()


def test_a_failed_check_is_reported_as_failed(installation, instance, reconciled):
    """Damage that was found without Dagster is red in Dagster."""
    component = installation.component("storage/archive")
    entry, _ = capture(installation, component, installation.today())
    path = installation.vault.local_path(entry.name)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    verify(installation, component, entry)
    assert reconciled() == {entry.name}
    key = dg.AssetKey(["storage", "archive"])
    assert checks_of(instance, key, installation.today(), ["sha256"]) == {"sha256": False}


def test_what_dagster_knows_is_not_reported(run, reconciled):
    """Runs have told Dagster themselves."""
    for job in ("capture_redis", "capture_config", "seal"):
        run(job)
    assert reconciled() == set()


def test_labelled_is_no_part_of_the_day(installation, reconciled):
    """An artifact with a label is a moment of its own, and no partition's."""
    capture(installation, installation.component("redis/rdb"), installation.today(), label="pre-deploy")
    assert reconciled() == set()


def test_unchanged_is_reported_for_its_day(planned, instance, clock, known, run_of):
    """Where a day's set refers to yesterday's artifact, today's partition does, too."""
    clock.set("2026-06-10T12:00:00+00:00")
    installation, _, definitions = planned(BACKUP_FIRST_DAY="2026-06-01")
    assert run_of(definitions, "capture_config", "2026-06-10").success
    clock.forward(hours=24)
    back_up_today(installation, ("config/archive",), pytest.fail)
    entry = Catalog(installation.vault).newest("config/archive")
    days = {"config/archive": daily(date(2026, 6, 1), installation.zone)}
    reported = report_unknown(installation, days, instance)
    assert entry.name in reported
    told = known(CONFIG, "2026-06-11")
    assert (told["artifact"], told["set"], told["new"]) == (entry.name, "2026-06-10", False)


def test_what_is_being_worked_on_is_left_for_later(installation, instance, reconciled, clock):
    """Unchecked artifacts, and those of a day that a run is for, are reported after an hour at most."""
    clock.at = installation.now()
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, installation.today())
    assert reconciled() == set()
    verify(installation, component, entry)
    run = DagsterRun(
        job_name="capture_redis",
        status=dg.DagsterRunStatus.STARTED,
        tags={PARTITION: installation.today()},
    )
    instance.add_run(run)
    assert reconciled() == set()
    clock.forward(minutes=61)
    assert reconciled() == {entry.name}


def test_days_before_the_first_are_not_reported(installation, reconciled):
    """Dagster has no partition for a day before the first, so nothing can be said about it there."""
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, "2020-01-01", label="late", late=True)
    verify(installation, component, entry)
    assert reconciled() == set()


def test_a_newer_one_that_dagster_knows_hides_an_older(installation, run, reconciled, known):
    """What was superseded is not reported after what superseded it: the latest would be the older."""
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, installation.today())
    verify(installation, component, entry)
    assert run("capture_redis").success
    assert reconciled() == set()
    assert known(RDB, installation.today())["artifact"] != entry.name


def test_what_was_adopted_is_reported_for_its_day(installation, settings, instance, clock, known):
    """The partitions begin with the oldest artifact, and a backup of the time before is shown there."""
    clock.set("2026-06-10T12:00:00+00:00")
    installation.id  # noqa: B018 - the vault is made
    clock.set("2026-05-02T03:00:00+00:00")
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, "2026-05-02", label="adopted", late=True)
    verify(installation, component, entry)
    clock.set("2026-06-10T12:00:00+00:00")
    definitions = define(installation, settings)
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        definitions.resolve_sensor_def("reconcile").evaluate_tick(context)
    assert known(dg.AssetKey(["redis", "rdb"]), "2026-05-02")["artifact"] == entry.name
