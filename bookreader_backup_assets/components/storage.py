"""Storage: the folder of books, covers and images, as a seekable `.tar.gz` beside its index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import isal

from bookreader_backup_assets.codecs import archive_reader, index
from bookreader_backup_assets.codecs.archive import SUFFIX, Archiver, Totals
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.tar import SECOND
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.staging import is_ours
from bookreader_backup_assets.core import fingerprint
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.runners.base import Runner, Tree, TreeItem
from bookreader_backup_assets.runners.tree import LEFT_OUT, UNREADABLE, as_path, as_text

INDEX = "index"
"""The role of the index among an artifact's companions."""
_NAMED = 1000  # problems kept in an entry: a whole tree made unreadable must not make it huge
_SHOWN = 5


@dataclass(frozen=True)
class StorageArchive:
    """The folder `path`, as `runner` sees it."""

    runner: Runner
    path: str
    component: str = "storage"
    artifact: str = "archive"
    stem: str = "storage"
    suffix: str = SUFFIX
    kind: str | None = "full"
    codecs: tuple[str, ...] = ()

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            "readable": "the whole archive reads: every CRC, every header, to its end",
            "files_equal": "every path, its mode, time and content equal the index, and the totals the entry",
            "complete": "nothing was unreadable; what vanished or changed while it was captured is named",
        }

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        next(self.runner.read_tree(self.path).items)
        return self.runner.describe()

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. The index can be read after the context is left, once."""
        captured_at = datetime.now(UTC)
        tree = _without_ours(self.runner.read_tree(self.path))
        archiver = Archiver(tree)

        def facts() -> Facts:
            return Facts(
                captured_at=captured_at,
                fingerprint=archiver.totals.fingerprint(),
                versions={"isal": isal.__version__},
                source={**self.runner.describe(), "path": self.path},
                problems=_kept(tree.problems),
                companions={(INDEX, index.SUFFIX): archiver.index()},
            )

        try:
            yield Capture(iter(archiver), facts)
        except BaseException:
            archiver.close()
            raise

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - to know it is to read it all
        """See `Component.unchanged_since`: never known without reading."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`: one reading serves `readable` and `files_equal`."""
        if names & {"readable", "files_equal"}:
            outcomes = _read_through(stored, compare="files_equal" in names)
            yield from (outcome for outcome in outcomes if outcome.check in names)
        if "complete" in names:
            yield _complete(stored.entry.problems, stored.entry.fingerprint["files"])


def _without_ours(tree: Tree) -> Tree:
    """Leave out what a restore keeps for its undo, at the top of the folder.

    A file that shares its content with one there, and comes later, stands for it.
    """
    firsts: dict[bytes, bytes] = {}

    def items() -> Iterator[TreeItem]:
        for item in tree.items:
            if is_ours(item.path):
                continue
            if item.kind == "hardlink" and is_ours(item.target):
                first = firsts.setdefault(item.target, item.path)
                own = first == item.path
                yield replace(item, kind="file" if own else "hardlink", target=b"" if own else first)
            else:
                yield item
        tree.problems[:] = [p for p in tree.problems if not is_ours(as_path(p.where))]

    return Tree(items(), tree.problems)


@dataclass
class _Comparison:
    """An archive's rows against its index's, as they come; `differences` are the first of `count`."""

    expected: Iterator[Row] | None
    totals: Totals = field(default_factory=Totals)
    differences: list[str] = field(default_factory=list)
    count: int = 0

    def take(self, found: Row) -> None:
        row = self._next()
        if self.expected is None:
            return
        where = repr(as_text(found.path))
        if row is None or row.path != found.path:
            self._differ(f"the archive has {where} where the index has {_named(row)}")
            self.expected = None  # what follows could only be out of step
        elif replace(row, mtime_ns=row.mtime_ns // SECOND * SECOND) != found:
            self._differ(f"{where} is not as its index says: {_different(row, found)}")

    def end(self) -> None:
        row = self._next()
        if row is not None:
            self._differ(f"the archive ends where the index has {_named(row)}")

    def _next(self) -> Row | None:
        """Return the index's next path in this archive, counting all on the way."""
        while self.expected is not None:
            try:
                row = next(self.expected, None)
            except DamagedError as error:
                self._differ(error.message)
                self.expected = None
                return None
            if row is None:
                return None
            self.totals.count(row)
            if row.archive is None:
                return row
        return None

    def _differ(self, what: str) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self.differences.append(what)


def _read_through(stored: Stored, *, compare: bool) -> Iterator[Outcome]:
    comparison = _Comparison(index.read(stored.companion(INDEX)) if compare else None)
    held = Totals()
    try:
        for row in archive_reader.read(stored.plain()):
            held.count(row)
            comparison.take(row)
        comparison.end()
    except DamagedError as error:
        after = f"{error.message}, after {held.files} files"
        yield failed("readable", after, **vars(held))
        yield failed("files_equal", f"not all of them can be read: {after}", **vars(held))
        return
    yield passed("readable", f"{held.files} files, {held.bytes} bytes, read to the end", **vars(held))
    if comparison.count:
        said = "; ".join(comparison.differences)
        yield failed("files_equal", said, differences=comparison.count, **vars(held))
        return
    found = comparison.totals.fingerprint()
    if different := fingerprint.compare(stored.entry.fingerprint, found):
        yield failed("files_equal", fingerprint.describe(different), **vars(held))
        return
    yield passed("files_equal", f"{held.files} files equal the index", **vars(held))


def _different(row: Row, found: Row) -> str:
    names = [n for n in Row.__slots__ if getattr(row, n) != getattr(found, n)]
    return ", ".join(f"{n} {getattr(found, n)!r}, not {getattr(row, n)!r}" for n in names)


def _named(row: Row | None) -> str:
    return "its end" if row is None else repr(as_text(row.path))


def _complete(problems: tuple[Problem, ...], files: int) -> Outcome:
    lost = [problem for problem in problems if problem.what.startswith(UNREADABLE)]
    uncertain = [p for p in problems if p not in lost and p.what != LEFT_OUT]
    if lost:
        return failed("complete", _listed(lost), unreadable=len(lost), uncertain=len(uncertain))
    if files == 0:  # the night that the disk was not mounted
        return inconclusive("complete", "the folder held no file: is its disk mounted?", unreadable=0)
    note = f"; {_listed(list(problems))}" if problems else ""  # a busy night is no failed backup
    return passed("complete", f"nothing was unreadable{note}", unreadable=0, uncertain=len(uncertain))


def _listed(problems: list[Problem]) -> str:
    shown = "; ".join(f"{problem.where!r} {problem.what}" for problem in problems[:_SHOWN])
    return shown + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")


def _kept(problems: list[Problem]) -> tuple[Problem, ...]:
    """Return the problems for the entry, the unreadable first, so that none is hidden by the limit."""
    ordered = sorted(problems, key=lambda problem: not problem.what.startswith(UNREADABLE))
    more = [Problem(f"{len(ordered) - _NAMED} more problems are not listed")] if len(ordered) > _NAMED else []
    return (*ordered[:_NAMED], *more)
