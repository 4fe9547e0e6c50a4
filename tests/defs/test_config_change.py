"""Config on change: each change of content is one version, and nothing else is."""

import json
import os
import shutil

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.diff import ASSET, diff

PLAN = 'timezone = "Europe/Berlin"\ndeadline = "05:00"\n[config]\nat = "03:15"\n'
DAY = "2026-06-10"
JOB = "capture_config"
STATUS = dg.DagsterRunStatus
A, B, C = (f"SECRET_KEY=SECRET_KEY_OF_BOOKREADER{n}\n" for n in "ABC")


@pytest.fixture
def watched(planned, system, clock, instance, run_of, tmp_path):  # noqa: PLR0917
    """An installation in the afternoon, with a configuration of the test's own, and its sensor."""
    clock.set(f"{DAY}T15:00:00+02:00")
    folder = shutil.copytree(system.config, tmp_path / "app")
    variables = {"BACKUP_CONFIG_ROOT": str(folder), "BACKUP_FIRST_DAY": "2026-01-01"}
    installation, _, definitions = planned(PLAN, **variables)
    sensor = definitions.resolve_sensor_def("config_changed")
    repository = definitions.get_repository_def()

    class Watched:
        env = folder / ".env"
        app = folder
        cursor = None
        made = installation
        settings = variables

        def look(self, seconds=30):
            """Let time pass, and return what the sensor asks for, or why it asks for nothing."""
            clock.forward(seconds=seconds)
            with dg.build_sensor_context(instance, self.cursor, repository_def=repository) as context:
                said = sensor.evaluate_tick(context)
            self.cursor = said.cursor
            if not said.run_requests:
                return said.skip_message
            (request,) = said.run_requests
            return request

        def capture(self, **label):
            """Capture without Dagster."""
            entry = capture(installation, installation.component(ASSET), DAY, **label)[0]
            clock.forward(seconds=2)
            return entry

        def follow(self, *, by_job=False):
            """Look a few times, carry out what is asked for, and return the run keys."""
            keys = []
            for _ in range(4):
                said = self.look()
                if isinstance(said, dg.RunRequest):
                    keys.append(said.run_key)
                    if by_job:
                        assert run_of(definitions, JOB, said.partition_key).success
                    else:
                        self.capture()
            return keys

        def versions(self):
            """Return the versions there are, oldest first."""
            return Catalog(installation.vault).entries(asset=ASSET)

        def runs(self, job, status, **more):
            """Note a run in Dagster's storage, and return its id."""
            code = RegisteredCodeLocationOrigin("bookreader_backup_assets")
            origin = RemoteJobOrigin(RemoteRepositoryOrigin(code, "__repository__"), job)
            run = DagsterRun(job_name=job, status=status, remote_job_origin=origin, **more)
            return instance.add_run(run).run_id

    return Watched()


def test_a_b_a_are_three_versions(watched):
    """Each change is captured by one run, under today's partition; the way back is a change, too."""
    watched.env.write_text(A)
    watched.capture()
    keys = []
    for content in (B, A, B):
        watched.env.write_text(content)
        keys += watched.follow(by_job=content == A)
        assert diff(watched.made, watched.versions()[-1].name).same
    assert len(set(keys)) == len(keys) == 3
    assert [entry.set for entry in watched.versions()] == [DAY] * 4
    contents = [entry.fingerprint["content"] for entry in watched.versions()]
    assert contents[0] == contents[2] != contents[1] == contents[3]


def test_a_secret_is_in_no_key_and_no_cursor(watched):
    """Dagster shows both: they hold names, and a hash that is keyed with the passphrase."""
    watched.capture()
    watched.env.write_text(B)
    watched.look()
    request = watched.look()
    assert request.partition_key == DAY
    assert not any(secret in request.run_key + watched.cursor for secret in ("SECRET_KEY", B.strip()))


def test_a_touch_is_none(watched):
    """Another time, another inode, the same content: no version."""
    newest = watched.capture()
    content = watched.env.read_bytes()
    os.utime(watched.env, (1, 1))
    assert watched.look() == f"the content is that of {newest.name}"
    watched.env.unlink()
    watched.env.write_bytes(content)
    assert watched.follow() == []


def test_what_is_a_change(watched):
    """A mode, a file that is gone, one that is new, a link: each is one version, and one only."""
    watched.capture()
    nginx = watched.app / "nginx"
    changes = (
        lambda: watched.env.chmod(0o640),
        (nginx / "nginx.conf").unlink,
        (nginx / "new.conf").touch,
        lambda: (nginx / "live.conf").symlink_to("new.conf"),
    )
    for number, change in enumerate(changes, 2):
        change()
        assert len(watched.follow()) == 1
        assert len(watched.versions()) == number


def test_a_configured_file_that_is_gone_is_captured_once(watched):
    """The version without `.env` fails its check, and is there: no other is asked for."""
    watched.capture()
    watched.env.unlink()
    watched.look()
    assert isinstance(watched.look(), dg.RunRequest)
    watched.capture()
    assert "the content is that of" in watched.look()


def test_what_is_being_written_is_waited_for(watched):
    """A half-saved file, and one that an editor has put aside for an instant, are no versions."""
    watched.capture()
    watched.env.write_text("SECRET_K")
    assert "just changed" in watched.look()
    watched.env.unlink()
    assert "just changed" in watched.look()
    watched.env.write_text(B)
    assert "just changed" in watched.look()
    assert "just changed" in watched.look(seconds=5)
    assert isinstance(watched.look(seconds=5), dg.RunRequest)


def test_what_changes_back_before_it_settles_is_none(watched):
    """An edit that was taken back leaves no version, and is forgotten."""
    watched.env.write_text(A)
    watched.capture()
    for _ in range(2):
        watched.env.write_text(B)
        assert "just changed" in watched.look()
        watched.env.write_text(A)
        assert "the content is that of" in watched.look()


def test_a_failed_capture_is_asked_for_again(watched):
    """After ten minutes, then after twenty, under a key of its own; for other content at once."""
    watched.env.write_text(A)
    watched.capture()
    watched.env.write_text(B)
    watched.look()
    keys = [watched.look().run_key]
    for pause in (600, 1200, 2400):
        assert "asked for" in watched.look(seconds=1)
        assert "asked for" in watched.look(seconds=pause - 5)
        keys.append(watched.look(seconds=5).run_key)
    watched.env.write_text(C)
    watched.look()
    keys.append(watched.look().run_key)
    watched.env.write_text(A)
    assert "the content is that of" in watched.look()
    watched.env.write_text(B)
    watched.look()
    keys.append(watched.look().run_key)
    assert len(set(keys)) == len(keys), "a key that was used launches nothing"


def test_nothing_while_a_capture_is_under_way(watched, instance):
    """By whatever job: its own, the weekly full, or one that the UI has launched for some assets."""
    watched.capture()
    watched.env.write_text(B)
    watched.look()
    mine, other = dg.AssetKey(["config", "archive"]), dg.AssetKey(["redis", "rdb"])
    for job, status, selection in (
        (JOB, STATUS.QUEUED, None),
        ("capture_full", STATUS.STARTED, None),
        ("__ASSET_JOB", STATUS.CANCELING, frozenset({mine, other})),
    ):
        run = watched.runs(job, status, asset_selection=selection)
        assert watched.look() == "a capture of it is under way"
        instance.delete_run(run)
    watched.runs("capture_postgresql", STATUS.STARTED)
    watched.runs("__ASSET_JOB", STATUS.STARTED, asset_selection=frozenset({other}))
    watched.runs(JOB, STATUS.FAILURE)
    assert isinstance(watched.look(), dg.RunRequest)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("BACKUP_KEY_FILE", "", "there is no encryption key; set BACKUP_KEY_FILE"),
        ("BACKUP_CONFIG_ROOT", "/nonexistent", "set BACKUP_CONFIG_ROOT"),
        ("BACKUP_CONFIG_PATHS", "x" * 300, "cannot be read: File name too long; run as a user"),
    ],
)
def test_trouble_is_a_reason_and_no_crash(watched, planned, instance, setting, value, said):  # noqa: PLR0917
    """No key, no folder, a path that cannot be read: said at each look; the night's capture turns red."""
    watched.capture()
    _, _, definitions = planned(PLAN, **{**watched.settings, setting: value})
    sensor = definitions.resolve_sensor_def("config_changed")
    remembered = json.dumps({"change": "x", "since": "2026-06-10T15:00:00+00:00"})
    context = dg.build_sensor_context(instance=instance, cursor=remembered)
    tick = sensor.evaluate_tick(context)
    assert said in tick.skip_message
    assert json.loads(tick.cursor)["change"] == "x", "what it saw before is not forgotten"


def test_the_first_version_is_the_clocks(watched):
    """Where there is none, nothing has changed: not a run on the minute that Dagster is started."""
    assert "no version is there yet" in watched.look()


def test_labelled_versions_are_not_in_the_line(watched):
    """A set made before a deployment holds B; it is captured again as the day's, as the night would."""
    watched.env.write_text(A)
    watched.capture()
    watched.env.write_text(B)
    watched.capture(label="pre-deploy")
    assert len(watched.follow()) == 1


def test_a_clock_that_is_set_back_stops_nothing(watched, clock):
    """A change that was seen "in the future" is captured all the same."""
    watched.capture()
    watched.env.write_text(B)
    watched.look()
    clock.forward(hours=-3)
    assert isinstance(watched.look(), dg.RunRequest)


def test_a_cursor_of_anything_is_a_beginning(watched):
    """What cannot be read is as nothing: the change is seen anew."""
    watched.capture()
    watched.env.write_text(B)
    for cursor in ("{", "[]", '{"other": 1}', ""):
        watched.cursor = cursor
        assert "just changed" in watched.look()


def test_a_plan_without_config_has_no_such_sensor(planned):
    """What is not planned is not captured by itself."""
    _, _, definitions = planned()
    names = {sensor.name for sensor in definitions.sensors}
    assert "config_changed" not in names
