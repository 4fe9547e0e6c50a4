"""Copies follow captures by themselves, once, after the checks; what was missed is asked for again."""

from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun

from bookreader_backup_assets.actions.back_up import back_up_labelled
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.actions.seal import LABELLED, WEEKLY
from bookreader_backup_assets.defs.reconcile import report_unknown
from bookreader_backup_assets.defs.replication import REPLICA
from bookreader_backup_assets.defs.sensors import PARTITION
from bookreader_backup_assets.vaults.nas import MARKER

from .away import DAY, STORAGE, Away, checks, flip, key, metadata
from .conftest import QUIET

SUNDAY = "2026-06-14"
STATUS = dg.DagsterRunStatus
MANIFESTS = "nas/backup_set_manifest"


class TestAutomation:
    """What follows a capture by itself."""

    @pytest.fixture
    def tick(self, away, clock):
        """A way to let automation look, a minute later; it has looked once."""
        away.automation()

        def look():
            clock.forward(minutes=1)
            return away.automation()

        return look

    def test_a_copy_follows_its_checks_once(self, away, tick):
        """Captured and checked: asked for once; when it is made, no more."""
        assert tick() == []
        assert away.run(["storage/archive"], DAY).success
        assert tick() == [(STORAGE, DAY)]
        assert tick() == [], "it was asked for"
        assert away.run([STORAGE], DAY).success
        assert tick() == []

    def test_unchecked_is_not_copied(self, away, tick, clock):
        """Between the capture and its checks nothing is asked for; nor after a capture anew."""
        away.run(["storage/archive"], DAY, unchecked=True)
        assert tick() == []
        away.run(["storage/archive"], DAY)
        assert tick() == [(STORAGE, DAY)]
        clock.forward(minutes=1)
        away.run(["storage/archive"], DAY, unchecked=True)
        assert tick() == [], "the checks were of the one before"

    def test_a_failed_check_stops_it(self, away, tick, instance):
        """What is damaged here is not copied; what is captured well after that is."""
        entry = away.capture("storage/archive")
        flip(away.installation.vault, entry.name)
        away.verify(entry)
        report_unknown(away.installation, away.partitions("storage/archive"), instance)
        assert tick() == []
        assert away.run(["storage/archive"], DAY).success
        assert tick() == [(STORAGE, DAY)]

    def test_what_the_command_line_captured_is_copied(self, away, tick):
        """Captured without Dagster, and reported: its checks count as those of a run do."""
        away.capture("storage/archive")
        away.say("reconcile")
        assert tick() == [(STORAGE, DAY)]

    def test_late_days_of_the_week_are_copied(self, away, tick):
        """A partition of some days ago that is filed now goes, too; one of long ago does not."""
        for day in ("2026-06-05", "2026-06-02"):
            away.run(["storage/archive"], day, config={"allow_late": True})
        assert tick() == [(STORAGE, "2026-06-05")]

    def test_the_manifest_of_an_incomplete_set_goes(self, away, tick):
        """It says what is missing, which is as good to know over there: red here, it goes all the same."""
        away.run(["storage/archive"], DAY)
        assert tick() == [(STORAGE, DAY)]
        sealed = away.run(["backup_set/manifest"], DAY)
        assert not sealed.success
        assert tick() == [(MANIFESTS, DAY)]
        assert away.run([MANIFESTS], DAY).success
        (name,) = (entry.name for entry in away.copies())
        assert name.startswith("backup_set/")
        assert tick() == []
        away.run(["backup_set/manifest"], DAY, unchecked=True)
        assert tick() == [], "sealed again, and not looked at yet"

    def test_labelled_sets_follow(self, away, tick, instance):
        """What the command line labelled, once it was reported."""
        set_id, _ = back_up_labelled(
            away.installation, "pre-deploy", ("redis/rdb", "storage/archive"), pytest.fail
        )
        away.say("reconcile")
        assert tick() == [("nas/backup_set_labelled", set_id)]
        result = away.run(["nas/backup_set_labelled"], set_id)
        assert result.success
        assert {entry.asset for entry in away.copies()} == {"redis/rdb", "storage/archive", LABELLED}
        assert {entry.set for entry in away.copies()} == {set_id}
        assert metadata(result, "nas/backup_set_labelled")["artifacts"] == 3
        assert tick() == []
        instance.delete_dynamic_partition("labelled_sets", set_id)


class TestSets:
    """Whole sets."""

    @pytest.fixture
    def full(self, away, clock):
        """The weekly full of a Sunday, sealed."""
        clock.set(f"{SUNDAY}T03:10:00+02:00")
        for asset in ("redis/rdb", "storage/archive"):
            away.capture(asset)
        away.seal(WEEKLY)
        return away

    def test_the_full_brings_its_members(self, full):
        """Redis, which has no copies of its own, comes with the full; the manifest is the last to come."""
        result = full.run(["nas/backup_set_weekly"], SUNDAY)
        assert result.success
        assert {entry.asset for entry in full.copies()} == {"redis/rdb", "storage/archive", WEEKLY}
        assert checks(result) == {"nas/backup_set_weekly": True}
        assert "3 artifacts" in next(iter(result.get_asset_check_evaluations())).description
        assert waiting(full.installation, Catalog(full.installation.vault), "nas") == []

    def test_a_member_that_changes_there_fails_the_set(self, full):
        """The check of the set reads all of it."""
        full.run(["nas/backup_set_weekly"], SUNDAY)
        assert checks(full.run([], SUNDAY, checks=["nas/backup_set_weekly"])) == {
            "nas/backup_set_weekly": True
        }
        (redis,) = (entry for entry in full.copies() if entry.asset == "redis/rdb")
        flip(full.nas, redis.name)
        result = full.run([], SUNDAY, checks=["nas/backup_set_weekly"])
        assert checks(result) == {"nas/backup_set_weekly": False}
        assert redis.name in next(iter(result.get_asset_check_evaluations())).description

    def test_what_is_not_proven_is_left_out(self, full, clock):
        """A damaged member stays here, and is named; the rest and the manifest go."""
        clock.forward(minutes=1)
        entry = full.capture("redis/rdb")
        for one in Catalog(full.installation.vault).entries(asset="redis/rdb"):
            flip(full.installation.vault, one.name)
            full.verify(one)
        full.seal(WEEKLY)
        result = full.run(["nas/backup_set_weekly"], SUNDAY)
        assert result.success
        assert {one.asset for one in full.copies()} == {"storage/archive", WEEKLY}
        assert metadata(result, "nas/backup_set_weekly")["left_out"] == [entry.name]

    def test_a_member_that_is_here_no_more_is_there(self, full):
        """Redis goes after three days here; a backfill of the full finds its copy, and sends nothing."""
        full.run(["nas/backup_set_weekly"], SUNDAY)
        (redis,) = Catalog(full.installation.vault).entries(asset="redis/rdb")
        for stored in list(full.installation.vault.list(redis.name)):
            full.installation.vault.delete(stored.name)
        result = full.run(["nas/backup_set_weekly"], SUNDAY)
        assert result.success
        shown = metadata(result, "nas/backup_set_weekly")
        assert (shown["bytes_sent"], shown["new"]) == (0, False)
        assert "left_out" not in shown

    def test_a_damaged_member_keeps_the_manifest_here(self, full):
        """Found on the way: the others go, the manifest does not say of them what is not so."""
        (redis,) = Catalog(full.installation.vault).entries(asset="redis/rdb")
        flip(full.installation.vault, redis.name)
        assert not full.run(["nas/backup_set_weekly"], SUNDAY).success
        assert {one.asset for one in full.copies()} == {"storage/archive"}


class TestMissing:
    """The sensor that asks again."""

    def asked(self, away):
        """What it asks for: assets, partition, and how often that was tried."""
        said = away.say("missing_replicas")
        if isinstance(said, str):
            return said
        return [(r.asset_selection[0].to_user_string(), r.partition_key, r.run_key[-1]) for r in said]

    def test_automation_has_its_time_first(self, away, clock):
        """Half an hour after the capture what is still missing is asked for."""
        away.capture("storage/archive")
        assert self.asked(away) == "nothing is missing"
        clock.forward(minutes=31)
        assert self.asked(away) == [(STORAGE, DAY, "0")]

    def test_each_time_it_waits_twice_as_long(self, away, clock, instance):
        """Not while it is under way; after two failures, two hours after the capture."""
        away.capture("storage/archive")
        clock.forward(minutes=61)
        tags = {PARTITION: DAY, REPLICA: STORAGE}
        run = DagsterRun(job_name="__ASSET_JOB", status=STATUS.STARTED, tags=tags)
        instance.add_run(run)
        assert self.asked(away) == "nothing is missing"
        instance.delete_run(run.run_id)
        for _ in range(2):
            instance.add_run(DagsterRun(job_name="__ASSET_JOB", status=STATUS.FAILURE, tags=tags))
        assert self.asked(away) == "nothing is missing"
        clock.forward(minutes=61)
        assert self.asked(away) == [(STORAGE, DAY, "2")]

    def test_what_the_set_has_not_is_not_asked_for(self, away, clock):
        """Neither what was superseded, nor what is not proven, nor what is there."""
        away.capture("storage/archive")
        new = away.capture("storage/archive")
        clock.forward(minutes=31)
        replicate(away.installation, new, "nas")
        assert self.asked(away) == "nothing is missing"

    def test_members_are_asked_for_by_their_set(self, away, clock):
        """Redis of a Sunday is missing: the full is what brings it."""
        clock.set(f"{SUNDAY}T03:10:00+02:00")
        away.capture("redis/rdb")
        away.seal(WEEKLY)
        clock.forward(minutes=31)
        assert self.asked(away) == [("nas/backup_set_weekly", SUNDAY, "0")]

    def test_a_vault_that_cannot_be_asked_is_said(self, away, clock, nas):
        """No run can help there."""
        away.capture("storage/archive")
        clock.forward(minutes=31)
        (nas / MARKER).unlink()
        assert MARKER in self.asked(away)

    def test_its_runs_make_copy_and_check(self, away, clock, instance):
        """What it asks for is a run of the code location's, with the check in it."""
        away.capture("storage/archive")
        clock.forward(minutes=31)
        (request,) = away.say("missing_replicas")
        assert request.asset_check_keys == [dg.AssetCheckKey(key(STORAGE), "same_bytes")]
        job = away.definitions.get_repository_def().get_implicit_job_def_for_assets(request.asset_selection)
        assert job.get_subset(asset_selection={key(STORAGE)}).execute_in_process(
            instance=instance, tags={PARTITION: DAY}, run_config=QUIET
        )
        assert len(away.there()) == 1


class TestReported:
    """The sensor that tells Dagster of copies that were made without it."""

    def known(self, instance, name, partition):
        """The artifact that Dagster knows of a partition, or None."""
        filters = dg.AssetRecordsFilter(asset_key=key(name), asset_partitions=[partition])
        records = instance.fetch_materializations(filters, limit=1).records
        return records[0].asset_materialization.metadata["artifact"].value if records else None

    def test_the_command_lines_copies_are_reported_once(self, away, instance):
        """Materialization and check, of the right partition; the next time there is nothing to say."""
        entry = away.capture("storage/archive")
        replicate(away.installation, entry, "nas")
        assert away.say("report_replicas") == f"reported: {entry.name}"
        assert self.known(instance, STORAGE, DAY) == entry.name
        checked = dg.AssetCheckKey(key(STORAGE), "same_bytes")
        (record,) = instance.event_log_storage.get_asset_check_execution_history(checked, limit=5)
        assert (record.partition, record.status.value) == (DAY, "SUCCEEDED")
        assert away.say("report_replicas") == "nothing to report"
        away.cursors.clear()
        assert away.say("report_replicas") == "nothing to report", "also if it has forgotten how far it was"

    def test_what_dagster_made_is_not_reported(self, away):
        """A run has told Dagster itself."""
        away.capture("storage/archive")
        away.run([STORAGE], DAY)
        assert away.say("report_replicas") == "nothing to report"

    def test_a_copy_without_its_entry_is_none(self, away):
        """An upload that is under way, or was killed, is not reported."""
        entry = away.capture("storage/archive")
        replicate(away.installation, entry, "nas")
        away.nas.delete(entry.entry_name)
        assert away.say("report_replicas") == "nothing to report"

    def test_lost_storage_learns_of_what_is_only_there(self, away, instance, clock):
        """Dagster's storage is new, and the artifact is in the local vault no more."""
        entry = away.capture("storage/archive")
        away.run([STORAGE], DAY)
        for stored in list(away.installation.vault.list(entry.name)):
            away.installation.vault.delete(stored.name)
        instance.wipe()
        clock.forward(days=20)
        assert away.say("report_replicas") == f"reported: {entry.name}"
        assert self.known(instance, STORAGE, DAY) == entry.name

    def test_what_a_run_works_on_is_left_to_it(self, away, instance, clock):
        """And told after an hour, whatever became of the run."""
        clock.at = None
        away.installation.now()
        entry = away.capture("storage/archive", away.installation.today())
        replicate(away.installation, entry, "nas")
        run = DagsterRun(
            job_name="__ASSET_JOB", status=STATUS.STARTED, tags={PARTITION: away.installation.today()}
        )
        instance.add_run(run)
        assert away.say("report_replicas") == "nothing to report"
        clock.at = away.installation.now() + timedelta(minutes=61)
        assert away.say("report_replicas") == f"reported: {entry.name}"

    def test_an_unreachable_vault_is_said(self, away, nas):
        """And nothing is lost by it."""
        entry = away.capture("storage/archive")
        replicate(away.installation, entry, "nas")
        (nas / MARKER).unlink()
        assert MARKER in away.say("report_replicas")
        (nas / MARKER).touch()
        assert away.say("report_replicas") == f"reported: {entry.name}"


class TestGit:
    """A vault that tells of no times, and a component that is captured on change."""

    PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[config]
at = "03:15"
git = { versions = 10 }
"""

    @pytest.fixture
    def away(self, planned, git_remote, clock, instance):
        """An installation whose configuration goes to a git remote."""
        clock.set(f"{DAY}T03:20:00+02:00")
        made = planned(self.PLAN, BACKUP_FIRST_DAY="2026-06-01", BACKUP_GIT_REMOTE=git_remote.as_uri())
        return Away(made, clock, instance)

    def test_a_day_that_found_it_unchanged_sends_nothing(self, away, clock):
        """Its partition is green, names the older artifact, and adds to the branch what was found."""
        assert away.run(["config/archive"], DAY).success
        assert away.run(["git/config_archive"], DAY).success
        clock.forward(hours=24)
        assert away.run(["config/archive"], "2026-06-11").success
        result = away.run(["git/config_archive"], "2026-06-11")
        assert result.success
        shown = metadata(result, "git/config_archive")
        assert (shown["bytes_sent"], shown["new"], shown["set"]) == (0, False, DAY)
        assert away.say("report_replicas") == "nothing to report"
        assert away.say("missing_replicas") == "nothing is missing"

    def test_the_command_lines_copies_are_reported(self, away, clock):
        """Also where nobody can tell when they came; of each day that found it unchanged."""
        entry = away.capture("config/archive")
        replicate(away.installation, entry, "git")
        assert away.say("report_replicas") == f"reported: {entry.name}"
        clock.forward(hours=24)
        capture(away.installation, away.installation.component("config/archive"), "2026-06-11")
        replicate(away.installation, entry, "git")
        assert away.say("report_replicas") == f"reported: {entry.name}"
        assert away.say("report_replicas") == "nothing to report"
