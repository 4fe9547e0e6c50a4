"""Which paths of an archive are wanted: named one by one, by folder, or by globs."""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.matching import Listing, listed
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.runners.tree import as_path, as_text

IN_CONTAINER = "/app/storage"
"""The storage folder as BookReader's code sees it, wherever it lies on the host."""
_MAGIC = re.compile(r"[*?\[]")
_NEAR = 3
_COMPARED = 20_000  # names that are looked at for near misses: a second


@dataclass(frozen=True)
class Choice:
    """The rows that are wanted, and the folders above them, in the order of the archive.

    A hard link whose first path is not wanted stands as a file here, with the content of that path.
    """

    rows: tuple[Row, ...]
    above: tuple[Row, ...]
    top: Row

    @cached_property
    def files(self) -> list[Row]:
        """The files, in the order in which their contents lie in the archive."""
        return sorted((r for r in self.rows if r.kind == "file"), key=lambda row: (row.offset, row.inside))

    @cached_property
    def listing(self) -> Listing:
        """All of them as a listing: folders before what is in them."""
        return listed(lambda: (*self.above, *self.rows))


Read = Callable[[Callable[[bytes], bool]], Iterable[Row]]
"""Reads an index anew each time: the rows of those paths that it is told of."""


def choose(read: Read, paths: Sequence[str], root: str) -> Choice:
    """Return what `paths` name of an index.

    They are relative to the storage folder, or as rows and programs have them: `storage/…`, or below
    `root`, its absolute path. A folder is all that is in it. In a glob, `*` stays within one folder, and
    `**` does not. What is there under the name itself is no glob. Raises `RefusedError` for a path that
    names nothing, with those that are nearly it.
    """
    if not all(path.strip() for path in paths):
        raise RefusedError(
            "an empty path would be everything", hint="name a file, a folder or a glob, or restore storage"
        )
    asked = [_Asked(path, root) for path in paths]
    for one in asked:
        deque(read(one.look), 0)
        if not one.meant:
            raise _unknown(one, read)
    wanted = list(read(lambda path: path != b"." and any(one.wants(path) for one in asked)))
    for row in wanted:
        extract.check_path(row)
        if row.archive is not None:
            raise RefusedError(f"{as_text(row.path)!r} lies in another archive, {row.archive}")
    names = {row.path for row in wanted}
    needed = {b".", *(above for row in wanted for above in parents(row.path))} - names
    firsts = {row.target for row in wanted if row.kind == "hardlink"} - names
    others = {row.path: row for row in read(lambda path: path in needed or path in firsts)}
    content = {path: row for path, row in others.items() if path in firsts}
    above = tuple(row for path, row in others.items() if path in needed and path != b".")
    return Choice(tuple(_with_content(wanted, content)), above, others[b"."])


def _with_content(wanted: Iterable[Row], firsts: dict[bytes, Row]) -> Iterator[Row]:
    """Let the first hard link of those whose content lies elsewhere be the file."""
    stands: dict[bytes, bytes] = {}
    for row in wanted:
        if row.kind != "hardlink" or row.target not in firsts:
            yield row
        elif row.target in stands:
            yield replace(row, target=stands[row.target])
        else:
            stands[row.target] = row.path
            there = firsts[row.target]
            place = {name: getattr(there, name) for name in ("offset", "length", "inside", "size", "sha256")}
            yield replace(row, kind="file", target=b"", **place)


class _Asked:
    """One path as it was asked for. `meant` says which of its readings names something."""

    def __init__(self, text: str, root: str) -> None:
        self.text = text
        self.readings = _readings(text, root)
        self.meant: set[tuple[bytes, bool]] = set()
        self._globs = [
            (plain, re.compile(_glob(as_text(plain))))
            for plain in self.readings
            if _MAGIC.search(as_text(plain))
        ]

    def look(self, path: bytes) -> bool:
        """Take notice of a path that is there, and want no more of it."""
        if path in self.readings:
            self.meant.add((path, False))
        for plain, pattern in self._globs:
            if (plain, True) not in self.meant and pattern.fullmatch(as_text(path)):
                self.meant.add((plain, True))
        return False

    def wants(self, path: bytes) -> bool:
        """Whether a path, or a folder that it lies in, is meant: by its name, or else by a glob."""
        for plain in self.readings:
            if (plain, False) in self.meant:
                return plain in (b".", path) or path.startswith(plain + b"/")
        return any(
            (plain, True) in self.meant
            and any(pattern.fullmatch(as_text(at)) for at in (path, *parents(path)))
            for plain, pattern in self._globs
        )


def _readings(text: str, root: str) -> list[bytes]:
    """Return what a path may mean, below the storage folder, most likely first."""
    plain = "/".join(name for name in text.split("/") if name not in ("", "."))
    absolute = text.startswith("/")
    found = [] if absolute else [plain]
    starts = [root, IN_CONTAINER, "/storage"] if absolute else ["storage"]
    for start in (start.strip("/") for start in starts):
        found += [plain[len(start) + 1 :]] if f"{plain}/".startswith(f"{start}/") else []
    return [as_path(name or ".") for name in dict.fromkeys(found)]


def _glob(text: str) -> str:
    """Return a glob as a regular expression: `**/` is any folders, `*`, `?` and `[…]` stay in one."""
    parts = re.split(r"(\*\*/|\*\*$|\*|\?|\[[!^]?\]?[^\]/]*\])", text)
    special = {"**/": "(?:[^/]+/)*", "**": ".+", "*": "[^/]*", "?": "[^/]", "": ""}
    found = ""
    for part in parts:
        if part.startswith("[") and part.endswith("]") and len(part) > 2:
            inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            found += "(?!/)[" + ("^" + inner[1:] if inner[0] in "!^" else inner) + "]"
        else:
            found += special.get(part, re.escape(part))
    return f"(?s:{found})"


def parents(path: bytes) -> Iterator[bytes]:
    """Yield the folders above a path, the nearest first, but for the top."""
    while path := path.rpartition(b"/")[0]:
        yield path


def _unknown(asked: _Asked, read: Read) -> RefusedError:
    if not asked.readings:
        return RefusedError(
            f"{asked.text!r} is not below the storage folder", hint="name it from there: --path books/42.epub"
        )
    sought = as_text(asked.readings[-1])
    folder, _, name = sought.rpartition("/")
    near: list[str] = []
    others: list[str] = []

    def look(path: bytes) -> bool:
        there, _, its = (text := as_text(path)).rpartition("/")
        if there == folder or its.casefold() == name.casefold():
            near.append(text)
        elif len(others) < _COMPARED:
            others.append(text)
        return False

    deque(read(look), 0)
    near.sort(key=lambda text: text.rpartition("/")[2].casefold() != name.casefold())
    same = [text for text in near[:_NEAR] if text.rpartition("/")[2].casefold() == name.casefold()]
    found = same or difflib.get_close_matches(sought, near[:_COMPARED], _NEAR, 0.5)
    found = found or difflib.get_close_matches(sought, others, _NEAR)
    return RefusedError(
        f"nothing in this set is called {asked.text!r}",
        hint=f"did you mean {', '.join(map(repr, found))}?" if found else "paths are relative to storage",
    )
