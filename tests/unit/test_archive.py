"""The seekable tar.gz: written, read by us and by GNU tar, and one file of it."""

import hashlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings

from bookreader_backup_assets.codecs import archive_reader, gzip, index
from bookreader_backup_assets.codecs.archive import Archiver
from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.runners.base import Tree, TreeItem
from bookreader_backup_assets.runners.tree import VANISHED, read_tree
from tests.fixtures.trees import TREES, build, built, look

SMALL = patch.object(gzip, "MEMBER", 8192)  # so that a test's files fill, and span, members
FILE = TreeItem(b"f", "file", 0o644, 0, 0, 0)


def archived(tree):
    """The bytes of an archive of `tree`, its rows, and its totals."""
    archiver = Archiver(tree)
    stored = b"".join(archiver)
    return stored, list(index.read(archiver.index())), archiver.totals


def of(*items):
    """A tree of these items, without a folder behind them."""
    return Tree(iter(items))


def one(stored, row):
    """The content of one file, by one ranged read."""
    return b"".join(archive_reader.read_one(lambda at, length: [stored[at : at + length]], row))


def in_seconds(rows):
    """The rows with times as a tar header keeps them."""
    return [replace(row, mtime_ns=row.mtime_ns // 10**9 * 10**9) for row in rows]


@given(TREES)
@settings(deadline=None, max_examples=50)
def test_an_archive_reads_back_as_its_index_says(spec):
    """The archive's own headers and contents make the same rows as its index, and each file comes back."""
    with built(spec) as root, SMALL:
        tree = read_tree(os.fsdecode(root))
        stored, rows, totals = archived(tree)
        assert tree.problems == []
        assert list(archive_reader.read([stored])) == in_seconds(rows)
        expected = look(root)
        assert [row.path for row in rows if row.kind == "file" or row.path in expected] == [
            r.path for r in rows
        ]
        for row in rows:
            if row.kind == "file":
                assert one(stored, row) == expected[row.path][4][1]
        assert totals.files + totals.links + totals.folders == len(expected)


@given(TREES)
@settings(deadline=None, max_examples=30)
def test_gnu_tar_extracts_the_same_tree(spec):
    """`gzip -t` and `tar -xpzf` take the archive as any other, and what comes out equals the source."""
    with built(spec) as root, SMALL, tempfile.TemporaryDirectory() as place:
        stored, _, _ = archived(read_tree(os.fsdecode(root)))
        archive, out = Path(place) / "a.tar.gz", Path(place) / "out"
        archive.write_bytes(stored)
        out.mkdir()
        subprocess.run(["gzip", "-t", archive], check=True, timeout=60)
        subprocess.run(["tar", "-xpzf", archive, "-C", out], check=True, timeout=60)
        try:
            assert look(os.fsencode(out), seconds=True) == look(root, seconds=True)
        finally:
            subprocess.run(["chmod", "-R", "u+rwX", out], check=True, timeout=60)


@given(TREES)
@settings(deadline=None, max_examples=15)
def test_the_bytes_do_not_depend_on_threads(spec):
    """One thread and two write the same archive and the same index."""
    with built(spec) as root, SMALL:
        made = []
        for threads in (1, 2):
            with patch.object(gzip, "THREADS", threads):
                archiver = Archiver(read_tree(os.fsdecode(root)))
                made.append((b"".join(archiver), b"".join(archiver.index())))
    assert made[0] == made[1]


def test_a_file_larger_than_a_member_spans_several(tmp_path):
    """20 MB lie in three members; the file behind it is in another, and each comes back alone."""
    content = hashlib.shake_128(b"x").digest(20_000_000)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "next").write_bytes(b"small")
    stored, rows, _ = archived(read_tree(str(tmp_path)))
    _, large, behind = rows
    members = list(archive_reader._members([stored]))
    assert [len(member.plain) for member in members[1:3]] == [gzip.MEMBER, gzip.MEMBER]
    assert large.length == members[3].end - members[1].begin
    assert behind.offset == members[4].begin == members[3].end
    assert one(stored, large) == content
    assert one(stored, behind) == b"small"
    assert list(archive_reader.read([stored])) == in_seconds(rows)


def test_an_empty_tree_is_an_archive():
    """Nothing but an end is still an archive that reads."""
    stored, rows, _ = archived(of())
    assert (rows, list(archive_reader.read([stored]))) == ([], [])


def test_a_link_has_no_content_of_its_own():
    """Asking for a link's content is refused rather than answered with nothing."""
    stored, rows, _ = archived(of(TreeItem(b"l", "symlink", 0o777, 0, 0, 0, target=b"x")))
    with pytest.raises(RefusedError, match="symlink"):
        one(stored, rows[0])


def test_one_file_from_changed_bytes_is_damage():
    """A ranged read that gives other content, or too little, raises."""
    stored, rows, _ = archived(of(replace(FILE, size=3, chunks=lambda: iter([b"abc"]))))
    for row in (replace(rows[0], sha256="0" * 64), replace(rows[0], size=10**6)):
        with pytest.raises(DamagedError, match="'f' is not what was archived"):
            one(stored, row)


def meddling(root, name, meddle, *, after=0):
    """The tree at `root`, whose file `name` is meddled with after so many chunks of it were read."""
    tree = read_tree(str(root))

    def items():
        for item in tree.items:
            yield replace(item, chunks=lambda item=item: chunks(item)) if item.path == name else item

    def chunks(item):
        for number, chunk in enumerate(item.chunks()):
            if number == after:
                meddle()
            yield chunk

    def early(item):
        meddle()
        yield from item.chunks()

    if after == 0:
        chunks = early
    return Tree(items(), tree.problems)


@pytest.fixture
def root(tmp_path):
    """A folder with a small file, one of three members, and another behind them."""
    content = hashlib.shake_128(b"y").digest(20_000)
    build(
        os.fsencode(tmp_path),
        {
            b"a": ("file", b"small", 0o600, 0),
            b"b": ("file", content, 0o600, 0),
            b"c": ("file", b"behind", 0o600, 0),
        },
    )
    with SMALL, patch("bookreader_backup_assets.runners.tree.CHUNK", 1000):
        yield tmp_path


def captured(tree):
    """Archive `tree`, check that it reads as its index says, and return contents by path."""
    stored, rows, _ = archived(tree)
    assert list(archive_reader.read([stored])) == in_seconds(rows)
    return {row.path: one(stored, row) for row in rows if row.kind == "file"}


@pytest.mark.parametrize("name", [b"a", b"b"])
def test_a_file_that_vanishes_is_named_and_left_out(root, name):
    """A file deleted between listing and reading leaves no trace but its name."""
    tree = meddling(root, name, (root / os.fsdecode(name)).unlink)
    assert captured(tree).keys() == {b"a", b"b", b"c"} - {name}
    assert tree.problems == [Problem(VANISHED, os.fsdecode(name))]


@pytest.mark.parametrize("name", [b"a", b"b"])
def test_a_file_written_to_while_it_is_read_is_kept_and_named(root, name):
    """Same size, other content: kept as read, and named."""
    path = root / os.fsdecode(name)
    size = path.stat().st_size
    tree = meddling(root, name, lambda: path.write_bytes(b"z" * size))
    assert captured(tree)[name] == b"z" * size
    assert tree.problems == [Problem("changed while being read", os.fsdecode(name))]


def test_a_small_file_that_grows_or_shrinks_is_kept_as_read(root):
    """The header has the size that was read, so neither needs to be cut."""
    for content in (b"longer than before", b""):
        tree = meddling(root, b"a", lambda content=content: (root / "a").write_bytes(content))
        assert captured(tree)[b"a"] == content
        assert tree.problems == [Problem("changed while being read", "a")]


def test_a_small_file_that_grows_past_all_bounds_is_cut(root):
    """A file that outgrows two members while it is read is cut at its listed size, and named."""
    tree = meddling(root, b"a", lambda: (root / "a").write_bytes(b"small" * 10_000))
    assert captured(tree)[b"a"] == b"small"
    assert tree.problems == [Problem("changed while being read: it grew, and is cut at 5 bytes", "a")]


def test_a_large_file_that_grows_is_cut_and_named(root):
    """Its header is written already: it keeps the bytes it was listed with."""
    before = (root / "b").read_bytes()
    tree = meddling(root, b"b", lambda: (root / "b").write_bytes(before + b"more"), after=3)
    assert captured(tree)[b"b"] == before
    assert tree.problems == [Problem("changed while being read: it grew, and is cut at 20000 bytes", "b")]


def test_a_large_file_that_shrinks_is_filled_with_zeros_and_named(root):
    """Its header is written already: the rest is zeros, and what follows is unharmed."""
    before = (root / "b").read_bytes()
    tree = meddling(root, b"b", lambda: os.truncate(root / "b", 12_345), after=3)
    contents = captured(tree)
    assert contents[b"b"] == before[:12_345] + bytes(20_000 - 12_345)
    assert contents[b"c"] == b"behind"
    assert [problem.where for problem in tree.problems] == ["b", "b"]
    assert "last 7655 bytes are zeros" in tree.problems[1].what


def test_a_large_file_that_turns_unreadable_half_way_is_filled_and_named(root):
    """A disk that fails in the middle of a file costs that file, not the archive."""

    def fail():
        raise SourceError("cannot be read: Input/output error")

    tree = meddling(root, b"b", fail, after=3)
    assert captured(tree)[b"c"] == b"behind"
    assert tree.problems == [
        Problem("cannot be read: Input/output error, and its last 17000 bytes are zeros", "b")
    ]


def test_a_hard_link_takes_over_when_the_earlier_path_is_gone(tmp_path):
    """If the first name of a file vanishes, its second carries the content, and a third too."""
    build(
        os.fsencode(tmp_path),
        {
            b"a": ("file", b"shared", 0o600, 0),
            b"b": ("hardlink", 0),
            b"c": ("hardlink", 0),
        },
    )
    tree = meddling(tmp_path, b"a", (tmp_path / "a").unlink)
    assert captured(tree) == {b"b": b"shared", b"c": b"shared"}
    assert tree.problems[0] == Problem(VANISHED, "a")


def test_an_error_that_is_not_the_files_own_ends_the_archive():
    """A source that breaks down is raised, so that nobody keeps half an archive."""

    def broken():
        yield FILE
        raise SourceError("the container has gone")

    with pytest.raises(SourceError, match="the container has gone"):
        b"".join(Archiver(Tree(broken())))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda stored: b"", "cut short"),
        (lambda stored: stored[:-1], "cut short"),
        (lambda stored: stored[:4], "cut short"),
        (lambda stored: stored + stored, "goes on"),
        (lambda stored: stored + gzip.member(b""), "goes on"),
        (lambda stored: stored + b"\0", "damaged|cut short"),
        (lambda stored: gzip.member(bytes(512)), "middle of a header"),
        (lambda stored: gzip.member(b"x" * 512), "header is damaged"),
        (lambda stored: gzip.member(b""), "cut short"),
        (lambda stored: b"x" * 100, "damaged"),
    ],
)
def test_what_is_no_whole_archive_is_damage(damage, what):
    """Cut short, continued, or something else: reading it raises."""
    stored, _, _ = archived(of(replace(FILE, size=3, chunks=lambda: iter([b"abc"]))))
    with pytest.raises(DamagedError, match=what):
        list(archive_reader.read([damage(stored)]))
