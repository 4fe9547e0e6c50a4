"""Tar headers in GNU's format, written and read: 512 bytes per path, and two more blocks per long name.

GNU rather than pax: names stay bytes (pax wants UTF-8), and headers are a third of the size. A number
too large for octal digits (8 GB, uid 2097152), or negative, is in base 256.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.runners.base import Kind, TreeItem

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends an archive."""
SECOND = 10**9
"""Nanoseconds: a tar header keeps whole seconds."""

_LAYOUT = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 247x")
_MAGIC = b"ustar  \0"
_FITS = 100
_LONGEST = 1 << 16  # a longer name is a damaged header: Linux takes 4096 bytes
_TYPES: dict[Kind, bytes] = {"file": b"0", "hardlink": b"1", "symlink": b"2", "folder": b"5"}
_KINDS = {flag: kind for kind, flag in _TYPES.items()}
_LONG_NAME, _LONG_TARGET = b"L", b"K"


def header(item: TreeItem, size: int) -> bytes:
    """Return the blocks that stand before the `size` bytes of an item's content."""
    name = item.path + b"/" if item.kind == "folder" else item.path
    blocks = b""
    if len(item.target) > _FITS:
        blocks += _long(_LONG_TARGET, item.target)
    if len(name) > _FITS:
        blocks += _long(_LONG_NAME, name)
    return blocks + _block(
        name,
        item.target,
        _TYPES[item.kind],
        mode=item.mode,
        uid=item.uid,
        gid=item.gid,
        size=size,
        mtime=item.mtime_ns // SECOND,
    )


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of `size` bytes."""
    return bytes(-size % BLOCK)


def read_header(take: Callable[[int], bytes]) -> TreeItem | None:
    """Return the next item without its content, or None at the end of the archive.

    `take` gives the next so many bytes. Raises `DamagedError` for what is no header of this format.
    """
    name = target = None
    while (block := take(BLOCK)) != END[:BLOCK]:
        fields = _LAYOUT.unpack(block)
        if fields[6] != _checksum(block) or fields[9] != _MAGIC:
            raise DamagedError("a tar header is damaged")
        flag, size = fields[7], _value(fields[4])
        if flag in (_LONG_NAME, _LONG_TARGET):
            if size > _LONGEST:
                raise DamagedError("a tar header is damaged: its name is too long")
            text = take(size + -size % BLOCK).rstrip(b"\0")
            if len(text) != size - 1:
                raise DamagedError("a long name in the tar archive is damaged")
            name, target = (text, target) if flag == _LONG_NAME else (name, text)
            continue
        if flag not in _KINDS:
            raise DamagedError(f"a tar header is of the unknown type {flag!r}")
        kind = _KINDS[flag]
        path = name if name is not None else _text(fields[0])
        return TreeItem(
            path=path.removesuffix(b"/") if kind == "folder" else path,
            kind=kind,
            mode=_value(fields[1]),
            uid=_value(fields[2]),
            gid=_value(fields[3]),
            mtime_ns=_value(fields[5]) * SECOND,
            size=size,
            target=target if target is not None else _text(fields[8]),
        )
    if name is not None or target is not None or take(BLOCK) != END[:BLOCK]:
        raise DamagedError("the end of the tar archive is damaged")
    return None


def _long(flag: bytes, text: bytes) -> bytes:
    size = len(text) + 1
    head = _block(b"././@LongLink", b"", flag, mode=0o644, uid=0, gid=0, size=size, mtime=0)
    return head + text + b"\0" + padding(size)


def _block(
    name: bytes, target: bytes, flag: bytes, *, mode: int, uid: int, gid: int, size: int, mtime: int
) -> bytes:
    fields = [
        name,
        _number(mode, 8),
        _number(uid, 8),
        _number(gid, 8),
        _number(size, 12),
        _number(mtime, 12),
        b" " * 8,
        flag,
        target,
        _MAGIC,
    ]
    block: bytes = _LAYOUT.pack(*fields)
    return block[:148] + _checksum(block) + block[156:]


def _checksum(block: bytes) -> bytes:
    return b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 0x20)


def _number(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    rest: int = value % 256 ** (width - 1)
    return (b"\x80" if value >= 0 else b"\xff") + rest.to_bytes(width - 1, "big")


def _value(field: bytes) -> int:
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise DamagedError("a number in a tar header is damaged") from None


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
