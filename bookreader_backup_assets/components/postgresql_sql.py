"""`postgresql/sql`: the dump as plain SQL, for people to look into: `gunzip -c FILE | less`.

Made of the set's own dump and not of the database, so that it holds the same instant and costs production
nothing. What brings the database back is the dump.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.database_restore import read_whole
from bookreader_backup_assets.components.psql import unquoted
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.core.streams import quiet
from bookreader_backup_assets.runners.base import Runner

WHOLE = "whole"
TABLES_EQUAL = "tables_equal"
_TRAILER = b"-- PostgreSQL database dump complete"
_UNRESTRICT = b"\\unrestrict "  # newer ones say it last
_COPY = re.compile(rb'COPY ((?:"(?:[^"]|"")+"|[^" ]+)+) +(?:\(.*\) )?FROM stdin;', re.DOTALL)
_END = b"\n\\.\n"
_LINE = 1 << 20  # bytes of a line that can still be a COPY: 1,600 columns with their longest names
_EXPANDS = 3  # the dump was compressed, and so is this


@dataclass(frozen=True)
class PostgresqlSql:
    """Captures and checks the SQL of one database's dump. `runner` has pg_restore; `dump` is the source."""

    runner: Runner
    stem: str
    dump: Stored | None = None
    codecs: tuple[str, ...] = ("gzip",)

    component = "postgresql"
    artifact = "sql"
    suffix = ".sql"
    kind = None
    derived_from = "postgresql/dump"

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            WHOLE: "it ends as pg_restore ends, and is not cut short",
            TABLES_EQUAL: "each table has as many rows in it as in the dump",
        }

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        said = self.runner.run(["pg_restore", "--version"]).stdout.decode("utf-8", "replace")
        return {"client": said.rpartition(") ")[2].split(" ")[0].strip()}

    def over(self, stored: Stored) -> PostgresqlSql:
        """See `Derived.over`."""
        return replace(self, dump=stored)

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. Raises `DamagedError` where the dump is not what was captured."""
        if self.dump is None:
            raise SourceAbsentError("there is no dump to make SQL of", hint="capture postgresql/dump first")
        dump = self.dump
        read_whole(dump, quiet)
        facts = Facts(
            captured_at=dump.entry.captured_at,
            fingerprint={
                "kind": "sql",
                "dump": dump.entry.name,
                "dump_sha256": dump.entry.sha256,
                "tables": dump.entry.fingerprint["tables"],
            },
            versions=dump.entry.versions,
            source=dump.entry.source,
        )
        argv = ["pg_restore", "--file=-"]
        sql = self.runner.stream(argv, env={"LC_ALL": "C"}, stdin=dump.plain())
        yield Capture(sql, lambda: facts, expected=dump.entry.size)

    def unchanged_since(self, newest: Entry) -> bool:
        """Whether it was made of this very dump already."""
        return self.dump is not None and newest.fingerprint.get("dump_sha256") == self.dump.entry.sha256

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`."""
        rows, ended = read(stored.plain())
        if WHOLE in names:
            said = "ends as pg_restore ends" if ended else "is cut short: the line that ends it is missing"
            yield (passed if ended else failed)(WHOLE, f"the SQL {said}")
        if TABLES_EQUAL in names:
            yield _tables_equal(stored.entry, rows)


def _tables_equal(entry: Entry, rows: Mapping[tuple[str, str], int]) -> Outcome:
    tables = entry.fingerprint["tables"]
    wrong = [
        f"{name} has {rows.get(unquoted(name), 'no')} rows, and {table['rows']} in the dump"
        for name, table in tables.items()
        if table["rows"] is not None and rows.get(unquoted(name)) != table["rows"]
    ]
    if wrong:
        return failed(TABLES_EQUAL, "; ".join(wrong[:5]), tables=len(tables), different=len(wrong))
    count = sum(table["rows"] or 0 for table in tables.values())
    return passed(TABLES_EQUAL, f"{len(tables)} tables, {count} rows, as in the dump", tables=len(tables))


def read(chunks: Iterable[bytes]) -> tuple[dict[tuple[str, str], int], bool]:
    r"""Return the rows of each table in what pg_restore printed, and whether it ends whole. Flat memory.

    A table's data are the lines from `COPY … FROM stdin;` to `\.`, of which none within is one.
    """
    rows: dict[tuple[str, str], int] = {}
    table: tuple[str, str] | None = None
    rest = b""
    begun = b""
    said = (b"", b"")  # the last two lines that say something
    for chunk in chunks:
        rest += chunk
        while True:
            if table is not None:  # `rest` begins with the line break before a row
                end = rest.find(_END)
                taken = end if end >= 0 else max(0, len(rest) - len(_END))
                rows[table] += rest.count(b"\n", 0, taken)
                if end < 0:
                    rest = rest[taken:]
                    break
                table, rest = None, rest[end + len(_END) :]
                continue
            line, newline, after = rest.partition(b"\n")
            if not newline:
                rest = rest[-_LINE:]
                break
            rest = after
            if line and not line.startswith(_UNRESTRICT):
                said = (said[1], line)
            if begun and len(begun) < _LINE:
                line = begun + newline + line
            begun = line if line.startswith(b"COPY ") and line.count(b'"') % 2 else b""  # a name of two lines
            if (match := _COPY.fullmatch(line)) is not None:
                table = unquoted(match[1].decode("utf-8", "surrogateescape"))
                rows.setdefault(table, 0)
                rest = newline + rest
    return rows, said == (_TRAILER, b"--") and not rest
