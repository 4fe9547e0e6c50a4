"""Half of storage is junk of the same size and time, and junk lies beside it: whole and in place."""

import os
import subprocess
import sys

import pytest

from bookreader_backup_assets.actions.journal import alone, unfinished
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, finish, undo
from bookreader_backup_assets.core.errors import SpaceError
from bookreader_backup_assets.core.restore_plan import Options
from tests.fixtures.living import with_settings
from tests.fixtures.missing import missing

BOTH = pytest.mark.parametrize("in_place", [False, True], ids=["whole", "in place"])


def overwrite(storage):
    """Make half of the files junk that neither size nor time tells, and add some."""
    for number, path in enumerate(sorted(p for p in storage.rglob("*") if p.is_file())):
        if number % 2:
            status = path.stat()
            with path.open("r+b") as file:
                file.write(os.urandom(status.st_size))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (storage / "books/extra").mkdir()
    (storage / "books/extra/junk").write_bytes(b"junk")
    (storage / "junk.bin").write_bytes(b"junk")


def spoil(bookreader):
    """Back a BookReader up and overwrite its storage; return it, and what it held before and holds then."""
    good = bookreader.files()
    bookreader.back_up("storage")
    overwrite(bookreader.storage)
    return bookreader, good, bookreader.files()


@pytest.fixture
def spoiled(bookreader):
    """See `spoil`."""
    return spoil(bookreader)


def target(there):
    """The name that is typed back."""
    return plan(there.installation, "storage").target


@BOTH
def test_the_files_of_the_set_and_none_besides(spoiled, in_place):
    """Undo brings the junk back; services that ran were stopped for it and run again, no others."""
    there, good, junk = spoiled
    running = there.installation.services.running()
    report = restore(there.installation, "storage", options=Options(in_place=in_place), confirm=target(there))
    assert report.good, report
    assert there.files() == good
    stopped = [step.said for step in report.steps if step.step == "start"]
    assert stopped == list(running)
    assert there.installation.services.running() == running
    if there.kind == "docker":
        assert list(running) == [there.containers["backend"], there.containers["celery-worker"]]
    undo(there.installation, report.id, confirm=report.target)
    assert there.files() == junk
    assert there.installation.services.running() == running
    accept(there.installation, report.id, confirm=report.target)
    assert there.files() == junk
    assert list(there.storage.parent.glob(".bookreader-restore-*")) == []


KILLED = """
import os, sys
from pathlib import Path
from bookreader_backup_assets.actions.restore import restore
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.settings import load_settings
environ = {n: v for n, v in os.environ.items() if n.startswith("BACKUP_")}
made = assemble(load_settings(environ, env_file=Path(os.devnull)))
left, real = [2], os.rename
def rename(*args, **named):
    if named.get("src_dir_fd") is not None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
    real(*args, **named)
os.rename = rename
restore(made, "storage", options=Options(in_place=sys.argv[2] == "True"), confirm=sys.argv[1])
"""
"""Restores, and ends without a word at the second rename in the live folder."""


@BOTH
def test_killed_half_way_it_is_finished(embedded_bookreader, in_place):
    """Whole or in place: what was begun is brought to its end."""
    is_finished(*spoil(embedded_bookreader), in_place)


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_killed_half_way_in_containers_the_services_run_again(docker_bookreader):
    """The journal knows which were stopped: one that did not run is not started."""
    is_finished(*spoil(docker_bookreader), True)


def is_finished(there, good, _, in_place):
    """Restore in a process that ends half way; finish it here, and compare."""
    running = there.installation.services.running()
    argv = [sys.executable, "-c", KILLED, target(there), str(in_place)]
    done = subprocess.run(argv, env={**os.environ, **there.environ}, timeout=300, check=False)
    assert done.returncode == 9
    assert there.installation.services.running() == ()
    assert there.files() != good
    with alone(there.installation):
        (report,) = finish(there.installation)
    assert report.good, report
    assert there.files() == good
    assert there.installation.services.running() == running
    assert unfinished(there.installation) == []


def test_without_room_it_is_refused_and_goes_in_place(embedded_bookreader, tmp_path):
    """On a disk that has no room for all of it twice, only what differs is written."""
    if os.geteuid() != 0:
        missing("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, timeout=30).returncode != 0:
        missing("this machine lets nobody mount a disk")
    try:
        subprocess.run(["cp", "-a", f"{embedded_bookreader.storage}/.", str(disk)], check=True, timeout=30)
        there = with_settings(embedded_bookreader, storage_path=str(disk))
        good = there.files(disk)
        there.back_up("storage")
        for path in sorted(disk.glob("books/*"))[:3]:
            path.write_bytes(os.urandom(path.stat().st_size))
        with pytest.raises(SpaceError) as refused:
            restore(there.installation, "storage", confirm=str(disk))
        assert "--in-place" in refused.value.hint
        report = restore(there.installation, "storage", options=Options(in_place=True), confirm=str(disk))
        assert report.good, report
        found = {p: w for p, w in there.files(disk).items() if not p.startswith(b".bookreader-restore-")}
        assert found == good
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=30)
