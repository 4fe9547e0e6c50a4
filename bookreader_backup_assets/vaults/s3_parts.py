"""How a file is cut into the parts of an upload: how large they are, and how many are held at once."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Generator, Iterable, Sequence
from typing import Any

SMALLEST = 16 << 20
"""Bytes of a part of a file whose size is known and not huge."""
UNKNOWN = 64 << 20
"""Bytes of a part where nobody knows the size: 10,000 of them are 625 GiB."""
MOST = 10_000
"""Parts that S3 takes of one file."""
_WANTED = 9_000  # leaves room for a source that is a little larger than it said
_STEP = 1 << 20
_BUFFERS = 256 << 20  # bytes
_WORKERS = 4
_MD5 = re.compile(r"[0-9a-f]{32}")


def part_size(size: int | None) -> int:
    """Return how many bytes each part but the last has, of a file of `size` bytes."""
    if size is None:
        return UNKNOWN
    return max(SMALLEST, -(-size // (_WANTED * _STEP)) * _STEP)


def in_flight(part: int) -> int:
    """Return how many parts of `part` bytes are on their way while one more is read."""
    return max(1, min(_WORKERS, _BUFFERS // part - 1))


def cut(chunks: Iterable[bytes], size: int) -> Generator[bytearray]:
    """Yield `chunks` as pieces of exactly `size` bytes; the last one is shorter. Holds one piece."""
    piece = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: size - len(piece)]
            piece += taken
            rest = rest[len(taken) :]
            if len(piece) == size:
                full, piece = piece, bytearray()
                yield full
                del full
    if piece:
        yield piece


def b64(digest: bytes) -> str:
    """Return a digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def md5(data: bytes | bytearray) -> bytes:
    """Return the MD5 of a part: what an ETag is, and what a service that knows no SHA-256 compares."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def composite(digests: Sequence[bytes]) -> str:
    """Return what S3 says of a file that came in parts: the SHA-256 of their SHA-256s, and how many."""
    return f"{b64(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}"


def composite_etag(etags: Sequence[str]) -> str:
    """Return the ETag of a file that came in parts of these: the MD5 of their MD5s, and how many.

    Where ETags are no MD5s, it is none that anything has.
    """
    plain = [etag.strip('"') for etag in etags]
    if not all(_MD5.fullmatch(etag) for etag in plain):
        return ""
    return f"{md5(bytes.fromhex(''.join(plain))).hex()}-{len(plain)}"


def is_same(known: dict[str, Any], data: bytearray, digest: bytes) -> bool:
    """Whether a part that the service lists is `data`, whose SHA-256 is `digest`.

    An ETag is an MD5 only where the service keeps it so: where it does not, the part is sent again.
    """
    if known.get("Size") != len(data):
        return False
    if said := known.get("ChecksumSHA256"):
        return bool(said == b64(digest))
    return bool(str(known.get("ETag", "")).strip('"') == md5(data).hex())
