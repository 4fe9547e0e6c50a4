"""Logs of an installation without containers: this program's own, in hours and in labelled sets."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.actions.back_up import back_up_labelled
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.hours import archive_hour
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.seal import seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli.main import group
from bookreader_backup_assets.components.logs import LOGS
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.core.hour import key_of
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.installation import SECRETS

NOON = "2026-06-10T12:00:00+00:00"


@pytest.fixture
def own_log(tmp_path, environ):
    """The file of this program's own log, named by a setting."""
    environ["BACKUP_LOG"] = str(tmp_path / "own.log")
    return tmp_path / "own.log"


@pytest.fixture
def logging(own_log, environ, clock, tmp_path):
    """An installation that writes its own log, at noon of a June day."""
    clock.set(NOON)
    return assemble(load_settings(environ, env_file=tmp_path / "absent"), now=clock)


def text(installation, entry):
    """The lines of an archive."""
    return gzip.decompress(b"".join(installation.vault.open(entry.name))).decode().splitlines()


def captured(installation, asset, **labelled):
    """Capture and check an asset of today."""
    entry, _ = capture(installation, installation.component(asset), installation.today(), **labelled)
    verify(installation, installation.component(asset), entry)
    return entry


def test_every_act_is_a_line(logging, own_log, clock):
    """Captures, checks, seals, restores and refusals each end in a line, and none of them holds a secret."""
    redis = captured(logging, "redis/rdb")
    captured(logging, "config/archive")
    captured(logging, "config/archive")
    seal(logging, logging.today())
    clock.forward(minutes=1)
    with pytest.raises(RefusedError):
        restore(logging, "redis", confirm="something else")
    with pytest.raises(BackupError):
        capture(
            logging,
            type(logging.component("storage/archive"))(
                logging.component("storage/archive").runner, "/nowhere"
            ),
            logging.today(),
        )
    lines = [line.split(" ", 2) for line in own_log.read_text().splitlines()]
    assert lines[0][:2] == ["2026-06-10T12:00:00.000000Z", "INFO"]
    said = [f"{level} {words}" for _, level, words in lines]
    expected = [
        rf"INFO capture redis/rdb 2026-06-10 {re.escape(redis.name)}, \d+ bytes",
        rf"INFO verify {re.escape(redis.name)} 4 checks passed",
        r"INFO capture config/archive 2026-06-10 config/config_\S+, \d+ bytes",
        r"INFO verify config/\S+ \d checks passed",
        r"INFO capture config/archive 2026-06-10 unchanged since config/\S+",
        r"INFO verify config/\S+ \d checks passed",
        r"INFO capture backup_set/manifest 2026-06-10 backup_set/\S+, \d+ bytes",
        r"WARNING restore refused: .+",
        r"ERROR capture storage/archive 2026-06-10 failed: .*/nowhere.*",
    ]
    assert len(said) == len(expected), said
    for line, pattern in zip(said, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert not [secret for secret in SECRETS if secret in own_log.read_text()]


def test_a_restore_is_a_line(logging, own_log, clock):
    """A restore that was carried out is one, with its id, after the capture of what it replaces."""
    captured(logging, "redis/rdb")
    clock.forward(minutes=1)
    report = restore(logging, "redis", confirm=plan(logging, "redis").target)
    words = [line.split(" ", 2)[2] for line in own_log.read_text().splitlines()]
    assert words[-1] == f"restore {report.id} restored"


def test_an_hour_of_this_programs_own(logging, own_log, clock):
    """Without containers, an hour's archive has what this program wrote in it; ages count it."""
    captured(logging, "redis/rdb")
    clock.forward(hours=1, minutes=5)
    entry, new = archive_hour(logging, "2026-06-10-12:00")
    proof = verify(logging, logging.component(LOGS), entry)
    assert new
    assert [o for o in proof.checks if o.verdict is not Verdict.PASSED] == []
    lines = text(logging, entry)
    assert len(lines) == 2
    assert all(
        line.startswith("bookreader-backup 2026-06-10T12:00:00.000000000Z log INFO ") for line in lines
    )
    assert logging.component(LOGS).probe() == {"logs": "1"}
    assert Catalog(logging.vault).newest(LOGS, verified=True) == entry


def test_an_hour_is_archived_again_only_if_it_failed(logging, clock):
    """What is there stays, checked or not; an archive that is damaged is replaced by a new one."""
    first, _ = archive_hour(logging, "2026-06-10-11:00")
    assert archive_hour(logging, "2026-06-10-11:00") == (first, False)
    path = logging.vault.local_path(first.name)
    path.chmod(0o600)
    path.write_bytes(b"x" * first.size)
    proof = verify(logging, logging.component(LOGS), first)
    assert {o.check for o in proof.checks if o.verdict is Verdict.FAILED} == {"readable", "sha256"}
    clock.forward(seconds=1)
    again, new = archive_hour(logging, "2026-06-10-11:00")
    verify(logging, logging.component(LOGS), again)
    assert new
    assert Catalog(logging.vault).newest(LOGS, set_id="2026-06-10-11:00", verified=True) == again


def test_a_labelled_set_has_what_was_logged_since_the_last_hour(logging, own_log, clock):
    """Its logs go on from the newest archived hour to now, and are no hour's archive."""
    captured(logging, "redis/rdb")
    clock.forward(hours=1, minutes=5)
    archive_hour(logging, "2026-06-10-12:00")
    clock.forward(minutes=20)
    set_id, fine = back_up_labelled(logging, "pre-deploy", (LOGS,), complain=pytest.fail)
    assert fine
    (entry,) = Catalog(logging.vault).entries(asset=LOGS, set_id=set_id)
    assert entry.fingerprint["since"] == "2026-06-10T13:00:00.000000000Z"
    assert entry.captured_at == clock()
    assert not entry.regular
    assert "capture logs/archive 2026-06-10-12:00" in text(logging, entry)[0]
    clock.forward(hours=1)
    after, _ = archive_hour(logging, key_of(clock() - timedelta(hours=1)))
    assert verify(logging, logging.component(LOGS), after).checks
    assert Catalog(logging.vault).standing(after).verdict is Verdict.PASSED


def test_a_first_label_has_the_last_hour(logging, clock):
    """Before any hour was archived, a labelled set has what was logged in the last sixty minutes."""
    _, fine = back_up_labelled(logging, "pre-deploy", (LOGS,), complain=pytest.fail)
    (entry,) = Catalog(logging.vault).entries(asset=LOGS)
    assert entry.fingerprint["since"] == "2026-06-10T11:00:00.000000000Z"
    assert fine


def test_days_have_no_hours(logging, clock):
    """A day's manifest neither has nor misses its hours."""
    clock.forward(hours=1)
    archive_hour(logging, "2026-06-10-12:00")
    captured(logging, "redis/rdb")
    manifest = b"".join(logging.vault.open(seal(logging, logging.today()).name))
    assert b"logs/archive" not in manifest
    assert b"redis/rdb" in manifest


def test_without_a_log_it_says_so(installation, clock):
    """Neither containers nor a log of one's own: an archive of nothing, which names the setting."""
    clock.set(NOON)
    entry, _ = archive_hour(installation, "2026-06-10-11:00")
    assert "BACKUP_LOG" in entry.problems[0].what
    assert verify(installation, installation.component(LOGS), entry).checks
    assert Catalog(installation.vault).standing(entry).verdict is Verdict.PASSED


@pytest.fixture
def cli(environ, own_log, tmp_path, monkeypatch):
    """Run a command in this process, where the clock is real; return its status and what it printed."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        done = CliRunner().invoke(group, arguments)
        if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout

    return call


def test_backup_logs_by_hand(cli, tmp_path, monkeypatch):
    """`backup logs` archives the last hour that is over; `list` folds hours, `status` counts them."""
    plan = tmp_path / "plan.toml"
    plan.write_text('timezone = "UTC"\ndeadline = "05:00"\n[redis]\nat = "02:30"\n[logs]\nminute = 5\n')
    monkeypatch.setenv("BACKUP_PLAN", str(plan))
    before = key_of(datetime.now(UTC) - timedelta(hours=1))
    status, said = cli("backup", "--without-dagster", "redis", "logs")
    assert status == 0, said
    after = key_of(datetime.now(UTC) - timedelta(hours=1))
    status, said = cli("list")
    assert status == 0
    assert "and hours of logs, verified: 1," in said
    assert "logs/logs_" not in said
    hour = before if before in said else after
    assert f"bookreader-backup list {hour}" in said
    assert "logs/logs_" in cli("list", hour)[1]
    assert [one["set"] for one in json.loads(cli("list", "--json")[1]) if one["asset"] == LOGS] == [hour]
    counted = {one["asset"]: one for one in json.loads(cli("status", "--json")[1])["assets"]}
    assert counted[LOGS]["ok"]
    assert counted[LOGS]["objective_seconds"] == 3 * 3600
    verified = json.loads(cli("verify", "--json")[1])
    assert not verified["set"].endswith(":00"), "the newest set is the day's"
    assert json.loads(cli("verify", "--json", "--asset", LOGS)[1])["set"] == hour
