"""The script's archive of storage, read as a tree, so that it is written anew with an index.

It is one gzip member of `storage_backup/…`, so one file of it could only be read from its start. What a run
that was killed had left in /tmp lies around the tree that was copied after it, one folder deeper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain

import isal

from bookreader_backup_assets.actions.adopt_found import Found, Seen
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.codecs import index, tar
from bookreader_backup_assets.codecs.archive import Archiver
from bookreader_backup_assets.components.base import Capture, Facts
from bookreader_backup_assets.components.storage import INDEX, StorageArchive
from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import BackupError, DamagedError
from bookreader_backup_assets.runners.base import Tree, TreeItem
from bookreader_backup_assets.runners.tree import as_text

_TOPS = (b"storage_backup", b"storage")
NESTED = b"storage"
"""What `docker cp` calls the folder, where one of the target's name is there already."""
Owner = tuple[int, int]


@dataclass(frozen=True)
class _Layout:
    """How the tree lies in the archive: below `base`; `owner` is everything's, if it is not to be kept."""

    base: bytes
    owner: Owner | None
    problems: tuple[Problem, ...]


def look(installation: Installation, found: Found) -> Seen:
    """Read an archive to its end. Raises `DamagedError` where it is not whole, or no tree of GNU tar's."""
    layout = _layout(_owner_now(installation), found)

    @contextmanager
    def capture() -> Iterator[Capture]:
        archiver = Archiver(Tree(_tree(found.decompressed(), layout), []))

        def facts() -> Facts:
            return Facts(
                captured_at=found.at,
                fingerprint=archiver.totals.fingerprint(),
                versions={"isal": isal.__version__},
                source=found.source(),
                problems=layout.problems,
                companions={(INDEX, index.SUFFIX): archiver.index()},
            )

        try:
            yield Capture(iter(archiver), facts, found.item.size)
        except BaseException:
            archiver.close()
            raise

    return Seen(found.at, capture, layout.problems)


def items(chunks: Iterable[bytes]) -> Iterator[TreeItem]:
    """Yield what a tar of GNU's format holds, each to be read before the next, or passed over.

    Raises `DamagedError` where it is cut short, though the gzip around it be whole, or goes on after its end.
    """
    source = _Source(chunks)
    while (item := tar.read_header(source.take)) is not None:
        if item.kind != "file" and item.size:
            raise DamagedError(f"a tar header is damaged: a {item.kind} with content")
        content = source.content(item.size)
        yield replace(item, chunks=lambda content=content: content)  # type: ignore[misc]
        for _ in content:
            pass
        source.take(-item.size % tar.BLOCK)
    source.finish()


def _layout(now: Owner | None, found: Found) -> _Layout:
    top = b""
    outer: dict[bytes, str] = {}
    inner: set[bytes] = set()
    owners: set[Owner] = set()
    count = 0
    for item in items(found.decompressed()):
        first, _, rest = item.path.removeprefix(b"./").partition(b"/")
        top = top or first
        if top not in _TOPS or first != top or (not rest and item.kind != "folder"):
            raise DamagedError(f"{as_text(item.path)!r} in it is not of one folder storage_backup")
        if {b"", b".", b".."} & {*rest.split(b"/")} and rest:
            raise DamagedError(f"{as_text(item.path)!r} in it leads out of its folder")
        name, _, below = rest.partition(b"/")
        if name and not below:
            outer[name] = item.kind
        elif name == NESTED and b"/" not in below:
            inner.add(below)
        owners.add((item.uid, item.gid))
        count += 1
    if not count:
        raise DamagedError("it holds nothing")
    problems = []
    others = set(outer) - {NESTED}
    base = top
    if outer.get(NESTED) == "folder" and (not others or inner & others):
        base = top + b"/" + NESTED
        left = ", ".join(sorted(map(as_text, others)))
        problems.append(
            Problem("left out: an older run of the script had left it in /tmp", left or as_text(top))
        )
    owner = None
    if len(owners) == 1 and now is not None and owners != {now}:
        owner = now
        was = "{}:{}".format(*min(owners))
        said = f"the script made {was} the owner of all: it is that of the live folder, {now[0]}:{now[1]}"
        problems.append(Problem(said))
    return _Layout(base, owner, tuple(problems))


def _tree(chunks: Iterable[bytes], layout: _Layout) -> Iterator[TreeItem]:
    below = layout.base + b"/"
    for item in items(chunks):
        path = item.path.removeprefix(b"./")
        if path != layout.base and not path.startswith(below):
            continue
        target = item.target
        if item.kind == "hardlink":
            target = target.removeprefix(b"./")
            if not target.startswith(below):
                raise DamagedError(f"{as_text(path)!r} is a link to what is not in the archive")
            target = target[len(below) :]
        uid, gid = layout.owner or (item.uid, item.gid)
        where = path[len(below) :] or b"."
        yield replace(item, path=where, mode=item.mode & 0o7777, uid=uid, gid=gid, target=target)


def _owner_now(installation: Installation) -> Owner | None:
    """Return who owns the live folder, if it can be reached."""
    component = installation.components.get("storage/archive")
    if isinstance(component, StorageArchive):
        with suppress(BackupError, StopIteration):
            top = next(component.runner.read_tree(component.path).items)
            return top.uid, top.gid
    return None


class _Source:
    """Bytes taken off a stream, so many at a time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def take(self, count: int) -> bytes:
        return b"".join(self.content(count))

    def content(self, left: int) -> Iterator[bytes]:
        while left:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    raise DamagedError("the archive is cut short")
            piece = self._rest[:left]
            self._rest = self._rest[len(piece) :]
            left -= len(piece)
            yield bytes(piece)

    def finish(self) -> None:
        """Read what fills the last record, zeros, to the end of the gzip around it."""
        if any(chunk.strip(b"\0") for chunk in chain([bytes(self._rest)], self._chunks)):
            raise DamagedError("the archive goes on after its end")
