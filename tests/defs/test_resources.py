"""The client of S3 comes from a resource of Dagster's, and no secret shows in it."""

import json

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_aws.s3 import S3Resource
from dagster_shared.serdes import serialize_value

from bookreader_backup_assets.defs.resources import resources
from tests.fixtures.installation import SECRETS

ACCESS, SECRET = "AKIAOFTHETESTS0001", "secret-access-key/of+the tests"
PRUNE = "secret-of-the-account-that-may-delete"
PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[storage]
at = "03:00"
offsite = { days = 30 }
"""
BUCKET = {
    "BACKUP_OFFSITE_BUCKET": "backups-of-a-bookreader",
    "BACKUP_OFFSITE_ENDPOINT": "http://127.0.0.1:9",
    "BACKUP_OFFSITE_REGION": "eu-central-1",
    "BACKUP_OFFSITE_ACCESS_KEY": ACCESS,
    "BACKUP_OFFSITE_SECRET_KEY": SECRET,
    "BACKUP_OFFSITE_PRUNE_ACCESS_KEY": "AKIAOFTHETESTS0002",
    "BACKUP_OFFSITE_PRUNE_SECRET_KEY": PRUNE,
}


@pytest.fixture
def made(planned):
    """An installation with a bucket that nobody has made."""
    return planned(PLAN, **BUCKET)


def test_the_client_is_the_resources(made):
    """`s3` is an S3Resource, and what it gives asks our endpoint, by paths, with our key."""
    installation, _, definitions = made
    s3 = definitions.resources["s3"]
    assert isinstance(s3, S3Resource)
    client = s3.get_client()
    assert client.meta.endpoint_url == BUCKET["BACKUP_OFFSITE_ENDPOINT"]
    assert client.meta.config.s3["addressing_style"] == "path"
    assert client.meta.config.request_checksum_calculation == "when_required"
    assert client._request_signer._credentials.access_key == ACCESS
    with_s3, found = resources(installation)
    assert with_s3.outside["offsite"].place.client == found["s3"].get_client


def test_as_dagster_makes_it_for_a_run(made):
    """A resource that went through Dagster, which makes a copy of it, still gives that client."""
    _, _, definitions = made
    seen = []

    @dg.op
    def asks(s3: S3Resource):
        seen.append(s3.get_client())

    @dg.job(resource_defs={"s3": definitions.resources["s3"]})
    def job():
        asks()

    assert job.execute_in_process().success
    (client,) = seen
    assert client.meta.endpoint_url == BUCKET["BACKUP_OFFSITE_ENDPOINT"]
    assert client._request_signer._credentials.access_key == ACCESS


def test_no_secret_is_in_what_the_ui_reads(made):
    """What the code location says of itself, resources with their fields included, has the endpoint only."""
    installation, _, definitions = made
    snap = RepositorySnap.from_def(definitions.get_repository_def())
    said = serialize_value(snap)
    (s3,) = (one for one in snap.resources if one.name == "s3")
    assert "http://127.0.0.1:9" in str(s3.configured_values)
    assert "eu-central-1" in str(s3.configured_values)
    secrets = (*SECRETS, ACCESS, SECRET, PRUNE)
    assert [one for one in secrets for form in (one, json.dumps(one)[1:-1]) if form in said] == []
    shown = repr(definitions.resources["s3"]) + repr(installation.outside)
    assert [one for one in secrets if one in shown] == []


def test_without_a_bucket_there_is_no_such_resource(planned):
    """Nothing is there to be asked for."""
    _, _, definitions = planned(PLAN)
    assert set(definitions.resources) == {"installation"}


def test_what_the_description_says_to_do(made):
    """At 3 a.m.: where the copies are, and the command that brings one back."""
    _, _, definitions = made
    node = definitions.resolve_asset_graph().get(dg.AssetKey(["offsite", "storage_archive"]))
    there = "s3://backups-of-a-bookreader/bookreader-backups/"
    assert f"aws --endpoint-url http://127.0.0.1:9 s3 cp {there}" in node.description
    assert "bookreader-backup list --vault offsite" in node.description
    assert node.kinds == {"s3"}
