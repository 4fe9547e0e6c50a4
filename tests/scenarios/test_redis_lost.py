"""Redis's keys are lost or damaged, with an append-only file that would shadow a dump: restored, compared."""

import json
import shutil
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, undo
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers.redis import start
from tests.fixtures.docker import until
from tests.fixtures.living import with_settings


@pytest.fixture
def contained(docker_bookreader):
    """A BookReader of the test's own in containers."""
    return docker_bookreader


def target(there):
    """The name that an operator types back."""
    return plan(there.installation, "redis").target


def restored(there, **more):
    """Restore Redis, and return the report."""
    return restore(there.installation, "redis", confirm=target(there), **more)


def damage(there):
    """Lose one database, change and add keys in another."""
    there.cache("FLUSHDB", database=1)
    there.cache("SET", "key:1", "changed")
    there.cache("RPUSH", "later", "a", "b")


def the_dump(there):
    """The path of the newest dump."""
    return there.installation.vault.root / Catalog(there.installation.vault).newest("redis/rdb").name


def running(there):
    """Which of the containers run."""
    return {
        service: there.engine.api.inspect_container(name)["State"]["Running"]
        for service, name in there.containers.items()
    }


def test_a_flushed_redis_comes_back(bookreader):
    """Nothing was left, so there is nothing to keep; its undo leaves nothing again."""
    before = bookreader.keys()
    bookreader.back_up("redis")
    bookreader.cache("FLUSHALL")
    report = restored(bookreader)
    assert report.good
    assert report.safety == "absent"
    assert bookreader.keys() == before
    undo(bookreader.installation, report.id, confirm=report.target)
    assert bookreader.keys() == {0: "\n", 1: "\n", 2: "\n"}


def test_keys_come_back_and_that_can_be_undone(bookreader):
    """Every key of every database is as it was captured, and what was added since is gone. Undone, the
    damaged state is there again, and stays when Redis writes its append-only file anew.
    """
    before = bookreader.keys()
    bookreader.back_up("redis")
    damage(bookreader)
    damaged = bookreader.keys()
    assert damaged != before
    report = restored(bookreader)
    assert report.good, report
    assert "pre-restore" in report.safety
    assert bookreader.keys() == before
    assert undo(bookreader.installation, report.id, confirm=report.target).result == "undone"
    assert bookreader.keys() == damaged
    accept(bookreader.installation, report.id, confirm=report.target)
    assert bookreader.keys() == damaged


def test_without_docker_it_outlives_a_restart(embedded_bookreader, redis_folder, tmp_path):
    """What the server has on its disk after the restore, append-only files first, is what was restored."""
    there = embedded_bookreader
    before = there.keys()
    there.back_up("redis")
    damage(there)
    assert restored(there).good
    folder = there.cache("CONFIG", "GET", "dir").split("\n")[1]
    shutil.copytree(folder, tmp_path / "copied")
    options = {"dir": str(tmp_path / "copied"), "appendonly": "yes"}
    with start(redis_folder, tmp_path, password=Secret(there.redis_password), options=options) as again:
        assert replace(there, redis_cli=again.cli).keys() == before


def test_nothing_is_touched_without_the_name_typed_back(embedded_bookreader):
    """Neither a plan nor a restore with another name does anything but look."""
    bookreader = embedded_bookreader
    bookreader.back_up("redis")
    before = bookreader.keys()
    planned = plan(bookreader.installation, "redis")
    assert planned.preview.present
    assert "database 1" in planned.preview.replaces
    with pytest.raises(RefusedError, match="not its name"):
        restore(bookreader.installation, "redis", confirm="another")
    assert bookreader.keys() == before
    assert journals(bookreader.installation) == []


def test_a_dump_newer_than_the_server_is_refused(embedded_bookreader):
    """Before anything is touched, with the version that is wanted."""
    bookreader = embedded_bookreader
    bookreader.back_up("redis")
    damage(bookreader)
    before, name = bookreader.keys(), target(bookreader)
    newest = Catalog(bookreader.installation.vault).newest("redis/rdb")
    entry = bookreader.installation.vault.root / newest.entry_name
    document = json.loads(entry.read_text())
    document["versions"].update(server="99.1", rdb="99")
    entry.write_text(json.dumps(document))
    with pytest.raises(RefusedError, match="older one cannot read") as refused:
        restore(bookreader.installation, "redis", confirm=name)
    assert "99.1" in refused.value.hint
    assert bookreader.keys() == before
    assert journals(bookreader.installation) == []


@pytest.mark.parametrize("wrong", ["flipped", "truncated"])
def test_a_damaged_dump_is_refused(bookreader, wrong):
    """Whatever happened to its bytes since it was verified, nothing live is touched."""
    bookreader.back_up("redis")
    damage(bookreader)
    before, name = bookreader.keys(), target(bookreader)
    path = the_dump(bookreader)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if wrong == "flipped" else data[:-30])
    with pytest.raises(DamagedError, match=path.name):
        restore(bookreader.installation, "redis", bookreader.installation.today(), confirm=name)
    assert bookreader.keys() == before
    assert not any(journal.has("swap") for journal in journals(bookreader.installation))


def test_a_wrong_password_is_told(bookreader):
    """Redis refuses us, and nothing else happens."""
    bookreader.back_up("redis")
    before, name = bookreader.keys(), target(bookreader)
    stranger = with_settings(bookreader, redis_password="wrong")
    with pytest.raises(SourceError, match="refused the password"):
        restore(stranger.installation, "redis", confirm=name)
    assert bookreader.keys() == before


def test_keys_whose_time_runs_out_are_counted_out(bookreader):
    """What had a second to live at the capture is not missed after the restore, and everything else is."""
    bookreader.cache("SET", "brief", "1", "PX", "1500")
    bookreader.back_up("redis")
    bookreader.cache("SET", "lasting", "1")
    until(lambda: bookreader.cache("EXISTS", "brief").strip() == "0", "the key's end")
    bookreader.cache("DEL", "lasting")
    before = bookreader.keys()
    damage(bookreader)
    report = restored(bookreader)
    assert report.good
    assert "1 more have run out" in report.outcomes[-1].message or "1 more have run out" in str(
        report.outcomes
    )
    assert bookreader.keys() == before


def again(there, *, crash=False):
    """Restart the Redis container, as it ends by itself or killed; return when it has loaded."""
    name = there.containers["redis"]
    (there.engine.api.kill if crash else there.engine.api.stop)(name)
    until(lambda: not there.engine.api.inspect_container(name)["State"]["Running"], "its end")
    there.engine.api.start(name)
    until(lambda: "loading:0" in there.cache("INFO", "persistence"), "Redis")


def rewrite(there):
    """Have Redis write its append-only file anew."""
    there.cache("BGREWRITEAOF")
    idle = "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0"
    until(lambda: idle in there.cache("INFO", "persistence"), "the append-only file")


@pytest.mark.parametrize("undone", [False, True], ids=["restored", "undone"])
@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_it_stays_whatever_redis_does_next(contained, undone):
    """Restarted, killed, written to and restarted, its append-only file written anew and restarted."""
    before = contained.keys()
    contained.back_up("redis")
    damage(contained)
    wanted = contained.keys() if undone else before
    report = restored(contained)
    if undone:
        undo(contained.installation, report.id, confirm=report.target)
    again(contained)
    assert contained.keys() == wanted
    contained.cache("SET", "written:after", "1")
    again(contained)
    assert contained.cache("DEL", "written:after").strip() == "1"
    assert contained.keys() == wanted
    again(contained, crash=True)
    for _ in range(2):
        contained.cache("SET", "written:after", "1")
        rewrite(contained)
        assert contained.cache("DEL", "written:after").strip() == "1"
        again(contained)
        assert contained.keys() == wanted
    accept(contained.installation, report.id, confirm=report.target)
    again(contained)
    assert contained.keys() == wanted
    assert "bookreader-restore" not in listing(contained)


def listing(there, *options):
    """The names in the data folder, and with `options` more of them."""
    return there.redis.run(["ls", "-R", *options, "/data"]).stdout.decode()


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_services_and_owners_are_as_they_were(contained):
    """Who ran runs again, who did not does not; Redis's files are its own, with their mode."""
    contained.back_up("redis")
    damage(contained)
    ran = running(contained)
    find = ["find", "/data", "-type", "f", "-printf", "%u %g %m\\n"]
    owners = set(contained.redis.run(find).stdout.split(b"\n"))
    report = restored(contained)
    assert report.good
    assert {step.said for step in report.steps if step.step == "start"} == {
        contained.containers["backend"],
        contained.containers["celery-worker"],
    }
    assert running(contained) == ran
    assert set(contained.redis.run(find).stdout.split(b"\n")) == owners


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_a_damaged_append_only_file(contained):
    """Redis does not start any more, so nothing can be captured of it; its files are kept for the undo."""
    before = contained.keys()
    contained.back_up("redis")
    name = contained.containers["redis"]
    contained.redis.run(["sh", "-c", "for f in /data/appendonlydir/*.incr.aof; do echo junk >$f; done"])
    contained.engine.api.kill(name)
    contained.engine.api.start(name)
    until(lambda: not running(contained)["redis"], "its end")
    report = restored(contained)
    assert report.good
    assert report.safety == "displaced"
    assert contained.keys() == before
    again(contained)
    assert contained.keys() == before
    undo(contained.installation, report.id, confirm=report.target)
    assert not running(contained)["redis"]
    contained.engine.api.start(name)
    until(lambda: not running(contained)["redis"], "its end, once more")
    log = contained.engine.api.logs(name, tail=5).decode()
    assert "Bad file format" in log


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_a_redis_that_never_ran(contained, start_container):
    """A container that was made and never started, with an empty volume, is filled and started."""
    before = contained.keys()
    contained.back_up("redis")
    old = contained.containers["redis"]
    made = contained.engine.api.inspect_container(old)
    contained.engine.api.remove_container(old, force=True, v=True)
    command = made["Config"]["Cmd"]
    labels = {k: v for k, v in made["Config"]["Labels"].items() if "compose" in k}
    fresh = start_container("redis", "living-redis", command=command, labels=labels, running=False)
    contained.containers["redis"] = fresh
    report = restored(contained)
    assert report.good
    assert report.safety == "absent"
    assert contained.keys() == before
    again(contained)
    assert contained.keys() == before
    undo(contained.installation, report.id, confirm=report.target)
    contained.engine.api.start(fresh)
    until(lambda: "loading:0" in contained.cache("INFO", "persistence"), "Redis")
    assert contained.keys() == {0: "\n", 1: "\n", 2: "\n"}


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_without_append_only_files(contained, start_container):
    """Only a dump.rdb counts, which the shutdown's save does not overwrite; undone, the old one is back."""
    old = contained.containers["redis"]
    made = contained.engine.api.inspect_container(old)
    contained.engine.api.remove_container(old, force=True, v=True)
    command = [*made["Config"]["Cmd"], "--appendonly", "no", "--save", "60 1"]
    labels = {k: v for k, v in made["Config"]["Labels"].items() if "compose" in k}
    contained.containers["redis"] = start_container("redis", "living-redis", command=command, labels=labels)
    until(lambda: "PONG" in contained.cache("ping"), "Redis")
    contained.cache("EVAL", "for n = 1, 70 do redis.call('SET', 'key:' .. n, n) end", "0", database=2)
    before = contained.keys()
    contained.back_up("redis")
    damage(contained)
    damaged = contained.keys()
    report = restored(contained)
    assert report.good
    assert contained.keys() == before
    again(contained, crash=True)
    assert contained.keys() == before
    undo(contained.installation, report.id, confirm=report.target)
    assert contained.keys() == damaged
    again(contained, crash=True)
    assert contained.keys() == damaged


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_a_redis_that_does_not_come_back(contained, monkeypatch):
    """The end of its log is told, and the state from before is back."""
    from bookreader_backup_assets.components import redis_files

    contained.back_up("redis")
    damage(contained)
    damaged = contained.keys()
    fill = redis_files.FilesWay._fill

    def spoilt(way, state, size, chunks):
        fill(way, state, size, iter([b"REDIS0099" + b"".join(chunks)[9:]]))

    monkeypatch.setattr(redis_files.FilesWay, "_fill", spoilt)
    with pytest.raises(BackupError, match=r"has ended .*RDB format version 99"):
        restored(contained)
    assert contained.keys() == damaged
