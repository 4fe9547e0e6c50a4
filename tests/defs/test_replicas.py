"""Copies away from this host as Dagster has them: what there is, and what a run of one does."""

from datetime import date, timedelta

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.defs import replicas
from bookreader_backup_assets.vaults.nas import MARKER

from .away import DAY, PLAN, STORAGE, Away, checks, failure, flip, key, metadata


class TestAssets:
    """What there is of them."""

    def test_there_is_one_for_each_row(self, away):
        """Each asset that a row wants there, and the manifests; none of what comes only in sets."""
        graph = away.definitions.resolve_asset_graph()
        names = {one.to_user_string() for one in graph.get_all_asset_keys() if one.path[0] == "nas"}
        assert names == {
            STORAGE, "nas/backup_set_manifest", "nas/backup_set_weekly", "nas/backup_set_labelled",
        }  # fmt: skip

    def test_each_is_partitioned_as_its_source_and_explains_itself(self, away, nas):
        """Same days, its source as its parent, a blocking check, and what to do by hand."""
        graph = away.definitions.resolve_asset_graph()
        for name in (STORAGE, "nas/backup_set_manifest", "nas/backup_set_weekly", "nas/backup_set_labelled"):
            node = graph.get(key(name))
            (source,) = node.parent_keys
            assert replicas.replica_key("nas", source.to_user_string()) == node.key
            assert node.partitions_def == graph.get(source).partitions_def
            assert (node.group_name, node.kinds, node.pools) == ("nas", {"file"}, {"replication"})
            assert str(nas) in node.description
            assert "bookreader-backup list --vault nas" in node.description
            assert "By hand" in node.description
            (check,) = node.check_keys
            assert check.name == "same_bytes"
            assert graph.get(check).blocking
            assert graph.get(check).partitions_def == node.partitions_def

    def test_without_a_vault_there_is_none(self, planned):
        """Where the plan wants copies, and nothing says where, nothing pretends that there could be any."""
        _, _, definitions = planned(PLAN)
        assert {one.path[0] for one in definitions.resolve_asset_graph().get_all_asset_keys()} & {
            "nas"
        } == set()
        assert "missing_replicas" not in {one.name for one in definitions.sensors}

    def test_uploads_leave_room_for_captures(self, instance):
        """Two at once, of the four runs that there may be; what waits takes no place."""
        config = instance.get_concurrency_config()
        assert config.pool_config.default_pool_limit == 2
        assert config.pool_config.pool_granularity.value == "run"
        assert config.run_queue_config.max_concurrent_runs == 4


class TestReplicas:
    """One asset, materialized."""

    def test_a_copy_is_made_and_compared(self, away):
        """The run is green, the bytes are there, and the numbers are numbers."""
        entry = away.capture("storage/archive")
        result = away.run([STORAGE], DAY)
        assert result.success
        shown = metadata(result, STORAGE)
        assert (shown["artifact"], shown["new"], shown["here"]) == (entry.name, True, True)
        assert shown["bytes_sent"] == entry.size + sum(one.size for one in entry.companions)
        assert shown["bytes_per_second"] > 0
        assert shown["sha256_found"]
        assert shown["dagster/uri"].startswith("file:///")
        assert shown["dagster/uri"].endswith(entry.name)
        assert checks(result) == {STORAGE: True}
        (evaluation,) = result.get_asset_check_evaluations()
        assert evaluation.partition == DAY
        assert "as captured" in evaluation.description

    def test_again_sends_nothing(self, away):
        """What is there is found there."""
        away.capture("storage/archive")
        away.run([STORAGE], DAY)
        again = away.run([STORAGE], DAY)
        assert again.success
        assert (metadata(again, STORAGE)["new"], metadata(again, STORAGE)["bytes_sent"]) == (False, 0)

    def test_the_check_alone_reads_back(self, away):
        """Made by itself it finds a flipped byte there, which the record of the upload does not know."""
        entry = away.capture("storage/archive")
        away.run([STORAGE], DAY)
        assert checks(away.run([], DAY, checks=[STORAGE])) == {STORAGE: True}
        flip(away.installation.vault_outside("nas").vault(away.installation.id), entry.name)
        result = away.run([], DAY, checks=[STORAGE])
        assert not result.success
        assert checks(result) == {STORAGE: False}
        there = Catalog(away.installation.reading("nas").vault)
        assert there.standing(entry).verdict is Verdict.FAILED, "and it is on record there"
        assert checks(away.run([STORAGE], DAY)) == {STORAGE: True}, "made again, it is replaced"
        assert away.installation.reading("nas").vault.digest(entry.name) == entry.sha256

    def test_a_missing_copy_fails(self, away):
        """Of a day that has an artifact here, and of one that has none anywhere."""
        away.capture("storage/archive")
        for day in (DAY, "2026-06-02"):
            assert checks(away.run([], day, checks=[STORAGE])) == {STORAGE: False}

    def test_a_day_without_an_artifact_is_refused(self, away):
        """The past cannot be captured, and the run says so, and what to do."""
        result = away.run([STORAGE], "2026-06-02")
        assert not result.success
        assert "neither here nor in nas" in failure(result).description
        assert "bookreader-backup list" in failure(result).metadata["hint"].value
        assert not [event for event in result.all_events if event.is_step_up_for_retry]

    def test_what_is_not_proven_stays_here(self, away):
        """A red check here, and nothing there."""
        entry = away.capture("storage/archive")
        flip(away.installation.vault, entry.name)
        verify(away.installation, away.installation.component("storage/archive"), entry)
        result = away.run([STORAGE], DAY)
        assert not result.success
        assert "only what is proven" in failure(result).description
        assert away.there() == set()

    def test_of_twins_the_proven_one_goes(self, away):
        """A later capture that is damaged does not stand in the way of the good one of that day."""
        good, bad = away.capture("storage/archive"), away.capture("storage/archive")
        flip(away.installation.vault, bad.name)
        verify(away.installation, away.installation.component("storage/archive"), bad)
        assert away.run([STORAGE], DAY).success
        assert away.there() == {good.name}

    def test_a_backfill_uploads_what_is_missing_and_nothing_else(self, away, clock):
        """Five days: two are there, one is there and here no more, two are uploaded."""
        days = [(date.fromisoformat(DAY) + timedelta(days=n)).isoformat() for n in range(5)]
        entries = []
        for day in days:
            entries.append(away.capture("storage/archive", day))
            clock.forward(hours=24)
        for entry in entries[:3]:
            replicate(away.installation, entry, "nas")
        gone = entries[0]
        for stored in list(away.installation.vault.list(gone.name)):
            away.installation.vault.delete(stored.name)
        before = {s.name: s.modified for s in away.installation.reading("nas").vault.list()}
        results = [away.run([STORAGE], day) for day in days]
        assert all(result.success for result in results)
        sent = [metadata(result, STORAGE)["bytes_sent"] for result in results]
        assert sent[:3] == [0, 0, 0]
        assert all(count > 20_000 for count in sent[3:])
        assert [metadata(result, STORAGE)["here"] for result in results] == [False, True, True, True, True]
        after = {s.name: s.modified for s in away.installation.reading("nas").vault.list()}
        assert {name: after[name] for name in before} == before
        assert away.there() == {entry.name for entry in entries}

    def test_an_upload_that_fails_is_tried_again(self, planned, nas, instance, clock, monkeypatch):
        """The mount is away: the step is retried, and what it says is what to do; then the copy is made."""
        monkeypatch.setattr(replicas, "RETRIES", dg.RetryPolicy(max_retries=2, delay=0.1))
        clock.set(f"{DAY}T03:10:00+02:00")
        made = planned(PLAN, BACKUP_FIRST_DAY="2026-06-01", BACKUP_NAS=str(nas))
        away = Away(made, clock, instance)
        away.capture("storage/archive")
        (nas / MARKER).unlink()
        result = away.run([STORAGE], DAY)
        assert not result.success
        assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 2
        assert failure(result).metadata["hint"].value
        (nas / MARKER).touch()
        assert away.run([STORAGE], DAY).success
