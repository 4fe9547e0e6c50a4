"""Files of storage restored by their paths: staged, compared, swapped in, and undone."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from bookreader_backup_assets.codecs import archive_reader, gzip, index
from bookreader_backup_assets.components.file_choice import choose
from bookreader_backup_assets.components.file_restore import FileRestoration
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.streams import quiet
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.stored_trees import captured, carry_out, prepare, seen
from tests.fixtures.trees import as_nobody, build

SMALL = patch.object(gzip, "MEMBER", 8192)
SPEC = {
    b"books": (
        "folder",
        {
            b"1.epub": ("file", os.urandom(9000), 0o640, 10**18 + 1),
            b"10.epub": ("file", os.urandom(30_000), 0o640, 10**18 + 1),
            b"caf\xe9\n.epub": ("file", os.urandom(100), 0o4640, 10**18 + 1),
            b"twin": ("hardlink", 0),
            b"twin 2": ("hardlink", 0),
            b"deep": ("folder", {b"x[1].png": ("file", b"n", 0o600, 11)}, 0o2750, 12),
        },
        0o755,
        7,
    ),
    b"covers": ("folder", {b"a.png": ("file", b"a", 0o600, 1), b"b.jpg": ("symlink", b"a.png")}, 0o700, 5),
    b"latest": ("symlink", b"books/1.epub"),
    b"out": ("symlink", b"/etc/passwd"),
    b"read only": ("folder", {b"f": ("file", b"f", 0o444, 3)}, 0o555, 4),
    b"storage": ("folder", {b"own": ("file", b"own", 0o600, 1)}, 0o700, 5),
}


@pytest.fixture
def live(tmp_path):
    """A folder of many kinds of path."""
    root = tmp_path / "live"
    root.mkdir()
    build(os.fsencode(root), SPEC)
    os.utime(root, ns=(1, 10**18 + 123_456_789))
    return root


@pytest.fixture
def kept(live, tmp_path):
    """Its artifact."""
    with SMALL:
        return captured(os.fsencode(live), LocalVault(tmp_path / "vault"))


def restoration(live, kept, *paths, **options):
    """A restoration of some paths of the live folder."""
    return FileRestoration(LocalRunner(), str(live), kept, Options(paths=paths, **options))


def chosen(kept, *paths, root="/srv/files"):
    """The paths that are meant by some words."""
    rows = choose(lambda of: index.read(kept.companion("index"), of), paths, root).rows
    return sorted(row.path for row in rows)


def but_for_times_of_folders(found):
    """What was found; a folder that something was taken from has another time than before."""
    return {p: (w[0], w[1], w[2], None, w[4]) if w[4] is None else w for p, w in found.items()}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["books/1.epub"], [b"books/1.epub"]),
        (["./books//1.epub"], [b"books/1.epub"]),
        (["/app/storage/books/1.epub", "storage/latest"], [b"books/1.epub", b"latest"]),
        (["/srv/files/books/1.epub"], [b"books/1.epub"]),
        (["covers"], [b"covers", b"covers/a.png", b"covers/b.jpg"]),
        (["covers/"], [b"covers", b"covers/a.png", b"covers/b.jpg"]),
        (["*/*.epub"], [b"books/1.epub", b"books/10.epub", b"books/caf\xe9\n.epub"]),
        (["**/*.png"], [b"books/deep/x[1].png", b"covers/a.png"]),
        (["**/[ab].*"], [b"covers/a.png", b"covers/b.jpg"]),
        (["covers/[!a].*"], [b"covers/b.jpg"]),
        (["books/deep/x[1].png"], [b"books/deep/x[1].png"]),
        (["books/d*"], [b"books/deep", b"books/deep/x[1].png"]),
        (["books/?.epub"], [b"books/1.epub"]),
        (["storage/own"], [b"storage/own"]),
        (["storage/covers/*"], [b"covers/a.png", b"covers/b.jpg"]),
        (["books/caf\udce9\n.epub"], [b"books/caf\xe9\n.epub"]),
    ],
)
def test_what_is_meant(kept, words, meant):
    """Paths as storage, rows and programs have them, folders and globs; what is there is no glob."""
    assert chosen(kept, *words) == meant


@pytest.mark.parametrize("all_of_it", ["/app/storage", "/srv/files/", ".", "**"])
def test_all_of_it_can_be_meant(kept, all_of_it):
    """The storage folder's own name is everything."""
    rows = list(index.read(kept.companion("index")))
    assert chosen(kept, all_of_it) == sorted(row.path for row in rows if row.path != b".")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("books/11.epub", "books/1.epub"),
        ("covers/10.EPUB", "books/10.epub"),
        ("latst", "latest"),
        ("/app/storage/boks/1.epub", "books/1.epub"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is_nearly_it(live, kept, wrong, near):
    """Before anything is touched."""
    before = seen(live)
    with pytest.raises(RefusedError) as refused:
        restoration(live, kept, "latest", wrong).preview()
    assert repr(near) in refused.value.hint
    assert seen(live) == before
    with pytest.raises(RefusedError, match="not below the storage"):
        restoration(live, kept, "/etc/passwd").preview()


def test_lost_and_damaged_files_come_back_and_nothing_else_changes(live, kept):
    """With owner, mode, time and links, and the folders above; undo brings back what was there."""
    good = seen(live)
    root = os.fsencode(live)
    os.unlink(root + b"/books/caf\xe9\n.epub")
    shutil.rmtree(root + b"/books/deep")
    (live / "covers/a.png").write_bytes(b"junk")
    os.unlink(root + b"/covers/b.jpg")
    (live / "covers/b.jpg").mkdir()
    (live / "covers/b.jpg/new").write_bytes(b"new")
    os.unlink(root + b"/latest")
    (live / "read only/f").unlink()
    (live / "another").write_bytes(b"another's")
    before = seen(live)
    wanted = ["books/caf*", "books/deep/x[1].png", "covers/a.png", "covers/b.jpg", "latest", "read only/f"]
    restored = restoration(live, kept, *wanted)
    said = restored.preview()
    assert said.present
    state = carry_out(restored)
    after = seen(live)
    assert after.pop(b"another") == before[b"another"]
    assert but_for_times_of_folders(after) == but_for_times_of_folders(good)
    assert {p: after[p][3] for p in (b".", b"books", b"covers")} == {
        p: before[p][3] for p in (b".", b"books", b"covers")
    }
    assert after[b"books/deep"] == good[b"books/deep"]
    restored.undo(state, None)
    assert seen(live) == before
    restored.accept(state)
    assert sorted(os.listdir(live.parent)) == ["live", "vault"]


def test_hard_links_that_are_wanted_are_one_file_and_not_with_others(live, kept):
    """Also if the path that has their content is not wanted."""
    good = seen(live)
    for name in ("twin", "twin 2"):
        (live / "books" / name).unlink()
    made = restoration(live, kept, "books/twin*")
    made.accept(carry_out(made))
    twins = [os.stat(live / "books" / name) for name in ("twin", "twin 2", "1.epub")]
    assert twins[0].st_ino == twins[1].st_ino != twins[2].st_ino
    assert (live / "books/twin").read_bytes() == good[b"books/1.epub"][4][1]
    for name in ("twin", "twin 2", "1.epub"):
        (live / "books" / name).unlink()
    carry_out(restoration(live, kept, "books/twin*", "books/1.epub"))
    assert but_for_times_of_folders(seen(live)) == but_for_times_of_folders(good)


def test_into_a_folder(live, kept, tmp_path):
    """New, or with other files in it; one that has a wanted path is refused."""
    good = seen(live)
    into = tmp_path / "look"
    state = carry_out(restoration(live, kept, "books/1.epub", "covers", into=str(into)))
    assert set(seen(into)) == {b".", b"books", b"books/1.epub", b"covers", b"covers/a.png", b"covers/b.jpg"}
    assert {p: w for p, w in seen(into).items() if p not in (b"books", b".")}.items() <= {
        **good,
        b"books/1.epub": (*good[b"books/1.epub"][:4], seen(into)[b"books/1.epub"][4]),
    }.items()
    with pytest.raises(RefusedError, match="already"):
        restoration(live, kept, "covers", into=str(into)).preview()
    restored = restoration(live, kept, "covers", into=str(into))
    restored.undo(state, None)
    restored.accept(state)
    assert not into.exists()
    build(os.fsencode(tmp_path), {b"look": ("folder", {b"mine": ("file", b"m", 0o600, 1)}, 0o700, 1)})
    before = seen(into)
    restored = restoration(live, kept, "books/10.epub", into=str(into))
    state = carry_out(restored)
    assert seen(into)[b"books/10.epub"] == good[b"books/10.epub"]
    restored.undo(state, None)
    assert seen(into) == before
    assert seen(live) == good


def test_what_was_uploaded_into_a_restored_folder_outlives_undo_and_accept(live, kept):
    """Services run on: what they write into a folder that was made is kept aside when it goes again."""
    shutil.rmtree(live / "books")
    before = seen(live)
    restored = restoration(live, kept, "books")
    state = carry_out(restored)
    (live / "books/fresh").write_bytes(b"uploaded")
    restored.undo(state, None)
    assert seen(live) == before
    restored.accept(state)
    assert [p.read_bytes() for p in live.parent.glob(".bookreader-restore-*/aside/*/fresh")] == [b"uploaded"]


def test_a_link_where_a_folder_was_is_not_followed(live, kept, tmp_path):
    """A file below it would land elsewhere, or hide what the link leads to: refused."""
    shutil.move(live / "books", tmp_path / "moved")
    (live / "books").symlink_to(tmp_path / "moved")
    before = seen(tmp_path / "moved")
    with pytest.raises(RefusedError, match="symlink"):
        restoration(live, kept, "books/1.epub").preview()
    assert seen(tmp_path / "moved") == before


def test_links_that_lead_out(live, kept):
    """Alone they are refused, among others left out and named, and made if asked for."""
    good = seen(live)
    (live / "out").unlink()
    (live / "latest").unlink()
    with pytest.raises(RefusedError, match="lead out"):
        restoration(live, kept, "out").preview()
    restored = restoration(live, kept, "out", "latest")
    restored.preview()
    state = prepare(restored)
    restored.swap(state)
    assert "'out'" in restored.confirm(state).message
    assert not os.path.lexists(live / "out")
    restored.accept(state)
    carry_out(restoration(live, kept, "out", outside_links=True))
    assert but_for_times_of_folders(seen(live)) == but_for_times_of_folders(good)


def test_only_the_members_that_hold_it_are_read(live, kept):
    """And as many bytes as the preview says."""
    restored = restoration(live, kept, "books/caf*")
    carry_out(restored)
    read = sum(length for _, length in kept.ranges)
    assert restored.preview().steps[0].startswith(f"read {read} of the {kept.entry.size} bytes")
    assert read < kept.entry.size / 4


def test_a_damaged_member_touches_nothing(live, kept):
    """Found while it is read; other files come back all the same."""
    row = index.find(kept.companion("index"), b"books/10.epub")
    path = kept.vault.root / kept.entry.name
    data = bytearray(path.read_bytes())
    data[row.offset + row.length // 2] ^= 1
    path.write_bytes(data)
    before = seen(live)
    restored = restoration(live, kept, "books/10.epub")
    state = restored.begin("x")
    with pytest.raises(DamagedError):
        restored.beside(state, quiet)
    restored.abandon(state)
    assert seen(live) == before
    assert sorted(os.listdir(live.parent)) == ["live", "vault"]
    (live / "covers/a.png").unlink()
    carry_out(restoration(live, kept, "covers/a.png"))
    assert but_for_times_of_folders(seen(live)) == but_for_times_of_folders(before)


def test_a_stream_that_cannot_seek_is_read_once_onward(live, kept):
    """As of an encrypted archive: the same files come back."""

    class Streamed:
        """An artifact that is only streamed."""

        def __init__(self):
            self.entry = replace(kept.entry, codecs=("gpg",))
            self.companion, self.opened = kept.companion, 0

        def plain(self):
            self.opened += 1
            data = b"".join(kept.plain())
            return (data[at : at + 1000] for at in range(0, len(data), 1000))

    good = seen(live)
    for name in ("books/1.epub", "books/twin", "books/twin 2", "covers/a.png", "read only/f"):
        (live / name).unlink()
    stored = Streamed()
    restored = restoration(live, stored, "books/1.epub", "books/tw*", "covers/a.png", "read only/f")
    assert "encrypted" in restored.preview().notes[-1]
    carry_out(restored)
    assert stored.opened == 1
    assert but_for_times_of_folders(seen(live)) == but_for_times_of_folders(good)


def test_ranges_of_a_stream_are_those_of_the_file():
    """Whatever the sizes of the chunks are."""
    data = bytes(range(256)) * 10
    for size in (1, 7, 1000, 5000):
        onward = archive_reader.Onward(data[at : at + size] for at in range(0, len(data), size))
        for offset, length in ((0, 3), (3, 4), (100, 1500), (1700, 0), (1900, 660)):
            assert b"".join(onward.read(offset, length)) == data[offset : offset + length]


def test_an_ordinary_user_restores_into_a_read_only_folder():
    """It is opened for the rename, and closed again; undo too."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        with as_nobody(), SMALL:
            live = os.path.join(place, "live")
            os.mkdir(live)
            build(os.fsencode(live), SPEC)
            os.mkdir(place + "/vault")
            kept = captured(live, LocalVault(Path(place) / "vault"))
            os.chmod(live + "/read only", 0o700)
            os.unlink(live + "/read only/f")
            os.chmod(live + "/read only", 0o555)
            before = seen(live)
            made = restoration(live, kept, "read only/f")
            state = carry_out(made)
            assert seen(live)[b"read only"] == before[b"read only"]
            assert seen(live)[b"read only/f"][4][1] == b"f"
            made.undo(state, None)
            assert seen(live) == before


def test_what_cannot_be_moved_is_put_back(live, kept, monkeypatch):
    """A rename that fails in the middle is told, and undone."""
    before = seen(live)
    restored = restoration(live, kept, "covers", "latest")
    restored.preview()
    state = prepare(restored)
    real, calls = os.rename, iter(range(100))

    def failing(*args, **named):
        if "src_dir_fd" in named and next(calls) == 2:
            raise OSError(5, "Input/output error")
        real(*args, **named)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(SourceError):
        restored.swap(state)
    monkeypatch.undo()
    restored.undo(state, None)
    assert seen(live) == before
