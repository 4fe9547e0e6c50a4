"""The storage component over a real vault: captured, checked, damaged, and found out."""

import dataclasses
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.codecs import gzip, index
from bookreader_backup_assets.codecs.index import IndexWriter
from bookreader_backup_assets.components.storage import StorageArchive, _kept
from bookreader_backup_assets.core.artifact import Companion, Entry, Problem
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import DamagedError, SourceAbsentError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.runners.tree import CHANGED, LEFT_OUT, UNREADABLE, VANISHED
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.trees import as_nobody, build, built

NAME = "storage/storage_2025-10-24_03-00-00_full.tar.gz"
ALL = frozenset({"readable", "files_equal", "complete"})
SPEC = {
    b"books": (
        "folder",
        {b"caf\xe9.epub": ("file", os.urandom(9000), 0o640, 10**18 + 1), b"same": ("hardlink", 0)},
        0o755,
        0,
    ),
    b"cover.png": ("file", b"png" * 2000, 0o600, 10**18 + 2),
    b"empty": ("folder", {}, 0o700, 5),
    b"latest": ("symlink", b"nowhere"),
    b"none": ("file", b"", 0o600, 0),
}


@dataclass
class Kept:
    """An artifact in a vault, as checks read it; `index` stands in for the index that is stored."""

    vault: LocalVault
    entry: Entry
    archive: bytes | None = None
    index: bytes | None = None
    path: None = None
    readings: list[str] = field(default_factory=list)

    def plain(self):
        """The archive's bytes."""
        self.readings.append("archive")
        return iter([self.archive]) if self.archive is not None else self.vault.open(NAME)

    def companion(self, role):
        """The index's bytes."""
        self.readings.append(role)
        return (
            iter([self.index]) if self.index is not None else self.vault.open(self.entry.companion(role).name)
        )

    def sibling(self, asset):
        """There is none."""


def capture(root, vault):
    """Capture `root` into `vault`, and return what its entry would say."""
    component = StorageArchive(LocalRunner(), os.fsdecode(root))
    with component.capture() as source:
        meter = Meter(source.chunks)
        vault.put(NAME, meter)
        facts = source.facts()
    companions = []
    for (role, suffix), chunks in facts.companions.items():
        stored = vault.put(NAME + suffix, chunks)
        companions.append(Companion(role, stored.name, stored.size, vault.digest(stored.name)))
    return Kept(
        vault,
        Entry(
            installation="i",
            component=component.component,
            artifact=component.artifact,
            name=NAME,
            set="2025-10-24",
            captured_at=facts.captured_at,
            size=meter.size,
            sha256=meter.sha256,
            fingerprint=facts.fingerprint,
            source=facts.source,
            versions=facts.versions,
            problems=facts.problems,
            companions=tuple(companions),
        ),
    )


def verify(kept, names=ALL):
    """The outcomes, by check."""
    component = StorageArchive(LocalRunner(), "unused")
    return {outcome.check: outcome for outcome in component.verify(kept, None, names)}


def verdicts(kept, names=ALL):
    """The verdicts, by check."""
    return {check: outcome.verdict.value for check, outcome in verify(kept, names).items()}


def rewritten(rows):
    """An index of these rows."""
    writer = IndexWriter()
    for row in rows:
        writer.add(row)
    return b"".join(writer.chunks())


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A captured tree of every kind of path, in members of 4 kB."""
    root, vault = tmp_path_factory.mktemp("root"), LocalVault(tmp_path_factory.mktemp("vault"))
    build(os.fsencode(root), SPEC)
    with patch.object(gzip, "MEMBER", 4096):
        return capture(root, vault)


@pytest.fixture
def vault(tmp_path):
    """An empty vault."""
    return LocalVault(tmp_path / "vault")


def test_a_capture_says_what_it_holds_and_passes_every_check(kept):
    """The entry has the totals, where they were read, and when; all three checks pass."""
    entry = kept.entry
    assert entry.fingerprint == {"kind": "files", "files": 3, "folders": 3, "links": 2, "bytes": 15000}
    assert entry.source["runner"] == "local"
    assert entry.versions.keys() == {"isal"}
    assert entry.problems == ()
    assert (datetime.now(UTC) - entry.captured_at).total_seconds() < 3600
    assert [companion.name for companion in entry.companions] == [NAME + ".index.gz"]
    assert verdicts(kept) == dict.fromkeys(ALL, "passed")


def test_one_reading_serves_both_checks(kept):
    """The archive is read once for two checks, not at all for `complete`, and only what is asked is said."""
    again = replace(kept, readings=[])
    assert verdicts(again) == dict.fromkeys(ALL, "passed")
    assert sorted(again.readings) == ["archive", "index"]
    assert verdicts(kept, frozenset({"readable"})) == {"readable": "passed"}
    assert verdicts(kept, frozenset({"files_equal"})) == {"files_equal": "passed"}
    again = replace(kept, readings=[])
    assert verdicts(again, frozenset({"complete"})) == {"complete": "passed"}
    assert again.readings == []


def plain_of(stored):
    """The decompressed bytes, or None if they are damaged."""
    try:
        return b"".join(gzip.decode([stored]))
    except DamagedError:
        return None


@given(st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_flipped_byte_anywhere_is_found(kept, data):
    """A byte changed anywhere in the archive fails both checks, unless what it holds is still the same.

    (Between a deflate stream's end and its CRC lie a few bits that mean nothing; `sha256` sees those.)
    """
    stored = b"".join(kept.vault.open(NAME))
    at, flip = data.draw(st.integers(0, len(stored) - 1)), data.draw(st.integers(1, 255))
    damaged = stored[:at] + bytes([stored[at] ^ flip]) + stored[at + 1 :]
    found = verdicts(replace(kept, archive=damaged))
    if plain_of(damaged) != plain_of(stored):
        assert (found["readable"], found["files_equal"]) == ("failed", "failed")


@given(st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_a_cut_anywhere_is_found(kept, data):
    """An archive cut short fails both checks; the message says how far it reads."""
    stored = b"".join(kept.vault.open(NAME))
    found = verify(replace(kept, archive=stored[: data.draw(st.integers(0, len(stored) - 1))]))
    assert found["readable"].verdict is found["files_equal"].verdict is Verdict.FAILED
    assert "after" in found["readable"].message


@given(st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_a_flipped_byte_of_the_index_is_found(kept, data):
    """A byte changed in the index fails `files_equal` and leaves `readable` alone."""
    stored = b"".join(kept.vault.open(NAME + ".index.gz"))
    at, flip = data.draw(st.integers(0, len(stored) - 1)), data.draw(st.integers(1, 255))
    damaged = stored[:at] + bytes([stored[at] ^ flip]) + stored[at + 1 :]
    found = verdicts(replace(kept, index=damaged))
    assert found["readable"] == "passed"
    if plain_of(damaged) != plain_of(stored):
        assert found["files_equal"] == "failed"


def rows_of(kept):
    """The rows of its index."""
    return list(index.read(kept.vault.open(NAME + ".index.gz")))


@pytest.mark.parametrize("at", range(8))
def test_an_index_with_a_row_less_is_found(kept, at):
    """A path that is in the archive and not in the index fails `files_equal`, wherever it is."""
    rows = rows_of(kept)
    assert len(rows) == 8
    found = verdicts(replace(kept, index=rewritten(rows[:at] + rows[at + 1 :])))
    assert found == {"readable": "passed", "files_equal": "failed", "complete": "passed"}


@pytest.mark.parametrize("at", range(9))
def test_an_index_with_a_row_more_is_found(kept, at):
    """A path that is in the index and not in the archive fails `files_equal`, wherever it is."""
    rows = rows_of(kept)
    rows.insert(at, replace(rows[4], path=b"one more"))
    found = verdicts(replace(kept, index=rewritten(rows)))
    assert found == {"readable": "passed", "files_equal": "failed", "complete": "passed"}


CHANGES = {
    "path": lambda row: row.path + b"x",
    "kind": lambda row: "symlink" if row.kind != "symlink" else "folder",
    "mode": lambda row: row.mode ^ 0o100,
    "uid": lambda row: row.uid + 1,
    "gid": lambda row: row.gid + 1,
    "mtime_ns": lambda row: row.mtime_ns + 10**9,
    "offset": lambda row: row.offset + 1,
    "length": lambda row: row.length + 1,
    "inside": lambda row: row.inside + 512,
    "size": lambda row: row.size + 1,
    "sha256": lambda row: "0" * 64,
    "target": lambda row: row.target + b"x",
    "archive": lambda row: "storage/another_2025-10-24_03-00-00_full.tar.gz",
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_says_something_else_is_found(kept, name):
    """Each thing that the index says of a path is compared with the archive."""
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(index.Row)}
    rows = rows_of(kept)
    wanted = {"size": "file", "sha256": "file", "target": "symlink"}.get(name)
    for at, row in enumerate(rows):
        if wanted in {None, row.kind}:
            changed = [*rows[:at], replace(row, **{name: CHANGES[name](row)}), *rows[at + 1 :]]
            found = verify(replace(kept, index=rewritten(changed)))
            assert found["files_equal"].verdict is Verdict.FAILED
            assert found["readable"].passed


def test_an_entry_that_counts_differently_is_found(kept):
    """The index's totals are compared with the entry's fingerprint."""
    entry = replace(kept.entry, fingerprint={**kept.entry.fingerprint, "files": 4})
    found = verify(replace(kept, entry=entry))
    assert (found["files_equal"].verdict, found["files_equal"].message) == (
        Verdict.FAILED,
        "files: expected 4, found 3",
    )


def test_a_path_that_another_archive_holds_is_counted_and_not_looked_for(kept):
    """An index may name what an earlier archive holds: that is how an `_incr` says it has everything."""
    rows = rows_of(kept)
    file = next(row for row in rows if row.path == b"cover.png")
    rows.insert(3, replace(file, path=b"old", archive="storage/storage_2025-10-19_03-00-00_full.tar.gz"))
    fingerprint = kept.entry.fingerprint
    counted = {**fingerprint, "files": 4, "bytes": fingerprint["bytes"] + file.size}
    found = verdicts(replace(kept, index=rewritten(rows), entry=replace(kept.entry, fingerprint=counted)))
    assert found == dict.fromkeys(ALL, "passed")


def test_what_is_unreadable_fails_complete(vault):
    """A file and a folder that may not be read are named; the rest is kept, and the archive is sound."""
    with built(SPEC) as root:
        os.chmod(root, 0o755)
        os.chmod(os.path.join(root, b"empty"), 0)
        os.chmod(os.path.join(root, b"cover.png"), 0)
        with as_nobody():
            closed = StorageArchive(LocalRunner(), os.fsdecode(root))
            with closed.capture() as source:
                stored, facts = b"".join(source.chunks), source.facts()
                stored_index = b"".join(facts.companions["index", ".index.gz"])
    entry = replace(
        Entry("i", "storage", "archive", NAME, "s", facts.captured_at, 0, ""),
        fingerprint=facts.fingerprint,
        problems=facts.problems,
    )
    found = verify(Kept(vault, entry, stored, stored_index))
    assert found["complete"].verdict is Verdict.FAILED
    assert {"cover.png", "empty"} <= {problem.where for problem in facts.problems}
    assert all(problem.what.startswith(UNREADABLE) for problem in facts.problems)
    assert "'cover.png' cannot be read: Permission denied" in found["complete"].message
    assert found["readable"].passed
    assert found["files_equal"].passed


@pytest.mark.parametrize(
    ("problems", "verdict", "message"),
    [
        ([], "passed", "nothing was unreadable"),
        ([Problem(LEFT_OUT, "pipe")], "passed", "nothing was unreadable; 'pipe' " + LEFT_OUT),
        ([Problem(VANISHED, "a")], "passed", "'a' vanished while being read"),
        ([Problem(CHANGED, "a")] * 7, "passed", "and 2 more"),
        ([Problem(CHANGED, "a"), Problem(UNREADABLE + ": x", "b")], "failed", "'b' cannot be read: x"),
    ],
)
def test_complete_tells_lost_from_uncertain(kept, problems, verdict, message):
    """Unreadable is a failure; what vanished or changed on a busy night, or is a pipe, is named."""
    outcome = verify(replace(kept, entry=replace(kept.entry, problems=tuple(problems))))["complete"]
    assert outcome.verdict.value == verdict
    assert message in outcome.message


def test_a_socket_is_named_and_the_capture_complete(tmp_path, vault):
    """A socket in the folder is named in the entry and does not make the night a failure."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "book").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "root" / "socket"))
        kept = capture(tmp_path / "root", vault)
    assert kept.entry.problems == (Problem(LEFT_OUT, "socket"),)
    assert verdicts(kept) == dict.fromkeys(ALL, "passed")


def test_a_folder_without_a_file_is_not_verified(tmp_path, vault):
    """The night that the disk was not mounted is no backup to rely on."""
    (tmp_path / "root" / "books").mkdir(parents=True)
    outcome = verify(capture(tmp_path / "root", vault))["complete"]
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "mounted" in outcome.message


def test_an_absent_folder_is_refused():
    """Without its folder a capture does not begin: an empty archive would look like a backup."""
    component = StorageArchive(LocalRunner(), "/absent/storage")
    with pytest.raises(SourceAbsentError, match="not a folder here"), component.capture():
        pass


def test_thousands_of_problems_do_not_make_a_huge_entry():
    """Of many problems a thousand are kept, the unreadable before the others, and the rest is counted."""
    problems = [Problem(VANISHED, str(n)) for n in range(3000)] + [Problem(UNREADABLE + ": x", "last")]
    kept = _kept(problems)
    assert len(kept) == 1001
    assert kept[0].where == "last"
    assert kept[-1].what == "2001 more problems are not listed"


def test_memory_stays_flat(tmp_path):
    """400 MB, half of it one file, are captured and verified in under 150 MB."""
    root = tmp_path / "root"
    root.mkdir()
    block = os.urandom(1 << 20)
    for name, megabytes in [("large", 200), *((f"{n}", 5) for n in range(40))]:
        with (root / name).open("wb") as file:
            for _ in range(megabytes):
                file.write(block)
    program = textwrap.dedent(
        """
        import re, sys
        from pathlib import Path
        from bookreader_backup_assets.core.check import Verdict
        from tests.integration.test_storage import capture, verify
        from bookreader_backup_assets.vaults.local import LocalVault
        peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
        before = peak()
        kept = capture(sys.argv[1], LocalVault(Path(sys.argv[2])))
        captured = peak()
        assert all(outcome.verdict is Verdict.PASSED for outcome in verify(kept).values())
        print(captured - before, peak() - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, root, tmp_path / "vault"],
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    captured, verified = map(int, done.stdout.split())
    assert captured < 150
    assert verified < 150
