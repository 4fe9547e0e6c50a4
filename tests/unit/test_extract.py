"""Extraction: what was archived comes back as it was, and nothing leaves the folder."""

import hashlib
import os
import tempfile
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings

from bookreader_backup_assets.codecs import archive_reader, extract, gzip, index
from bookreader_backup_assets.codecs.archive import Archiver
from bookreader_backup_assets.codecs.extract import Extractor, leads_out
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError, SpaceError
from bookreader_backup_assets.runners.base import Tree, TreeItem
from bookreader_backup_assets.runners.tree import read_tree
from tests.fixtures.trees import TREES, as_nobody, build, built, look

SMALL = patch.object(gzip, "MEMBER", 8192)  # so that a test's files fill, and span, members


def archived(tree):
    """The bytes of an archive of `tree`, and its rows."""
    archiver = Archiver(tree)
    stored = b"".join(archiver)
    return stored, list(index.read(archiver.index()))


def of(*items):
    """A tree of these items, below a folder."""
    return Tree(iter([TreeItem(b".", "folder", 0o755, 0, 0, 0), *items]))


def file(path, content=b"content"):
    """A file to be archived."""
    return TreeItem(path, "file", 0o644, 0, 0, 10**18, len(content), b"", lambda: iter([content]))


def folder(path):
    """A folder to be archived."""
    return TreeItem(path, "folder", 0o755, 0, 0, 10**18)


def link(path, target, kind="symlink"):
    """A link to be archived."""
    return TreeItem(path, kind, 0o777, 0, 0, 10**18, target=target)


def put(stored, rows, target, **options):
    """Extract an archive into `target`, and return the extractor."""
    wanted = options.pop("wanted", extract.everything)
    with Extractor(os.fsencode(target), **options) as into:
        extract.extract([stored], rows, into, wanted)
    return into


def below(found):
    """What was found, but for the folder itself, whose own attributes are its owner's business."""
    return {path: what for path, what in found.items() if path != b"."}


@pytest.fixture
def target(tmp_path):
    """An empty folder inside another, to see what leaves it."""
    (tmp_path / "outer" / "target").mkdir(parents=True)
    return tmp_path / "outer" / "target"


@given(TREES)
@settings(deadline=None, max_examples=60)
def test_what_was_archived_comes_back_as_it_was(spec):
    """Kind, mode, owner, nanoseconds, content, targets and hard links, whatever the names are."""
    with built(spec) as root, SMALL, built({}) as out:
        stored, rows = archived(read_tree(os.fsdecode(root)))
        put(stored, rows, out, outside_links=True)
        assert below(look(out)) == below(look(root))


@given(TREES)
@settings(deadline=None, max_examples=20)
def test_extraction_goes_on_where_it_was_ended(spec):
    """Made again over any part of it, it ends in the same tree; whole files are not written again."""
    with built(spec) as root, SMALL, built({}) as out:
        stored, rows = archived(read_tree(os.fsdecode(root)))
        for cut in {len(stored) // 3, len(stored) // 2}:
            with pytest.raises(DamagedError):
                put(stored[:cut], rows, out, outside_links=True)
        put(stored, rows, out, outside_links=True)
        assert put(stored, rows, out, outside_links=True).written == 0
        assert below(look(out)) == below(look(root))


def test_a_half_written_file_is_written_again(target):
    """One that has its size but not its time yet was being written when the machine went down."""
    stored, rows = archived(of(file(b"a", b"whole content")))
    (target / "a").write_bytes(b"half\0\0\0\0\0\0\0\0\0")
    assert put(stored, rows, target).written == 13
    assert (target / "a").read_bytes() == b"whole content"


@pytest.mark.parametrize(
    "path", [b"../out", b"a/../../out", b"/tmp/bookreader-out", b"a//b", b"./a", b"", b".."]
)
@pytest.mark.parametrize(
    "make", [file, folder, lambda path: link(path, b"a"), lambda p: link(p, b"a", "hardlink")]
)
def test_no_path_leaves_the_target(target, path, make):
    """A path with `..`, from the root, or with empty names is refused, of whatever kind it is."""
    stored, rows = archived(of(folder(b"a"), make(path)))
    with pytest.raises(DamagedError, match=r"leave its folder|twice|has '' where"):
        put(stored, rows, target)
    assert os.listdir(target.parent) == ["target"]
    assert not os.path.exists("/tmp/bookreader-out")


@pytest.mark.parametrize("outside", [True, False])
def test_no_path_goes_through_a_link(target, tmp_path, outside):
    """A link out, and then a file, a folder or a hard link through it: nothing is written out there."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("secret")
    for later in (file(b"way/out"), folder(b"way/out"), link(b"copy", b"way/secret", "hardlink")):
        stored, rows = archived(of(link(b"way", os.fsencode(victim)), later))
        with pytest.raises(DamagedError):
            put(stored, rows, target, outside_links=outside)
        assert [entry.name for entry in victim.iterdir()] == ["secret"]
        assert not (target / "copy").exists()
    assert (victim / "secret").read_text() == "secret"


def test_no_file_is_written_through_a_link_of_its_own_name(target, tmp_path):
    """A link, and then a file of the same path: the link is replaced, what it points to is untouched."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    stored, rows = archived(of(link(b"a", os.fsencode(victim)), file(b"a")))
    put(stored, rows, target, outside_links=True)
    assert victim.read_text() == "precious"
    assert not (target / "a").is_symlink()


def test_a_hard_link_to_a_symlink_is_no_way_out(target, tmp_path):
    """It would give whatever writes to it a way to the file outside."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    stored, rows = archived(of(link(b"a", os.fsencode(victim)), link(b"b", b"a", "hardlink")))
    with pytest.raises(DamagedError, match="what is no file"):
        put(stored, rows, target, outside_links=True)
    assert os.lstat(victim).st_nlink == 1


def test_devices_are_no_part_of_the_format(target):
    """An archive with a device, made by changing a header and its checksum, is damaged."""
    stored, rows = archived(of(file(b"null", b"")))
    plain = bytearray(b"".join(gzip.decode([stored])))
    header = plain[512:1024]
    header[156:157] = b"3"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 0x20)
    plain[512:1024] = header
    with pytest.raises(DamagedError, match="unknown type b'3'"):
        put(gzip.member(bytes(plain)), rows, target)
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    ("path", "to", "out"),
    [
        (b"l", b"a/b", False),
        (b"l", b"..", True),
        (b"a/b/l", b"../../x", False),
        (b"a/b/l", b"../../../x", True),
        (b"a/l", b"./.././x", False),
        (b"l", b"/etc/passwd", True),
        (b"l", b"a/../b", True),  # `a` may be a link itself
        (b"l", b"..a", False),
        (b"a/l", b"/app/storage/x", False),
        (b"a/l", b"/app/storage", False),
        (b"a/l", b"/app/storage/../x", True),
        (b"a/l", b"/app/storage2/x", True),
    ],
)
def test_a_link_leads_out_if_it_may(path, to, out):
    """By its own words, from where it lies; what says the folder's own path stays inside."""
    row = archived(of(link(path, to)))[1][1]
    assert leads_out(row, b"/app/storage") is out


def test_links_that_lead_out_are_left_out_and_named(target):
    """The others are made; with `outside_links` all are."""
    stored, rows = archived(
        of(file(b"a"), link(b"in", b"a"), link(b"out", b"../../x"), link(b"root", b"/etc"))
    )
    assert put(stored, rows, target).left_out == [b"out", b"root"]
    assert sorted(os.listdir(target)) == ["a", "in"]
    assert put(stored, rows, target, outside_links=True).left_out == []
    assert sorted(os.listdir(target)) == ["a", "in", "out", "root"]


def test_the_archive_has_to_be_what_its_index_says(target):
    """A row that is missing, more, or different in anything is found at once."""
    stored, rows = archived(of(folder(b"d"), file(b"a"), file(b"b", b"other"), link(b"l", b"a")))
    wrong = [
        rows[:-1],
        [*rows, rows[-1]],
        [rows[0], rows[2], rows[1], *rows[3:]],
        *(
            [*rows[:2], replace(rows[2], **{name: value}), *rows[3:]]
            for name, value in {
                "sha256": hashlib.sha256(b"x").hexdigest(),
                "size": 9,
                "mode": 0o7777,
                "uid": 9,
            }.items()
        ),
        [*rows[:2], replace(rows[2], kind="symlink"), *rows[3:]],
        [*rows[:4], replace(rows[4], target=b"b")],
    ]
    for changed in wrong:
        with pytest.raises(DamagedError, match="index"):
            put(stored, changed, target)
    with pytest.raises(RefusedError, match="another archive"):
        put(stored, [replace(row, archive="older") for row in rows], target)
    put(stored, rows, target)


def test_only_what_is_wanted_is_put(target):
    """All of the archive is read, and the rest leaves no trace."""
    stored, rows = archived(of(folder(b"d"), file(b"d/a"), file(b"d/b"), link(b"l", b"d")))
    put(stored, rows, target, wanted=lambda row: row.path in {b"d", b"d/b"})
    assert set(look(os.fsencode(target))) == {b".", b"d", b"d/b"}


def test_as_an_ordinary_user_all_but_the_owners_comes_back(tmp_path):
    """Read-only folders are filled before they become so, also when it is made again."""
    spec = {b"ro": ("folder", {b"a": ("file", b"x", 0o400, 5), b"in": ("folder", {}, 0o500, 7)}, 0o555, 6)}
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        root, out = os.path.join(place, "root"), os.path.join(place, "out")
        os.mkdir(root)
        build(os.fsencode(root), spec)
        os.chmod(root + "/ro", 0o555)
        stored, rows = archived(read_tree(root))
        with as_nobody():
            os.mkdir(out)
            for _ in range(2):
                put(stored, rows, out)
        found, expected = look(os.fsencode(out)), look(os.fsencode(root))
        assert {p: (m, *rest) for p, (m, _, _, *rest) in below(found).items()} == {
            p: (m, *rest) for p, (m, _, _, *rest) in below(expected).items()
        }


def test_a_folder_that_does_not_take_it_is_named(target, monkeypatch):
    """No room is its own error, with what to do; other refusals name the path."""
    stored, rows = archived(of(file(b"a")))
    real = os.write

    def full(descriptor, data):
        if len(data) == 7:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(extract.os, "write", full)
        with pytest.raises(SpaceError, match="no room for 'a'"):
            put(stored, rows, target)
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        with as_nobody(), pytest.raises(SourceError, match="'a' cannot be written"):
            put(stored, rows, place)


@given(TREES)
@settings(deadline=None, max_examples=40)
def test_some_files_are_read_by_their_members_alone(spec):
    """Every other file comes back equal, in one reading per run of members, whatever lies between."""
    with built(spec) as root, SMALL:
        stored, rows = archived(read_tree(os.fsdecode(root)))
        expected, files = look(root), [row for row in rows if row.kind == "file"]
        for chosen in (files, files[::2], files[1::3], files[-1:]):
            ranges = []

            def opened(at, length, ranges=ranges):
                ranges.append((at, length))
                return [stored[at : at + length]]

            found = {row.path: b"".join(c) for row, c in archive_reader.read_some(opened, chosen)}
            assert found == {row.path: expected[row.path][4][1] for row in chosen}
            assert len(set(ranges)) == len(ranges)


def test_a_member_that_changed_is_found_when_one_file_is_read():
    """The content is compared with its row, whatever else is wrong."""
    stored, rows = archived(of(file(b"a", b"first"), file(b"b", b"other")))
    rows = [row for row in rows if row.kind == "file"]
    for changed in (
        replace(rows[0], sha256="0" * 64),
        replace(rows[0], size=10**6),
        replace(rows[0], offset=10**6),
    ):
        reading = archive_reader.read_some(lambda at, n: [stored[at : at + n]], [changed])
        with pytest.raises(DamagedError):
            list(next(reading)[1])
