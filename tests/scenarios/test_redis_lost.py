"""Redis's keys are lost or damaged, with an append-only file that would shadow a dump: restored, compared."""

import pytest

from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, undo
from bookreader_backup_assets.core.errors import RefusedError


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


def running(there):
    """Which of the containers run."""
    return {
        service: there.engine.api.inspect_container(name)["State"]["Running"]
        for service, name in there.containers.items()
    }


def test_keys_come_back(bookreader):
    """Every key of every database is as it was captured, and what was added since is gone."""
    before = bookreader.keys()
    bookreader.back_up("redis")
    damage(bookreader)
    assert bookreader.keys() != before
    report = restored(bookreader)
    assert report.good, report
    assert "pre-restore" in report.safety
    assert bookreader.keys() == before


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


def test_a_restore_can_be_undone(bookreader):
    """The damaged state is there again, and stays when Redis writes its append-only file anew."""
    bookreader.back_up("redis")
    damage(bookreader)
    damaged = bookreader.keys()
    report = restored(bookreader)
    assert bookreader.keys() != damaged
    assert undo(bookreader.installation, report.id, confirm=report.target).result == "undone"
    assert bookreader.keys() == damaged
    accept(bookreader.installation, report.id, confirm=report.target)
    assert bookreader.keys() == damaged


def test_nothing_is_touched_without_the_name_typed_back(bookreader):
    """Neither a plan nor a restore with another name does anything but look."""
    bookreader.back_up("redis")
    before = bookreader.keys()
    planned = plan(bookreader.installation, "redis")
    assert planned.preview.present
    assert "database 1" in planned.preview.replaces
    with pytest.raises(RefusedError, match="not its name"):
        restore(bookreader.installation, "redis", confirm="another")
    assert bookreader.keys() == before
    assert journals(bookreader.installation) == []
