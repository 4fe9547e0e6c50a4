"""Vaults that take a connection and never answer: whoever only looks says so within half a minute."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from tests.fixtures.missing import missing

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
SOON = 32.0  # seconds, of which starting the program takes some


@pytest.fixture
def silent():
    """The port of a service that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def hanging(tmp_path):
    """A mount whose server does not answer: whoever asks it for a file waits."""
    folder = tmp_path / "hanging"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        missing(f"/dev/fuse cannot be opened: {error.strerror}")
    options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options.encode()):
        os.close(server)
        missing(f"nothing can be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    os.close(server)  # who waits is let go
    libc.umount2(os.fsencode(folder), 2)


@pytest.fixture
def run(environ, tmp_path):
    """Run the program; return exit status, both outputs, and the seconds it took."""

    def call(*arguments):
        begun = time.monotonic()
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr, time.monotonic() - begun

    return call


@pytest.fixture
def all_silent(environ, silent, hanging, tmp_path):
    """`environ` with three vaults, none of which answers."""
    plan = tmp_path / "plan.toml"
    copies = "".join(f"{vault} = {{ days = 30 }}\n" for vault in ("nas", "offsite", "git"))
    plan.write_text(
        f'timezone = "UTC"\ndeadline = "05:00"\n[config]\nat = "03:15"\n{copies}', encoding="utf-8"
    )
    environ |= {
        "BACKUP_PLAN": str(plan),
        "BACKUP_NAS": str(hanging),
        "BACKUP_OFFSITE_BUCKET": "bucket",
        "BACKUP_OFFSITE_ENDPOINT": f"http://127.0.0.1:{silent}",
        "BACKUP_OFFSITE_ACCESS_KEY": "key",
        "BACKUP_OFFSITE_SECRET_KEY": "secret",
        "BACKUP_GIT_REMOTE": f"http://127.0.0.1:{silent}/config.git",
    }


@pytest.mark.usefixtures("all_silent")
def test_status_names_each_in_time(run):
    """All three together take no longer than one of them: the first line is there for a monitor."""
    code, said, _, took = run("status", "--json")
    assert (code, took < SOON) == (1, True), took
    found = {one["vault"]: one["error"] for one in json.loads(said)["vaults"]}
    assert "did not answer within 20 s" in found["nas"]
    assert "stopped answering" in found["offsite"]
    assert "did not end within 20 s" in found["git"]


@pytest.mark.usefixtures("all_silent")
def test_list_gives_up_in_time(run):
    """A list out of a bucket that does not answer is refused with the bucket's name."""
    code, _, said, took = run("list", "--vault", "offsite")
    assert (code, took < SOON) == (1, True), took
    assert "bucket at http://127.0.0.1" in said


def test_doctor_asks_it_once(environ, run, silent):
    """The bucket is named as what is wrong, and nothing is tried there afterwards."""
    environ |= {
        "BACKUP_OFFSITE_BUCKET": "bucket",
        "BACKUP_OFFSITE_ENDPOINT": f"http://127.0.0.1:{silent}",
        "BACKUP_OFFSITE_ACCESS_KEY": "key",
        "BACKUP_OFFSITE_SECRET_KEY": "secret",
    }
    code, said, _, took = run("doctor", "--json")
    assert (code, took < SOON + 10) == (1, True), took
    found = [one for one in json.loads(said)["findings"] if one["subject"].startswith("offsite")]
    assert [(one["good"], "stopped answering" in one["seen"]) for one in found] == [(False, True)]
