"""Byte streams: counted, hashed and watched as they pass, never held."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

CHUNK = 1 << 20
"""Bytes read at a time wherever a size has to be chosen."""

Progress = Callable[[int], None]
"""Told how many more bytes have passed."""


def quiet(_passed: int) -> None:
    """A `Progress` that tells nobody."""


_WAITING = 2
_WORTH_A_THREAD = 64 << 10


class Behind:
    """Does work on chunks in order, in a thread of its own, at most two chunks behind its caller.

    What the work raises is raised by a later call. Small chunks are worked on at once.
    """

    def __init__(self, work: Callable[[bytes], object], name: str) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def take(self, chunk: bytes) -> None:
        """Work on `chunk` after all that were taken before."""
        if not self._waiting and len(chunk) < _WORTH_A_THREAD:
            self._work(chunk)
            return
        self._waiting.append(self._pool.submit(self._work, chunk))
        self._catch_up(_WAITING)

    def finish(self) -> None:
        """Return when all that was taken is done."""
        self._catch_up(0)

    def _catch_up(self, waiting: int) -> None:
        while len(self._waiting) > waiting:
            self._waiting.popleft().result()


class Meter:
    """Passes chunks on unchanged, while counting them and hashing them with SHA-256.

    `size` (bytes) and `sha256` (hex) speak of what has passed so far; `ended` says whether that
    was all of it. Hashing goes on while the next chunk is made or read: at 650 MB/s it would
    otherwise be the longest wait of a capture.
    """

    def __init__(self, chunks: Iterable[bytes], progress: Progress = quiet) -> None:
        self._chunks = chunks
        self._progress = progress
        self._hash = hashlib.sha256()
        self._hasher = Behind(self._hash.update, "sha256")
        self.size = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        with self._hasher:
            for chunk in self._chunks:
                self._hasher.take(chunk)
                self.size += len(chunk)
                self._progress(len(chunk))
                yield chunk
        self.ended = True

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes that have passed."""
        self._hasher.finish()
        return self._hash.hexdigest()
