"""Storage restored beside the live folder, compared, swapped in, and undone."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings

from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.components import staging
from bookreader_backup_assets.components.storage_restore import StorageRestoration
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.streams import quiet
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.stored_trees import captured, carry_out, has_begun, prepare, seen
from tests.fixtures.trees import TREES, as_nobody, build, built

SMALL = patch.object(gzip, "MEMBER", 8192)
SPEC = {
    b"books": (
        "folder",
        {
            b"caf\xe9.epub": ("file", os.urandom(9000), 0o640, 10**18 + 1),
            "книга.fb2".encode(): ("file", b"x" * 30_000, 0o644, 10**18 + 3),
            b"same": ("hardlink", 0),
            b"deep": ("folder", {b"a\nb": ("file", b"n", 0o600, 11)}, 0o2750, 12),
        },
        0o755,
        7,
    ),
    b"cover.png": ("file", b"png" * 2000, 0o600, 10**18 + 2),
    b"empty": ("folder", {}, 0o700, 5),
    b"latest": ("symlink", b"books/same"),
    b"none": ("file", b"", 0o400, 0),
    b"read only": ("folder", {b"f": ("file", b"f", 0o444, 3)}, 0o555, 4),
}


@pytest.fixture
def live(tmp_path):
    """A folder of every kind of path."""
    root = tmp_path / "live"
    root.mkdir()
    build(os.fsencode(root), SPEC)
    os.chmod(root, 0o751)
    os.utime(root, ns=(1, 10**18 + 123_456_789))
    return root


@pytest.fixture
def kept(live, tmp_path):
    """Its artifact."""
    with SMALL:
        return captured(os.fsencode(live), LocalVault(tmp_path / "vault"))


@pytest.fixture(params=["whole", "in place"])
def in_place(request):
    """Both ways to restore."""
    return request.param == "in place"


def restoration(live, kept, **options):
    """A restoration of the live folder."""
    return StorageRestoration(LocalRunner(), str(live), kept, Options(**options))


def spoil(live):
    """Do everything to the folder that a bad day does."""
    root = os.fsencode(live)
    overwritten = os.path.join(root, b"cover.png")
    status = os.stat(overwritten)
    with open(overwritten, "r+b") as file:  # as a bad disk does: size and time are what they were
        file.write(b"JPG")
    os.utime(overwritten, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.unlink(os.path.join(root, b"books/same"))
    build(os.path.join(root, b"books"), {b"same": ("file", b"no twin", 0o600, 1)})
    shutil.rmtree(os.path.join(root, b"books/deep"))
    os.unlink(os.path.join(root, b"latest"))
    build(root, {b"latest": ("folder", {b"x": ("file", b"x", 0o600, 1)}, 0o700, 1)})
    os.rmdir(os.path.join(root, b"empty"))
    build(root, {b"empty": ("symlink", b"books"), b"extra": ("folder", {b"y": ("symlink", b"z")}, 0o500, 1)})
    os.chmod(os.path.join(root, b"none"), 0o777)
    os.utime(os.path.join(root, b"none"), ns=(5, 5))
    os.chmod(os.path.join(root, b"read only"), 0o700)
    if os.geteuid() == 0:
        os.chown(os.path.join(root, b"read only", b"f"), 1234, 4321)
    os.mkfifo(os.path.join(root, b"read only", b"pipe"))
    os.chmod(root, 0o700)


def without_pipes(found):
    """What was found, but for what no capture keeps."""
    return {path: what for path, what in found.items() if not path.endswith(b"pipe")}


def looked(root):
    """`seen`, where a pipe is not opened."""
    pipe = os.path.join(os.fsencode(root), b"read only", b"pipe")
    if not os.path.lexists(pipe):
        return seen(root)
    os.rename(pipe, os.path.join(os.path.dirname(os.fsencode(root)), b"pipe"))
    found = seen(root)
    os.rename(os.path.join(os.path.dirname(os.fsencode(root)), b"pipe"), pipe)
    found[b"read only/pipe"] = "a pipe"
    found[b"read only"] = (*found[b"read only"][:3], "moved by this test", None)
    return found


def test_a_spoiled_folder_comes_back_whole_and_undo_brings_the_spoiled_one(live, kept, in_place):
    """Content, links, owners, modes and nanoseconds are those captured, and nothing is left besides."""
    captured_tree = seen(live)
    spoil(live)
    spoiled = looked(live)
    made = restoration(live, kept, in_place=in_place)
    state = carry_out(made)
    assert seen(live) == captured_tree
    made.undo(state, None)
    found = looked(live)
    assert found == spoiled
    made.undo(state, None)
    assert looked(live) == spoiled
    made.accept(state)
    made.accept(state)
    assert looked(live) == spoiled
    assert not any(staging.is_ours(os.fsencode(p.name)) for p in [*live.iterdir(), *live.parent.iterdir()])


@given(TREES, TREES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_over_any_other(spec, other):
    """Whatever was captured, and whatever is there now: both ways end in the one, and undo in the other."""
    with built(spec) as source, tempfile.TemporaryDirectory() as place, SMALL:
        kept = captured(source, LocalVault(Path(place)))
        expected = seen(source)
        for in_place in (False, True):
            with built(other) as live:
                before = seen(live)
                made = restoration(os.fsdecode(live), kept, in_place=in_place, outside_links=True)
                state = carry_out(made)
                assert seen(live) == expected
                made.undo(state, None)
                assert seen(live) == before
                made.abandon(state)


@given(TREES)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_an_equal_folder_is_not_written_to_in_place(spec):
    """Nothing is staged and nothing moved where everything is as it was captured."""
    with built(spec) as live, tempfile.TemporaryDirectory() as place, SMALL:
        kept = captured(live, LocalVault(Path(place)))
        before = seen(live)
        made = restoration(os.fsdecode(live), kept, in_place=True, outside_links=True)
        state = carry_out(made)
        with open(os.path.join(os.fsencode(state["beside"]), b"moves.json"), "rb") as file:
            plan = json.load(file)
        assert plan["moves"] == []
        assert plan["touches"] == []
        assert seen(live) == before
        made.abandon(state)


def test_in_place_stages_only_what_differs(live, kept):
    """Of a large folder with one bad file, one file is written."""
    big = live / "books" / "big"
    big.write_bytes(os.urandom(300_000))
    kept = captured(os.fsencode(live), LocalVault(live.parent / "vault2"))
    (live / "cover.png").write_bytes(b"bad")
    made = restoration(live, kept, in_place=True)
    assert made.preview().rooms[0].needed < 20_000
    inode = os.stat(big).st_ino
    state = made.begin("x")
    made.beside(state, quiet)
    new = os.path.join(os.fsencode(state["beside"]), b"new")
    assert [name for _, _, names in os.walk(new) for name in names] == [b"cover.png"]
    made.compare(state)
    made.swap(state)
    assert made.confirm(state).passed
    assert os.stat(big).st_ino == inode


@pytest.mark.parametrize("gone", ["what is in it", "the folder"])
def test_deleted_storage_comes_back(live, kept, gone, in_place):
    """Everything deleted, or the folder too: restored, and undone to what there was, nothing."""
    captured_tree = seen(live)
    shutil.rmtree(live)
    if gone == "what is in it":
        live.mkdir()
    before = seen(live)
    made = restoration(live, kept, in_place=in_place)
    assert not made.preview().present
    state = carry_out(made)
    assert seen(live) == captured_tree
    made.undo(state, None)
    assert seen(live) == before
    assert live.exists() == (gone == "what is in it")


def test_a_link_to_the_folder_is_followed(live, kept, tmp_path):
    """Storage that is a link to another disk stays a link, and what it points to is restored."""
    captured_tree = seen(live)
    (tmp_path / "link").symlink_to(live)
    (live / "cover.png").unlink()
    state = carry_out(restoration(tmp_path / "link", kept))
    assert os.readlink(tmp_path / "link") == str(live)
    assert seen(live) == captured_tree
    assert state["folder"] == str(live)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_point_stays_one_and_captures_leave_out_what_is_kept_in_it(live, kept, tmp_path, kind):
    """Staged inside; the mount is not moved; a capture made meanwhile has the files and nothing of ours."""
    captured_tree = seen(live)
    point = tmp_path / "point"
    point.mkdir()
    argv = ["-t", "tmpfs", "none"] if kind == "tmpfs" else ["--bind", str(live)]
    subprocess.run(["mount", *argv, point], check=True, timeout=20)
    try:
        build(os.fsencode(point), {b"before": ("file", b"before", 0o600, 1)})
        before = seen(point)
        made = restoration(point, kept)
        state = carry_out(made)
        assert os.path.dirname(state["beside"]) == str(point)
        assert seen(point) == captured_tree
        os.link(os.fsencode(point) + b"/cover.png", os.fsencode(state["beside"]) + b"/old/twin")
        again = captured(os.fsencode(point), LocalVault(tmp_path / "again"))
        os.unlink(os.fsencode(state["beside"]) + b"/old/twin")
        out = tmp_path / "out"
        carry_out(restoration(point, again, into=str(out)))
        assert seen(out) == captured_tree
        made.undo(state, None)
        assert seen(point) == before
        made.accept(state)
        assert os.listdir(point)
    finally:
        subprocess.run(["umount", point], check=True, timeout=20)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_something_mounted_below_is_refused(live, kept):
    """It could not be moved: better said before than found half-way."""
    subprocess.run(["mount", "-t", "tmpfs", "none", live / "empty"], check=True, timeout=20)
    try:
        with pytest.raises(RefusedError, match="mounted below"):
            restoration(live, kept).preview()
    finally:
        subprocess.run(["umount", live / "empty"], check=True, timeout=20)


def test_into_a_folder_touches_nothing_live(live, kept, tmp_path):
    """A new folder holds what was captured; one that is not empty is refused."""
    captured_tree = seen(live)
    (live / "cover.png").unlink()
    spoiled = seen(live)
    out = tmp_path / "new" / "out"
    made = restoration(live, kept, into=str(out))
    assert (made.target, made.quiet) == (str(out), False)
    state = carry_out(made)
    assert seen(out) == captured_tree
    assert seen(live) == spoiled
    with pytest.raises(RefusedError, match="is not empty"):
        restoration(live, kept, into=str(out)).preview()
    made.undo(state, None)
    assert not out.exists()
    with pytest.raises(RefusedError, match="nothing in it differs"):
        restoration(live, kept, into=str(out), in_place=True).preview()


def test_links_that_lead_out_are_left_out_and_named(live, kept, tmp_path, in_place):
    """The rest is restored and counts as equal; with `outside_links` they come too."""
    os.symlink("/etc/passwd", live / "out")
    os.symlink(live / "none", live / "in")
    for link in ("in", "out"):
        os.utime(live / link, ns=(1, 1), follow_symlinks=False)
    os.utime(live, ns=(1, 1))
    kept = captured(os.fsencode(live), LocalVault(tmp_path / "links"))
    captured_tree = seen(live)
    (live / "out").unlink()
    (live / "in").unlink()
    made = restoration(live, kept, in_place=in_place)
    state = prepare(made)
    made.swap(state)
    said = made.confirm(state)
    assert said.passed
    assert "left out: 'out'" in said.message
    assert {**seen(live), b"out": captured_tree[b"out"]} == captured_tree
    made.accept(state)
    carry_out(restoration(live, kept, in_place=in_place, outside_links=True))
    assert seen(live) == captured_tree


def test_what_was_staged_and_then_damaged_is_found(live, kept, in_place):
    """Every file is read again before anything live is touched; a byte, a mode, a file more or less."""
    (live / "cover.png").write_bytes(b"bad")
    (live / "none").unlink()
    before = seen(live)
    made = restoration(live, kept, in_place=in_place)
    state = made.begin("x")
    made.beside(state, quiet)
    assert made.compare(state).passed
    new = os.path.join(state["beside"], "new")
    status = os.stat(new + "/cover.png")
    with open(new + "/cover.png", "r+b") as file:
        file.write(b"X")
    os.utime(new + "/cover.png", ns=(status.st_mtime_ns, status.st_mtime_ns))
    said = made.compare(state)
    assert not said.passed
    assert "'cover.png' differs in content" in said.message
    os.unlink(new + "/cover.png")
    os.chmod(new + "/none", 0o777)
    said = made.compare(state)
    assert "'none' differs in mode" in said.message
    assert ("'cover.png' is missing" if not in_place else "'cover.png' differs in content") in said.message
    made.abandon(state)
    made.abandon(state)
    assert seen(live) == before


def test_a_damaged_artifact_touches_nothing(live, kept):
    """A byte of the archive, or of an index that names other contents: refused, and cleared away."""
    (live / "cover.png").unlink()
    before = seen(live)
    whole = b"".join(kept.plain())
    for at in (len(whole) // 2, len(whole) - 3):
        kept.plain = lambda at=at: iter([whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]])
        made = restoration(live, kept)
        state = made.begin("x")
        with pytest.raises(DamagedError):
            made.beside(state, quiet)
        made.abandon(state)
        assert seen(live) == before
        assert not os.path.exists(state["beside"])
    kept.plain = lambda: iter([whole])
    kept.entry = dataclasses.replace(kept.entry, sha256="0" * 64)
    with pytest.raises(DamagedError, match="has changed since"):
        made.beside(made.begin("x"), quiet)


def test_a_file_that_changes_while_it_is_prepared_in_place_is_not_passed_over(live, kept):
    """Equal when compared, and overwritten before the swap, with its size and time: found."""
    (live / "cover.png").unlink()
    made = restoration(live, kept, in_place=True)
    state = prepare(made)
    before = seen(live)
    os.chmod(live / "none", 0o600)
    victim = os.path.join(os.fsencode(live), "books/книга.fb2".encode())
    status = os.stat(victim)
    with open(victim, "r+b") as file:
        file.write(b"Y")
    os.utime(victim, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(SourceError, match="has changed while"):
        made.swap(state)
    made.undo(state, None)
    assert {*seen(live)} == {*before}
    made.abandon(state)
    assert not has_begun(state)


def test_confirm_says_no_where_the_live_folder_is_not_what_was_compared(live, kept, in_place, monkeypatch):
    """A file lost, a mode changed, another folder in its place; what is new since is no fault."""
    (live / "cover.png").unlink()
    made = restoration(live, kept, in_place=in_place)
    state = carry_out(made)
    (live / "books" / "uploaded").write_bytes(b"since the swap")
    assert made.confirm(state).passed
    os.chmod(live / "cover.png", 0o777)
    assert "'cover.png' differs in mode" in made.confirm(state).message
    os.unlink(live / "cover.png")
    assert "'cover.png' is missing" in made.confirm(state).message
    monkeypatch.setattr(LocalRunner, "local_folder", lambda self, path: live.parent)
    assert "not the folder that was written to" in made.confirm(state).message


def test_undo_after_accept_is_refused(live, kept):
    """What undo needs is gone, and it says so."""
    made = restoration(live, kept)
    state = carry_out(made)
    made.accept(state)
    with pytest.raises(RefusedError, match="not there any more"):
        made.undo(state, None)


def test_what_was_uploaded_after_the_restore_is_not_lost_by_undo_and_accept(live, kept):
    """Put aside by undo, and kept when the rest is removed."""
    before = seen(live)
    made = restoration(live, kept)
    state = carry_out(made)
    (live / "fresh").write_bytes(b"uploaded")
    made.undo(state, None)
    assert seen(live) == before
    made.accept(state)
    assert [p.read_bytes() for p in live.parent.glob(".bookreader-restore-*/aside/*/fresh")] == [b"uploaded"]


def test_storage_that_only_a_container_sees_is_refused(live, kept, monkeypatch):
    """With what to do instead, which works."""
    monkeypatch.setattr(LocalRunner, "local_folder", lambda self, path: None)
    with pytest.raises(RefusedError, match="only by its container") as refused:
        restoration(live, kept).preview()
    assert "--into" in refused.value.hint
    carry_out(restoration(live, kept, into=str(live.parent / "out")))
    assert seen(live.parent / "out") == seen(live)


def test_a_file_where_the_folder_should_be_is_refused(kept, tmp_path):
    """Nothing is guessed."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(RefusedError, match="is not a folder"):
        restoration(tmp_path / "file", kept).preview()


def test_the_room_is_told(live, kept):
    """The bytes of all files and what paths take, where they are staged."""
    room = restoration(live, kept).preview().rooms[0]
    assert room.where == str(live.parent)
    assert room.needed > kept.entry.fingerprint["bytes"]
    assert room.free > 0


def test_an_ordinary_user_restores_what_is_theirs(in_place):
    """Without root: beside where the parent may be written, inside where not, read-only folders too."""
    for parent_mode in (0o777, 0o755):
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o777)
            with as_nobody(), SMALL:
                live = os.path.join(place, "live")
                os.mkdir(live)
                build(os.fsencode(live), SPEC)
                os.chmod(live + "/read only", 0o555)
                os.mkdir(place + "/vault")
                kept = captured(live, LocalVault(Path(place) / "vault"))
            captured_tree = seen(live)
            os.chmod(place, parent_mode)
            with as_nobody():
                os.unlink(live + "/cover.png")
                os.chmod(live + "/read only", 0o700)
                os.unlink(live + "/read only/f")
                os.chmod(live + "/read only", 0o555)
                os.mkdir(live + "/closed", 0o500)
                before = seen(live)
                made = restoration(live, kept, in_place=in_place)
                assert any("not run as root" in note for note in made.preview().notes) or os.geteuid() == 0
                state = carry_out(made)
                assert (os.path.dirname(state["beside"]) == live) == (
                    parent_mode == 0o755 and os.geteuid() != 0
                )
                assert seen(live) == captured_tree
                made.undo(state, None)
                assert seen(live) == before
                made.accept(state)
                assert seen(live) == before


CRASHES = ("rename", "mkdir", "chmod", "utime", "sync", "link", "symlink", "unlink", "write", "rmdir")


@pytest.mark.parametrize("call", CRASHES)
def test_killed_at_any_call_it_goes_on_or_goes_back(live, kept, in_place, call, tmp_path):
    """A process of its own ends at the N-th call of a kind, for every N; the next one finishes or undoes."""
    captured_tree = seen(live)
    spoil(live)
    os.unlink(live / "read only" / "pipe")
    spoiled = seen(live)
    counted = 1
    while _killed(live, kept, in_place, call, counted, tmp_path):
        with open(tmp_path / "state", "rb") as file:
            *_, last = file.read().splitlines()
        step, state = json.loads(last)
        made = restoration(live, kept, in_place=in_place)
        if step == "swap":  # it is gone on with
            made.swap(state)
            assert made.confirm(state).passed
            assert seen(live) == captured_tree, counted
            made.undo(state, None)
        elif counted % 2:
            state = prepare(made, state)
            made.swap(state)
            assert seen(live) == captured_tree, counted
            made.undo(state, None)
        made.abandon(state)
        assert seen(live) == spoiled, counted
        assert not os.path.exists(os.fsencode(state["beside"]))
        counted += 1 + counted // 8
    assert seen(live) == captured_tree
    assert counted > 1 or call in ("link", "symlink", "unlink", "rmdir")


def _killed(live, kept, in_place, call, at, tmp_path):  # noqa: PLR0917 - a run in one line
    """Restore in a child that ends at the `at`-th `call`; say whether it did."""
    child = os.fork()
    if child == 0:
        made = 0
        real = getattr(os, call)

        def ending(*args, **named):
            nonlocal made
            made += 1
            if made == at:
                os._exit(9)
            return real(*args, **named)

        try:
            restored = restoration(live, kept, in_place=in_place)
            with open(tmp_path / "state", "wb", buffering=0) as journal:

                def note(step, state):
                    journal.write(json.dumps([step, state]).encode() + b"\n")

                state = restored.begin("x")
                note("beside", state)
                setattr(os, call, ending) if call != "write" else setattr(os, "write", ending)
                restored.beside(state, quiet)
                assert restored.compare(state).passed
                note("swap", state)
                restored.swap(state)
                assert restored.confirm(state).passed
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must end here
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9
