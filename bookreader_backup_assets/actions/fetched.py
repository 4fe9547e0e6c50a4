"""What a restore reads more than once out of a vault away from this host: fetched once, and kept meanwhile.

The second reading is of a file here: no connection can break while services are stopped, and nothing is paid
for twice. The file has the stored bytes, encrypted where those are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import SpaceError
from bookreader_backup_assets.core.restore_plan import Room
from bookreader_backup_assets.core.streams import CHUNK, Meter

AGAIN = ("postgresql", "table", "redis")
"""The scenarios that read their artifact more than once. An archive of storage is read once."""
_FOLDER = ".fetched"


@dataclass(frozen=True)
class Fetched:
    """A folder for such files, each under the hash of what it holds."""

    folder: Path

    def path(self, entry: Entry) -> Path | None:
        """Return where an artifact was kept, whole; None if it was not yet."""
        path = self.folder / entry.sha256
        return path if path.exists() else None

    def keep(self, entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield an artifact's bytes, and keep them if all of them came, and are those captured.

        Raises `SpaceError` where the file has no room.
        """
        part, meter = self.folder / f"{entry.sha256}.part", Meter(chunks)
        try:
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # it is being read twice at once
            yield from chunks
            return
        try:
            with open(opened, "wb") as file:
                for chunk in meter:
                    file.write(chunk)
                    yield chunk
            if (meter.size, meter.sha256) == (entry.size, entry.sha256):
                part.rename(self.folder / entry.sha256)
        except OSError as error:
            raise SpaceError(
                f"what is fetched cannot be kept in {self.folder}: {error.strerror}",
                hint="free space there; nothing was touched",
            ) from None
        finally:
            part.unlink(missing_ok=True)

    def read(self, path: Path, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield a part of a file that was kept."""
        with path.open("rb") as file:
            file.seek(offset)
            left = path.stat().st_size - offset if length is None else length
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk


def wanted(installation: Installation, scenario: str, entry: Entry) -> bool:
    """Whether a restore fetches its artifact first: it lies on no disk of this host, and is read again."""
    return scenario in AGAIN and installation.source.vault.local_path(entry.name) is None


def room(installation: Installation, entry: Entry) -> Room | None:
    """Return the room that takes, on the disk of the local vault; None where nobody can tell."""
    free = installation.vault.free()
    return None if free is None else Room("the vault, for what is fetched", entry.size, free)


@contextmanager
def fetched(installation: Installation, scenario: str, entry: Entry) -> Iterator[Fetched | None]:
    """Give a folder beside the local vault's files while a restore works, alone; None where none is wanted.

    What a restore that was killed left there goes.
    """
    folder = installation.lock.with_name(_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    if not wanted(installation, scenario, entry):
        yield None
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        yield Fetched(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
