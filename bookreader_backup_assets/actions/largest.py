"""The largest folders and files of storage, from the index of its newest archive: no disk is walked.

An index lists each folder whole before what comes after it, so a folder's total is known when it is left:
memory stays flat over a million paths.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.codecs import index
from bookreader_backup_assets.components.storage import INDEX
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.runners.tree import as_text

ASSET = "storage/archive"
FOLDERS, FILES = 5, 10
"""How many are named."""
_DEPTH = 2  # levels of folders that are totalled


@dataclass(frozen=True)
class Largest:
    """What `archive` holds: bytes of all `files`, and the largest, each with its bytes.

    Paths are text; bytes that are no UTF-8 are surrogate escapes.
    """

    archive: Entry
    bytes: int
    files: int
    folders: tuple[tuple[str, int], ...]
    largest: tuple[tuple[str, int], ...]


def largest(installation: Installation) -> Largest | None:
    """Return the largest folders, two levels deep, and files of the newest archive; None if there is none.

    A verified archive comes first. Raises `DamagedError` and `NotFoundError` of its index.
    """
    catalog = Catalog(installation.vault)
    newest = catalog.newest(ASSET, verified=True) or catalog.newest(ASSET)
    if newest is None:
        return None
    return totalled(newest, index.sizes(StoredArtifact(installation, newest).companion(INDEX)))


def totalled(archive: Entry, sizes: Iterable[tuple[bytes, int]]) -> Largest:
    """Return the same of the path and bytes of each file, in the order of an index."""
    total = count = 0
    files = _Top(FILES)
    folders = _Top(FOLDERS)
    inside: list[tuple[bytes, int]] = []  # the folders that the last path lies in, and their bytes so far

    for path, size in sizes:
        above = path.split(b"/", _DEPTH)[:-1]
        while inside and (len(inside) > len(above) or inside[-1][0] != b"/".join(above[: len(inside)])):
            folders.add(*inside.pop())
        while len(inside) < len(above):
            inside.append((b"/".join(above[: len(inside) + 1]), 0))
        inside = [(folder, held + size) for folder, held in inside]
        files.add(path, size)
        total, count = total + size, count + 1
    for folder in inside:
        folders.add(*folder)
    return Largest(archive, total, count, folders.sorted(), files.sorted())


@dataclass
class _Top:
    """The few largest of many."""

    few: int
    heap: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, path: bytes, size: int) -> None:
        heapq.heappush(self.heap, (size, path))
        if len(self.heap) > self.few:
            heapq.heappop(self.heap)

    def sorted(self) -> tuple[tuple[str, int], ...]:
        return tuple((as_text(path), size) for size, path in sorted(self.heap, key=lambda e: (-e[0], e[1])))
