"""What happens by itself: missed captures are made up for, days are sealed when they have ended."""

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
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.defs.sensors import PARTITION

DAY = "2026-06-10"
BEFORE, EARLY, MISSED = "2026-06-10T02:29:00+02:00", "2026-06-10T02:39:00+02:00", "2026-06-10T02:41:00+02:00"
LATER = "2026-06-10T08:00:00+02:00"
STATUS = dg.DagsterRunStatus


@pytest.fixture
def night(planned, clock, instance):
    """An installation on a June night of 2026, with Redis planned at 02:30 and storage at 03:00."""
    clock.set(BEFORE)
    installation, _, definitions = planned(BACKUP_FIRST_DAY="2026-01-01")

    class Night:
        vault = installation.vault

        def say(self, name):
            """Return what a sensor asks for: jobs and days, or why there is nothing to do."""
            sensor = definitions.resolve_sensor_def(name)
            repository = definitions.get_repository_def()
            with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
                said = sensor.evaluate_tick(context)
            requests = [(r.job_name or sensor.job_name, r.partition_key) for r in said.run_requests]
            self.run_keys = [request.run_key for request in said.run_requests]
            return sorted(requests) or said.skip_message

        def has_run(self, job, status, day=DAY):
            """Note a run in Dagster's storage, and return its id."""
            code = RegisteredCodeLocationOrigin("bookreader_backup_assets")
            origin = RemoteJobOrigin(RemoteRepositoryOrigin(code, "__repository__"), job)
            run = DagsterRun(job_name=job, status=status, tags={PARTITION: day}, remote_job_origin=origin)
            instance.add_run(run)
            return run.run_id

        def forget(self, run):
            """Take back a run."""
            instance.delete_run(run)

        def capture(self, asset, day=DAY, **label):
            """Capture and verify without Dagster."""
            component = installation.component(asset)
            entry = capture(installation, component, day, **label)[0]
            clock.forward(seconds=2)
            verify(installation, component, entry)
            clock.forward(seconds=2)
            return entry

        def seal(self, day=DAY):
            """Do what the sensor asked for."""
            from bookreader_backup_assets.actions.seal import seal

            clock.forward(seconds=1)
            return seal(installation, day)

        def fail(self, asset, day=DAY):
            """Capture what cannot be captured."""
            from dataclasses import replace

            broken = replace(installation.component(asset), path="/nowhere/at/all")
            with pytest.raises(Exception, match="/nowhere/at/all"):
                capture(installation, broken, day)
            clock.forward(seconds=1)

    return Night()


class TestMissedCaptures:
    """The sensor that makes up for a clock that nobody watched."""

    def test_nothing_before_time_and_grace(self, night, clock):
        """Before a component's time, and ten minutes longer, nothing was missed."""
        for time in (BEFORE, EARLY):
            clock.set(time)
            assert night.say("missed_captures") == "nothing was missed today"

    def test_missed_is_captured_under_todays_name(self, night, clock):
        """A daemon that comes back asks for today's partition, once: the run key is the day's."""
        clock.set(MISSED)
        assert night.say("missed_captures") == [("capture_redis", DAY)]
        keys = night.run_keys
        clock.set(LATER)
        assert night.say("missed_captures") == [("capture_redis", DAY), ("capture_storage", DAY)]
        assert set(keys) < set(night.run_keys)

    def test_what_was_started_was_not_missed(self, night, clock):
        """A run that waits, runs, or has failed is not a missed one."""
        clock.set(MISSED)
        for status in (STATUS.QUEUED, STATUS.STARTING, STATUS.STARTED, STATUS.FAILURE, STATUS.CANCELED):
            run = night.has_run("capture_redis", status)
            assert night.say("missed_captures") == "nothing was missed today"
            night.forget(run)
        assert night.say("missed_captures") == [("capture_redis", DAY)]

    def test_what_was_adopted_is_no_capture(self, night, clock):
        """A backup of the guide's script, filed under today, does not stand in for tonight's capture."""
        clock.set(MISSED)
        night.capture("redis/rdb", label="adopted", late=True)
        assert night.say("missed_captures") == [("capture_redis", DAY)]

    def test_yesterdays_run_is_not_todays(self, night, clock):
        """A run for another day says nothing about this one."""
        night.has_run("capture_redis", STATUS.SUCCESS, day="2026-06-09")
        clock.set(MISSED)
        assert night.say("missed_captures") == [("capture_redis", DAY)]

    def test_what_the_vault_has_was_not_missed(self, night, clock):
        """A capture that was made without Dagster counts."""
        night.capture("redis/rdb")
        clock.set(MISSED)
        assert night.say("missed_captures") == "nothing was missed today"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("2026-03-29T03:35:00+02:00", "2026-03-29T03:41:00+02:00"),  # 02:30 is skipped
            ("2026-10-25T02:50:00+02:00", "2026-10-25T02:41:00+01:00"),  # 02:30 comes twice
        ],
        ids=["the clocks go forward", "the clocks go back"],
    )
    def test_nights_of_other_lengths(self, night, clock, before, after):
        """The sensor never overtakes the schedule, which fires at 03:00, and at the second 02:30."""
        clock.set(before)
        assert ("capture_redis", before[:10]) not in list(night.say("missed_captures"))
        clock.set(after)
        assert ("capture_redis", after[:10]) in night.say("missed_captures")


class TestSealAfter:
    """The sensor that seals a day when all of it has ended."""

    def test_nothing_to_seal(self, night, clock):
        """Neither a day without artifacts is sealed, nor the one before it."""
        clock.set(LATER)
        assert night.say("seal_after") == "2026-06-09: nothing to seal; 2026-06-10: nothing to seal"

    def test_waits_for_what_is_to_come(self, night):
        """Redis has ended at 02:29, asked for by hand; storage comes at 03:00."""
        night.capture("redis/rdb")
        assert "storage is still to come" in night.say("seal_after")

    def test_what_was_adopted_today_has_not_ended(self, night):
        """The night's own captures are still to come."""
        night.capture("redis/rdb", label="adopted", late=True)
        assert "nothing to seal" in night.say("seal_after")

    def test_seals_after_the_last(self, night):
        """When all that is planned has ended, the day is sealed, and then left alone."""
        night.capture("redis/rdb")
        night.capture("storage/archive")
        assert night.say("seal_after") == [("seal", DAY)]
        night.seal()
        assert "2026-06-10: sealed" in night.say("seal_after")

    def test_seals_after_a_failure(self, night):
        """A component that failed has ended, too."""
        night.capture("redis/rdb")
        night.fail("storage/archive")
        assert night.say("seal_after") == [("seal", DAY)]
        night.seal()
        manifest = Catalog(night.vault).newest("backup_set/manifest")
        assert manifest.fingerprint["missing"] == ["storage/archive"]

    def test_waits_for_what_is_under_way(self, night):
        """Whatever job a run of the day belongs to, it is waited for."""
        night.capture("redis/rdb")
        night.capture("storage/archive")
        for job in ("capture_storage", "__ASSET_JOB", "seal"):
            for status in (STATUS.QUEUED, STATUS.STARTED, STATUS.CANCELING):
                run = night.has_run(job, status)
                assert "2026-06-10: something is under way" in night.say("seal_after")
                night.forget(run)
        assert night.say("seal_after") == [("seal", DAY)]

    def test_a_missed_component_is_not_waited_for(self, night, clock):
        """Ten minutes after its time, what has not begun holds nobody up; it is sealed again later."""
        night.capture("redis/rdb")
        clock.set(LATER)
        assert night.say("seal_after") == [("seal", DAY)]
        night.seal()
        night.capture("storage/archive")
        assert night.say("seal_after") == [("seal", DAY)]

    def test_a_later_capture_seals_again(self, night, clock):
        """Each change has a run key of its own, also one that leads back to what was."""
        night.capture("redis/rdb")
        night.capture("storage/archive")
        keys = set()
        for _ in range(3):
            assert night.say("seal_after") == [("seal", DAY)]
            keys |= set(night.run_keys)
            night.seal()
            clock.forward(hours=1)
            night.capture("redis/rdb")
        assert len(keys) == 3

    def test_the_same_state_has_the_same_key(self, night):
        """A seal that fails is not asked for again and again: only a change asks anew."""
        night.capture("redis/rdb")
        night.capture("storage/archive")
        night.say("seal_after")
        first = night.run_keys
        assert night.say("seal_after") == [("seal", DAY)]
        assert night.run_keys == first

    def test_yesterday_that_ended_after_midnight(self, night, clock):
        """A capture that ended on the next day still gets its day sealed."""
        night.capture("redis/rdb")
        clock.set("2026-06-11T00:10:00+02:00")
        assert night.say("seal_after") == [("seal", DAY)]
        night.seal()
        assert "2026-06-10: sealed" in night.say("seal_after")

    def test_a_late_capture_seals_its_day(self, night, clock):
        """A day of last week that something was filed under late is sealed again; others are not."""
        night.capture("redis/rdb")
        night.seal()
        clock.set("2026-06-17T12:00:00+02:00")
        night.capture("storage/archive", DAY, label="late", late=True)
        assert night.say("seal_after") == [("seal", DAY)]

    def test_the_next_day_begins_unsealed(self, night, clock):
        """A sealed day does not seal the next one."""
        night.capture("redis/rdb")
        night.capture("storage/archive")
        night.seal()
        clock.set("2026-06-11T09:00:00+02:00")
        assert "2026-06-11: nothing to seal" in night.say("seal_after")
