"""One file of a large archive in the bucket: brought back by reading the little of it that holds the file."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.actions.restore import plan
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble, drill_ground
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.away import plan_with

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
EACH = 500_000


class Away:
    """An installation whose storage is large and lies in a bucket; its local vault is empty."""

    def __init__(self, environ, folder, bucket, files, *, encrypted):
        self.root = folder / "storage"
        for number in range(files):
            path = self.root / f"books{number % 7}" / f"{number}.epub"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(EACH))
        written = plan_with(folder, offsite="{ days = 30 }")
        if encrypted:
            text = written.read_text().replace("[storage]", "[storage]\nencrypt = true")
            written.write_text(text)
        for name, secret in (("id", bucket.key_id), ("secret", bucket.secret_key)):
            (folder / name).write_text(secret.reveal())
        self.environ = {
            **environ,
            "BACKUP_VAULT": str(folder / "first"),
            "BACKUP_PLAN": str(written),
            "BACKUP_STORAGE_PATH": str(self.root),
            "BACKUP_OFFSITE_BUCKET": bucket.bucket,
            "BACKUP_OFFSITE_ENDPOINT": bucket.endpoint,
            "BACKUP_OFFSITE_ACCESS_KEY_FILE": str(folder / "id"),
            "BACKUP_OFFSITE_SECRET_KEY_FILE": str(folder / "secret"),
        }
        made = self.installation
        component = made.component("storage/archive")
        self.entry, _ = capture(made, component, made.today())
        verify(made, component, self.entry)
        assert replicate(made, self.entry, "offsite").outcome.passed
        self.environ["BACKUP_VAULT"] = str(folder / "second")

    @property
    def settings(self):
        """Its settings, as they are now."""
        return load_settings(self.environ, env_file=Path(os.devnull))

    @property
    def installation(self):
        """What they describe."""
        return assemble(self.settings)

    def restore(self, path, into, endpoint):
        """Restore one file by the command, by way of `endpoint`, and compare it with what it was."""
        argv = ["restore", "file", "--vault", "offsite", "--path", path, "--into", str(into)]
        done = subprocess.run(
            [*PROGRAM, *argv],
            env={**os.environ, **self.environ, "BACKUP_OFFSITE_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (into / path).read_bytes() == (self.root / path).read_bytes()

    def reads(self, path):
        """Return how many bytes a restore of one file would read, as its plan says, and its notes."""
        made = replace(self.installation, source_named="offsite")
        planned = plan(made, "file", options=Options(paths=(path,)))
        return sum(planned.reads.values()), planned.preview.notes

    def drill(self):
        """Drill one file of it, out of the bucket."""
        with drill_ground(self.settings, self.installation, read="offsite") as ground:
            return drill(self.installation, ground, "file")[1]


@pytest.fixture(scope="module")
def large(system, s3_server, tmp_path_factory):
    """400 files that do not compress."""
    bucket = s3_server.make_bucket(f"large-{os.urandom(6).hex()}")
    return Away(system.environ, tmp_path_factory.mktemp("large"), bucket, 400, encrypted=False)


@pytest.mark.parametrize("number", [0, 211, 399])
def test_under_a_hundredth_of_it_is_read(large, faulty, tmp_path, number):
    """Wherever in 200 MB the file lies, index and all; as much as the plan has said."""
    path = f"books{number % 7}/{number}.epub"
    said, _ = large.reads(path)
    large.restore(path, tmp_path / "look", faulty.endpoint)
    read = faulty.received["GET object"]
    assert EACH < read < large.entry.size / 100
    assert EACH < said < large.entry.size / 100


def test_encrypted_it_is_read_from_its_start(system, bucket, faulty, tmp_path):
    """It comes back all the same; plan and drill say what that costs."""
    away = Away(system.environ, tmp_path, bucket, 40, encrypted=True)
    assert "gpg" in away.entry.codecs
    path = "books3/38.epub"
    said, notes = away.reads(path)
    assert said >= away.entry.size
    assert any("read and decrypted from its start" in note for note in notes)
    away.restore(path, tmp_path / "look", faulty.endpoint)
    assert away.entry.size / 2 < faulty.received["GET object"] < away.entry.size * 1.1
    report = away.drill()
    assert report.good, report.to_text()
    assert any("for one file" in note and "from its start" in note for note in report.notes)
    assert "from its start" in report.to_text()
