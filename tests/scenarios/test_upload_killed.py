"""`replicate` is killed in the middle of an upload, again and again: the next one goes on, and is equal."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.settings import load_settings
from bookreader_backup_assets.vaults import s3_parts
from tests.fixtures.away import plan_with

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
KILLS = 4
DELAY = 0.25  # seconds before each part
SIZE = 100_000_000
IN_FLIGHT = s3_parts.in_flight(s3_parts.SMALLEST)


@pytest.fixture
def waiting(system, bucket, faulty, tmp_path):
    """An archive of 100 MB in the local vault, verified, that is to go into a bucket: settings and entry."""
    (tmp_path / "storage").mkdir()
    for number in range(10):
        (tmp_path / "storage" / f"{number}.epub").write_bytes(os.urandom(SIZE // 10))
    for name, secret in (("id", bucket.key_id), ("secret", bucket.secret_key)):
        (tmp_path / name).write_text(secret.reveal())
    environ = {
        **system.environ,
        "BACKUP_VAULT": str(tmp_path / "vault"),
        "BACKUP_PLAN": str(plan_with(tmp_path, offsite="{ days = 30 }")),
        "BACKUP_STORAGE_PATH": str(tmp_path / "storage"),
        "BACKUP_OFFSITE_BUCKET": bucket.bucket,
        "BACKUP_OFFSITE_ENDPOINT": faulty.endpoint,
        "BACKUP_OFFSITE_ACCESS_KEY_FILE": str(tmp_path / "id"),
        "BACKUP_OFFSITE_SECRET_KEY_FILE": str(tmp_path / "secret"),
    }
    made = assemble(load_settings(environ, env_file=Path(os.devnull)))
    component = made.component("storage/archive")
    entry, _ = capture(made, component, made.today())
    verify(made, component, entry)
    return environ, entry


def begin(environ):
    """Start it in a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, "replicate"],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def there(environ):
    """Return the vault in the bucket, past whatever is in the way."""
    made = assemble(load_settings(environ, env_file=Path(os.devnull)))
    return made.vault_outside("offsite").vault(made.id)


def kill_in_the_middle(running, faulty, after):
    """Kill it `after` seconds from when its first part is on its way; return whether that was in time."""
    begun, deadline = faulty.requests["PUT part"], time.monotonic() + 60
    while faulty.requests["PUT part"] == begun and running.poll() is None:
        assert time.monotonic() < deadline, "no part was sent"
        time.sleep(0.005)
    try:
        running.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=60)
    return running.returncode == -signal.SIGKILL


def test_killed_at_random_moments_of_an_upload(waiting, faulty):
    """Nothing is there before all of it is proven; a kill costs the parts that were on their way, no more."""
    environ, entry = waiting
    vault, killed = there(environ), 0
    faulty.fail("PUT part", times=1000, delay=DELAY)  # so that there is a middle
    while killed < KILLS and kill_in_the_middle(begin(environ), faulty, random.uniform(0, 1.6 * DELAY)):
        killed += 1
        names = {stored.name for stored in vault.list()}
        assert not names & {entry.name, entry.entry_name}
    faulty.faults.clear()
    running = begin(environ)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said.decode()
    assert killed, "it was never in the middle"
    found = hashlib.sha256(b"".join(vault.open(entry.name))).hexdigest()
    assert (found, vault.stat(entry.name).size) == (entry.sha256, entry.size)
    assert entry.entry_name in {stored.name for stored in vault.list()}
    assert list(vault.unfinished()) == []
    most = entry.size + killed * IN_FLIGHT * s3_parts.SMALLEST
    assert faulty.sent["PUT part"] <= most, (faulty.sent, killed)
