"""`.gz`: what any gzip reads, compressed side by side, and damage told as damage."""

import gzip as python_gzip
import random
import subprocess
import threading
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.core.errors import DamagedError

quick = settings(deadline=None, max_examples=60)
chunked = st.lists(st.binary(max_size=300) | st.binary(max_size=5).map(lambda b: b * 5000), max_size=6)


def _gzip_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gzip")]


def _cut(data, step):
    return [data[start : start + step] for start in range(0, len(data), step)]


@quick
@given(chunked, st.integers(1, 400))
def test_round_trip(chunks, step):
    """What was compressed comes back, however the bytes arrive."""
    packed = b"".join(gzip.encode(chunks))
    assert b"".join(gzip.decode(_cut(packed, step))) == b"".join(chunks)


@quick
@given(chunked)
def test_python_reads_it(chunks):
    """The bytes are ordinary gzip, from no input at all, too."""
    assert python_gzip.decompress(b"".join(gzip.encode(chunks))) == b"".join(chunks)


@pytest.mark.parametrize("size", [0, 1, gzip.MEMBER - 1, gzip.MEMBER, 2 * gzip.MEMBER + 3])
def test_gzip_reads_many_members(size):
    """`gzip -d` reads the members as one file, whatever their number."""
    plain = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    packed = b"".join(gzip.encode(_cut(plain, 1 << 20)))
    assert packed.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") >= max(1, size // gzip.MEMBER)
    done = subprocess.run(["gzip", "-d"], input=packed, capture_output=True, check=True, timeout=60)
    assert done.stdout == plain


@quick
@given(st.binary(max_size=2000), st.integers(1, 300), st.integers(1, 9))
def test_it_reads_others(plain, step, level):
    """Members made by zlib come back, two in a row as well."""
    packed = python_gzip.compress(plain, level) + python_gzip.compress(b"more", level)
    assert b"".join(gzip.decode(_cut(packed, step))) == plain + b"more"


SAMPLE = b"".join(gzip.encode([b"BookReader " * 40 + bytes(range(256))]))


@pytest.mark.parametrize("kept", range(1, len(SAMPLE), 7))
def test_truncation_is_damage(kept):
    """Cut anywhere, the stream ends in an error, not in a shorter file."""
    with pytest.raises(DamagedError):
        list(gzip.decode([SAMPLE[:kept]]))


def test_a_cut_second_member_is_damage():
    """A whole member before it does not hide the cut."""
    with pytest.raises(DamagedError, match="cut short"):
        list(gzip.decode([SAMPLE, SAMPLE[:1]]))


@quick
@given(st.integers(0, len(SAMPLE) * 8 - 1))
def test_no_flipped_bit_changes_the_content(bit):
    """One flipped bit is damage, or lies in a header field, or in padding, that no content depends on."""
    flipped = bytearray(SAMPLE)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        found = b"".join(gzip.decode([bytes(flipped)]))
    except DamagedError:
        return
    assert bit // 8 in (3, 4, 5, 6, 7, 8, 9, len(SAMPLE) - 9)  # the last: up to seven bits after the content
    assert found == b"".join(gzip.decode([SAMPLE]))


@pytest.mark.parametrize("garbage", [b"\0", b"x", b"\0" * 512, b"garbage" * 50])
def test_trailing_garbage_is_damage(garbage):
    """Bytes after the last member are not passed over."""
    with pytest.raises(DamagedError):
        list(gzip.decode([SAMPLE, garbage]))


@pytest.mark.parametrize("data", [b"plain text that is no gzip at all", zlib.compress(b"x" * 50)])
def test_what_is_not_gzip_is_damage(data):
    """Another format is not guessed at."""
    with pytest.raises(DamagedError):
        list(gzip.decode([data]))


def test_nothing_decodes_to_nothing():
    """An empty file has no member: that is for the size to tell, as with `gzip -d`."""
    assert list(gzip.decode([])) == list(gzip.decode([b""])) == []


def test_results_come_in_order():
    """The work is done side by side, and a slow block holds back those behind it."""
    gate = threading.Event()

    def work(number):
        if number == 0:
            assert gate.wait(20)
        elif number == 1:
            gate.set()
        return number

    if gzip.THREADS == 1:
        gate.set()
    assert list(gzip.in_parallel(work, range(50))) == list(range(50))


def test_few_blocks_are_held():
    """Memory is bounded: the source is asked for no more than the threads and one."""
    asked = 0

    def blocks():
        nonlocal asked
        for number in range(100):
            asked += 1
            yield number

    done = gzip.in_parallel(lambda number: number, blocks())
    next(done)
    assert asked <= gzip.THREADS + 1
    done.close()


def test_closing_early_leaves_no_thread():
    """Whoever stops reading half-way leaves nothing running."""
    packed = gzip.encode(bytes(1 << 20) for _ in range(40))
    next(packed)
    assert _gzip_threads()
    packed.close()
    deadline = time.monotonic() + 20
    while _gzip_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _gzip_threads() == []


def test_an_error_of_the_source_is_raised_and_leaves_no_thread():
    """What the source raises arrives as it is."""

    def failing():
        yield bytes(gzip.MEMBER)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(gzip.encode(failing()))
    assert _gzip_threads() == []


def test_the_bytes_do_not_depend_on_the_threads(monkeypatch):
    """One thread or four: the artifact is the same."""
    plain = _cut(random.Random(1).randbytes(1000) * 20_000, 70_000)
    made = set()
    for threads in (1, 4):
        monkeypatch.setattr(gzip, "THREADS", threads)
        made.add(b"".join(gzip.encode(plain)))
    assert len(made) == 1


def _upper(chunks):
    return (chunk.upper() for chunk in chunks)


def _lower(chunks):
    return (chunk.lower() for chunk in chunks)


def test_a_chain_is_undone_from_its_end():
    """Codecs are applied in order and undone in reverse; the suffixes say which."""
    codecs = Codecs(
        {"gzip": Codec("gzip", ".gz", gzip.encode, gzip.decode), "up": Codec("up", ".u", _upper, _lower)}
    )
    assert b"".join(codecs.decode(["up", "gzip"], codecs.encode(["up", "gzip"], [b"abc"]))) == b"abc"
    assert python_gzip.decompress(b"".join(codecs.encode(["up", "gzip"], [b"abc"]))) == b"ABC"
    assert codecs.suffix(["up", "gzip"]) == ".u.gz"
    assert list(codecs.encode([], [b"as it is"])) == [b"as it is"]


def test_an_unknown_codec_is_named():
    """An artifact of a codec that is not here says so, and which are."""
    with pytest.raises(DamagedError, match="no codec 'zstd'") as damaged:
        Codecs({"gzip": Codec("gzip", ".gz", gzip.encode, gzip.decode)}).decode(["zstd"], [])
    assert damaged.value.hint == "known: gzip"
