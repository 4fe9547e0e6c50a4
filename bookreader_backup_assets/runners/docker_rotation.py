"""Whether a log driver can have rotated lines away already, as far as its options and what it has tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_RECORDED = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})  # they make records longer
OPTIONS = frozenset({"max-size", "max-file", *_RECORDED})
"""The options that are looked at. Others may be secrets, such as the token of a log server."""
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_RECORD = 100  # bytes of a record around its message, at most, in either driver
_ESCAPED = bytes([*range(0x20), 0x22, 0x26, 0x3C, 0x3E, 0x5C, 0x7F])  # written as six bytes, at most
_HIGH = bytes(range(0x80, 0x100))  # of two or three bytes a character, some of which are written as six


def may_have_rotated(driver: Mapping[str, Any], messages: Iterable[bytes]) -> bool:
    """Whether the driver (`Type` and `Config`, as the engine says them) may have dropped lines.

    A file is dropped when as many as are kept are full: as long as all `messages` that there are fill less,
    none was. What cannot be told counts as dropped.
    """
    options = {str(name): str(value) for name, value in (driver.get("Config") or {}).items()}
    if driver["Type"] == "json-file":
        if options.get("max-size", "-1").startswith("-"):
            return False
        kept = _kept(options["max-size"], options.get("max-file", "1"))
    elif driver["Type"] == "local":
        kept = _kept(options.get("max-size", "20m"), options.get("max-file", "5"))
    else:
        return True
    if options.keys() & _RECORDED:
        return True
    written = 0
    for message in messages:
        written += _RECORD + _at_most(message)
        if written >= kept:
            return True
    return kept == 0


def _kept(size: str, files: str) -> int:
    """Bytes that are in the full files, at least, when the first file is dropped."""
    match = _SIZE.fullmatch(size.strip())
    if match is None or not files.isdecimal():
        return 0
    return int(float(match["number"]) * _UNITS[match["unit"].lower()]) * (int(files) - 1)


def _at_most(message: bytes) -> int:
    escaped = len(message) - len(message.translate(None, _ESCAPED))
    high = len(message) - len(message.translate(None, _HIGH))
    return len(message) + 5 * escaped + high
