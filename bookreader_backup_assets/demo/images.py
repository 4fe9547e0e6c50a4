"""PNG images, written with the standard library: valid chunks, and about as compressible as a drawing."""

from __future__ import annotations

import struct
import zlib
from random import Random

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2


def png(random: Random, width: int, height: int) -> bytes:
    """Return an RGB image of `width` by `height` pixels: a gradient between two colours, with grain.

    The grain keeps about half of the bytes from compressing, as an illustration's do.
    """
    top, bottom = random.randrange(240), random.randrange(240)
    rows = bytearray()
    for y in range(height):
        shade = top + (bottom - top) * y // height
        grain = bytes(shade + (value & 15) for value in range(256))
        rows += b"\0" + random.randbytes(width * 3).translate(grain)
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0)
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
