"""A real webserver and daemon on real services, told what to do by GraphQL, and looked at in a browser."""

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.core.hour import begin_of, key_of
from bookreader_backup_assets.vaults.local import LocalVault
from tests.defs.live import Live, dagster_live, until
from tests.fixtures.installation import SECRETS, System
from tests.fixtures.missing import missing

pytestmark = pytest.mark.xdist_group("live")

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DAYS = 3
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
PLAN = """
timezone = "{zone}"
deadline = "23:58"
[postgresql]
at = "23:50"
[redis]
at = "00:05"
[storage]
at = "23:50"
[config]
at = "23:50"
"""
"""At noon, Redis has been missed, and the rest is to come."""


def noon() -> str:
    """A timezone in which it is about noon, so that no test meets midnight or the plan's times."""
    behind = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-behind:+d}" if behind else "Etc/GMT"


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """The vault of this module's installation."""
    return LocalVault(tmp_path_factory.mktemp("live") / "vault")


@pytest.fixture(scope="module")
def days():
    """The partitions of this module's installation: the last is today."""
    today = datetime.now(UTC) + timedelta(hours=12 - datetime.now(UTC).hour)
    return [(today.date() - timedelta(days=back)).isoformat() for back in reversed(range(DAYS))]


@pytest.fixture(scope="module")
def hours():
    """Two hours that are long over, as partitions."""
    return [key_of(datetime.now(UTC) - timedelta(hours=back)) for back in (30, 29)]


@pytest.fixture(scope="module")
def live(system: System, vault, days, hours, tmp_path_factory):
    """Webserver and daemon, with a plan that has missed Redis."""
    folder = tmp_path_factory.mktemp("live")
    plan = folder / "plan.toml"
    plan.write_text(PLAN.format(zone=noon()), encoding="utf-8")
    log = folder / "own.log"
    stamps = [begin_of(hour) + timedelta(minutes=minute) for hour in hours for minute in (0, 30, 59)]
    log.write_text("".join(f"{at:%Y-%m-%dT%H:%M:%S.%f}Z INFO {number}\n" for number, at in enumerate(stamps)))
    environ = {
        **system.environ,
        "BACKUP_LOG": str(log),
        "BACKUP_VAULT": str(vault.root),
        "BACKUP_PLAN": str(plan),
        "BACKUP_FIRST_DAY": days[0],
    }
    with dagster_live(folder, environ) as running:
        yield running


@pytest.fixture(scope="module")
def launched(live: Live, days, hours):
    """Everything that is asked for, asked for at once: the day, twins of one component, and a backfill."""
    today = days[-1]
    runs = {
        "all but redis": live.launch(
            "__ASSET_JOB",
            today,
            assets=["postgresql/globals", "postgresql/dump", "postgresql/sql", "config/archive"],
        ),
        "twin": live.launch("capture_storage", today),
        "other twin": live.launch("capture_storage", today),
    }
    past = {"backfill": (["redis", "rdb"], days), "hours": (["logs", "archive"], hours)}
    for name, (asset, keys) in past.items():
        backfill = live.ask(
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {"
            " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            p={"assetSelection": [{"path": asset}], "partitionNames": keys, "title": "the past"},
        )["launchPartitionBackfill"]
        assert backfill["__typename"] == "LaunchBackfillSuccess", backfill
        runs[name] = backfill["backfillId"]
    return runs


@pytest.fixture(scope="module")
def ended(live: Live, launched, days):
    """The same, when all of it has ended: how, by run."""

    def look():
        runs = live.runs()
        status = {run["runId"]: run["status"] for run in runs}
        mine = [run["runId"] for run in runs if tags(run).get("dagster/backfill") == launched["backfill"]]
        asked = [*mine, *(run for name, run in launched.items() if name not in {"backfill", "hours"})]
        over = len(mine) == len(days) and all(status[run] in ENDED for run in asked)
        return status if over else None

    return until("all runs have ended", look)


def tags(run):
    """The tags of a run."""
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def backfilled(live, backfill, keys):
    """The backfill's run of each partition."""
    runs = live.runs(tags=[{"key": "dagster/backfill", "value": backfill}])
    by_key = {tags(run)["dagster/partition"]: run for run in runs}
    return by_key if sorted(by_key) == keys else {}


def test_clock_and_sensors_run_unasked(live):
    """Schedules and sensors are running in a new Dagster, without a click."""
    repository = live.ask(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes {"
        " schedules { name scheduleState { status } } sensors { name sensorState { status } } } } } }"
    )["repositoriesOrError"]["nodes"][0]
    schedules = {one["name"]: one["scheduleState"]["status"] for one in repository["schedules"]}
    sensors = {one["name"]: one["sensorState"]["status"] for one in repository["sensors"]}
    ours = {"missed_captures", "seal_after", "reconcile", "report_drills", "config_changed"}
    assert schedules.keys() >= {"capture_postgresql_daily", "seal_daily", "restore_drill_monthly"}
    assert set(schedules.values()) == {"RUNNING"}
    assert {name for name, status in sensors.items() if status == "RUNNING"} >= ours


def test_today_is_captured_and_checked(live, launched, ended, days):
    """Today's partition, launched as the UI does it: green, and each check of the partition has passed."""
    assert ended[launched["all but redis"]] == "SUCCESS"
    for asset in ("postgresql/dump", "postgresql/globals", "postgresql/sql", "config/archive"):
        checks = live.checks(asset, days[-1])
        assert set(checks.values()) == {"SUCCEEDED"}, (asset, checks)
        assert {"not_empty", "sha256"} < set(checks)
    assert "restorable" in live.checks("postgresql/dump", days[-1])


def test_twins_harm_nothing(launched, ended, vault, days):
    """Two captures of one component at once end well, with two artifacts, both verified."""
    assert [ended[launched[name]] for name in ("twin", "other twin")] == ["SUCCESS", "SUCCESS"]
    catalog = Catalog(vault)
    entries = catalog.entries(asset="storage/archive", set_id=days[-1])
    assert len({entry.name for entry in entries}) == 2
    assert [str(catalog.standing(entry)) for entry in entries] == ["verified", "verified"]


def test_backfill_captures_no_past(live, launched, ended, vault, days):
    """A backfill over several days: today green, past days red with the hint, nothing filed under them."""
    runs = backfilled(live, launched["backfill"], days)
    assert [runs[day]["status"] for day in days] == ["FAILURE"] * (DAYS - 1) + ["SUCCESS"]
    for day in days[:-1]:
        events = live.events(runs[day]["runId"])
        (said,) = (e["failureMetadata"] for e in events if e.get("failureMetadata"))
        assert f"{day} is over" in said["description"]
        assert "allow_late" in said["metadataEntries"][0]["text"]
    assert {entry.set for entry in Catalog(vault).entries() if entry.component != "logs"} == {days[-1]}
    assert not [s.name for s in vault.list("failures/")]


def test_backfill_of_past_hours_is_true(live, launched, ended, vault, hours):
    """Logs alone have a past: each hour's run is green, and its archive has that hour's lines."""

    def look():
        runs = backfilled(live, launched["hours"], hours)
        return runs if runs and all(run["status"] in ENDED for run in runs.values()) else None

    assert {run["status"] for run in until("the hours are archived", look).values()} == {"SUCCESS"}
    for number, hour in enumerate(hours):
        assert set(live.checks("logs/archive", hour).values()) == {"SUCCEEDED"}
        (entry,) = Catalog(vault).entries(asset="logs/archive", set_id=hour)
        lines = gzip.decompress(b"".join(vault.open(entry.name))).splitlines()
        assert [int(line.split()[-1]) for line in lines] == list(range(3 * number, 3 * number + 3))


def test_missed_is_captured_by_itself(live, ended, days):
    """Redis was due while no daemon ran: its job was launched for today by the sensor, once."""
    runs = until("the sensor has launched Redis's job", lambda: live.runs(pipelineName="capture_redis"))
    until("it has ended", lambda: live.runs(pipelineName="capture_redis")[0]["status"] in ENDED)
    assert len(runs) == 1
    assert tags(runs[0])["dagster/partition"] == days[-1]
    assert tags(runs[0])["dagster/sensor_name"] == "missed_captures"
    assert live.runs(pipelineName="capture_redis")[0]["status"] == "SUCCESS"


@pytest.fixture(scope="module")
def sealed(live: Live, ended, vault, days):
    """The run that has sealed the day with all that it has."""

    def look():
        runs = live.runs(pipelineName="seal")
        over = runs and all(run["status"] in ENDED for run in runs)
        newest = Catalog(vault).newest("backup_set/manifest", verified=True)
        return runs[0] if over and newest and not newest.fingerprint["missing"] else None

    return until("the day is sealed", look)


def test_the_manifest_follows_by_itself(live, sealed, vault, days):
    """When the last component has ended, the sensor has the day sealed, and the set is complete."""
    assert sealed["status"] == "SUCCESS"
    assert tags(sealed)["dagster/sensor_name"] == "seal_after"
    assert tags(sealed)["dagster/partition"] == days[-1]
    assert live.checks("backup_set/manifest", days[-1])["complete"] == "SUCCEEDED"
    newest = Catalog(vault).newest("backup_set/manifest", set_id=days[-1])
    assert newest.fingerprint["members"] == 6


def test_checks_alone(live, sealed, vault, days):
    """A check can be made again by itself, of what a day has; where it has nothing, it fails and says so."""
    runs = {
        day: live.launch("__ASSET_JOB", day, assets=[], checks=[("storage/archive", "sha256")])
        for day in (days[0], days[-1])
    }

    def look():
        status = {run["runId"]: run["status"] for run in live.runs()}
        return status if all(status[run] in ENDED for run in runs.values()) else None

    status = until("the checks have been made", look)
    assert status[runs[days[-1]]] == "SUCCESS"
    assert status[runs[days[0]]] == "FAILURE"
    assert live.checks("storage/archive", days[0])["sha256"] == "FAILED"
    assert {entry.set for entry in Catalog(vault).entries() if entry.component != "logs"} == {days[-1]}


def test_no_secret_is_shown(live, sealed):
    """Passphrase, passwords and the content of config are in no run config, event, resource or log."""
    runs = live.runs()
    assert len(runs) >= 6
    seen = json.dumps([runs, [live.events(run["runId"]) for run in runs]])
    seen += json.dumps(
        live.ask(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails {"
            " name description configuredValues { key value } configFields { name defaultValueAsJson } }"
            " assetNodes { description metadataEntries { label ... on TextMetadataEntry { text }"
            " ... on PathMetadataEntry { path } } } } } } }"
        )
    )
    quoted = {
        form for secret in SECRETS for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
    }
    assert [secret for secret in quoted if secret in seen] == []
    files = [path for path in live.home.parent.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # SQLite's journals come and go
            continue
        assert [secret for secret in quoted if secret.encode() in data] == [], path


@pytest.fixture(scope="module")
def page():
    """A page of a real browser, as wide as a laptop."""
    if not os.access(CHROMIUM, os.X_OK):
        missing(f"no browser: {CHROMIUM} is absent")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = browser.new_context(viewport={"width": 1440, "height": 810}, locale="en-GB")
        page = context.new_page()
        page.set_default_timeout(45_000)
        yield page
        browser.close()


@pytest.mark.browser
def test_the_graph_in_a_browser(live, sealed, page):
    """The asset graph has every component, and the manifest to their right."""
    page.goto(f"{live.url}/asset-groups")
    found = {}
    for group in ("postgresql", "redis", "storage", "config", "backup_set"):
        box = page.get_by_text(group, exact=True).last
        box.wait_for()
        found[group] = box.bounding_box()["x"]
    assert found.pop("backup_set") > max(found.values())
    page.keyboard.press("Alt+e")  # opens every group
    page.get_by_text("Asset checks").first.wait_for()


@pytest.mark.browser
def test_a_day_in_a_browser(live, sealed, page, vault, days):
    """A partition's page names its artifact, and the page of its checks says that they have passed."""
    newest = Catalog(vault).newest("postgresql/dump")
    page.goto(f"{live.url}/assets/postgresql/dump?view=partitions&partition={days[-1]}")
    page.get_by_text(newest.name).first.wait_for()
    page.goto(f"{live.url}/assets/postgresql/dump?view=checks")
    for name in ("not_empty", "sha256", "restorable"):
        page.get_by_text(name, exact=True).first.wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()
    assert page.get_by_text("Succeeded", exact=True).count() == len(live.checks("postgresql/dump", days[-1]))


@pytest.mark.browser
def test_a_refused_day_in_a_browser(live, ended, launched, page, days):
    """The run of a past day says there what happened, and what to do."""
    run = backfilled(live, launched["backfill"], days)[days[0]]
    page.goto(f"{live.url}/runs/{run['runId']}")
    page.get_by_text(f"{days[0]} is over").first.wait_for()
    page.get_by_text("allow_late").first.wait_for()
