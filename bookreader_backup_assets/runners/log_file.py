"""The log of this program, read back: the file of `BACKUP_LOG`, and the one that logrotate put beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.runners.logs import JOINED, Line, Source

NAME = "bookreader-backup"
"""What its lines begin with in an archive."""
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z (.*)", re.DOTALL)
_STREAM = b"log"


@dataclass(frozen=True)
class LogFile:
    """Implements `Logs` over the log in the file at `path`, which may not be there yet."""

    path: Path

    def sources(self) -> list[Source]:
        """See `Logs.sources`: one."""
        return [Source(NAME, str(self.path), {"driver": "file"})]

    def lines(self, source: Source, since: str, until: str) -> Iterator[Line]:
        """See `Logs.lines`."""
        first, last = since.encode("ascii"), until.encode("ascii")
        with closing(self._read(source)) as every:
            for line in every:
                if first <= line.stamp < last:
                    yield line

    def oldest(self, source: Source) -> str | None:
        """See `Logs.oldest`."""
        with closing(self._read(source)) as every:
            line = next(every, None)
        return line.stamp.decode("ascii") if line else None

    def is_whole(self, source: Source) -> bool:  # noqa: ARG002 - there is one
        """See `Logs.is_whole`."""
        return not self._rotated.exists()

    @property
    def _rotated(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def _read(self, source: Source) -> Generator[Line, None, None]:
        """Yield every line, the rotated file's first; a line without a stamp belongs to the one before."""
        if not self.path.parent.is_dir():
            raise SourceError(
                f"there is no folder {self.path.parent} for the log of {source.name}",
                hint="make it, writable by this user, or correct BACKUP_LOG",
            )
        stamp = b""
        for path in (self._rotated, self.path):
            try:
                with open(path, "rb") as file:
                    while text := file.readline(JOINED):
                        match = _LINE.fullmatch(text.removesuffix(b"\n"))
                        stamp = match[1] + b"000Z" if match else stamp
                        if stamp:
                            yield Line(stamp, _STREAM, match[2] if match else text.removesuffix(b"\n"))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SourceError(
                    f"the log of {source.name} in {path} cannot be read: {os.strerror(error.errno or 0)}",
                    hint="make it readable by this user, or correct BACKUP_LOG",
                ) from None
