"""The script's dump, and its SQL, read for what they hold: without it there is nothing to compare with.

A fingerprint of the source does not exist. This one is counted from the dump's own text, with no server: a
test restore, which counts what came out, is then a second opinion and can fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from bookreader_backup_assets.actions.adopt_found import Found, Seen, read
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components import postgresql_sql, table_sql
from bookreader_backup_assets.components.base import Capture, Facts
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.psql import major, unquoted
from bookreader_backup_assets.components.table_sql import Item
from bookreader_backup_assets.core.errors import (
    CommandError,
    DamagedError,
    RefusedError,
    SourceAbsentError,
)
from bookreader_backup_assets.runners.base import Runner

MAGIC = b"PGDMP"
_HEAD = 64 << 10
_SAID = re.compile(rb"^-- Dumped (from database|by pg_dump) version (\d[^ \n]*)", re.MULTILINE)
_NAME = r'(?:"(?:[^"]|"")*"|[^\s".(),;]+)'
_CREATES = re.compile(rf"CREATE (?:UNLOGGED )?TABLE ({_NAME}\.{_NAME}) \(")
_ROLE = re.compile(rf"^(?:GRANT|REVOKE) .*? (?:TO|FROM) ({_NAME})(?: WITH GRANT OPTION)?;$", re.MULTILINE)
_DATABASE = re.compile(r"^CREATE DATABASE .*? ENCODING = '([^']*)'(.*);$", re.MULTILINE)
_ALEMBIC = re.compile(
    r"^COPY public\.alembic_version \(version_num\) FROM stdin;\n(.*?)^\\\.$", re.MULTILINE | re.DOTALL
)
_SET = re.compile(r"SELECT pg_catalog\.setval\('((?:[^']|'')+)', (\d+), (true|false)\);")
_DOWN_OR_OVER = re.compile(r"^ +(?:INCREMENT BY -|CYCLE$)", re.MULTILINE)
_TOO_NEW = re.compile(r"unsupported version|does not support compression|not built with|not compiled with")

Pg = Callable[..., Iterator[bytes]]
"""Runs `pg_restore` with some options over the dump, and yields what it prints."""


def look(installation: Installation, found: Found) -> Seen:
    """Read a dump to its end, and count it. Raises `DamagedError` where it is no dump, or not whole.

    Raises `RefusedError` where no `pg_restore` here can read it.
    """
    component = installation.component("postgresql/dump")
    assert isinstance(component, PostgresqlDump)
    database, versions = header(next(read(found.item.path), b""))
    if database != component.database:
        raise RefusedError(
            f"it is a dump of the database {database!r}, and BookReader's is {component.database!r}",
            hint=f"if that was its name then: BACKUP_POSTGRESQL_DATABASE={database} for this command",
        )
    try:
        with installation.scratch.postgresql(max(map(major, versions.values()))) as server:
            return _counted(found, server.runner, versions)
    except SourceAbsentError:  # without a server, pg_restore is enough to count it
        return _counted(found, component.runner, versions)


def look_at_sql(installation: Installation, found: Found) -> Seen:  # noqa: ARG001 - as the others
    """Read a dump in SQL to its end, and count it. Raises `DamagedError` where it is not whole."""
    head = _Head(found.decompressed())
    rows, ended = postgresql_sql.read(head)
    if not ended:
        raise DamagedError("it is cut short: the line that ends a dump is missing")
    tables = {f"{_part(schema)}.{_part(name)}": count for (schema, name), count in sorted(rows.items())}
    facts = Facts(
        captured_at=found.at,
        fingerprint={
            "kind": "sql",
            "tables": {name: {"rows": count, "digest": None, "owner": ""} for name, count in tables.items()},
        },
        versions=head.versions(),
        source=found.source(),
    )
    return Seen(found.at, lambda: nullcontext(Capture(found.decompressed(), lambda: facts, found.item.size)))


def _counted(found: Found, runner: Runner, versions: Mapping[str, str]) -> Seen:
    def pg(*options: str) -> Iterator[bytes]:
        argv = ["pg_restore", "--file=-", *options]
        return runner.stream(argv, env={"LC_ALL": "C"}, stdin=found.chunks())

    try:
        outline = list(table_sql.items(_text(pg("--section=pre-data", "--create"))))
        later = list(table_sql.items(_text(pg("--section=post-data"))))
        rows, ended = postgresql_sql.read(pg())
        migration = _migration(pg, rows)
        sequences = _sequences(pg, outline)
    except CommandError as error:
        if _TOO_NEW.search(error.stderr):
            raise RefusedError(
                f"no pg_restore here reads a dump of PostgreSQL {versions['client']}: {error.message}",
                hint="set BACKUP_POSTGRESQL_PROGRAMS to a folder with programs of that version, or a newer",
            ) from None
        raise DamagedError(f"pg_restore cannot read it to its end: {error.message}") from None
    if not ended:
        raise DamagedError("pg_restore does not read it to its end")
    facts = Facts(
        captured_at=found.at,
        fingerprint={
            **_fingerprint(outline, later, rows),
            "alembic_version": migration,
            "sequences": sequences,
        },
        versions=dict(versions),
        source={**found.source(), **_database(outline)},
    )
    return Seen(found.at, lambda: nullcontext(Capture(found.chunks(), lambda: facts, found.item.size)))


def _fingerprint(
    outline: list[Item], later: list[Item], rows: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """Return what `postgresql_fingerprint` would count, as far as the text tells: no digests, no grants, and
    the names of extensions without versions.
    """
    made = [(item, _CREATES.search(item.sql)) for item in outline if item.kind == "TABLE"]
    tables = {
        match[1]: {"rows": rows.get(unquoted(match[1]), 0), "digest": None, "owner": item.owner}
        for item, match in made
        if match is not None and "\nPARTITION BY " not in item.sql
    }
    roles = {item.owner for item in (*outline, *later)} - {"-", ""}
    for item in (*outline, *later):
        if item.kind in ("ACL", "DEFAULT ACL"):
            roles |= {_plain(name) for name in _ROLE.findall(item.sql)} - {"PUBLIC"}
    extensions = {item.name: "" for item in outline if item.kind == "EXTENSION"}
    return {
        "kind": "tables",
        "tables": dict(sorted(tables.items())),
        "extensions": extensions,
        "roles": sorted(roles),
    }


def _migration(pg: Pg, rows: Mapping[tuple[str, str], int]) -> str | None:
    if ("public", "alembic_version") not in rows:
        return None
    said = _text(pg("--data-only", "--schema=public", "--table=alembic_version"))
    held = _ALEMBIC.search(said)
    return ", ".join(sorted(held[1].split())) or None if held else None


def _sequences(pg: Pg, outline: Iterable[Item]) -> dict[str, int | None]:
    """Return where sequences stand, but for those that count down or start over; see the fingerprint."""
    up = [item for item in outline if item.kind == "SEQUENCE" and not _DOWN_OR_OVER.search(item.sql)]
    if not up:
        return {}
    options = [f"--table={name}" for name in sorted({item.name for item in up})]  # no patterns: as they stand
    wanted = {(item.schema, item.name) for item in up}
    found = {}
    for item in table_sql.items(_text(pg("--data-only", *options))):
        match = _SET.search(item.sql)
        if item.kind == "SEQUENCE SET" and (item.schema, item.name) in wanted and match is not None:
            found[match[1].replace("''", "'")] = int(match[2]) if match[3] == "true" else None
    return dict(sorted(found.items()))


def _database(outline: Iterable[Item]) -> dict[str, str]:
    """Return the encoding and locale of the database, as the dump would create it."""
    for item in outline:
        if item.kind == "DATABASE" and (match := _DATABASE.search(item.sql)) is not None:
            found = re.findall(r"\b(LOCALE|LC_COLLATE|LC_CTYPE) = '([^']*)'", match[2])
            said: dict[str, str] = dict(found)
            both = said.get("LOCALE", "")
            return {
                "database": item.name,
                "encoding": match[1],
                "collate": said.get("LC_COLLATE", both),
                "ctype": said.get("LC_CTYPE", both),
            }
    return {}


class _Head:
    """Passes chunks on, and keeps the first bytes: a dump in SQL says there what made it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._head = b""

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if len(self._head) < _HEAD:
                self._head += chunk[:_HEAD]
            yield chunk

    def versions(self) -> dict[str, str]:
        who = {b"from database": "server", b"by pg_dump": "client"}
        return {who[said]: version.decode("ascii", "replace") for said, version in _SAID.findall(self._head)}


def header(head: bytes) -> tuple[str, dict[str, str]]:
    """Return the database, and the versions of server and client, in the header of a custom-format dump.

    After the magic: the format's version (3 bytes), the bytes of an int and of an offset, the format, how
    it is compressed (an int, from 1.15 on a byte), seven ints of time, and three strings with their length.
    An int is a sign byte and little-endian digits.
    """
    if not head.startswith(MAGIC):
        raise DamagedError("it is no dump of PostgreSQL in the custom format")
    try:
        version, width, form = head[5:8], head[8], head[10]
        if form != 1:
            raise DamagedError("it is no dump of PostgreSQL in the custom format")
        at = 11 + (1 if version >= bytes((1, 15, 0)) else 1 + width) + 7 * (1 + width)
        said = []
        for _ in range(3):
            length = int.from_bytes(head[at + 1 : at + 1 + width], "little") if head[at] == 0 else 0
            said.append(head[at + 1 + width : at + 1 + width + length].decode("utf-8", "replace"))
            at += 1 + width + length
    except IndexError:
        raise DamagedError("it is cut short within its header") from None
    server, client = (text.split(" ", 1)[0] for text in said[1:])
    if not (server[:1].isdigit() and client[:1].isdigit()):
        raise DamagedError("the header of the dump is damaged")
    return said[0], {"server": server, "client": client}


def _text(chunks: Iterable[bytes]) -> str:
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _part(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else '"' + name.replace('"', '""') + '"'
