"""The index of an archive."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.codecs import gzip, index
from bookreader_backup_assets.codecs.index import IndexWriter, Row
from bookreader_backup_assets.core.errors import DamagedError

NUMBERS = st.integers(0, 2**60)
ROWS = st.builds(
    Row,
    path=st.binary(min_size=1, max_size=300),
    kind=st.just("file"),
    mode=st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    mtime_ns=st.integers(-(2**62), 2**62),
    offset=NUMBERS,
    length=NUMBERS,
    inside=NUMBERS,
    archive=st.one_of(st.none(), st.just("storage/storage_2025-10-24_03-00-00_full.tar.gz")),
    size=NUMBERS,
    sha256=st.just("ab" * 32),
)


def written(rows):
    """The bytes of an index of `rows`."""
    writer = IndexWriter()
    for row in rows:
        writer.add(row)
    return b"".join(writer.chunks())


@given(st.lists(ROWS, max_size=20))
@settings(deadline=None)
def test_rows_come_back(rows):
    """Any path, of any bytes, and all that is known of it, comes back in order."""
    assert list(index.read([written(rows)])) == rows


@given(st.lists(ROWS, min_size=1, max_size=20, unique_by=lambda row: row.path), st.data())
@settings(deadline=None)
def test_one_path_is_found(rows, data):
    """One path is found among others, and one that is not there is not."""
    row = data.draw(st.sampled_from(rows))
    stored = written(rows)
    assert index.find([stored], row.path) == row
    assert index.find([stored], row.path + b"\xff\xff") is None


KINDS = st.sampled_from(["file", "folder", "symlink", "hardlink"])
TRICKY = st.sampled_from([b'","kind":"file",', b',"size":7,', b'"', b"\\", b"\xff", b"a"])


@given(st.lists(st.tuples(ROWS, KINDS, st.lists(TRICKY, min_size=1, max_size=4)), max_size=20))
@settings(deadline=None)
def test_sizes_are_those_of_the_rows(made):
    """Files alone, in order, with the bytes that their rows have, whatever a path or a target looks like."""
    rows = [
        replace(row, kind=kind, path=b"".join(path), target=b"" if kind in {"file", "folder"} else path[0])
        for row, kind, path in made
    ]
    expected = [(row.path, row.size) for row in rows if row.kind == "file"]
    assert list(index.sizes([written(rows)])) == expected


def test_sizes_of_what_is_no_index_are_damage():
    """A line that is no row is refused there, too."""
    for line in (b'{"path":1}', b"[]", b'{"path":"a","kind":"file"}'):
        stored = gzip.member(b'{"format_version":1,"kind":"index"}\n' + line + b"\n")
        with pytest.raises(DamagedError):
            list(index.sizes([stored]))


def test_links_keep_their_target_and_folders_have_none():
    """A symlink's target is kept byte by byte."""
    link = Row(b"l", "symlink", 0o777, 0, 0, 0, 0, 1, 2, target=b"\xffa\n")
    folder = Row(b".", "folder", 0o755, 0, 0, 0, 0, 1, 2)
    assert list(index.read([written([link, folder])])) == [link, folder]


def test_a_large_index_is_kept_on_disk_and_read_in_pieces():
    """An index over the limit in memory comes out whole, and is read from chunks of any size."""
    rows = [Row(b"%09d" % n, "file", 0, 0, 0, 0, n, 1, 2, sha256="0" * 64) for n in range(20_000)]
    writer = IndexWriter()
    writer._spool._max_size = 1000
    for row in rows:
        writer.add(row)
    stored = b"".join(writer.chunks())
    pieces = [stored[n : n + 777] for n in range(0, len(stored), 777)]
    assert all(a == b for a, b in itertools.zip_longest(index.read(pieces), rows))


@pytest.mark.parametrize(
    ("plain", "what"),
    [
        (b"", "cut short"),
        (b'{"format_version":1,"kind":"index"}', "cut short"),
        (b'{"format_version":2,"kind":"index"}\n', "format version 2"),
        (b'{"format_version":1,"kind":"entry"}\n', "no index"),
        (b'{"format_version":1,"kind":"index"}\n{"path":"a"}\n', "damaged"),
        (b'{"format_version":1,"kind":"index"}\n[]\n', "damaged"),
        (b'{"format_version":1,"kind":"index"}\nnull\n', "damaged"),
        (b'{"format_version":1,"kind":"index"}\n{"path":1}\n', "damaged"),
        (b'{"format_version":1,"kind":"index"}\n{', "cut short"),
        (b"no json\n", "no document"),
    ],
)
def test_what_is_no_index_is_damage(plain, what):
    """An index cut short, malformed, of another kind, or newer than this program is refused."""
    with pytest.raises(DamagedError, match=what):
        list(index.read([gzip.member(plain)]))


def test_a_number_that_is_none_is_damage():
    """Numbers must be numbers."""
    stored = gzip.decode([written([Row(b"a", "file", 1, 2, 3, 4, 5, 6, 7)])])
    plain = b"".join(stored).replace(b'"uid":2', b'"uid":"2"')
    with pytest.raises(DamagedError, match="damaged at 'a'"):
        list(index.read([gzip.member(plain)]))
