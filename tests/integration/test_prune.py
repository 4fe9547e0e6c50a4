"""Prune, on real vaults: what goes, what stays because of what, and what is left when it is killed."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.growth import bytes_of, growth
from bookreader_backup_assets.actions.held import held
from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.actions.journal import Journal, alone
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.pins import pin
from bookreader_backup_assets.actions.prune import plan_prune, prune, prunes
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.away import Unset
from bookreader_backup_assets.cli.main import group
from bookreader_backup_assets.codecs.index import IndexWriter, Row
from bookreader_backup_assets.core.artifact import Companion
from bookreader_backup_assets.core.check import Verdict, passed
from bookreader_backup_assets.core.errors import RefusedError, VaultError
from bookreader_backup_assets.core.restore_plan import ABANDONED, RESTORED, RestoreReport
from bookreader_backup_assets.vaults.base import Terms
from bookreader_backup_assets.vaults.nas import MARKER
from tests.fixtures.filled import fill, make, night, prove
from tests.fixtures.held import production
from tests.fixtures.installation import Clock

NOW = datetime(2026, 3, 20, 6, tzinfo=UTC)
ASSETS = ("postgresql", "storage")
OLD = "logs/logs_2026-03-01_02-00-00.log.gz"
GONE, WEEKLY, KEPT = "2026-03-09", "2026-03-08", "2026-03-13"


@pytest.fixture
def clock(clock):
    """Friday, 09:00 in Moscow."""
    clock.at = NOW
    return clock


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """A vault with what fifteen nights leave of the database and storage, and the newest of the others."""
    clock = Clock(NOW)
    folder = tmp_path_factory.mktemp("nights")
    vault = make(folder, clock).vault
    for days_ago in range(15):
        for what in ASSETS:
            fill(vault, what, night(days_ago, NOW))
        fill(vault, "manifest", night(days_ago, NOW, 3))
    for what, hour in (("redis", 2), ("config", 2), ("code", 2), ("logs", 8)):
        fill(vault, what, night(0, NOW, hour))
    return vault.root


@pytest.fixture
def installation(tmp_path, clock, nights):
    """An installation with those nights in its vault, and no other vault."""
    return filled(tmp_path, clock, nights)


@pytest.fixture
def two(tmp_path, clock, nas, nights):
    """The same, where the plan wants copies on a NAS for 30 days, and none is there yet."""
    return filled(tmp_path, clock, nights, nas=nas)


def filled(folder, clock, nights, **more):
    """Return an installation over a copy of a vault."""
    shutil.copytree(nights, folder / "vault")
    return make(folder, clock, **more)


def sets(installation, vault=None):
    """Return the sets that are in a vault."""
    return {entry.set for entry in Catalog(vault or installation.vault).entries()}


def names(vault):
    """Return every file in a folder, half-written ones too, and its bytes."""
    root = getattr(vault, "folder", vault).root
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def because(installation, name="local", **more):
    """Return why each artifact stays, by asset and set."""
    verdict = plan_prune(installation, name, **more).verdict
    return {(one.entry.component, one.entry.set): one.because for one in verdict.decisions}


def aged(installation, name, days, now):
    """Have a file say that it was last written so many days ago."""
    at = (now - timedelta(days=days)).timestamp()
    os.utime(installation.vault.root / name, (at, at))


def whole(vault):
    """Return whether every entry has all its files, and what lies there without one."""
    catalog = Catalog(vault)
    for entry in catalog.entries():
        assert catalog.standing(entry).verdict is Verdict.PASSED, entry.name
    return catalog.strays()


@dataclass(frozen=True)
class Wrapped:
    """A vault that does something of its own before each file goes."""

    vault: object
    before: object
    locks: object = None

    def __getattr__(self, name):
        return getattr(self.vault, name)

    def delete(self, name):
        self.before(name)
        self.vault.delete(name)

    def locked_until(self, name):
        return self.locks(name) if self.locks else self.vault.locked_until(name)


def test_what_the_plan_does_not_keep_goes_with_all_its_files(installation, clock):
    """Seven days and the Sundays stay, byte for byte; of the others nothing is left; and it is on record."""
    before = names(installation.vault)
    planned = plan_prune(installation, "local")
    pruned = prune(installation, "local")
    after = names(installation.vault)
    days = {f"2026-03-{day:02}" for day in range(13, 21)} | {"2026-03-08"}
    assert sets(installation) == days
    assert (pruned.good, pruned.failed, pruned.ended) == (True, (), True)
    assert pruned.removed == planned.removals
    assert [one.captured_at for one in pruned.removed] == sorted(one.captured_at for one in pruned.removed)
    assert len(pruned.removed) == 6 * 3
    assert not [name for name in after if any(one.artifact in name for one in pruned.removed)]
    assert {name: before[name] for name in after if not name.startswith("prunes/")}.items() <= after.items()
    assert whole(installation.vault) == {}
    assert prunes(installation) == [pruned]
    first = next(one for one in pruned.removed if one.asset == "postgresql/dump")
    assert first.why == "of 2026-03-06, and the plan keeps postgresql 7 days"
    assert first.sets == ("2026-03-06",)
    assert (
        pruned.bytes
        == planned.bytes
        == sum(
            len(content)
            for name, content in before.items()
            if name not in after and not name.endswith(".json")
        )
    )


def test_the_second_time_there_is_nothing_to_do(installation):
    """Nothing goes, and nothing is put on record."""
    prune(installation, "local")
    before = names(installation.vault)
    again = prune(installation, "local")
    assert (again.removed, again.id, again.good) == ((), "", True)
    assert names(installation.vault) == before


def test_a_plan_touches_nothing(installation):
    """Not a file is added, changed or removed by looking."""
    before = names(installation.vault)
    plan_prune(installation, "local")
    assert names(installation.vault) == before


def test_every_member_of_a_weekly_set_stays(installation):
    """With its manifest; and each says that it is of the weekly full."""
    why = because(installation)
    for what in ASSETS:
        assert why[what, WEEKLY] == (f"weekly full of {WEEKLY}, kept 4 weeks",)
    assert why["backup_set", WEEKLY] == (f"of the set {WEEKLY}",)


def test_what_is_found_unchanged_is_of_the_later_set(installation, clock):
    """An artifact that its source still equalled on a day that is kept stays, as old as it is."""
    old = fill(installation.vault, "redis", night(12, clock()), unchanged=("2026-03-18",))
    prune(installation, "local")
    assert old in Catalog(installation.vault).entries()


def test_what_is_pinned_stays(installation, clock):
    """All of the set, until the day after its last: then it goes."""
    pin(installation, GONE, datetime(2026, 3, 22, tzinfo=UTC).date(), "the audit")
    prune(installation, "local")
    assert GONE in sets(installation)
    clock.forward(days=2)
    filled_later(installation, clock, 2)
    prune(installation, "local")
    assert GONE in sets(installation)
    clock.forward(days=1)
    filled_later(installation, clock, 1)
    prune(installation, "local")
    assert GONE not in sets(installation)


def filled_later(installation, clock, days):
    """Let so many nights more be captured."""
    for days_ago in range(days):
        for what in (*ASSETS, "redis", "config"):
            fill(installation.vault, what, night(days_ago, clock()))
    fill(installation.vault, "logs", night(0, clock(), 8))


def restored(installation, entry, safety, result=RESTORED):
    """Leave the journal of a restore of an artifact, whose state from before is in another."""
    header = {"artifact": entry.name, "target": "db", "options": {}}
    journal = Journal.begin(installation, "postgresql", header)
    journal.note("safety", safety=safety.name)
    if result:
        now, said = installation.now(), (entry.set, entry.name, "db", {})
        report = RestoreReport(
            journal.id, "i", "h", "postgresql", *said, now, now, result, safety.name, (), ()
        )
        journal.end(report)
    return journal


@pytest.mark.parametrize("result", [RESTORED, None])
def test_what_an_undo_needs_stays(installation, clock, result):
    """What was restored and the state from before, until it is accepted; a killed one is to be finished."""
    entry = Catalog(installation.vault).entries(asset="postgresql/dump", set_id=GONE)[0]
    safety = fill(
        installation.vault,
        "postgresql",
        night(40, clock()),
        "2026-02-08_02-00-00_pre-restore",
        label="pre-restore",
    )
    journal = restored(installation, entry, safety, result)
    said = "can still be undone" if result else "was killed, and is to be finished"
    why = because(installation)
    assert why["postgresql", GONE] == (f"the restore {journal.id} {said}",)
    assert why["postgresql", safety.set] == (f"the restore {journal.id} {said}",)
    prune(installation, "local")
    assert [one for one in Catalog(installation.vault).entries() if one in (entry, safety)] == [safety, entry]
    journal.accepted()
    prune(installation, "local")
    assert not [one for one in Catalog(installation.vault).entries() if one in (entry, safety)]


def test_what_replaced_nothing_keeps_nothing(installation):
    """A restore that was abandoned has no undo."""
    entry = Catalog(installation.vault).entries(asset="postgresql/dump", set_id=GONE)[0]
    restored(installation, entry, entry, ABANDONED)
    assert because(installation)["postgresql", GONE] == ()


def test_nothing_goes_without_its_proven_copy(two):
    """What the plan wants on the NAS stays here until it is there, and goes when it is."""
    why = because(two)
    for what in ASSETS:
        assert why[what, GONE] == ("no proven copy in nas",)
    assert why["backup_set", GONE] == (f"of the set {GONE}",)
    assert prune(two, "local").removed == ()
    entry = Catalog(two.vault).entries(asset="postgresql/dump", set_id=GONE)[0]
    replicate(two, entry, "nas")
    assert [one.artifact for one in prune(two, "local").removed] == [entry.name]
    for entry in Catalog(two.vault).entries():
        replicate(two, entry, "nas")
    assert len(prune(two, "local").removed) == 17
    assert GONE in sets(two, two.outside["nas"].vault(two.id))


def test_a_copy_that_is_not_good_is_none(two):
    """One that failed a look there, one of other bytes, and one with an unreadable proof are none."""
    for entry in Catalog(two.vault).entries():
        replicate(two, entry, "nas")
    there = two.outside["nas"].vault(two.id)
    failing, other = Catalog(two.vault).entries(asset="postgresql/dump")[:2]
    blurred = Catalog(two.vault).entries(asset="storage/archive")[0]
    path = there.local_path(failing.name)
    path.write_bytes(path.read_bytes()[::-1])
    assert not compare(two, failing, "nas").passed
    there.delete(other.entry_name)
    there.put(other.entry_name, [replace(other, sha256="0" * 64).to_json()])
    there.put(f"{blurred.name}.proof-20260301T000000.000000Z.json", [b"?"])
    why = because(two)
    for entry in (failing, other, blurred):
        assert why[entry.component, entry.set] == ("no proven copy in nas",)
    removed = {one.artifact for one in prune(two, "local").removed}
    assert len(removed) == 18 - 3 - 2  # and the manifests of their sets
    assert not removed & {failing.name, other.name, blurred.name}


def test_a_nas_that_is_away_has_no_copies(two, nas):
    """While nobody can tell what is there, nothing goes that is wanted there; and then it goes."""
    for entry in Catalog(two.vault).entries():
        replicate(two, entry, "nas")
    (nas / MARKER).unlink()
    assert prune(two, "local").removed == ()
    with pytest.raises(VaultError, match="not mounted"):
        prune(two, "nas")
    (nas / MARKER).touch()
    assert len(prune(two, "local").removed) == 18


def test_a_vault_that_is_not_set_up_has_no_copies(installation):
    """Where the plan wants copies and no setting says where, they are lacking; what it wants nowhere goes."""
    policy = replace(production("offsite"), rows={"postgresql": production("offsite").rows["postgresql"]})
    outside = Outside(Unset("offsite"), policy, {"postgresql": Terms()})
    wanting = replace(installation, unset={"offsite": outside})
    why = because(wanting)
    assert why["postgresql", GONE] == ("no proven copy in offsite",)
    assert why["storage", GONE] == ()


def test_a_copy_whose_time_is_over_is_not_waited_for(two, clock):
    """What the NAS would not keep any more either goes without ever having been there."""
    old = fill(two.vault, "postgresql", night(35, clock()))
    assert because(two)["postgresql", old.set] == ()
    assert [one.artifact for one in prune(two, "local").removed] == [old.name]


def test_the_nas_is_pruned_by_its_own_rows(two, clock):
    """Thirty days there, whatever is here; each vault has its own record, kept here."""
    there = two.outside["nas"].vault(two.id)
    for days_ago in range(40):
        fill(there, "postgresql", night(days_ago, clock()))
    for what, hour in (("storage", 2), ("redis", 2), ("config", 2), ("code", 2), ("logs", 8)):
        fill(there, what, night(0, clock(), hour))
    before = names(two.vault)
    pruned = prune(two, "nas")
    assert len(sets(two, there)) == 31
    assert (pruned.vault, len(pruned.removed)) == ("nas", 9)
    assert names(two.vault).keys() - before.keys() == {
        f"prunes/{pruned.id}.json",
        f"prunes/{pruned.id}.ended.json",
    }
    assert before.items() <= names(two.vault).items()


def test_killed_anywhere(tmp_path, clock, nights):
    """At any of its deletions: no entry without its artifact, only strays; and the next one ends it."""
    made = filled(tmp_path / "whole", clock, nights)
    deletions = []
    counted = replace(made, vault=Wrapped(made.vault, deletions.append))
    prune(counted, "local")
    assert deletions[0].endswith(".entry.json")
    assert len(deletions) == 18 * 4
    for at in (0, 1, 2, 3, 4, 5, 18, 35, 52, 71):
        made = filled(tmp_path / str(at), clock, nights)
        left = iter(range(at))

        def kill(name, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prune(replace(made, vault=Wrapped(made.vault, kill)), "local")
        strays = whole(made.vault)
        (killed,) = prunes(made)
        assert (killed.ended, len(killed.removed)) == (False, 18)
        for name in strays:
            aged(made, name, 8, clock())
        assert prune(made, "local").good
        assert names(made.vault).keys() == {
            *(name for name in names(counted.vault.vault) if not name.startswith("prunes/")),
            *(name for name in names(made.vault) if name.startswith("prunes/")),
        }


def test_one_that_cannot_go_does_not_hold_up_the_rest(installation):
    """It is named with its reason, and what is left of it is whole."""
    wrong = Catalog(installation.vault).entries(asset="storage/archive")[0]

    def before(name):
        if name == wrong.entry_name:
            raise VaultError("the disk said no")

    pruned = prune(replace(installation, vault=Wrapped(installation.vault, before)), "local")
    assert not pruned.good
    assert [(one.name, one.error) for one in pruned.failed] == [(wrong.name, "the disk said no")]
    assert len(pruned.removed) == 17
    assert whole(installation.vault) == {}
    assert prunes(installation) == [pruned]


def test_what_the_vault_has_locked_stays(installation, clock):
    """By any of its files; and only what would go is asked for."""
    entry = Catalog(installation.vault).entries(asset="storage/archive")[0]
    until, asked = clock() + timedelta(days=1), []

    def locks(name):
        asked.append(name)
        return until if name == entry.companions[0].name else None

    locked = replace(installation, vault=Wrapped(installation.vault, lambda name: None, locks))
    assert because(locked)["storage", entry.set] == ("locked by the vault until 2026-03-21 09:00 MSK",)
    assert because(locked)["backup_set", entry.set] == (f"of the set {entry.set}",)
    assert not [name for name in asked if KEPT in name]
    assert len(prune(locked, "local").removed) == 16


def test_what_was_looked_at_meanwhile_stays(installation, clock):
    """A proof that came since the plan was made says something of it that the plan did not know."""
    entries = Catalog(installation.vault).entries(asset="postgresql/dump")
    last = entries[5]
    done = []

    def before(name):
        if not done:
            done.append(prove(installation.vault, last, clock() - timedelta(minutes=1), passed("x", "y")))

    pruned = prune(replace(installation, vault=Wrapped(installation.vault, before)), "local")
    assert [one.name for one in pruned.failed] == [last.name]
    assert "not what it was when this prune was planned" in pruned.failed[0].error
    assert last in Catalog(installation.vault).entries()


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-03-19T06:00:00+00:00", "set the clock right"),
        ("2027-03-20T06:00:00+00:00", "set the clock right"),
    ],
)
def test_a_wrong_clock_removes_nothing(installation, clock, at, said):
    """Behind what was captured, or a year ahead of it: refused, said, and not a file less."""
    before = names(installation.vault)
    clock.set(at)
    pruned = prune(installation, "local", share=1)
    assert said in pruned.refusals[0]
    assert (pruned.removed, pruned.good) == ((), False)
    assert names(installation.vault) == before
    assert plan_prune(installation, "local").removals == ()


def test_too_much_at_once_is_refused_and_can_be_allowed(installation):
    """More than the plan's share is an accident until somebody says that it is meant."""
    small = replace(installation, policy=replace(installation.policy, share=0.1))
    pruned = prune(small, "local")
    assert "18 of 49 artifacts would be removed at once, more than 10%" in pruned.refusals[0]
    assert (pruned.removed, pruned.id) == ((), "")
    assert len(prune(small, "local", share=0.9).removed) == 18
    for share in (0, 1.1, -1):
        with pytest.raises(RefusedError, match="no part of a whole"):
            plan_prune(installation, "local", share=share)


def test_strays_go_after_a_week(installation, clock):
    """What a killed capture left, and what was never written to its end; younger ones stay."""
    vault = installation.vault
    gone = "redis/redis_2026-03-01_02-00-00.rdb"
    old = [gone, f"{gone}.index.gz"]
    for name in old:
        vault.put(name, [b"killed"])
    new, future, half, begun = (f"logs/logs_2026-03-1{n}_02-00-00.log.gz" for n in range(4))
    for name in (new, future):
        vault.put(name, [b"stray"])
    (vault.root / f"{half}.partial").write_bytes(b"half")
    (vault.root / f"{begun}.partial").write_bytes(b"half")
    for name in (*old, f"{half}.partial"):
        aged(installation, name, 7.1, clock())
    for name, days in ((new, 6.9), (future, -1), (f"{begun}.partial", 1)):
        aged(installation, name, days, clock())
    stays = {stray.name: stray.stays for stray in plan_prune(installation, "local").strays}
    assert stays == {
        **dict.fromkeys((*old, half), ""),
        new: "written 6 days ago: it may be in use",
        begun: "written 24 hours ago: it may be in use",
        future: "written at 2026-03-21 06:00 UTC, which is to come",
    }
    pruned = prune(installation, "local")
    assert sorted(pruned.strays) == sorted((*old, half))
    assert pruned.bytes - sum(one.bytes for one in pruned.removed) == pruned.stray_bytes == 6 + 6 + 4
    assert prunes(installation) == [pruned]
    left = names(vault)
    assert not {*old, f"{half}.partial"} & left.keys()
    assert {new, f"{begun}.partial", future} <= left.keys()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("postgresql/bookreader_2026-03-01_02-00-00.dump", "may be a backup of the guide's script"),
        ("storage/storage_2026-03-01_02-00-00.tar.gz", "may be a backup of the guide's script"),
        ("backup_manifest_2026-03-01_02-00-00.txt", "not a name of this program's"),
        ("postgresql/before-the-migration.dump", "not a name of this program's"),
    ],
)
def test_what_somebody_else_left_there_is_not_taken_away(installation, clock, name, said):
    """A vault may be the folder of the guide's script: its backups have no entry, and may be all there is."""
    installation.vault.put(name, [b"all there is"])
    aged(installation, name, 300, clock())
    (stray,) = plan_prune(installation, "local").strays
    assert said in stray.stays
    prune(installation, "local")
    assert b"".join(installation.vault.open(name)) == b"all there is"


def test_on_the_nas_nobody_else_writes(two, clock):
    """Every folder there is one installation's own: what looks like the guide's is half of a copy."""
    there = two.outside["nas"].vault(two.id)
    for what in ("postgresql", "storage", "redis", "config", "code"):
        fill(there, what, night(0, clock()))
    fill(there, "logs", night(0, clock(), 8))
    name = "postgresql/bookreader_2026-03-01_02-00-00.dump"
    there.put(name, [b"half of a copy"])
    at = (clock() - timedelta(days=8)).timestamp()
    os.utime(there.local_path(name), (at, at))
    assert prune(two, "nas").strays == (name,)
    assert not list(there.list(name))


def test_strays_stay_where_nothing_may_go(installation, clock):
    """By a clock that cannot be right, a week is nothing."""
    installation.vault.put(OLD, [b"stray"])
    clock.set("2027-03-20T06:00:00+00:00")
    (stray,) = plan_prune(installation, "local").strays
    assert stray.stays == "nothing is removed now"
    assert prune(installation, "local").strays == ()
    assert installation.vault.stat(OLD)


def test_a_stray_that_gets_its_entry_is_none(installation, clock):
    """Between the plan and its turn somebody committed it: it stays."""
    vault = installation.vault
    late = fill(make_elsewhere(installation), "redis", night(12, clock()), companion=False)
    vault.put(late.name, [b"stray"])
    aged(installation, late.name, 8, clock())

    def before(name):
        if not list(vault.list(late.entry_name)):
            vault.put(late.entry_name, [late.to_json()])

    pruned = prune(replace(installation, vault=Wrapped(vault, before)), "local")
    assert late.name in names(vault)
    assert late.name not in [one.artifact for one in pruned.removed]


def make_elsewhere(installation):
    """Return another vault, to make an entry in."""
    return replace(installation.vault, root=installation.vault.root.parent / "elsewhere")


def test_an_entry_that_cannot_be_read_holds_everything_up(installation, clock):
    """Nobody can tell what it needs: nothing goes, it is named, and its own files are no strays."""
    entry = Catalog(installation.vault).entries(asset="storage/archive")[0]
    path = installation.vault.root / entry.entry_name
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 99'))
    for name in names(installation.vault):
        aged(installation, name, 30, clock())
    planned = plan_prune(installation, "local")
    assert entry.entry_name in planned.verdict.refusals[0]
    assert (planned.removals, planned.strays) == ((), ())


def test_an_archive_that_another_needs_stays(installation, clock):
    """The index of what only has the changes names the full archive that it points to."""
    full = Catalog(installation.vault).entries(asset="storage/archive", set_id=GONE)[0]
    index = IndexWriter()
    index.add(Row(b"a", "file", 0o644, 0, 0, 0, 0, 1, 0, archive=full.name, size=1, sha256="0" * 64))
    entry = incremental(installation, night(1, clock(), 4), b"".join(index.chunks()))
    assert [one.needs for one in held(installation, "local") if one.entry == entry] == [{full.name}]
    assert because(installation)["storage", GONE] == ("storage/archive of 2026-03-19 needs it",)


def test_an_index_that_cannot_be_read_may_need_anything(installation, clock):
    """Then no archive goes."""
    incremental(installation, night(1, clock(), 4), b"?")
    assert because(installation)["storage", GONE] == ("storage/archive of 2026-03-19 needs it",)
    assert "storage/archive" not in {one.asset for one in prune(installation, "local").removed}


def incremental(installation, at, index):
    """Put an archive of what has changed, and its index, into the vault."""
    name = "storage/storage_2026-03-19_04-00-00_incr.tar.gz"
    beside = Companion("index", f"{name}.index.gz", len(index), hashlib.sha256(index).hexdigest())
    installation.vault.put(beside.name, [index])
    return fill(installation.vault, "storage", at, companion=False, name=name, companions=(beside,))


def test_what_is_anothers_stays(installation, clock):
    """Of another installation nothing goes, how old it may be."""
    theirs = fill(installation.vault, "redis", night(300, clock()), installation="elsewhere")
    assert because(installation)["redis", theirs.set] == ("of another installation",)
    prune(installation, "local")
    assert theirs in Catalog(installation.vault).entries()


def test_one_at_a_time(installation):
    """While a restore works nothing is pruned: it may be reading what would go."""
    before = names(installation.vault)
    with alone(installation), pytest.raises(RefusedError, match="a prune or a restore is at work"):
        prune(installation, "local")
    assert names(installation.vault) == before


def test_without_a_record_nothing_goes(installation):
    """A vault that cannot take the record keeps everything."""

    class Full(Wrapped):
        def put(self, name, chunks, **more):
            raise VaultError("full")

    before = names(installation.vault)
    with pytest.raises(VaultError, match="full"):
        prune(replace(installation, vault=Full(installation.vault, lambda name: None)), "local")
    assert names(installation.vault) == before


def test_an_installation_that_has_captured_nothing(tmp_path, clock):
    """There is nothing to prune, and nothing is made by asking."""
    made = make(tmp_path, clock)
    made.vault.delete("installation.json")
    assert plan_prune(made, "local").verdict.decisions == ()
    assert prune(made, "local").good
    assert "installation.json" not in names(made.vault)
    with pytest.raises(RefusedError, match="is not set up"):
        prune(made, "nas")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command over a vault with fifteen nights until now, and return what came of it."""
    monkeypatch.chdir(tmp_path)
    made = make(tmp_path, utc_now)
    for days_ago in range(15):
        fill(made.vault, "postgresql", datetime.now(UTC) - timedelta(days=days_ago))
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    environ = {"BACKUP_VAULT": str(tmp_path / "vault"), "BACKUP_PLAN": str(tmp_path / "plan.toml")}

    def ran(*arguments, code=0):
        done = CliRunner().invoke(group, arguments, env=environ)
        assert done.exit_code == code, done.output
        return done.output

    ran.vault, ran.environ = made.vault, environ
    return ran


PLAN = """timezone = "Europe/Moscow"
deadline = "05:00"
[postgresql]
at = "02:00"
keep = { days = 7 }
rpo_hours = 50
"""


def test_the_command_says_what_goes_and_why(run):
    """The plan is a line for each artifact; the deed is a line for what went; the next time there is none."""
    before = names(run.vault)
    said = run("prune", "--plan", "--share", "0.9")
    assert len([line for line in said.splitlines() if "  keep    of the last 7 days" in line]) == 8
    assert len([line for line in said.splitlines() if "  remove  of " in line]) == 7
    assert "removes 7 of 15 artifacts, frees " in said
    assert names(run.vault) == before
    said = run("prune", "--share", "0.9")
    assert "local: 7 artifacts removed, " in said
    assert "and the plan keeps postgresql 7 days" in said
    assert "local: 0 artifacts removed, 0 B" in run("prune")


def test_the_command_in_json(run):
    """One document, for every vault; the plan tells each artifact, the deed what is on record."""
    planned = json.loads(run("prune", "--plan", "--json"))["vaults"][0]
    assert (planned["vault"], planned["removes"], len(planned["artifacts"])) == ("local", 7, 15)
    assert all(one["because"] and one["kept"] is not one["removed"] for one in planned["artifacts"])
    done = json.loads(run("prune", "--json"))
    assert (done["ok"], len(done["vaults"][0]["removed"])) == (True, 7)
    assert done["vaults"][0]["bytes"] == planned["bytes"]


def test_the_command_that_is_refused_or_fails_exits_with_one(run):
    """Too much at once, and what cannot be removed: one, and what it was. A wrong share or vault: two."""
    assert "more than 10%" in run("prune", "--share", "0.1", "--plan", code=1)
    assert "nothing is removed: 7 of 15" in run("prune", "--share", "0.1", code=1)
    run("prune", "--share", "0", code=2)
    assert isinstance(
        CliRunner().invoke(group, ["prune", "--vault", "attic"], env=run.environ).exception, RefusedError
    )
    folder = run.vault.root / "postgresql"
    if os.geteuid() != 0:
        folder.chmod(0o500)
        assert "not removed" in run("prune", code=1)
        folder.chmod(0o700)


def test_pinning_by_command(run):
    """Pinned, listed, kept; taken back, gone. Without a reason, a day or a set it is refused."""
    oldest = min(sets(None, run.vault))
    assert "nothing is pinned" in run("pin", "--list")
    run("pin", oldest, "--until", "2999-01-01", "--because", "the audit")
    assert "the audit" in run("pin", "--list")
    assert json.loads(run("pin", "--list", "--json"))["pins"][0]["until"] == "2999-01-01"
    assert "pinned until 2999-01-01: the audit" in run("prune", "--plan")
    run("pin", oldest, "--remove")
    assert "7 artifacts removed" in run("prune")
    for wrong in (
        ["pin", oldest],
        ["pin", oldest, "--until", "2999-01-01"],
        ["pin", "2020-01-01", "--remove"],
    ):
        assert isinstance(CliRunner().invoke(group, wrong, env=run.environ).exception, RefusedError)


def test_status_tells_the_net_growth(run):
    """What came in the window and is there; one prune that took half of it all is no rate."""
    now = datetime.now(UTC)
    before = growth(Catalog(run.vault), ("postgresql/dump",), now)
    run("prune")
    catalog = Catalog(run.vault)
    after = growth(catalog, ("postgresql/dump",), datetime.now(UTC))
    size = bytes_of(catalog.entries()[0])
    assert (before.days, round(before.per_day)) == (14, size)
    assert after.days == 7
    assert round(after.per_day) == round(after.assets[0].per_day) == size
    assert after.days_left > 0
