"""Prune where entries were lost: what they were of stays; only what was never committed goes."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.actions import prune_records
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.actions.journal import Journal, alone
from bookreader_backup_assets.actions.pins import pin
from bookreader_backup_assets.actions.prune import plan_prune, prune
from bookreader_backup_assets.actions.prune_records import Pruned, Removal
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli.main import group, main
from bookreader_backup_assets.core.check import passed
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.filled import copy, fill, make, night, prove

NOW = datetime(2026, 3, 20, 6, tzinfo=UTC)
GONE = "2026-03-09"
LEFT = "redis/redis_2026-03-09_02-00-00.rdb"


@pytest.fixture
def clock(clock):
    """Friday, 09:00 in Moscow."""
    clock.at = NOW
    return clock


@pytest.fixture
def here(tmp_path, clock):
    """An installation with fifteen nights of dumps, and the newest of the rest."""
    return nights(make(tmp_path, clock))


@pytest.fixture
def two(tmp_path, clock, nas):
    """The same, with a NAS that has copies of all of it."""
    made = nights(make(tmp_path, clock, nas=nas))
    for entry in Catalog(made.vault).entries():
        copy(made, entry)
    return made


def nights(made):
    """Fill a vault."""
    for days_ago in range(15):
        fill(made.vault, "postgresql", night(days_ago, NOW))
    for what, hour in (("storage", 2), ("redis", 2), ("config", 2), ("code", 2), ("logs", 8)):
        fill(made.vault, what, night(0, NOW, hour))
    return made


def of(installation, name):
    """Return one of its vaults."""
    return installation.vault if name == "local" else installation.outside[name].vault(installation.id)


def lain(vault, *names, days=30):
    """Have files say that they were last written so many days ago; all of them, if none is named."""
    at = (NOW - timedelta(days=days)).timestamp()
    for name in names or [stored.name for stored in vault.list()]:
        os.utime(vault.local_path(name), (at, at))


def lying(vault, name):
    """Return the names of an artifact's files that are there."""
    return [stored.name for stored in vault.list(name)]


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("name", ["local", "nas"])
def test_what_lost_its_entries_stays(two, name, pinned):
    """Proven artifacts, pinned or not, whose entries somebody deleted: not a file of them goes."""
    vault = of(two, name)
    if pinned:
        pin(two, GONE, datetime(2027, 1, 1, tzinfo=UTC).date(), "the audit")
    lost = Catalog(vault).entries(asset="postgresql/dump")[:6]
    for entry in lost:
        vault.delete(entry.entry_name)
    lain(vault)
    before = {entry.name: lying(vault, entry.name) for entry in lost}
    planned = plan_prune(two, name)
    strays = {stray.name: stray.stays for stray in planned.strays}
    other = "nas" if name == "local" else "local"
    for entry in lost:
        assert strays[entry.name].startswith(f"its entry is lost: copy {entry.entry_name} from {other}")
    assert prune(two, name).strays == ()
    assert {entry.name: lying(vault, entry.name) for entry in lost} == before


def test_copied_back_as_advised_it_counts_again(two):
    """The entry from the other vault is all it takes."""
    entry = Catalog(two.vault).entries(asset="postgresql/dump")[0]
    two.vault.delete(entry.entry_name)
    two.vault.put(entry.entry_name, of(two, "nas").open(entry.entry_name))
    assert entry in Catalog(two.vault).entries()
    assert plan_prune(two, "local").strays == ()


def test_without_another_vault_a_proof_tells(here):
    """And of an artifact that is gone with its entry, the proofs stay."""
    first, second = Catalog(here.vault).entries(asset="postgresql/dump")[:2]
    for name in (first.entry_name, second.entry_name, second.name):
        here.vault.delete(name)
    lain(here.vault)
    assert all("it was proven" in stray.stays for stray in plan_prune(here, "local").strays)
    prune(here, "local")
    assert len(lying(here.vault, first.name)) == 3
    assert len(lying(here.vault, second.name)) == 2


def test_what_a_manifest_names_was_committed(here):
    """Its JSON or its text, whatever became of the manifest's own entry."""
    here.vault.put(LEFT, [b"all there is"])
    here.vault.put("backup_set/backup_manifest_2026-03-09_05-00-00.json.txt", [f"0  {LEFT}\n".encode()])
    lain(here.vault)
    (stays,) = [one.stays for one in plan_prune(here, "local").strays if one.name == LEFT]
    assert "backup_manifest_2026-03-09_05-00-00.json.txt names it" in stays
    prune(here, "local")
    assert lying(here.vault, LEFT) == [LEFT]


def test_what_may_be_of_a_pinned_set_stays(here):
    """By the day in its name, as long as the pin stands."""
    here.vault.put(LEFT, [b"?"])
    lain(here.vault)
    pin(here, GONE, datetime(2026, 3, 22, tzinfo=UTC).date(), "the audit")
    (stray,) = plan_prune(here, "local").strays
    assert f"the set {GONE} is pinned" in stray.stays


def test_what_a_restore_names_was_committed(here):
    """The state from before it may be nowhere else."""
    here.vault.put(LEFT, [b"all there is"])
    lain(here.vault)
    journal = Journal.begin(here, "redis", {"artifact": "redis/x", "target": "db", "options": {}})
    journal.note("safety", safety=LEFT)
    (stray,) = plan_prune(here, "local").strays
    assert f"the restore {journal.id} was killed" in stray.stays


def test_a_damaged_entry_that_is_put_aside_as_advised(here):
    """Nothing goes until then; afterwards what it was of stays, also if nothing else tells of it."""
    entry = Catalog(here.vault).entries(asset="postgresql/dump")[0]
    for name in lying(here.vault, f"{entry.name}.proof-"):
        here.vault.delete(name)
    path = here.vault.root / entry.entry_name
    path.write_bytes(b"?")
    (said,) = prune(here, "local").refusals
    assert "add .damaged to its name" in said
    path.rename(path.with_name(f"{path.name}.damaged"))
    lain(here.vault)
    pruned = prune(here, "local")
    assert (pruned.good, pruned.strays) == (True, ())
    assert len(lying(here.vault, entry.name)) == 3


@pytest.mark.parametrize("name", ["local", "nas"])
def test_what_was_never_committed_goes(two, name):
    """After a week, as what a killed capture or copy left, and counted in the sums."""
    vault = of(two, name)
    vault.put(LEFT, [b"killed"])
    lain(vault, LEFT, days=8)
    planned = plan_prune(two, name)
    assert planned.bytes == 6 + sum(one.bytes for one in planned.removals)
    pruned = prune(two, name)
    assert (pruned.strays, pruned.stray_bytes, pruned.bytes) == ((LEFT,), 6, planned.bytes)
    assert lying(vault, LEFT) == []


@pytest.mark.parametrize("name", ["local", "nas"])
def test_what_a_killed_prune_left_goes(two, name):
    """Its record says so, proofs and copies elsewhere or not; of another vault's record nobody asks."""
    vault, other = of(two, name), "nas" if name == "local" else "local"
    mine, theirs = Catalog(vault).entries(asset="postgresql/dump")[:2]
    for entry, of_vault in ((mine, name), (theirs, other)):
        vault.delete(entry.entry_name)
        gone = Removal(entry.name, entry.asset, (entry.set,), 7, entry.captured_at, "over")
        prune_records.begin(two.vault, Pruned("", two.id, of_vault, NOW - timedelta(days=8), removed=(gone,)))
    lain(vault)
    files = {file for file in lying(of(two, other), mine.name) if not file.endswith(".entry.json")}
    assert set(prune(two, name).strays) == files
    assert lying(vault, mine.name) == []
    assert len(lying(vault, theirs.name)) == 3


def test_what_was_wanted_again_after_a_prune_stays(here):
    """A later proof, or a pin since then: the old record says nothing of it."""
    first, second = Catalog(here.vault).entries(asset="postgresql/dump")[:2]
    gone = [Removal(one.name, one.asset, (one.set,), 7, one.captured_at, "over") for one in (first, second)]
    prune_records.begin(
        here.vault, Pruned("", here.id, "local", NOW - timedelta(days=9), removed=tuple(gone))
    )
    prove(here.vault, first, NOW - timedelta(days=8), passed("sha256", "it is"))
    pin(here, second.set, datetime(2027, 1, 1, tzinfo=UTC).date(), "the audit")
    for entry in (first, second):
        here.vault.delete(entry.entry_name)
    lain(here.vault)
    assert prune(here, "local").strays == ()


def test_strays_count_in_the_share(here):
    """Many at once are an accident, too, and nothing goes."""
    left = [f"redis/redis_2026-02-{day:02}_02-00-00.rdb" for day in range(1, 16)]
    for name in left:
        here.vault.put(name, [b"?"])
    lain(here.vault, *left)
    pruned = prune(here, "local")
    assert "21 of 35 artifacts would be removed at once, 15 of them without an entry" in pruned.refusals[0]
    assert (pruned.removed, pruned.strays) == ((), ())
    assert len(prune(here, "local", share=0.9).strays) == 15


PLAN = """timezone = "Europe/Moscow"
deadline = "05:00"
[postgresql]
at = "02:00"
keep = { days = 7 }
rpo_hours = 50
"""


@pytest.fixture
def environ(tmp_path, monkeypatch):
    """Settings of a vault that is not there yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    said = {"BACKUP_VAULT": str(tmp_path / "vault"), "BACKUP_PLAN": str(tmp_path / "plan.toml")}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return said


def test_the_command_makes_no_vault(tmp_path, environ):
    """Where nothing was captured yet that is said, and no folder is there afterwards."""
    for arguments in (["prune"], ["prune", "--plan"], ["prune", "--json"]):
        done = CliRunner().invoke(group, arguments)
        assert done.exit_code == 0, done.output
        assert ("nothing was captured here yet" in done.output) is ("--json" not in arguments)
        assert not (tmp_path / "vault").exists()


def test_a_second_one_is_refused(tmp_path, environ, capsys):
    """While one is at work: exit status 2, and why."""
    made = replace(make(tmp_path, utc_now), lock=assemble(load_settings()).lock)
    fill(made.vault, "postgresql", utc_now())
    with alone(made, "prune"), pytest.raises(SystemExit) as ended:
        main(["prune"])
    assert ended.value.code == 2
    assert "a prune or a restore is at work" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["prune"])
    assert ended.value.code == 0
