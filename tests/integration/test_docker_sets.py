"""Sets over real containers: a weekly full with its code, and a labelled set with everything there is."""

import gzip
import json

import pytest

from bookreader_backup_assets.actions.back_up import back_up_labelled, back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.seal import LABELLED, WEEKLY, seal

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]


def manifest(there, asset, set_id):
    """What the manifest of a set says."""
    entry = Catalog(there.installation.vault).of_day(asset, set_id)
    return json.loads(b"".join(there.installation.vault.open(entry.name)))


def stored(there, set_id, asset):
    """The bytes of an artifact of a set."""
    entry = Catalog(there.installation.vault).of_day(asset, set_id)
    return b"".join(there.installation.vault.open(entry.name))


def test_a_full_and_a_label(docker_bookreader):
    """Everything, SQL and code included, in a Sunday's full; then before a deployment, logs included."""
    there = docker_bookreader
    there.clock.set("2026-06-14T03:05:00+00:00")
    sunday = there.installation.today()
    nightly = [asset for asset in there.installation.components if asset != "logs/archive"]
    assert back_up_today(there.installation, nightly, pytest.fail)
    seal(there.installation, sunday, WEEKLY)
    weekly = manifest(there, WEEKLY, sunday)
    assert (weekly["missing"], [one["asset"] for one in weekly["members"]]) == ([], nightly)
    sql = gzip.decompress(stored(there, sunday, "postgresql/sql")).decode()
    rows = int(there.sql("SELECT count(*) FROM users"))
    data = sql.partition("COPY public.users ")[2].partition("FROM stdin;\n")[2].partition("\n\\.\n")[0]
    assert len(data.splitlines()) == rows

    there.clock.at = None
    everything = list(there.installation.components)
    set_id, fine = back_up_labelled(there.installation, "pre-deploy", everything, pytest.fail)
    assert fine
    labelled = manifest(there, LABELLED, set_id)
    assert (labelled["missing"], [one["asset"] for one in labelled["members"]]) == ([], everything)
    lines = gzip.decompress(stored(there, set_id, "logs/archive")).decode().splitlines()
    assert any(line.startswith("redis/") and "Ready to accept connections" in line for line in lines)
