"""A real daemon with a real S3 server: copies follow by themselves, are made up for, and old ones go."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import IDENTITY
from bookreader_backup_assets.vaults.local import LocalVault
from bookreader_backup_assets.vaults.s3 import S3Vault
from tests.defs.live import LOCATION, Live, dagster_live, until
from tests.defs.test_live import ENDED, noon, tags
from tests.fixtures.filled import fill
from tests.fixtures.installation import System

pytestmark = pytest.mark.xdist_group("live")

OWN = "5d2b0f0c-6a51-4d0e-9a0d-2f6d8a1f0c77"
PLAN = """
timezone = "{zone}"
deadline = "23:58"
[storage]
at = "23:50"
rpo_hours = 200
keep = {{ days = 2 }}
offsite = {{ days = 3 }}
[prune]
at = "12:00"
share = 1.0
"""
"""At noon: storage is to come, and it is time to prune."""
ASSET, MANIFEST = "offsite/storage_archive", "offsite/backup_set_manifest"


@pytest.fixture(scope="module")
def nights():
    """Five days ago, three, two, and today: as partitions. Yesterday would be sealed."""
    today = datetime.now(ZoneInfo(noon())).date()
    return [(today - timedelta(days=back)).isoformat() for back in (5, 3, 2, 0)]


@pytest.fixture(scope="module")
def vault(tmp_path_factory, nights):
    """A vault with an artifact of each night but the last, from before there was a bucket."""
    made = LocalVault(tmp_path_factory.mktemp("replicas") / "vault")
    at = f"{nights[0]}T00:00:00+00:00"
    made.put(IDENTITY, [json.dumps({"format_version": 1, "id": OWN, "made_at": at}).encode()])
    zone = ZoneInfo(noon())
    for night in nights[:-1]:
        captured = datetime.fromisoformat(f"{night}T23:50:00").replace(tzinfo=zone).astimezone(UTC)
        fill(made, "storage", captured, night, zone=zone, installation=OWN)
    return made


@pytest.fixture(scope="module")
def offsite(s3_server):
    """The vault of this module's installation, in a bucket of its own."""
    return S3Vault(s3_server.make_bucket("followed"), f"bookreader-backups/{OWN}/")


@pytest.fixture(scope="module")
def live(system: System, vault, offsite, nights, tmp_path_factory):
    """Webserver and daemon."""
    folder, access = tmp_path_factory.mktemp("live"), offsite.access
    plan = folder / "plan.toml"
    plan.write_text(PLAN.format(zone=noon()), encoding="utf-8")
    environ = {
        **system.environ,
        "BACKUP_VAULT": str(vault.root),
        "BACKUP_PLAN": str(plan),
        "BACKUP_FIRST_DAY": nights[0],
        "BACKUP_OFFSITE_BUCKET": access.bucket,
        "BACKUP_OFFSITE_ENDPOINT": access.endpoint,
        "BACKUP_OFFSITE_REGION": access.region,
        "BACKUP_OFFSITE_ACCESS_KEY": access.key_id.reveal(),
        "BACKUP_OFFSITE_SECRET_KEY": access.secret_key.reveal(),
    }
    with dagster_live(folder, environ) as running:
        yield running


@pytest.fixture(scope="module")
def captured(live: Live, nights):
    """The run that captured today, launched as the UI does it, when automation has begun to look."""
    until("automation has looked", lambda: looked(live))
    run = live.launch("capture_storage", nights[-1])
    until("it has ended", lambda: status(live, run) in ENDED)
    assert status(live, run) == "SUCCESS"
    return run


def looked(live):
    """Whether automation has looked once: what it sees then for the first time was there before."""
    said = live.ask(
        "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {"
        " sensorState { ticks(limit: 1, statuses: [SKIPPED, SUCCESS]) { status } } } } }",
        s={
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "sensorName": "replicate_after",
        },
    )
    return said["sensorOrError"]["sensorState"]["ticks"]


def status(live, run):
    """How a run is."""
    return {one["runId"]: one["status"] for one in live.runs()}.get(run)


def copies(live, night, name="automation"):
    """The runs that were asked for to copy a night, by what asked for them."""
    mark = {"automation": "dagster/from_automation_condition", "sensor": "bookreader_backup/replica"}[name]
    found = [(run, tags(run)) for run in live.runs()]
    return [run for run, its in found if mark in its and its.get("dagster/partition") == night]


def copied(offsite, night):
    """The assets of a night that the bucket has, verified."""
    catalog = Catalog(offsite)
    return {
        entry.asset for entry in catalog.entries(set_id=night) if offsite.stat(entry.name).size == entry.size
    }


def test_a_capture_is_followed_by_its_copy(live, captured, offsite, vault, nights):
    """Nobody asks: the copy is made when the checks have passed, once, is compared, and is the same bytes."""
    until("the copy is there", lambda: "storage/archive" in copied(offsite, nights[-1]))
    until("its run has ended", lambda: live.checks(ASSET, nights[-1])["same_bytes"] == "SUCCEEDED")
    entry = Catalog(vault).of_day("storage/archive", nights[-1])
    assert offsite.digest(entry.name) == entry.sha256


def test_the_manifest_follows_as_well(live, captured, offsite, nights):
    """When the day is sealed."""
    until("the manifest is there", lambda: "backup_set/manifest" in copied(offsite, nights[-1]))
    until("it was compared", lambda: live.checks(MANIFEST, nights[-1])["same_bytes"] == "SUCCEEDED")


def test_what_was_there_before_the_bucket_is_copied(live, offsite, nights):
    """By the sensor that looks for what is missing; what the plan keeps there no longer is not."""
    for night in nights[1:3]:
        until("it is copied", lambda night=night: "storage/archive" in copied(offsite, night))
        until("and its run ends", lambda night=night: copies(live, night, "sensor")[0]["status"] == "SUCCESS")
    assert copied(offsite, nights[0]) == set()


def test_the_prune_follows_the_copies(live, captured, offsite, vault, nights):
    """Once a day, by itself: what is too old here goes, what had no copy had one before."""
    (run,) = until("it was asked for", lambda: live.runs(pipelineName="prune"))
    until("it has ended", lambda: status(live, run["runId"]) in ENDED)
    assert status(live, run["runId"]) == "SUCCESS"
    assert {entry.set for entry in Catalog(vault).entries(asset="storage/archive")} == set(nights[2:])
    assert {entry.set for entry in Catalog(offsite).entries(asset="storage/archive")} == set(nights[1:])


def test_a_partition_says_that_its_file_is_gone(live, captured, nights):
    """In the UI, on top of what was materialized."""
    until("the prune has ended", lambda: [r for r in live.runs(pipelineName="prune") if r["status"] in ENDED])

    def observed(night):
        said = live.ask(
            "query($k: AssetKeyInput!, $p: [String!]) { assetOrError(assetKey: $k) { ... on Asset {"
            " assetObservations(partitions: $p, limit: 5) { partition metadataEntries { label"
            " ... on TextMetadataEntry { text } } } } } }",
            k={"path": ["storage", "archive"]},
            p=[night],
        )["assetOrError"]["assetObservations"]
        return [{entry["label"]: entry.get("text") for entry in one["metadataEntries"]} for one in said]

    for night in nights[:2]:
        (gone,) = observed(night)
        assert (gone["lifecycle"], gone["vault"]) == ("expired", "local")
        assert gone["artifact"].startswith("storage/")
    assert observed(nights[2]) == []


def test_nothing_was_copied_twice(live, captured, offsite, nights):
    """At the end of it all: one run for each copy, whoever asked for it."""
    until("nothing is under way", lambda: all(run["status"] in ENDED for run in live.runs()))
    assert len(copies(live, nights[-1])) == 2, "the artifact, and the manifest"
    for night in nights[1:3]:
        assert len(copies(live, night, "sensor")) == 1
        assert len(copies(live, night)) == 0
    assert all(run["status"] == "SUCCESS" for run in live.runs())


def test_no_key_of_the_bucket_is_shown(live, captured, s3_server):
    """In no run config, event, resource or file of Dagster's."""
    runs = live.runs()
    seen = json.dumps([runs, [live.events(run["runId"]) for run in runs]])
    resources = live.ask(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails {"
        " name description configuredValues { key value } configFields { name defaultValueAsJson } } } } } }"
    )
    assert s3_server.endpoint in json.dumps(resources), "the resource is there"
    seen += json.dumps(resources)
    for secret in (s3_server.key_id.reveal(), s3_server.secret_key.reveal()):
        assert secret not in seen
        for path in live.home.parent.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
