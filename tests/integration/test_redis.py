"""Redis captured from real servers into a real vault, checked, and met on its bad days."""

import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.components.base import Facts
from bookreader_backup_assets.components.redis import RedisRdb
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers import redis as servers
from bookreader_backup_assets.servers.programs import major_version
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.redis import KEYS, PASSWORD, QUICK, fill, find_redis, spoken, tell

NAME = "redis/redis_dump_2026-11-23_02-30-00.rdb.gz"
CHECKS = frozenset(["rdb_readable", "keys_equal"])


@pytest.fixture(scope="module", params=["machine", "wheel"])
def redis_folder(request):
    """Each kind of Redis in turn."""
    return find_redis(request.param)


@dataclass(frozen=True)
class Scratches:
    """The Redis part of `Scratch`, from programs of this machine."""

    programs: Path
    folder: Path

    def redis(self, rdb):
        return servers.scratch(self.programs, self.folder, rdb)

    def check_rdb(self, rdb):
        servers.check_rdb(self.programs, self.folder, rdb)


@dataclass(frozen=True)
class Kept:
    """`Stored` over a vault in a folder."""

    vault: LocalVault
    entry: Entry

    def plain(self):
        return gzip.decode(self.vault.open(NAME))


@pytest.fixture
def scratch(redis_folder, tmp_path):
    """Scratch servers of the same kind as the one captured."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield Scratches(redis_folder, folder)
    assert list(folder.iterdir()) == []  # whatever happened, no copy of the data is left


@pytest.fixture
def vault(tmp_path):
    """An empty vault."""
    return LocalVault(tmp_path / "vault")


def component_of(server):
    """Return what captures a server."""
    return RedisRdb(LocalRunner(), server.cli, server.password)


def capture(component, vault, watch=lambda chunks: chunks):
    """Capture into the vault as actions do, and return what is kept."""
    with component.capture() as under_way:
        meter = Meter(gzip.encode(watch(under_way.chunks)))
        vault.put(NAME, meter)
        facts = under_way.facts()
    return Kept(vault, entry_of(facts, meter))


def entry_of(facts: Facts, meter: Meter) -> Entry:
    """Return the entry of an artifact."""
    return Entry(
        installation="test",
        component="redis",
        artifact="rdb",
        name=NAME,
        set="2026-11-23",
        captured_at=facts.captured_at,
        size=meter.size,
        sha256=meter.sha256,
        codecs=("gzip",),
        versions=facts.versions,
        source=facts.source,
        fingerprint=facts.fingerprint,
    )


def outcomes(kept, scratch):
    """Return the outcome of each check, by name."""
    component = RedisRdb(LocalRunner())
    made = {outcome.check: outcome for outcome in component.verify(kept, scratch, CHECKS)}
    assert made.keys() == component.checks.keys() == CHECKS
    return made


def verdicts(kept, scratch):
    """Return the verdict of each check, by name."""
    return {name: outcome.verdict.value for name, outcome in outcomes(kept, scratch).items()}


PASSED = {"rdb_readable": "passed", "keys_equal": "passed"}
FAILED = {"rdb_readable": "failed", "keys_equal": "failed"}


def rewritten(kept, vault, change):
    """Return what is kept, as if other bytes had been stored under its name."""
    data = change(bytearray(b"".join(kept.plain())))
    vault.local_path(NAME).unlink()
    vault.put(NAME, gzip.encode([bytes(data)]))
    return kept


def big(server, megabytes=64):
    """Give a server more data than pipes and sockets hold."""
    server.run("--pipe", stdin=(spoken(b"SET", b"big:%d" % n, os.urandom(1 << 20)) for n in range(megabytes)))


def processes_with(text):
    """Return the pids whose command line holds `text`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if text.encode() in Path("/proc", pid, "cmdline").read_bytes():
                found.append(int(pid))
    return found


def test_captured_and_checked(redis_server, vault, scratch):
    """Every kind of value in three databases, behind a password and with an AOF."""
    begun = datetime.now(UTC)
    kept = capture(component_of(redis_server), vault)
    assert kept.entry.fingerprint == {"kind": "keys", "databases": KEYS}
    assert kept.entry.versions["server"] == redis_server.version
    assert kept.entry.source == {"runner": "local"}
    assert begun <= kept.entry.captured_at <= datetime.now(UTC)
    assert component_of(redis_server).probe() == {"server": redis_server.version}
    assert verdicts(kept, scratch) == PASSED


def test_the_dump_ends_where_the_dump_ends(redis_server, vault):
    """The 40 bytes that redis-cli appends to what a diskless server sends are not kept."""
    redis_server.run("CONFIG", "SET", "repl-diskless-sync", "yes")
    raw = b"".join(LocalRunner().stream((*redis_server.cli, "--rdb", "-"), env=redis_server.env))
    plain = b"".join(capture(component_of(redis_server), vault).plain())
    assert raw[-49:-48] == plain[-9:-8] == b"\xff"
    assert len(raw) == len(plain) + 40


def test_an_empty_server(redis_server, vault, scratch):
    """No keys at all is a state to restore, like any other."""
    redis_server.run("FLUSHALL")
    kept = capture(component_of(redis_server), vault)
    assert kept.entry.fingerprint == {"kind": "keys", "databases": {}}
    assert verdicts(kept, scratch) == PASSED


def test_keys_whose_time_has_run_out_are_kept(redis_folder, tmp_path, vault, scratch):
    """What had expired when the check is made was in the dump, and is counted; a plain load drops it."""
    debug = {"enable-debug-command": "local"} if major_version(redis_folder / "redis-server") >= 7 else {}
    with servers.start(redis_folder, tmp_path, options={**QUICK, **debug}) as server:
        server.run("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        tell(server, [*(f"SET gone:{n} x PX 1" for n in range(100)), "SET stays x", "SET later x EX 999"])
        kept = capture(component_of(server), vault)
    assert kept.entry.fingerprint["databases"] == {"0": 102}
    assert verdicts(kept, scratch) == PASSED
    with servers.start(redis_folder, tmp_path, rdb=kept.plain(), tcp=False) as plain:
        assert plain.run("DBSIZE").strip() == "2"


def test_writers_never_stop(redis_server, vault, scratch):
    """The fingerprint is the dump's, not the source's a moment later."""
    writing, stop = threading.Event(), threading.Event()

    def commands():
        for n in range(10**9):
            yield f"SET busy:{n} {n}"
            if n == 5000:
                writing.set()
            if stop.is_set():
                return

    writer = threading.Thread(target=tell, args=(redis_server, commands()))
    writer.start()
    try:
        assert writing.wait(30)
        kept = capture(component_of(redis_server), vault)
    finally:
        stop.set()
        writer.join(30)
    assert verdicts(kept, scratch) == PASSED
    assert kept.entry.fingerprint["databases"]["0"] < int(redis_server.run("DBSIZE"))


def test_a_missing_key_is_found(redis_server, vault, scratch):
    """One key less in the dump than was counted turns `keys_equal` red, naming the database."""
    kept = capture(component_of(redis_server), vault)
    more = {"kind": "keys", "databases": {**KEYS, "2": KEYS["2"] + 1}}
    outcome = outcomes(replace(kept, entry=replace(kept.entry, fingerprint=more)), scratch)["keys_equal"]
    assert outcome.verdict is Verdict.FAILED
    assert "databases 2: expected 11, found 10" in outcome.message


def test_a_database_too_many_is_found(redis_server, vault, scratch):
    """A database that was not counted is a difference too."""
    kept = capture(component_of(redis_server), vault)
    fewer = {"kind": "keys", "databases": {"0": KEYS["0"], "1": KEYS["1"]}}
    assert verdicts(replace(kept, entry=replace(kept.entry, fingerprint=fewer)), scratch) == {
        "rdb_readable": "passed",
        "keys_equal": "failed",
    }


def test_what_was_not_counted_is_no_pass(redis_server, vault, scratch):
    """A newer server's type leaves a count unknown: then the check cannot tell, unless the rest differs."""
    kept = capture(component_of(redis_server), vault)
    for databases, verdict in (
        ({"0": KEYS["0"], "1": None}, "inconclusive"),
        ({"0": KEYS["0"] + 1, "1": None}, "failed"),
    ):
        entry = replace(kept.entry, fingerprint={"kind": "keys", "databases": databases})
        assert verdicts(replace(kept, entry=entry), scratch)["keys_equal"] == verdict


@pytest.mark.parametrize("where", [0.001, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_found(redis_server, vault, scratch, where):
    """Redis's own checksum, or gzip's, turns both checks red; neither raises."""

    def flip(data):
        data[int(len(data) * where)] ^= 0x10
        return data

    kept = capture(component_of(redis_server), vault)
    assert verdicts(rewritten(kept, vault, flip), scratch) == FAILED
    path = vault.local_path(NAME)
    path.write_bytes(flip(bytearray(path.read_bytes())))
    assert verdicts(kept, scratch) == FAILED


@pytest.mark.parametrize("kept_bytes", [0, 5, 9, 1000, -9, -1])
def test_a_truncated_dump_is_found(redis_server, vault, scratch, kept_bytes):
    """Cut anywhere, even to nothing or by its last byte."""
    kept = capture(component_of(redis_server), vault)
    assert verdicts(rewritten(kept, vault, lambda data: data[:kept_bytes]), scratch) == FAILED


def test_a_damaged_version_is_not_taken_for_a_newer_one(redis_server, vault, scratch):
    """A scratch server would call it too new, which is no more than inconclusive."""

    def age(data):
        data[5:9] = b"0099"
        return data

    kept = rewritten(capture(component_of(redis_server), vault), vault, age)
    assert verdicts(kept, scratch) == FAILED


def test_a_newer_format_is_inconclusive(redis_server, vault, scratch):
    """Where only an older Redis is at hand, the checks say so, and what to do."""
    kept = capture(component_of(redis_server), vault)
    rewritten(kept, vault, lambda data: data.replace(data[5:9], b"0099", 1))
    kept = replace(kept, entry=replace(kept.entry, versions={"server": "99.0.0", "rdb": "99"}))
    for outcome in outcomes(kept, scratch).values():
        assert outcome.verdict is Verdict.INCONCLUSIVE
        assert "Can't handle RDB format version 99" in outcome.message
        assert "BACKUP_REDIS_PROGRAMS" in outcome.message


def test_no_scratch_server_is_inconclusive(redis_server, vault, tmp_path):
    """Nothing to check with is a warning that says so, never a pass."""
    kept = capture(component_of(redis_server), vault)
    for absent in (Scratches(tmp_path, tmp_path), Scratches(redis_server.folder, tmp_path / "nowhere")):
        assert set(verdicts(kept, absent).values()) == {"inconclusive"}


@pytest.mark.parametrize(
    ("password", "message"),
    [(None, "wants a password"), (Secret("wrong"), "refused the password")],
    ids=["missing", "wrong"],
)
def test_the_password_does_not_fit(redis_server, vault, password, message):
    """An error that names the setting, and no file."""
    component = replace(component_of(redis_server), password=password)
    with pytest.raises(SourceError, match=message) as caught:
        capture(component, vault)
    assert "BACKUP_REDIS_PASSWORD" in caught.value.hint
    assert list(vault.list()) == []
    with pytest.raises(SourceError, match=message):
        component.probe()


def test_a_password_too_many(redis_folder, tmp_path, vault):
    """A server that has none does not let one with a password in, and the error says which."""
    with servers.start(redis_folder, tmp_path, options=QUICK) as server:
        component = replace(component_of(server), password=Secret("x"))
        with pytest.raises(SourceError, match="has no password") as caught:
            capture(component, vault)
        assert "unset BACKUP_REDIS_PASSWORD" in caught.value.hint
        with pytest.raises(SourceError, match="has no password"):
            component.probe()


def test_redis_is_absent(redis_folder, tmp_path, vault):
    """Stopped, or not on this machine: said, with what to do, and no file."""
    with servers.start(redis_folder, tmp_path, options=QUICK) as server:
        component = component_of(server)
    with pytest.raises(SourceAbsentError, match="Connection refused") as caught:
        capture(component, vault)
    assert caught.value.hint
    with pytest.raises(SourceAbsentError, match="Connection refused"):
        component.probe()
    with pytest.raises(SourceAbsentError, match="not on this machine"):
        capture(replace(component, cli=("redis-cli-of-nobody",)), vault)
    assert list(vault.list()) == []


def test_a_user_who_may_not_read(redis_server, vault):
    """A user of the ACL without the right to sync: the hint names the rights."""
    redis_server.run("ACL", "SETUSER", "backup", "on", ">secret", "+ping")
    component = replace(
        component_of(redis_server), cli=(*redis_server.cli, "--user", "backup"), password=Secret("secret")
    )
    with pytest.raises(SourceError, match="may not read") as caught:
        capture(component, vault)
    redis_server.run("ACL", "SETUSER", "backup", *caught.value.hint.split("`")[1].split())
    assert capture(component, vault).entry.fingerprint["databases"] == KEYS


@pytest.mark.parametrize("victim", ["server", "saving child"])
def test_killed_in_mid_transfer(redis_server, vault, victim):
    """Bytes had come, and more had not: an error, and nothing under the final name."""
    redis_server.run("CONFIG", "SET", "repl-diskless-sync", "yes")
    redis_server.run("CONFIG", "SET", "save", "36000 1")  # with a save point, Redis minds failed saves
    big(redis_server)
    pids = []

    def kill(chunks):
        for chunk in chunks:
            if not pids:
                pids.append(redis_server.pid if victim == "server" else child_of(redis_server.pid))
                os.kill(pids[0], signal.SIGKILL)
            yield chunk

    with pytest.raises(SourceError, match="in the middle"):
        capture(component_of(redis_server), vault, kill)
    assert pids
    assert list(vault.list()) == []
    assert not [path for path in vault.root.rglob("*") if path.is_file()]
    if victim != "server":  # and the application is none the wiser
        assert redis_server.run("SET", "written", "after").strip() == "OK"


def child_of(pid):
    """Return the one child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(child)


def test_the_background_save_fails(redis_server, vault):
    """A server that saves to its disk first, and cannot: the hint names the way round, which works."""
    redis_server.run("CONFIG", "SET", "repl-diskless-sync", "no")
    redis_server.run("CONFIG", "SET", "appendonly", "no")
    shutil.rmtree(redis_server.folder)
    with pytest.raises(SourceError, match="could not save in the background") as caught:
        capture(component_of(redis_server), vault)
    assert list(vault.list()) == []
    assert "`repl-diskless-sync yes`" in caught.value.hint
    redis_server.run("CONFIG", "SET", "repl-diskless-sync", "yes")
    assert capture(component_of(redis_server), vault).entry.fingerprint["databases"] == KEYS


def test_two_captures_at_once(redis_server, tmp_path, scratch):
    """Neither harms the other."""
    vaults = [LocalVault(tmp_path / name) for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda vault: capture(component_of(redis_server), vault), vaults))
    for kept in both:
        assert verdicts(kept, scratch) == PASSED


def test_a_capture_given_up_leaves_no_program_behind(redis_server):
    """Leaving the context ends redis-cli, though the server has more to send."""
    big(redis_server)
    where = "\0".join(redis_server.cli)
    with component_of(redis_server).capture() as under_way:
        assert next(under_way.chunks)
        assert processes_with(where)
    assert not processes_with(where)


def test_the_password_shows_nowhere(redis_server, vault, scratch):
    """Neither in a process list, while the servers and clients run, nor where objects are printed."""
    big(redis_server)
    component = component_of(redis_server)
    with component.capture() as under_way, closing(under_way.chunks):
        next(under_way.chunks)
        assert processes_with("\0".join((*redis_server.cli, "--rdb")))
        assert not processes_with(PASSWORD)
        assert PASSWORD not in repr([component, redis_server, under_way])
    with pytest.raises(BackupError) as caught:
        capture(replace(component, cli=("redis-cli", "-p", "1")), vault)
    assert PASSWORD not in repr(caught.value) + caught.value.hint


def test_a_scratch_server_is_reached_by_a_socket_only(redis_server, vault, scratch):
    """It holds production's sessions: no port, its files for this user alone, and gone afterwards."""
    kept = capture(component_of(redis_server), vault)
    with scratch.redis(kept.plain()) as server:
        said = server.runner.run((*server.cli, "CONFIG", "GET", "port")).stdout.split()
        assert said == [b"port", b"0"]
        (home,) = scratch.folder.iterdir()
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "dump.rdb").stat().st_mode & 0o777 == 0o600
        socket = Path(server.cli[-1])
        assert socket.is_socket()
    assert not socket.exists()


def test_a_server_that_does_not_come_up_says_why(redis_folder, tmp_path):
    """The log is in the error, and its folder is gone."""
    with (
        pytest.raises(BackupError, match="no-such-directive"),
        servers.start(redis_folder, tmp_path, options={"no-such-directive": "x"}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_server_loads_a_dump_and_goes_on_with_an_aof(redis_server, redis_folder, tmp_path, vault):
    """A dump beside an AOF is ignored by Redis: `start` loads it first, then turns the AOF on."""
    kept = capture(component_of(redis_server), vault)
    with servers.start(redis_folder, tmp_path, rdb=kept.plain(), appendonly=True) as server:
        assert server.run("CONFIG", "GET", "appendonly").split() == ["appendonly", "yes"]
        assert int(server.run("DBSIZE")) == KEYS["0"]


def test_an_older_scratch_server_is_inconclusive(tmp_path, vault):
    """Redis 6.2 cannot read what 7 wrote."""
    newer, older = find_redis("machine"), find_redis("wheel")
    if major_version(newer / "redis-server") < 7:
        pytest.skip("this machine's Redis is as old as the wheel's")
    with servers.start(newer, tmp_path, options=QUICK) as server:
        fill(server)
        kept = capture(component_of(server), vault)
    assert set(verdicts(kept, Scratches(older, tmp_path)).values()) == {"inconclusive"}
    assert verdicts(kept, Scratches(newer, tmp_path)) == PASSED


def test_the_servers_clock_is_believed_within_bounds():
    """The fork lies between the question and the first byte, whatever the server's clock says."""
    from bookreader_backup_assets.components.redis import _forked_at

    asked = datetime(2026, 11, 23, 2, 30, 0, 500000, tzinfo=UTC)
    came = asked + timedelta(seconds=60)
    for ctime, expected in (
        (int(asked.timestamp()) + 20, asked.replace(microsecond=0) + timedelta(seconds=20)),
        (int(asked.timestamp()), asked),
        (0, asked),
        (10**11, came),
        (10**30, came),
        ("", came),
    ):
        assert _forked_at(str(ctime), asked, came) == expected
