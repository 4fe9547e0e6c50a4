"""The daily prune in Dagster: when it is asked for, what its run shows, and what stands on the partitions."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun

from bookreader_backup_assets.actions import prune_records
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.prune import prune
from bookreader_backup_assets.actions.prune_records import Pruned, Removal
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.defs.expired import report_removals
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.filled import fill

from .away import DAY, STORAGE, Away, key
from .conftest import QUIET

PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[storage]
at = "03:00"
keep = { days = 3 }
nas = { days = 5 }
[labels]
nas = { days = 30 }
"""
NIGHTS = [f"2026-06-{day:02}" for day in range(3, 11)]


@pytest.fixture
def away(planned, nas, clock, instance):
    """Eight nights of storage in the local vault, none of it copied; it is half past six."""
    clock.set(f"{DAY}T06:30:00+02:00")
    made = Away(planned(PLAN, BACKUP_FIRST_DAY="2026-06-01", BACKUP_NAS=str(nas)), clock, instance)
    installation = made.installation
    made.entries = {
        night: fill(
            installation.vault,
            "storage",
            datetime.fromisoformat(f"{night}T03:00:00+02:00").astimezone(UTC),
            night,
            zone=installation.zone,
            installation=installation.id,
        )
        for night in NIGHTS
    }
    return made


def copy(away, *nights):
    """Replicate what was captured in some nights, or in all."""
    for night in nights or NIGHTS:
        replicate(away.installation, away.entries[night], "nas")


def pruned(away, instance, **config):
    """Run the job."""
    run_config = {**QUIET, **({"ops": {"prune_vaults": {"config": config}}} if config else {})}
    job = away.definitions.resolve_job_def("prune")
    return job.execute_in_process(instance=instance, raise_on_error=False, run_config=run_config)


def shown(result):
    """What the run has to show, red or green."""
    for event in result.all_node_events:
        if event.is_step_failure:
            found = event.step_failure_data.user_failure_data.metadata
        elif event.is_successful_output:
            found = event.event_specific_data.metadata
        else:
            continue
        return {name: value.value for name, value in found.items()}
    return None


def observed(instance, name):
    """What stands on an asset's partitions: lifecycle, vault and artifact, by partition."""
    records = instance.fetch_observations(dg.AssetRecordsFilter(asset_key=key(name)), limit=100).records
    seen = [record.event_log_entry.asset_observation for record in records]
    found = {
        one.partition: [one.metadata[n].value for n in ("lifecycle", "vault", "artifact")] for one in seen
    }
    assert len(found) == len(seen), "each partition once"
    return found


class TestJob:
    """What the run does and shows."""

    def test_what_the_plan_does_not_keep_goes(self, away, instance):
        """From each vault what is too old there, and each partition says so."""
        copy(away)
        result = pruned(away, instance)
        assert result.success
        assert {e.set for e in Catalog(away.installation.vault).entries()} == set(NIGHTS[-4:])
        assert {e.set for e in away.copies()} == set(NIGHTS[-6:])
        local, there = observed(instance, "storage/archive"), observed(instance, STORAGE)
        assert local == {n: ["expired", "local", away.entries[n].name] for n in NIGHTS[:4]}
        assert there == {n: ["expired", "nas", away.entries[n].name] for n in NIGHTS[:2]}
        assert pruned(away, instance).success
        assert observed(instance, "storage/archive") == local

    def test_its_plan_is_a_table(self, away, instance):
        """What becomes of each artifact, and why, what goes first."""
        copy(away)
        found = shown(pruned(away, instance))
        rows = [record.data for record in found["local"].records]
        assert [row["becomes"] for row in rows] == ["removed"] * 4 + ["kept"] * 4
        assert all(row["because"] for row in rows)
        assert (found["local_removed"], found["nas_removed"]) == (4, 2)
        assert found["local_bytes"] > 0

    def test_what_has_no_copy_stays(self, away, instance):
        """The NAS should have it: the run is green, and the table says why."""
        spared = NIGHTS[3]
        copy(away, *(night for night in NIGHTS if night != spared))
        result = pruned(away, instance)
        assert result.success
        assert spared in {e.set for e in Catalog(away.installation.vault).entries()}
        (row,) = (r.data for r in shown(result)["local"].records if r.data["set"] == spared)
        assert "no proven copy in nas" in row["because"]

    def test_a_refusal_is_red_and_says_why(self, away, instance, clock):
        """A month without captures, or a clock that jumped: nothing goes, anywhere."""
        copy(away)
        clock.forward(days=30)
        result = pruned(away, instance)
        assert not result.success
        (said,) = (e.step_failure_data.user_failure_data for e in result.all_node_events if e.is_step_failure)
        assert "local: nothing was removed: nothing was captured" in said.description
        assert "nas: nothing was removed" in said.description
        assert {r.data["becomes"] for r in shown(result)["local"].records} == {"kept"}
        assert len(Catalog(away.installation.vault).entries()) == len(NIGHTS)
        assert observed(instance, "storage/archive") == {}

    def test_one_vault_that_is_away_keeps_no_other(self, away, instance, nas):
        """The local vault spares what it cannot ask about; the NAS is red."""
        copy(away)
        (nas / MARKER).unlink()
        result = pruned(away, instance)
        assert not result.success
        assert {e.set for e in Catalog(away.installation.vault).entries()} == set(NIGHTS[2:])
        (nas / MARKER).touch()
        assert pruned(away, instance, vaults=["nas"]).success
        assert {e.set for e in Catalog(away.installation.vault).entries()} == set(NIGHTS[2:])
        assert {e.set for e in away.copies()} == set(NIGHTS[-6:])


class TestSensor:
    """When it is asked for."""

    def asked(self, away):
        """The run keys that it asks for, or why it does not."""
        said = away.say("prune_daily")
        return said if isinstance(said, str) else [one.run_key for one in said]

    def test_once_a_day_after_its_time(self, away, clock):
        """At six, not before; and the next day again."""
        copy(away)
        clock.set(f"{DAY}T05:59:00+02:00")
        assert self.asked(away) == "not before 06:00"
        clock.set(f"{DAY}T06:00:00+02:00")
        assert self.asked(away) == [f"prune:{DAY}"]
        clock.forward(hours=2)
        assert "was asked for" in self.asked(away)
        clock.forward(hours=24)
        assert self.asked(away) == ["prune:2026-06-11"]

    def test_it_waits_for_copies(self, away, clock):
        """Three hours at most: then it spares what has none."""
        copy(away, *NIGHTS[:-1])
        assert self.asked(away) == "1 artifacts are to be replicated to nas first"
        clock.set(f"{DAY}T08:59:00+02:00")
        assert "first" in self.asked(away)
        clock.set(f"{DAY}T09:00:00+02:00")
        assert self.asked(away) == [f"prune:{DAY}"]

    def test_it_waits_for_a_vault_that_is_away(self, away, clock, nas):
        """And no longer than that."""
        copy(away)
        (nas / MARKER).unlink()
        assert MARKER in self.asked(away)
        clock.forward(hours=3)
        assert self.asked(away) == [f"prune:{DAY}"]

    def test_it_waits_for_runs(self, away, instance):
        """A copy that is being made."""
        copy(away)
        run = DagsterRun(
            job_name="__ASSET_JOB",
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({key(STORAGE)}),
        )
        instance.add_run(run)
        assert self.asked(away) == "replicas are under way"
        instance.delete_run(run.run_id)
        assert self.asked(away) == [f"prune:{DAY}"]

    def test_without_vaults_outside_it_waits_for_nothing(self, planned, clock, instance):
        """There is nothing to wait for."""
        clock.set(f"{DAY}T06:30:00+02:00")
        alone = Away(planned(PLAN, BACKUP_FIRST_DAY="2026-06-01"), clock, instance)
        assert self.asked(alone) == [f"prune:{DAY}"]


class TestObservations:
    """What stands on partitions whose file is gone."""

    def test_what_the_command_line_removed_is_told_once(self, away, instance):
        """By the sensor that reconciles, and not again."""
        copy(away)
        prune(away.installation, "local")
        assert away.entries[NIGHTS[0]].name in away.say("reconcile")
        assert set(observed(instance, "storage/archive")) == set(NIGHTS[:4])
        assert away.say("reconcile") == "nothing to report"

    def removal(self, away, asset, artifact, *sets, vault="local", ago=timedelta(0)):
        """Put a removal on record."""
        at = away.installation.now() - ago
        gone = Removal(artifact, asset, sets, 7, at, "by hand")
        begun = prune_records.begin(
            away.installation.vault, Pruned("", away.installation.id, vault, at, removed=(gone,))
        )
        return prune_records.end(away.installation.vault, begun, [gone], [])

    def test_a_day_that_still_has_one_is_not_expired(self, away, instance):
        """Of twins one went: the partition says that it was superseded."""
        self.removal(away, "storage/archive", "storage/twin", DAY)
        report_removals(away.installation, instance)
        assert observed(instance, "storage/archive")[DAY][0] == "superseded"

    def test_members_stand_on_their_set(self, away, instance):
        """What was of a labelled set only is told on that set's partition, here and there."""
        set_id = "2026-06-08_12-00-00_pre-deploy"
        self.removal(away, "redis/rdb", "redis/labelled", set_id)
        self.removal(away, "redis/rdb", "redis/labelled", set_id, vault="nas")
        report_removals(away.installation, instance)
        assert observed(instance, "backup_set/labelled") == {set_id: ["expired", "local", "redis/labelled"]}
        assert observed(instance, "nas/backup_set_labelled") == {set_id: ["expired", "nas", "redis/labelled"]}
        assert observed(instance, "redis/rdb") == {}

    def test_each_set_that_referred_to_it_says_so(self, away, instance):
        """An artifact found unchanged for days was the artifact of all of them."""
        self.removal(away, "config/archive", "config/c", "2026-06-03", "2026-06-04")
        assert report_removals(away.installation, instance) == ["config/c"] * 2
        assert set(observed(instance, "config/archive")) == {"2026-06-03", "2026-06-04"}

    def test_of_a_killed_prune_what_is_gone_is_told(self, away, instance):
        """Of what it was about to remove the rest is here still, and nothing stands on that."""
        at = away.installation.now()
        going = [
            Removal(name, "storage/archive", (night,), 7, at, "by hand")
            for name, night in (("storage/gone", NIGHTS[0]), (away.entries[NIGHTS[1]].name, NIGHTS[1]))
        ]
        killed = Pruned("", away.installation.id, "local", at, removed=tuple(going))
        prune_records.begin(away.installation.vault, killed)
        away.installation.vault.delete(away.entries[NIGHTS[0]].entry_name)
        assert report_removals(away.installation, instance) == ["storage/gone"]
        assert observed(instance, "storage/archive") == {NIGHTS[0]: ["expired", "local", "storage/gone"]}

    def test_long_ago_is_not_looked_at(self, away, instance):
        """What was removed more than two weeks ago was told then."""
        self.removal(away, "storage/archive", "storage/old", "2026-05-01", ago=timedelta(days=15))
        assert report_removals(away.installation, instance) == []
