"""Tar headers, against Python's own tarfile."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.codecs import tar
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.runners.base import TreeItem

PATHS = st.binary(min_size=1, max_size=600).filter(lambda p: b"\0" not in p and not p.endswith(b"/"))
ITEMS = st.builds(
    TreeItem,
    path=PATHS,
    kind=st.just("file"),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(10**10), 10**12).map(lambda seconds: seconds * 10**9),
    size=st.integers(0, 2**50),
)


@given(ITEMS)
@settings(deadline=None)
def test_tarfile_reads_what_is_written(item):
    """Any name, owner, time before 1970 and size over 8 GB is understood by another reader."""
    blocks = tar.header(item, item.size)
    with tarfile.open(fileobj=io.BytesIO(blocks), errors="surrogateescape", encoding="utf-8") as archive:
        info = archive.next()
    assert info.name.encode("utf-8", "surrogateescape") == item.path
    assert (info.mode, info.uid, info.gid, info.size) == (item.mode, item.uid, item.gid, item.size)
    assert info.mtime * 10**9 == item.mtime_ns


@given(ITEMS, st.sampled_from(["file", "folder", "symlink", "hardlink"]), PATHS)
@settings(deadline=None)
def test_reading_gives_back_what_was_written(item, kind, target):
    """A header read is the item written, whatever its kind, to the end of the archive."""
    link = kind in {"symlink", "hardlink"}
    size = item.size if kind == "file" else 0
    item = TreeItem(
        item.path, kind, item.mode, item.uid, item.gid, item.mtime_ns, size, target if link else b""
    )
    source = io.BytesIO(tar.header(item, size) + tar.END)
    assert tar.read_header(source.read) == item
    assert tar.read_header(source.read) is None


@given(st.integers(0, 8 * 512 - 1), st.integers(1, 255))
@settings(deadline=None)
def test_a_changed_byte_never_passes_for_the_same_header(position, flip):
    """A header with one byte changed is refused, or names something else: its content is compared later."""
    item = TreeItem(b"n" * 300, "symlink", 0o777, 0, 0, 0, target=b"t" * 300)
    blocks = bytearray(tar.header(item, 0) + tar.END)
    blocks[position % len(blocks)] ^= flip
    source = io.BytesIO(bytes(blocks))

    def take(count):
        taken = source.read(count)
        if len(taken) != count:
            raise DamagedError("cut short")
        return taken

    with contextlib.suppress(DamagedError):
        assert (tar.read_header(take), tar.read_header(take)) != (item, None)


@pytest.mark.parametrize(("flag", "what"), [(b"3", "unknown type"), (b"V", "unknown type")])
def test_what_we_never_write_is_refused(flag, what):
    """A device or a volume label is no part of our archives."""
    block = bytearray(tar.header(TreeItem(b"x", "file", 0, 0, 0, 0), 0))
    block[156:157] = flag
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    with pytest.raises(DamagedError, match=what):
        tar.read_header(io.BytesIO(bytes(block)).read)
