"""Runs on good days and bad ones: what is red, what is filed, and what the others notice of it."""

import json
from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.definitions import define
from tests.fixtures.installation import SECRETS

DUMP = dg.AssetKey(["postgresql", "dump"])
GLOBALS = dg.AssetKey(["postgresql", "globals"])
JOBS = ("capture_postgresql", "capture_redis", "capture_storage", "capture_config", "seal")


@pytest.fixture
def yesterday(environ, clock):
    """A day that is over, and that is a partition."""
    today = clock().date()
    environ["BACKUP_FIRST_DAY"] = (today - timedelta(days=5)).isoformat()
    return (today - timedelta(days=1)).isoformat()


def outcomes(result):
    """Which checks a run made, and whether they passed."""
    return {
        (e.asset_key.to_user_string(), e.check_name): e.passed for e in result.get_asset_check_evaluations()
    }


def failure(result, step):
    """What a red step says."""
    (event,) = (e for e in result.get_step_failure_events() if e.step_key == step)
    return event.step_failure_data


def manifest(installation, day):
    """The newest manifest of a day."""
    catalog = Catalog(installation.vault)
    entry = catalog.newest("backup_set/manifest", set_id=day)
    return json.loads(b"".join(installation.vault.open(entry.name)))


def test_a_good_day(run, installation, instance):
    """Every component is captured and checked, and the manifest is complete; no secret is in any event."""
    results = [run(job) for job in JOBS]
    assert all(result.success for result in results)
    made = {key: passed for result in results for key, passed in outcomes(result).items()}
    assert set(made.values()) == {True}
    assert ("postgresql/dump", "restorable") in made
    assert manifest(installation, installation.today())["missing"] == []
    for result in results:
        events = "".join(
            str(record.event_log_entry) for record in instance.get_records_for_run(result.run_id).records
        )
        stored = json.dumps(instance.get_run_by_id(result.run_id).run_config) + events
        assert len(events) > 1000
        assert [secret for secret in SECRETS if secret in stored] == []


def test_metadata_plots(run):
    """Bytes, seconds and counts are numbers, so that they can be seen over time."""
    result = run("capture_postgresql")
    dump, roles = (
        result.asset_materializations_for_node(f"postgresql__{name}")[0] for name in ("dump", "globals")
    )
    assert dump.metadata["rows"].value > 2000
    assert dump.metadata["bytes"].value > 1000
    assert dump.metadata["tables"].value >= 6
    assert roles.metadata["artifact"].value.endswith(".gpg")
    assert dump.metadata["new"].value is True


def test_unchanged_config_says_so(run):
    """The second run of a day refers to the artifact that there is, and is green."""
    first, second = run("capture_config"), run("capture_config")
    assert first.success
    assert second.success
    found = [r.asset_materializations_for_node("config__archive")[0].metadata for r in (first, second)]
    assert [one["new"].value for one in found] == [True, False]
    assert found[0]["artifact"] == found[1]["artifact"]


def test_a_past_day_is_refused(yesterday, run, installation):
    """The past cannot be captured: a red step that says what to do, no check, and nothing is filed."""
    for job, step in (("capture_redis", "redis__rdb"), ("capture_config", "config__archive")):
        result = run(job, yesterday)
        assert not result.success
        said = failure(result, step).user_failure_data
        assert f"{yesterday} is over" in said.description
        assert "allow_late" in said.metadata["hint"].value
        assert outcomes(result) == {}
    assert list(installation.vault.list()) == []


def test_a_past_day_is_not_sealed(yesterday, run, installation):
    """There is nothing to seal on a day without artifacts."""
    assert not run("seal", yesterday).success
    assert [s.name for s in installation.vault.list() if yesterday in s.name] == []


def test_allow_late(yesterday, run, installation):
    """With `allow_late` today's data is filed under a past day, and says so everywhere."""
    config = {"ops": {"redis__rdb": {"config": {"allow_late": True}}}}
    result = run("capture_redis", yesterday, **config)
    assert result.success
    assert set(outcomes(result).values()) == {True}
    (entry,) = Catalog(installation.vault).entries(asset="redis/rdb")
    assert (entry.set, entry.label, entry.late) == (yesterday, "late", True)
    assert "_late." in entry.name
    metadata = result.asset_materializations_for_node("redis__rdb")[0].metadata
    assert metadata["late"].value is True
    assert metadata["label"].value == "late"
    run("seal", yesterday)
    (member,) = manifest(installation, yesterday)["members"]
    assert member["late"] is True


def test_tomorrow_is_refused(yesterday, run, installation):
    """A partition that Dagster does not have yet cannot be run at all."""
    tomorrow = (date.fromisoformat(installation.today()) + timedelta(days=1)).isoformat()
    with pytest.raises(dg.DagsterError):
        run("capture_redis", tomorrow)
    assert list(installation.vault.list()) == []


def test_a_failed_blocking_check_is_red(installation, settings, run_of):
    """Damage between capture and check turns the run red, and the manifest does not count the artifact."""

    class Flipping:
        """The vault, one byte of whose dump goes wrong once its entry is there."""

        def __getattr__(self, name):
            return getattr(installation.vault, name)

        def put(self, name, chunks):
            stored = installation.vault.put(name, chunks)
            if name.startswith("redis/") and name.endswith(".entry.json"):
                path = installation.vault.local_path(name.removesuffix(".entry.json"))
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
            return stored

    definitions = define(replace(installation, vault=Flipping()), settings)
    day = installation.today()
    result = run_of(definitions, "capture_redis", day)
    assert not result.success
    assert outcomes(result)["redis/rdb", "sha256"] is False
    assert outcomes(result)["redis/rdb", "not_empty"] is True
    assert not run_of(definitions, "seal", day).success
    why = {one["asset"]: one["why"] for one in manifest(installation, day)["missing"]}
    assert "sha256 failed" in why["redis/rdb"]


class TestWithoutAKey:
    """No key: config and roles are refused, never in clear; everything else goes on."""

    @pytest.fixture
    def environ(self, environ):
        del environ["BACKUP_KEY_FILE"]
        return environ

    def test_the_dump_is_captured_and_the_rest_unharmed(self, run, installation):
        """The dump is there and checked, `restorable` is not tried, and the manifest says why it is not."""
        result = run("capture_postgresql")
        assert not result.success
        assert "BACKUP_KEY" in failure(result, "postgresql__globals").user_failure_data.description
        made = outcomes(result)
        assert made.pop(("postgresql/dump", "not_empty"))
        assert set(made.values()) == {True}
        assert {asset for asset, _ in made} == {"postgresql/dump"}
        assert ("postgresql/dump", "restorable") not in made

        assert run("capture_redis").success
        assert run("capture_storage").success
        assert not run("capture_config").success

        sealed = run("seal")
        assert not sealed.success
        assert outcomes(sealed) == {
            ("backup_set/manifest", "not_empty"): True,
            ("backup_set/manifest", "sha256"): True,
            ("backup_set/manifest", "complete"): False,
        }
        (complete,) = (e for e in sealed.get_asset_check_evaluations() if e.check_name == "complete")
        assert "config/archive" in complete.description
        assert "BACKUP_KEY" in complete.description
        assert "restorable never made" in complete.description
        missing = {one["asset"] for one in manifest(installation, installation.today())["missing"]}
        assert missing == {"postgresql/dump", "postgresql/globals", "postgresql/sql", "config/archive"}


class TestDeadRedis:
    """A component that is absent is red by itself; the others do not notice."""

    @pytest.fixture
    def environ(self, environ):
        environ["BACKUP_REDIS_URL"] = "redis://127.0.0.1:9"
        return environ

    def test_it_harms_nobody(self, run, installation):
        """Its step says what to do, storage is captured, and the manifest names Redis and why."""
        result = run("capture_redis")
        assert not result.success
        assert failure(result, "redis__rdb").user_failure_data.metadata["hint"].value
        assert run("capture_storage").success
        run("seal")
        why = {one["asset"]: one["why"] for one in manifest(installation, installation.today())["missing"]}
        assert "edis" in why["redis/rdb"]
        assert "storage/archive" not in why
