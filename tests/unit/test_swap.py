"""The swap of what is in a folder: crashed at every single call, made again, and undone."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.components import staging, swap
from bookreader_backup_assets.components.swap import Attributes, Move, Plan, Swap, Touch
from bookreader_backup_assets.core.errors import DamagedError, SourceError
from tests.fixtures.trees import as_nobody, look
from tests.fixtures.trees import build as build_tree

LIVE = {
    b"books": (
        "folder",
        {b"a": ("file", b"old a", 0o640, 10**18), b"\xff": ("file", b"x", 0o600, 5)},
        0o755,
        7,
    ),
    b"gone": ("folder", {b"deep": ("folder", {b"f": ("file", b"deep", 0o600, 3)}, 0o700, 2)}, 0o500, 4),
    b"name\n": ("file", b"old", 0o600, 9),
    b"link": ("symlink", b"books/a"),
    b"becomes a folder": ("file", b"file", 0o600, 9),
}
NEW = {
    b"books": ("folder", {b"a": ("file", b"new a", 0o600, 10**18 + 1)}, 0o750, 8),
    b"name\n": ("file", b"new", 0o644, 10),
    b"link": ("file", b"no link any more", 0o600, 11),
    b"becomes a folder": ("folder", {b"in": ("file", b"it", 0o600, 1)}, 0o555, 12),
    b"fresh": ("folder", {}, 0o711, 13),
}
BEFORE, AFTER = Attributes(0o751, 0, 0, 10**18 + 5), Attributes(0o770, 0, 0, 10**18 + 6)
CHANGING = (
    "rename",
    "mkdir",
    "rmdir",
    "unlink",
    "chmod",
    "chown",
    "utime",
    "makedirs",
    "sync",
    "fsync",
    "open",
)


def build(root, spec):
    """Make a tree, its links' times no later than any other."""
    build_tree(root, spec)
    for name, (kind, *_) in spec.items():
        if kind == "symlink":
            os.utime(os.path.join(root, name), ns=(1, 1), follow_symlinks=False)


class CrashedError(BaseException):
    """The program was killed."""


class Ending:
    """The `os` of a program that is killed before its N-th call that changes anything, or after it."""

    def __init__(self, at=None, *, after=False):
        self.at, self.after, self.made = at, after, 0

    def __getattr__(self, name):
        """The call itself, counted if it changes anything."""
        real = getattr(os, name)
        if name not in CHANGING:
            return real

        def call(*args, **named):
            self.made += 1
            if self.made == self.at and not self.after:
                raise CrashedError
            result = real(*args, **named)
            if self.made == self.at:
                raise CrashedError
            return result

        return call


@contextlib.contextmanager
def ending(monkeypatch, at=None, *, after=False):
    """Kill the swap at a call, in whichever module it is made."""
    counted = Ending(at, after=after)
    with monkeypatch.context() as patched:
        patched.setattr(swap, "os", counted)
        patched.setattr(extract, "os", counted)
        with contextlib.suppress(CrashedError):
            yield counted


@pytest.fixture(params=["beside", "inside"])
def inside(request):
    """Whether the new files wait in the live folder, as where it is a mount point."""
    return request.param == "inside"


def whole(tmp_path, inside):
    """A live folder, what is to be in it, and the swap of the two, begun."""
    root = os.fsencode(tmp_path / "live")
    os.mkdir(root)
    build(root, LIVE)
    beside = os.path.join(root if inside else os.fsencode(tmp_path), staging.PREFIX + b"stamp")
    new = staging.make(beside)
    build(new, NEW)
    owner = (os.geteuid(), os.getegid())
    before, after = BEFORE._replace(uid=owner[0], gid=owner[1]), AFTER._replace(uid=owner[0], gid=owner[1])
    os.chmod(root, before.mode)
    os.utime(root, ns=(before.mtime_ns, before.mtime_ns))
    moves = [Move(name, name in LIVE, name in NEW) for name in sorted({*LIVE, *NEW})]
    return Swap(root, beside), Plan(moves, (Touch(b".", before, after),), whole=True)


def seen(root):
    """All that is in a folder, but for what is ours."""
    return {path: what for path, what in look(root).items() if not staging.is_ours(path)}


def expected(tmp_path):
    """What the live folder holds before and after, on its own."""
    for name, spec, own in (("before", LIVE, BEFORE), ("after", NEW, AFTER)):
        os.mkdir(tmp_path / name)
        build(os.fsencode(tmp_path / name), spec)
        os.chmod(tmp_path / name, own.mode)
        os.utime(tmp_path / name, ns=(own.mtime_ns, own.mtime_ns))
    return seen(os.fsencode(tmp_path / "before")), seen(os.fsencode(tmp_path / "after"))


def calls(tmp_path, monkeypatch, inside, act):
    """How many calls `act` makes that change anything."""
    made, plan = whole(tmp_path, inside)
    made.begin(plan)
    if act == "back":
        made.forward()
    with ending(monkeypatch) as counted:
        getattr(made, act)()
    return counted.made


def test_what_is_in_the_folder_is_swapped_and_put_back(tmp_path, inside):
    """The folder itself stays the same one; both trees are equal to what they were, to the nanosecond."""
    before, after = expected(tmp_path)
    made, plan = whole(tmp_path, inside)
    assert seen(made.root) == before
    inode = os.stat(made.root).st_ino
    made.begin(plan)
    assert made.plan() == Plan(list(plan.moves), made.plan().touches, whole=True)
    made.forward()
    assert seen(made.root) == after
    made.back()
    assert seen(made.root) == before
    assert os.stat(made.root).st_ino == inode
    assert made.put_aside() == []
    staging.remove(made.beside)
    assert look(made.root) == before


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("act", ["forward", "back"])
def test_a_crash_at_every_call_loses_nothing(tmp_path, monkeypatch, inside, act, after):
    """Killed before or after any call, and made again, it ends in the same tree, and undo goes back."""
    was, becomes = expected(tmp_path)
    (tmp_path / "count").mkdir()
    total = calls(tmp_path / "count", monkeypatch, inside, act)
    assert total > 10
    for at in range(1, total + 1):
        for then in ("again", "back"):
            place = tmp_path / f"{at}-{then}"
            place.mkdir()
            made, plan = whole(place, inside)
            made.begin(plan)
            if act == "back":
                made.forward()
            with ending(monkeypatch, at, after=after):
                getattr(made, act)()
            if act == "forward" and then == "again":
                made.forward()
                assert seen(made.root) == becomes, at
            made.back()
            assert seen(made.root) == was, at
            assert made.put_aside() == [], at
            new = {p: w for p, w in look(os.path.join(made.beside, b"new")).items() if p != b"."}
            assert new == {p: w for p, w in becomes.items() if p != b"."}, at
            shutil.rmtree(place)


def test_a_crash_while_the_moves_are_written_down_leaves_none(tmp_path, monkeypatch, inside):
    """Before the list has its name nothing was begun, and it can be begun again."""
    before, after = expected(tmp_path)
    made, plan = whole(tmp_path, inside)
    for at in range(1, 8):
        with ending(monkeypatch, at):
            made.begin(plan)
            break
        assert made.plan() is None or at == 7
        assert seen(made.root) == before
    made.begin(plan)
    made.forward()
    assert seen(made.root) == after


def test_what_appears_meanwhile_is_put_aside_and_never_overwritten(tmp_path, monkeypatch, inside):
    """Books uploaded between a crash and the next try, and after the swap: kept and named."""
    before, after = expected(tmp_path)
    made, plan = whole(tmp_path, inside)
    made.begin(plan)
    odd = os.path.join(made.beside, b"old", b"becomes a folder")
    at = 0
    while not os.path.exists(odd):  # killed between the two renames of one path
        at += 1
        with ending(monkeypatch, at, after=True):
            made.forward()
    assert not os.path.exists(os.path.join(made.root, b"becomes a folder"))
    build(
        made.root, {b"becomes a folder": ("file", b"uploaded", 0o600, 1), b"more": ("file", b"1", 0o600, 1)}
    )
    made.forward()
    assert seen(made.root) == after
    assert sorted(name.partition(b"/")[2] for name in made.put_aside()) == [b"becomes a folder", b"more"]
    build(made.root, {b"more": ("file", b"2", 0o600, 1), b"gone": ("file", b"3", 0o600, 1)})
    made.back()
    assert seen(made.root) == before
    kept = [os.path.join(made.beside, b"aside", name) for name in made.put_aside()]
    contents = []
    for name in kept:
        with open(name, "rb") as file:
            contents.append(file.read())
    assert sorted(contents) == [b"1", b"2", b"3", b"uploaded"]


def test_what_went_meanwhile_does_not_bring_the_wrong_thing_back(tmp_path, inside):
    """A restored file deleted after the swap: undo, made twice, still ends in the tree before."""
    before, _ = expected(tmp_path)
    made, plan = whole(tmp_path, inside)
    made.begin(plan)
    made.forward()
    os.unlink(os.path.join(made.root, b"name\n"))
    shutil.rmtree(os.path.join(made.root, b"fresh"))
    made.back()
    assert seen(made.root) == before
    made.back()
    assert seen(made.root) == before


def test_what_went_before_the_swap_is_not_missed(tmp_path, inside):
    """A file deleted between the list and its move leaves nothing to displace."""
    made, plan = whole(tmp_path, inside)
    made.begin(plan)
    os.unlink(os.path.join(made.root, b"name\n"))
    made.forward()
    made.back()
    assert b"name\n" not in seen(made.root)


def test_single_paths_are_swapped_and_the_rest_is_untouched(tmp_path, monkeypatch):
    """Deep paths move alone; a folder's time is what it was, a crash at every call included."""
    for at in [None, *range(1, 20)]:
        place = tmp_path / str(at)
        place.mkdir()
        made, _ = whole(place, inside=False)
        shutil.rmtree(os.path.join(made.beside, b"new"))
        build(staging.make(made.beside), {b"books": NEW[b"books"], b"fresh": NEW[b"fresh"]})
        before = seen(made.root)
        books = swap.attributes(os.stat(os.path.join(made.root, b"books")))
        own = swap.attributes(os.stat(made.root))
        touches = [Touch(b"books", books, books), Touch(b".", own, own)]
        made.begin(Plan([Move(b"books/a", True, True), Move(b"fresh", False, True)], touches))
        with ending(monkeypatch, at):
            made.forward()
        made.forward()
        found = seen(made.root)
        changed = {path for path in {*found, *before} if found.get(path) != before.get(path)}
        assert changed == {b"books/a", b"fresh"}
        with ending(monkeypatch, at):
            made.back()
        made.back()
        assert seen(made.root) == before


def test_a_folder_that_was_not_there_is_made_and_goes_again(tmp_path, monkeypatch):
    """Storage deleted with its folder: the swap makes it, undo takes it away, a crash anywhere included."""
    _, after = expected(tmp_path)
    for at in range(1, 30):
        place = tmp_path / str(at)
        place.mkdir()
        made, plan = whole(place, inside=False)
        shutil.rmtree(made.root)
        moves = [Move(name, had=False, new=True) for name in NEW]
        made.begin(Plan(moves, [Touch(b".", None, plan.touches[0].after)], whole=True, made=True))
        with ending(monkeypatch, at):
            made.forward()
        made.forward()
        assert seen(made.root) == after
        with ending(monkeypatch, at):
            made.back()
        made.back()
        assert not os.path.exists(made.root)


def test_no_rename_goes_through_a_link(tmp_path):
    """A live folder swapped for a link after the list was made: nothing is put, or taken, out there."""
    made, _ = whole(tmp_path, inside=False)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_text("precious")
    made.begin(Plan([Move(b"books/a", True, True)]))
    os.rename(os.path.join(made.root, b"books"), os.path.join(made.root, b"moved"))
    os.symlink(victim, os.path.join(made.root, b"books"))
    with pytest.raises(SourceError, match="cannot be moved"):
        made.forward()
    assert [(p.name, p.read_text()) for p in victim.iterdir()] == [("a", "precious")]


def test_a_damaged_list_is_named(tmp_path, inside):
    """Nothing is guessed from half a list, and without one there is nothing to do."""
    made, plan = whole(tmp_path, inside)
    with pytest.raises(SourceError, match="no list of moves"):
        made.forward()
    made.begin(plan)
    with open(os.path.join(made.beside, b"moves.json"), "r+b") as file:
        file.truncate(10)
    with pytest.raises(DamagedError, match="is damaged"):
        made.back()


def test_an_ordinary_user_swaps_read_only_folders_too(inside, monkeypatch):
    """They are opened for their move and closed again, also after a crash at any call."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        with as_nobody():
            for at in range(1, 60):
                here = Path(place) / str(at)
                here.mkdir()
                made, plan = whole(here, inside)
                os.chmod(os.path.join(made.root, b"gone"), 0o555)
                os.chmod(os.path.join(made.beside, b"new", b"becomes a folder"), 0o555)
                before = seen(made.root)
                made.begin(plan)
                with ending(monkeypatch, at):
                    made.forward()
                made.forward()
                status = os.stat(os.path.join(made.root, b"becomes a folder"))
                assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o555, 12)
                with ending(monkeypatch, at):
                    made.back()
                made.back()
                assert seen(made.root) == before
                staging.remove(made.beside)
                assert look(made.root) == before
