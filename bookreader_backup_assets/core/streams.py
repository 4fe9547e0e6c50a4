"""Byte streams: counted, hashed and watched as they pass, never held."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

CHUNK = 1 << 20
"""Bytes read at a time wherever a size has to be chosen."""

Progress = Callable[[int], None]
"""Told how many more bytes have passed."""


def quiet(_passed: int) -> None:
    """A `Progress` that tells nobody."""


_BEHIND = 2
"""Chunks that may wait to be hashed."""
_WORTH_A_THREAD = 64 << 10


class Meter:
    """Passes chunks on unchanged, while counting them and hashing them with SHA-256.

    `size` (bytes) and `sha256` (hex) speak of what has passed so far; `ended` says whether that
    was all of it. Large chunks are hashed in a thread, while the next is made or read: at 650 MB/s
    hashing would otherwise be the longest wait of a capture.
    """

    def __init__(self, chunks: Iterable[bytes], progress: Progress = quiet) -> None:
        self._chunks = chunks
        self._progress = progress
        self._hash = hashlib.sha256()
        self._behind: deque[Future[None]] = deque()
        self.size = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        with ThreadPoolExecutor(1, thread_name_prefix="sha256") as hasher:
            for chunk in self._chunks:
                if self._behind or len(chunk) >= _WORTH_A_THREAD:
                    self._behind.append(hasher.submit(self._hash.update, chunk))
                    self._catch_up(_BEHIND)
                else:
                    self._hash.update(chunk)
                self.size += len(chunk)
                self._progress(len(chunk))
                yield chunk
        self.ended = True

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes that have passed."""
        self._catch_up(0)
        return self._hash.hexdigest()

    def _catch_up(self, behind: int) -> None:
        while len(self._behind) > behind:
            self._behind.popleft().result()
