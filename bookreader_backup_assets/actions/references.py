"""Rows and files belong together: whether every file that a row points to is in storage.

Works on the live database and folder after a restore, and on scratch ones in a drill.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bookreader_backup_assets.components import psql
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import SettingsError
from bookreader_backup_assets.runners.base import Runner, Tree

REFERENCES = "references"
EXAMPLES = 20
"""Paths named in an outcome."""
IN_CONTAINER = "/app/storage"
"""The storage folder as BookReader's code sees it, wherever it lies on the host."""
_COLUMN = re.compile(r"(?:([^.=\s]+)\.)?([^.=\s]+)\.([^.=\s]+)(?:=([^=]+))?")
_ESCAPE = re.compile(rb"\\(.)")
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://|data:")


@dataclass(frozen=True)
class FileColumn:
    """A column that holds paths of files; relative ones are looked for in `folder` of storage too."""

    schema: str
    table: str
    column: str
    folder: str = ""

    def __str__(self) -> str:
        """As the setting names it."""
        schema = "" if self.schema == "public" else f"{self.schema}."
        return f"{schema}{self.table}.{self.column}"


def file_columns(settings: Sequence[str]) -> tuple[FileColumn, ...]:
    """Return the columns that `BACKUP_FILE_COLUMNS` names. Raises `SettingsError`."""
    found = []
    for text in settings:
        match = _COLUMN.fullmatch(text)
        if match is None:
            raise SettingsError(
                f"BACKUP_FILE_COLUMNS: {text!r} is not a column", hint="write it as table.column"
            )
        schema, table, column, folder = match.groups()
        found.append(FileColumn(schema or "public", table, column, (folder or "").strip("/")))
    return tuple(found)


def files(tree: Tree) -> Iterator[bytes]:
    """Yield the names of all that is no folder in a tree. Nothing is read of the files."""
    return (item.path for item in tree.items if item.kind != "folder")


def references(
    runner: Runner,
    env: Mapping[str, str],
    database: str,
    columns: Sequence[FileColumn],
    names: Callable[[], Iterable[bytes]],
    *,
    roots: Sequence[str] = (),
) -> Outcome:
    """Compare what rows point to with the files there are.

    `names` yields every file's path, relative to the storage folder. `roots` are the folder's own absolute
    paths, besides the one in BookReader's containers. Fails for rows whose file is not there; is
    inconclusive where a column is not, or rows point out of storage. Files that no row points to are
    counted. Memory grows with the number of files, not of rows. Raises like `psql.connect`.
    """
    began = time.monotonic()
    pointed = dict.fromkeys(names(), False)
    there, absent = _existing(runner, env, database, columns)
    seen = _Seen()
    for number, path in _rows(runner, env, database, there) if there else ():
        seen.rows[number] = seen.rows.get(number, 0) + 1
        if _URL.match(path):
            seen.urls += 1
            continue
        candidates = _candidates(path, there[number].folder, (*roots, IN_CONTAINER))
        found = next((name for name in candidates if name in pointed), None)
        if found is not None:
            pointed[found] = True
        elif candidates:
            seen.missing += 1
            seen.note(seen.missing_examples, there[number], path)
        else:
            seen.outside += 1
            seen.note(seen.outside_examples, there[number], path)
    measured = {
        "rows": {str(column): seen.rows.get(number, 0) for number, column in enumerate(there)},
        "files": len(pointed),
        "files_pointed_to": sum(pointed.values()),
        "files_no_row_points_to": len(pointed) - sum(pointed.values()),
        "rows_without_file": seen.missing,
        "missing": seen.missing_examples,
        "rows_outside_storage": seen.outside,
        "outside": seen.outside_examples,
        "rows_with_a_url": seen.urls,
        "columns_absent": [str(column) for column in absent],
    }
    verdict = _verdict(seen, absent, measured)
    return replace(verdict, measured=measured, seconds=round(time.monotonic() - began, 3))


class _Seen:
    """What the rows have shown so far."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.missing = self.outside = self.urls = 0
        self.missing_examples: list[str] = []
        self.outside_examples: list[str] = []

    @staticmethod
    def note(examples: list[str], column: FileColumn, path: bytes) -> None:
        if len(examples) < EXAMPLES:
            examples.append(f"{column}: {path.decode('utf-8', 'backslashreplace')}")


def _verdict(seen: _Seen, absent: Sequence[FileColumn], measured: Mapping[str, object]) -> Outcome:
    total = sum(seen.rows.values())
    if seen.missing:
        some = ", ".join(seen.missing_examples[:3])
        return failed(REFERENCES, f"{seen.missing} of {total} rows point to a file that is not there: {some}")
    if absent:
        said = ", ".join(map(str, absent))
        return inconclusive(REFERENCES, f"there is no column {said}: correct BACKUP_FILE_COLUMNS")
    if seen.outside:
        some = ", ".join(seen.outside_examples[:3])
        return inconclusive(
            REFERENCES, f"{seen.outside} of {total} rows point out of storage, which is not backed up: {some}"
        )
    return passed(REFERENCES, f"{total} rows point to {measured['files_pointed_to']} files, all there")


def _existing(
    runner: Runner, env: Mapping[str, str], database: str, columns: Sequence[FileColumn]
) -> tuple[list[FileColumn], list[FileColumn]]:
    """Return the columns that the database has, and those that it has not."""
    if not columns:
        return [], []
    wanted = ", ".join(
        f"({number}, {psql.literal(c.schema)}, {psql.literal(c.table)}, {psql.literal(c.column)})"
        for number, c in enumerate(columns)
    )
    query = (
        f"SELECT coalesce(jsonb_agg(w.number), '[]') FROM (VALUES {wanted}) w (number, s, t, c)"  # noqa: S608 - quoted
        " JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
        " JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = w.t"
        " JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attname = w.c"
        " WHERE a.attnum > 0 AND NOT a.attisdropped"
    )
    with psql.connect(runner, env, database) as connected:
        found = set(connected.ask(query))
    there = [column for number, column in enumerate(columns) if number in found]
    return there, [column for number, column in enumerate(columns) if number not in found]


def _rows(
    runner: Runner, env: Mapping[str, str], database: str, columns: Sequence[FileColumn]
) -> Iterator[tuple[int, bytes]]:
    """Yield the number of a column and a path of it, of all rows at one moment."""
    selects = [
        f"SELECT {number}, {psql.identifier(c.column)}::text FROM"  # noqa: S608 - quoted
        f" {psql.identifier(c.schema)}.{psql.identifier(c.table)}"
        f" WHERE {psql.identifier(c.column)}::text <> ''"
        for number, c in enumerate(columns)
    ]
    copy = f"COPY ({' UNION ALL '.join(selects)}) TO STDOUT"
    mine = {**psql.client_env(env, database), "PGCLIENTENCODING": "UTF8"}
    rest = b""
    with psql.understood():
        for chunk in runner.stream([*psql.PSQL, "-c", psql.PINNED, "-c", copy], env=mine):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number, _, path = line.partition(b"\t")
                yield int(number), _unescaped(path)


def _unescaped(field: bytes) -> bytes:
    """A field of COPY's text form as it was."""
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), field) if b"\\" in field else field


def _candidates(path: bytes, folder: str, roots: Iterable[str]) -> list[bytes]:
    """Return the names in storage that a row's path may mean, none if it lies outside."""
    plain = posixpath.normpath(path)
    if plain.startswith(b"/"):
        plain = b"/" + plain.lstrip(b"/")
        for root in (*roots, "/storage"):  # the last as the web server shows it
            start = root.rstrip("/").encode() + b"/"
            if plain.startswith(start):
                return [plain[len(start) :]]
        return []
    if plain == b".." or plain.startswith(b"../"):
        return []
    below = [posixpath.join(folder.encode(), plain)] if folder else []
    # relative to the folder above, as in `storage/books/1.epub`
    above = [plain.removeprefix(b"storage/")] if plain.startswith(b"storage/") else []
    return [*below, plain, *above]
