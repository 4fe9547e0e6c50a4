"""How the files of a folder are held against those of a commit."""

import hashlib
import os

from bookreader_backup_assets.components.code_tree import Tracked, differences, in_the_way


def tracked(path, content, mode="100644", kind="sha1"):
    """Return a file as a commit has it."""
    named = hashlib.new(kind, b"blob %d\0" % len(content) + content).hexdigest()
    return Tracked(path, mode, named, len(content))


def different(root, *files):
    """Return what differs, by path."""
    return {file.path: said for file, said in differences(files, root)}


def test_the_same_files_do_not_differ(tmp_path):
    """Contents, links and programs, in both kinds of repositories."""
    (tmp_path / "a").write_bytes(b"a\0b")
    (tmp_path / "run").write_bytes(b"")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("no such file")
    for kind in ("sha1", "sha256"):
        files = (
            tracked("a", b"a\0b", kind=kind),
            tracked("run", b"", "100755", kind=kind),
            tracked("link", b"no such file", "120000", kind=kind),
        )
        assert different(tmp_path, *files) == {}


def test_every_difference_is_named(tmp_path):
    """Another content of the same size and of another, mode, target and kind; gone; and behind a link."""
    (tmp_path / "same size").write_bytes(b"abd")
    (tmp_path / "longer").write_bytes(b"abcd")
    (tmp_path / "mode").write_bytes(b"abc")
    (tmp_path / "mode").chmod(0o755)
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "no link").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "away").symlink_to(tmp_path / "folder")
    (tmp_path / "folder" / "x").write_bytes(b"abc")
    names = ("same size", "longer", "mode", "folder", "pipe", "gone", "no link/x", "away/x")
    links = (tracked("link", b"abc", "120000"), tracked("no link", b"abc", "120000"))
    assert different(tmp_path, *(tracked(name, b"abc") for name in names), *links) == {
        "same size": "has other content",
        "longer": "has other content",
        "mode": "has another mode",
        "folder": "is something else",
        "pipe": "is something else",
        "gone": "is not there",
        "no link/x": "is not there",
        "away/x": "lies behind a link",
        "link": "leads elsewhere",
        "no link": "is something else",
    }


def test_line_ends_are_no_difference(tmp_path):
    """A text that git was told to write with CR LF is the committed one; one with another word is not."""
    (tmp_path / "a").write_bytes(b"one\r\ntwo\r\n")
    assert different(tmp_path, tracked("a", b"one\ntwo\n")) == {}
    assert different(tmp_path, tracked("a", b"one\ntow\n")) == {"a": "has other content"}


def test_nothing_is_put_through_a_link_or_over_a_file(tmp_path):
    """A path is in the way if it is there, or if what should be a folder above it is none."""
    (tmp_path / "there").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "away").symlink_to(tmp_path / "folder")
    (tmp_path / "dead").symlink_to("nowhere")
    for path in ("there", "there/x", "away/x", "away/x/y", "dead", "dead/x", "folder"):
        assert in_the_way(path, tmp_path), path
    for path in ("new", "folder/x", "new/x/y"):
        assert not in_the_way(path, tmp_path), path
