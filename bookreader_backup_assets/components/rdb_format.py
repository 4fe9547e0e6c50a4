"""The records of Redis's dump format (RDB), as programs that say what to skip.

Known are all types up to Redis 7.4 (RDB version 12), from the format's definition in Redis's `rdb.h`.
A program yields what it needs next: n > 0 skips n strings, n < 0 skips -n bytes, and `BYTE`, `LENGTH`
and `TEXT` read something, which is sent back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

BYTE, LENGTH, TEXT = object(), object(), object()
Program = Generator[Any, Any, None]


class UnknownTypeError(Exception):
    """A type or an encoding that is not known here. It never leaves the skimmer."""


def _strings(each: int) -> Callable[[], Program]:
    def program() -> Program:
        yield (yield LENGTH) * each

    return program


def _skips(*asked: Any) -> Callable[[], Program]:
    def program() -> Program:
        for what in asked:  # noqa: UP028 - a tuple takes no answers
            yield what

    return program


def _each(*asked: Any, before: int = 0) -> Callable[[], Program]:
    def program() -> Program:
        yield -before
        for _ in range((yield LENGTH)):
            for what in asked:  # noqa: UP028
                yield what

    return program


def _zset_text_scores() -> Program:
    for _ in range((yield LENGTH)):
        yield 1
        digits = yield BYTE
        yield -(digits if digits < 253 else 0)  # 253 to 255: not a number, the infinities


def _module() -> Program:
    # 0 ends it; 1, 2: an integer; 3: a float; 4: a double; 5: a string
    while opcode := (yield LENGTH):
        if opcode not in _MODULE:
            raise UnknownTypeError
        yield _MODULE[opcode]


def _module_value() -> Program:
    yield LENGTH
    yield from _module()


def _module_aux() -> Program:
    for _ in range(3):  # the module, and when it wants to be called
        yield LENGTH
    yield from _module()


def _stream(revision: int) -> Callable[[], Program]:
    def program() -> Program:
        yield 2 * (yield LENGTH)  # listpacks under their first ids
        for _ in range(3 if revision == 1 else 8):  # entries, last id; first id, deleted id, added
            yield LENGTH
        for _group in range((yield LENGTH)):
            yield 1
            for _ in range(2 if revision == 1 else 3):  # last id, entries read
                yield LENGTH
            for _pending in range((yield LENGTH)):
                yield -24  # id, time
                yield LENGTH
            for _consumer in range((yield LENGTH)):
                yield 1
                yield -8 if revision < 3 else -16  # seen, active
                yield -16 * (yield LENGTH)

    return program


_MODULE = {1: LENGTH, 2: LENGTH, 3: -4, 4: -8, 5: 1}
BLOBS = frozenset([0, 9, 10, 11, 12, 13, 16, 17, 20])
"""Values that are one string, whatever is inside: string, zipmap, ziplists, intset, listpacks."""
VALUES: dict[int, Callable[[], Program]] = {
    1: _strings(1),  # list
    2: _strings(1),  # set
    3: _zset_text_scores,
    4: _strings(2),  # hash
    5: _each(1, -8),  # sorted set
    7: _module_value,
    14: _strings(1),  # list of ziplists
    15: _stream(1),
    18: _each(LENGTH, 1),  # list of listpacks and long elements
    19: _stream(2),
    21: _stream(3),
    24: _each(LENGTH, 2, before=8),  # hash whose fields expire
    25: _skips(-8, 1),  # the same, small
}
"""Values of more than one part. 22 and 23 were never released, and 22 is something else in Valkey."""
OPCODES: dict[int, Callable[[], Program]] = {
    244: _skips(LENGTH, LENGTH, LENGTH),  # a cluster's slot: id, keys, keys that expire
    245: _skips(1),  # a library of functions
    247: _module_aux,
    248: _skips(LENGTH),  # idle time
    249: _skips(-1),  # frequency
    251: _skips(LENGTH, LENGTH),  # sizes to expect
    252: _skips(-8),  # expiry, ms
    253: _skips(-4),  # expiry, s
}
"""What is no value, by opcode; `AUX`, `SELECTDB` and `EOF` are the skimmer's own."""
