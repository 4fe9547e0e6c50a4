"""A secret that does not print itself."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_ID = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 1 << 26, "dklen": 4}
"""32 MB and a tenth of a second: trying passphrases on an id is no cheaper than on a file of gpg."""


class Secret:
    """Text that shows as `***` wherever it is printed, logged or compared in a failing test."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: call this only where it is handed to a program or a library."""
        return self._text

    def __bool__(self) -> bool:
        """False for an empty secret."""
        return bool(self._text)

    def __repr__(self) -> str:
        """Never the text."""
        return "***"

    __str__ = __repr__


def key_id(key: Secret, installation: str) -> str:
    """Return the short name of a passphrase: 8 hexadecimal digits that nobody turns back into it.

    It is of one installation: the same passphrase has another id elsewhere. An entry's `source` has it
    as `key`, to say which passphrase opens the artifact.
    """
    return _derived(key.reveal(), installation)


@lru_cache(maxsize=64)
def _derived(text: str, salt: str) -> str:
    return hashlib.scrypt(text.encode("utf-8", "surrogateescape"), salt=salt.encode(), **_ID).hex()
