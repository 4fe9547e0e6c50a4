"""Byte streams: counted, hashed and watched as they pass, never held."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

CHUNK = 1 << 20
"""Bytes read at a time wherever a size has to be chosen."""

Progress = Callable[[int], None]
"""Told how many more bytes have passed."""


def quiet(_passed: int) -> None:
    """A `Progress` that tells nobody."""


class Meter:
    """Passes chunks on unchanged, while counting them and hashing them with SHA-256.

    `size` (bytes) and `sha256` (hex) speak of what has passed so far; `ended` says whether that
    was all of it.
    """

    def __init__(self, chunks: Iterable[bytes], progress: Progress = quiet) -> None:
        self._chunks = chunks
        self._progress = progress
        self._hash = hashlib.sha256()
        self.size = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size += len(chunk)
            self._progress(len(chunk))
            yield chunk
        self.ended = True

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes that have passed."""
        return self._hash.hexdigest()
