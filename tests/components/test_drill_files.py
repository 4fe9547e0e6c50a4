"""Storage in a drill: whatever a folder holds comes back, and whatever came back differently is told."""

import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings

from bookreader_backup_assets.codecs import index
from bookreader_backup_assets.codecs.archive import Archiver
from bookreader_backup_assets.codecs.extract import Extractor, extract
from bookreader_backup_assets.components import drill_files
from bookreader_backup_assets.components.drill import Steps
from bookreader_backup_assets.components.drill_files import compare
from bookreader_backup_assets.core.artifact import Companion
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.runners.tree import read_tree
from tests.fixtures.trees import TREES, built


@dataclass
class Archive:
    """An archive in memory, as a drill reads it."""

    data: bytes
    rows: bytes
    totals: dict

    @property
    def entry(self):
        """What a drill asks an entry for."""
        archive = self

        @dataclass
        class Entry:
            name = "storage/x"
            codecs = ()
            size = len(archive.data)
            sha256 = _sha256(archive.data)
            fingerprint = archive.totals

            def companion(self, role):
                return Companion(role, "x", len(archive.rows), "")

        return Entry()

    def plain(self):
        """See `Stored.plain`."""
        return iter([self.data])

    def companion(self, _role):
        """See `Stored.companion`."""
        return iter([self.rows])

    def measured(self):
        """See `Whole.measured`."""
        meter = Meter([self.data])
        list(meter)
        return meter

    def open_range(self, offset, length):
        """Read a part of it."""
        return [self.data[offset : offset + length]]


def _sha256(data):
    meter = Meter([data])
    list(meter)
    return meter.sha256


def archived(root):
    """The folder as an archive."""
    archiver = Archiver(read_tree(os.fsdecode(root)))
    data = b"".join(archiver)
    return Archive(data, b"".join(archiver.index()), archiver.totals.fingerprint())


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_every_tree_comes_back(tree):
    """Names of any bytes, links of both kinds, modes and times: unpacked elsewhere, nothing differs."""
    with built(tree) as root, tempfile.TemporaryDirectory() as place:
        archive = archived(root)
        steps = Steps()
        (Path(place) / "into").mkdir()
        outcome = drill_files.whole(archive, Path(place) / "into", steps)
        assert outcome.passed, outcome.message
        assert [step.step for step in steps.taken] == ["restore", "compare"]
        shutil.rmtree(Path(place) / "into", ignore_errors=True)


@pytest.fixture
def unpacked(tmp_path):
    """An archive of every kind of thing, and the folder it was unpacked into."""
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "deep" / "other").write_bytes(b"more")
    os.link(root / "file", root / "deep" / "twin")
    (root / "link").symlink_to("../../outside")
    archive = archived(os.fsencode(root))
    into = tmp_path / "into"
    into.mkdir()
    with Extractor(os.fsencode(into), outside_links=True) as extractor:
        extract(archive.plain(), index.read(archive.companion("index")), extractor)
    return archive, into


def rewrite(path):
    """Change a file's content, and neither its size nor its times."""
    status = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def unlink_and_copy(path):
    """Make a hard link a file of its own."""
    data, status = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def relink(path):
    """Let a link lead elsewhere."""
    path.unlink()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: None, ""),
        (lambda at: rewrite(at / "file"), "'file': its content differs"),
        (lambda at: (at / "file").chmod(0o600), "'file': its mode differs"),
        (lambda at: os.utime(at / "deep" / "other", (5, 5)), "'deep/other': its time differs"),
        (lambda at: (at / "deep" / "other").unlink(), "'deep/other': not there"),
        (lambda at: unlink_and_copy(at / "deep" / "twin"), "not the same file as"),
        (lambda at: relink(at / "link"), "'link': its time differs, its target differs"),
        (lambda at: (at / "extra").touch(), "1 paths that the index does not have"),
        (lambda at: (at / "empty").mkdir(), "1 paths that the index does not have"),
        (lambda at: shutil.rmtree(at / "deep"), "'deep': not there"),
        (lambda at: ((at / "file").unlink(), (at / "file").mkdir()), "'file': a folder, not a file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_differs_is_told(unpacked, change, said):
    """Content, mode, time, kind, target, what is missing and what is there besides."""
    archive, into = unpacked
    (into / "file").chmod(0o644)
    change(into)
    outcome = compare(index.read(archive.companion("index")), archive.totals, into)
    assert outcome.passed is (said == "")
    assert said in outcome.message


def test_other_totals_than_captured_are_told(unpacked):
    """An index that lost a path after its capture does not agree with its entry."""
    archive, into = unpacked
    outcome = compare(
        index.read(archive.companion("index")), {**archive.totals, "files": archive.totals["files"] + 1}, into
    )
    assert "files: expected" in outcome.message


def test_many_differences_are_counted_and_some_are_named(tmp_path):
    """A whole tree gone is one sentence."""
    root = tmp_path / "root"
    root.mkdir()
    for number in range(50):
        (root / f"{number}").touch()
    archive = archived(os.fsencode(root))
    (tmp_path / "empty").mkdir()
    outcome = compare(index.read(archive.companion("index")), archive.totals, tmp_path / "empty")
    assert outcome.measured["differences"] == 50
    assert "and 45 more" in outcome.message
    assert len(outcome.message) < 300


def test_a_path_longer_than_the_system_takes(tmp_path):
    """Twenty folders of 250 characters, one in the other, are compared like any."""
    top = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("root", dir_fd=top)
    here = os.open("root", os.O_RDONLY, dir_fd=top)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(b"deep")
    os.close(here)
    os.close(top)
    (tmp_path / "into").mkdir()
    outcome = drill_files.whole(archived(os.fsencode(tmp_path / "root")), tmp_path / "into", Steps())
    assert outcome.passed, outcome.message
    shutil.rmtree(tmp_path / "root")
    shutil.rmtree(tmp_path / "into")


def test_one_file_is_read_alone(tmp_path):
    """Of 30 MB a file of a few bytes takes one member, and any file may be the one."""
    root = tmp_path / "root"
    root.mkdir()
    for number in range(15):
        (root / f"{number:02}").write_bytes(random.Random(number).randbytes(2_000_000))
    archive = archived(os.fsencode(root))
    chosen = set()
    for seed in range(30):
        place = tmp_path / f"{seed}"
        place.mkdir()
        steps = Steps()
        outcome = drill_files.sample(archive, place, steps, seed=seed)
        assert outcome.passed, outcome.message
        chosen.add(outcome.measured["path"])
        restored = place / "sample"
        assert restored.read_bytes() == (root / outcome.measured["path"]).read_bytes()
        assert outcome.measured["bytes_read"] < len(archive.data) / 2
    assert len(chosen) > 8


def test_a_damaged_file_is_no_sample(tmp_path):
    """Its bytes are compared with the index."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(random.Random(1).randbytes(100_000))
    archive = archived(os.fsencode(root))
    half = len(archive.data) // 2
    archive.data = archive.data[:half] + bytes([archive.data[half] ^ 1]) + archive.data[half + 1 :]
    with pytest.raises(DamagedError):
        drill_files.sample(archive, tmp_path, Steps(), seed=1)


def test_an_archive_without_a_file_tells_nothing(tmp_path):
    """An empty storage cannot prove that a file comes back."""
    (tmp_path / "root").mkdir()
    archive = archived(os.fsencode(tmp_path / "root"))
    outcome = drill_files.sample(archive, tmp_path, Steps(), seed=1)
    assert str(outcome.verdict) == "inconclusive"
