r"""The index of an archive: for every path, where its content lies and what it is. Format version 1.

`<archive>.index.gz`: gzipped JSON lines in ASCII, in the order of the archive. The first line is
`{"format_version":1,"kind":"index"}`; every other is one path:

path      the path below the captured folder; `.` is the folder itself. Bytes that are no UTF-8 are
          surrogate escapes (byte 0x80 is `\udc80`), so any name comes back byte by byte
kind      `file`, `folder`, `symlink` or `hardlink`
archive   the name, in the vault, of the archive that holds it; null for the one this index lies beside.
          An index names all paths of its moment, so no restore ever needs a second index
offset    bytes before the gzip member that its header and content begin in
length    bytes from there through the end of the last member that holds some of it
inside    bytes of that first member, decompressed, before its content: a header never crosses members
mode      permission bits; with uid and gid as numbers
mtime_ns  nanoseconds since 1970 (the tar header has whole seconds)
size      bytes of content, only for a file
sha256    of the content, in hex, only for a file
target    only for links: what a symlink says, or the earlier path that a hardlink is the same file as
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.core.artifact import load_document
from bookreader_backup_assets.core.errors import DamagedError, SpaceError
from bookreader_backup_assets.core.streams import CHUNK
from bookreader_backup_assets.runners.base import Kind
from bookreader_backup_assets.runners.tree import as_path, as_text

SUFFIX = ".index.gz"
_HEADER = b'{"format_version":1,"kind":"index"}\n'
_IN_MEMORY = 16 << 20  # a quarter of a million paths, compressed
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_SIZE = re.compile(rb'","kind":"file",.*?,"size":(\d+)[,}]')
_KINDS = ("file", "folder", "symlink", "hardlink")


@dataclass(frozen=True, slots=True)
class Row:
    """One path; see the format above."""

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    offset: int
    length: int
    inside: int
    archive: str | None = None
    size: int = 0
    sha256: str = ""
    target: bytes = b""

    def to_json(self) -> bytes:
        """The row as a line of the index."""
        fields: dict[str, Any] = {
            "path": as_text(self.path),
            "kind": self.kind,
            "archive": self.archive,
            "offset": self.offset,
            "length": self.length,
            "inside": self.inside,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "mtime_ns": self.mtime_ns,
        }
        if self.kind == "file":
            fields |= {"size": self.size, "sha256": self.sha256}
        elif self.kind != "folder":
            fields["target"] = as_text(self.target)
        return _ENCODER.encode(fields).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Row:
        """Return the row in `line`. Raises `DamagedError` if it is none."""
        try:
            fields = json.loads(line)
            fields["path"] = as_path(fields["path"])
            fields["target"] = as_path(fields.get("target", ""))
            row = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"the index is damaged: {error}") from None
        numbers = (row.mode, row.uid, row.gid, row.mtime_ns, row.offset, row.length, row.inside, row.size)
        if row.kind not in _KINDS or not all(type(number) is int for number in numbers):
            raise DamagedError(f"the index is damaged at {as_text(row.path)!r}")
        return row


class IndexWriter:
    """Takes rows, and gives the bytes of the index when all are in; flat in memory.

    What is over 16 MB waits in an unlinked temporary file. Raises `SpaceError` if that has no room.
    """

    def __init__(self) -> None:
        self._spool = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed in close()
        self._lines = [_HEADER]
        self._held = 0

    def add(self, row: Row) -> None:
        """Add the next row."""
        line = row.to_json()
        self._lines.append(line)
        self._held += len(line)
        if self._held >= CHUNK:
            self._pack()

    def chunks(self) -> Iterator[bytes]:
        """Yield the index, once: nothing is added after that."""
        self._pack()
        self._spool.seek(0)
        with self._spool:
            while chunk := self._spool.read(CHUNK):
                yield chunk

    def close(self) -> None:
        """Let go of the temporary file, if `chunks` is not to be read to its end."""
        self._spool.close()

    def _pack(self) -> None:
        if not self._lines:
            return
        try:
            self._spool.write(gzip.member(b"".join(self._lines)))
        except OSError as error:
            raise SpaceError(
                f"the index cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
                hint="free space there, or set TMPDIR to a larger disk",
            ) from None
        self._lines.clear()
        self._held = 0


def read(chunks: Iterable[bytes], of: Callable[[bytes], bool] | None = None) -> Iterator[Row]:
    """Yield the rows of an index, in the archive's order; only those `of` whose path it says yes.

    Passing over a path takes a tenth of the time of a row. Raises `DamagedError`.
    """
    return (Row.from_json(line) for line in _lines(chunks) if of is None or of(_path(line)))


def find(chunks: Iterable[bytes], path: bytes) -> Row | None:
    """Return the row of one path, or None: a million rows are passed in under a second."""
    start = b'{"path":' + json.dumps(as_text(path)).encode("ascii") + b","
    found = next((line for line in _lines(chunks) if line.startswith(start)), None)
    return None if found is None else Row.from_json(found)


def sizes(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield path and bytes of every file, several times as fast as the rows. Raises `DamagedError`."""
    for line in _lines(chunks):
        if (found := _SIZE.search(line)) is not None:  # quotes within a path are escaped
            yield _path(line), int(found[1])
        elif (row := Row.from_json(line)).kind == "file":
            yield row.path, row.size


def _path(line: bytes) -> bytes:
    start, end = len(b'{"path":"'), line.find(b'","kind":"')  # not within the path: there it is escaped
    if not line.startswith(b'{"path":"') or end < 0:
        return Row.from_json(line).path
    return line[start:end] if b"\\" not in line[:end] else as_path(json.loads(line[start - 1 : end + 1]))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    headed = False
    for chunk in gzip.decode(chunks):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines and not headed:
            _check_header(lines.pop(0))
            headed = True
        yield from lines
    if rest or not headed:
        raise DamagedError("the index is cut short")


def _check_header(line: bytes) -> None:
    if load_document(line, "the index").get("kind") != "index":
        raise DamagedError("this is no index of an archive")
