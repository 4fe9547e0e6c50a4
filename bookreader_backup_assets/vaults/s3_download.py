"""Reading one file from S3: a connection that breaks is made again where it broke, and of the same file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from botocore import exceptions as boto
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import HTTPError

from bookreader_backup_assets.core.errors import DamagedError, VaultError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.vaults.s3_errors import BEYOND, TAKEN, code_of, errors
from bookreader_backup_assets.vaults.s3_key import Key

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class _BrokenError(VaultError):
    """The connection broke in the middle of the file."""


_BREAKS = (boto.HTTPClientError, boto.IncompleteReadError, HTTPError, OSError)
_AGAIN = Retrying(  # of each chunk: what goes on after a break may break again
    retry=retry_if_exception_type(_BrokenError),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.2, max=10),
    reraise=True,
)


def read(key: Key, offset: int, length: int | None) -> Iterator[bytes]:
    """Yield the bytes from `offset` (`length` of them, more than 0, or all). Raises as `Vault.open` does."""
    last = None if length is None else offset + length
    with closing(_Reading(key, offset, last)) as reading, errors(key.access.where, key.name):
        while chunk := _AGAIN(reading.next):
            yield chunk


@dataclass
class _Reading:
    """Where a reading stands: the next byte, the one to end before, and of which file."""

    key: Key
    position: int
    end: int | None
    etag: str | None = None
    body: Any = field(default=None, repr=False)

    def next(self) -> bytes:
        """Return the next chunk, b"" at the end."""
        if self.etag is not None and self.end is not None and self.position >= self.end:
            return b""
        if self.body is None and not self._ask():
            return b""
        try:
            chunk: bytes = self.body.read(CHUNK)
        except _BREAKS as error:
            raise self._broken(str(error)) from None
        if not chunk:
            raise self._broken("it ended before the file did")
        self.position += len(chunk)
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        if self.body is not None:
            self.body.close()
            self.body = None

    def _ask(self) -> bool:
        """Ask for what is left; False if the file has ended before it."""
        last = "" if self.end is None else self.end - 1
        same = {"IfMatch": self.etag} if self.etag is not None else {}
        try:
            answer = self.key.client.get_object(
                **self.key.where, Range=f"bytes={self.position}-{last}", **same
            )
        except boto.ClientError as error:
            if code_of(error) in BEYOND and self.etag is None:
                return False
            if code_of(error) in TAKEN:
                raise DamagedError(
                    f"{self.key.name} was replaced in {self.key.access.where} while it was read",
                    hint="names are written once: somebody else writes into this bucket",
                ) from None
            raise
        self.body = answer["Body"]
        said = _RANGE.fullmatch(answer.get("ContentRange", ""))
        start, total = (int(said[1]), int(said[2])) if said else (0, answer["ContentLength"])
        if start != self.position:
            raise VaultError(
                f"{self.key.access.where} gives other bytes of {self.key.name} than were asked for"
            )
        self.end = total if self.end is None else min(self.end, total)
        self.etag = answer["ETag"]
        return self.position < self.end

    def _broken(self, how: str) -> _BrokenError:
        self.close()
        where = self.key.access.where
        return _BrokenError(
            f"reading {self.key.name} from {where} broke off at byte {self.position:,}: {how}",
            hint="run it again later",
        )
