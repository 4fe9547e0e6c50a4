"""How large the parts of an upload are, and what is said of them."""

import hashlib
import random

import pytest

from bookreader_backup_assets.vaults.s3_parts import (
    MOST,
    b64,
    composite,
    composite_etag,
    cut,
    in_flight,
    is_same,
    md5,
    part_size,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "part", "parts"),
    [
        (0, 16 * MIB, 0),
        (1, 16 * MIB, 1),
        (9_000 * 16 * MIB, 16 * MIB, 9_000),
        (9_000 * 16 * MIB + 1, 17 * MIB, 8471),
        (10**12, 106 * MIB, 8997),
        (1 << 40, 117 * MIB, 8963),
        (5 * 10**12, 530 * MIB, 8997),
        (5 << 40, 583 * MIB, 8993),
    ],
)
def test_parts_are_few_enough(size, part, parts):
    """Whatever the size, S3 takes that many parts of that size, and a little more would fit."""
    assert part_size(size) == part
    assert -(-size // part) == parts <= 9_000 < MOST
    assert 5 * MIB <= part <= 5 << 30


def test_parts_on_their_way_are_bounded():
    """At most four, and about 256 MiB with the one being read; of huge ones, one."""
    assert {size: in_flight(size * MIB) for size in (16, 64, 85, 117, 583)} == {
        16: 4, 64: 3, 85: 2, 117: 1, 583: 1,
    }  # fmt: skip
    assert part_size(None) * MOST >= 600 << 30


@pytest.mark.parametrize("lengths", [[], [0], [3], [4], [5], [4, 4], [1] * 9, [30], [3, 0, 6, 1]])
def test_pieces_are_equal_but_the_last(lengths):
    """However the chunks come, the pieces are of one size, in order, and nothing is lost."""
    data = random.Random(1).randbytes(sum(lengths))
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    pieces = list(cut((data[end - length : end] for end, length in zip(ends, lengths, strict=True)), 4))
    assert b"".join(pieces) == data
    assert all(len(piece) == 4 for piece in pieces[:-1])
    assert all(pieces)


def test_what_a_service_says_of_parts_is_known():
    """The SHA-256 of the SHA-256s, and the MD5 of the MD5s, each with how many there are."""
    digests = [hashlib.sha256(data).digest() for data in (b"a", b"b")]
    assert composite(digests) == b64(hashlib.sha256(digests[0] + digests[1]).digest()) + "-2"
    etags = [f'"{md5(data).hex()}"' for data in (b"a", b"b")]
    assert composite_etag(etags) == md5(md5(b"a") + md5(b"b")).hex() + "-2"
    assert composite_etag(["anything else"]) == ""


def test_a_part_is_the_same_only_if_its_bytes_are():
    """By its SHA-256 where the service lists it, else by its MD5; an ETag that is none proves nothing."""
    data = bytearray(b"part")
    digest = hashlib.sha256(data).digest()
    etag = f'"{md5(data).hex()}"'
    assert is_same({"Size": 4, "ETag": "other", "ChecksumSHA256": b64(digest)}, data, digest)
    assert is_same({"Size": 4, "ETag": etag}, data, digest)
    for other in (
        {"Size": 5, "ETag": etag},
        {"Size": 4, "ETag": '"other"'},
        {"Size": 4},
        {"Size": 4, "ETag": etag, "ChecksumSHA256": b64(bytes(32))},
    ):
        assert not is_same(other, data, digest)
