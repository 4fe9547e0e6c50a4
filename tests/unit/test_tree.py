"""A folder read as a tree."""

import os
import socket

import pytest
from hypothesis import given, settings

from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import SourceAbsentError, SourceError
from bookreader_backup_assets.runners.tree import LEFT_OUT, VANISHED, read_tree
from tests.fixtures.trees import TREES, as_nobody, build, built, look


def items(tree):
    """Every item with its content, read while it is its turn."""
    return [(item, b"".join(item.chunks())) for item in tree.items]


@given(TREES)
@settings(deadline=None, max_examples=40)
def test_everything_is_read(spec):
    """Every path comes with its mode, owner, nanoseconds and content, and nothing is complained about."""
    with built(spec) as root:
        tree = read_tree(os.fsdecode(root))
        found = {item.path: (item, content) for item, content in items(tree)}
        expected = look(root)
        assert tree.problems == []
        assert found.keys() == expected.keys()
        for path, (mode, uid, gid, time, content) in expected.items():
            item, read = found[path]
            assert (item.mode, item.uid, item.gid, item.mtime_ns) == (mode & 0o7777, uid, gid, time)
            if item.kind in {"file", "hardlink"}:
                assert read == content[1]
            if item.kind == "symlink":
                assert item.target == content


@given(TREES)
@settings(deadline=None, max_examples=20)
def test_the_order_is_one_that_any_tar_can_extract(spec):
    """A folder comes before what is in it, that follows in one piece, and hard links name earlier files.

    GNU tar closes a folder, read-only as it may be, when something from outside of it follows.
    """
    with built(spec) as root:
        kinds, open_folders, closed = {}, [b""], set()
        for item, _ in items(read_tree(os.fsdecode(root))):
            above = os.path.dirname(item.path)
            while open_folders[-1] != above:
                closed.add(open_folders.pop())
            assert above not in closed
            if item.kind == "folder" and item.path != b".":
                open_folders.append(item.path)
            if item.kind == "hardlink":
                assert kinds[item.target] == "file"
            kinds[item.path] = item.kind


def test_a_path_longer_than_the_system_takes(tmp_path):
    """Twenty folders of 255 bytes are read, though no call takes a path of 5,000."""
    names, opened = [b"d" * 255] * 20, os.open(tmp_path, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=opened)
        above, opened = opened, os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(above)
    descriptor = os.open(b"deep", os.O_WRONLY | os.O_CREAT, dir_fd=opened)
    os.write(descriptor, b"found")
    os.close(descriptor)
    os.close(opened)
    tree = read_tree(str(tmp_path))
    item, content = items(tree)[-1]
    assert (item.path, content, tree.problems) == (b"/".join([*names, b"deep"]), b"found", [])


def test_sockets_and_pipes_are_named_and_left_out(tmp_path):
    """What has no content is named, and does not block."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        tree = read_tree(str(tmp_path))
        assert [item.path for item in tree.items] == [b"."]
    assert tree.problems == [Problem(LEFT_OUT, "pipe"), Problem(LEFT_OUT, "socket")]


def test_a_file_replaced_by_a_pipe_or_a_link_is_not_followed(tmp_path):
    """Whoever swaps a file for something else between listing and reading gains nothing."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of another folder")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"2")
    for item in read_tree(str(folder)).items:
        if item.kind == "file":
            os.unlink(folder / os.fsdecode(item.path))
            if item.path == b"a":
                os.mkfifo(folder / "a")
            else:
                os.symlink(secret, folder / "b")
            with pytest.raises(SourceError):
                list(item.chunks())


def test_a_folder_swapped_for_a_link_is_not_followed(tmp_path):
    """A folder that becomes a link after it was listed is named, and its target is not read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "file").touch()
    tree = read_tree(str(root))
    found = []
    for item in tree.items:
        found.append(item.path)
        if item.path == b"file":
            (root / "a").rmdir()
            (root / "a").symlink_to(outside)
    assert found == [b".", b"file"]
    assert tree.problems == [Problem(VANISHED, "a")]


def test_a_file_that_vanishes_after_it_was_listed(tmp_path):
    """Its content raises, saying so, and the rest of the tree is read."""
    build(os.fsencode(tmp_path), {b"a": ("file", b"1", 0o600, 0), b"b": ("file", b"2", 0o600, 0)})
    tree = read_tree(str(tmp_path))
    read = []
    for item in tree.items:
        if item.path == b"a":
            (tmp_path / "a").unlink()
            with pytest.raises(SourceError, match=VANISHED):
                list(item.chunks())
        else:
            read += item.chunks()
    assert read == [b"2"]


def test_a_folder_that_vanishes_is_named(tmp_path):
    """A folder removed before its turn is named as vanished."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "file").touch()
    tree = read_tree(str(tmp_path))
    for item in tree.items:
        if item.path == b"file":
            (tmp_path / "gone").rmdir()
    assert tree.problems == [Problem(VANISHED, "gone")]


def test_holes_in_permissions_are_named():
    """A folder that may not be listed is named, an unreadable file raises, and the rest is read."""
    spec = {
        b"closed": ("folder", {b"x": ("file", b"", 0o644, 0)}, 0o000, 0),
        b"private": ("file", b"p", 0o000, 0),
        b"public": ("file", b"!", 0o644, 0),
    }
    with built(spec) as root:
        os.chmod(root, 0o755)
        os.chmod(os.path.join(root, b"closed"), 0)
        os.chmod(os.path.join(root, b"private"), 0)
        with as_nobody():
            tree = read_tree(os.fsdecode(root))
            for item in tree.items:
                if item.path == b"private":
                    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
                        list(item.chunks())
                if item.path == b"public":
                    assert list(item.chunks()) == [b"!"]
    assert tree.problems == [Problem("cannot be read: Permission denied", "closed")]


def test_a_root_that_is_absent_or_closed_is_refused(tmp_path):
    """An empty tree is never made of a folder that is not there, is a file, or may not be listed."""
    (tmp_path / "file").touch()
    for path in ("absent", "file"):
        with pytest.raises(SourceAbsentError, match="not a folder here"):
            read_tree(str(tmp_path / path))
    with built({}) as root:
        os.chmod(root, 0)
        with as_nobody(), pytest.raises(SourceError, match="cannot be read: Permission denied"):
            read_tree(os.fsdecode(root))
