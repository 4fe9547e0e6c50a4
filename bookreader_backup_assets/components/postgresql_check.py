"""Whether a stored dump would bring the database back: listed, and restored into a scratch server."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator

from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components import postgresql_restore as restore
from bookreader_backup_assets.components.base import Scratch, ScratchPostgresql, Stored
from bookreader_backup_assets.components.psql import complaint, connect, identifier, major, unquoted
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import (
    CommandError,
    DamagedError,
    KeyMissingError,
    NotFoundError,
    SourceAbsentError,
    SourceError,
)
from bookreader_backup_assets.core.fingerprint import describe
from bookreader_backup_assets.runners.base import Runner

LISTED = "tables_listed"
RESTORABLE = "restorable"
CHECKS = {
    LISTED: "pg_restore --list names every table of the fingerprint",
    RESTORABLE: "restored into a scratch server, owners included, its rows and digests are equal",
}
GLOBALS = "postgresql/globals"
_DATABASE = "restored"

# what the scratch server lacks says nothing about the dump
_LACKING = re.compile(
    r"ICU is not supported|collation .* for encoding .* does not exist|could not create locale"
    r'|extension ".*" is not available|could not (?:open extension control|access) file'
    r"|does not support compression|unsupported version \(|unrecognized configuration parameter"
    r"|No space left on device|could not extend file|[Oo]ut of memory|out of shared memory"
    r"|server closed the connection|terminating connection|connection to server .* failed"
)


def verify(runner: Runner, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:
    """Make the checks in `names`; see `Component.verify`."""
    makers: dict[str, Callable[[], Outcome]] = {
        LISTED: lambda: _listed(runner, stored, scratch),
        RESTORABLE: lambda: _restorable(stored, scratch),
    }
    for name, make in makers.items():
        if name in names:
            try:
                outcome = make()
            except (SourceError, KeyMissingError) as error:  # of the scratch server, or of this machine
                outcome = inconclusive(name, f"{error.message}; {error.hint}")
            except DamagedError as error:
                outcome = failed(name, error.message)
            except CommandError as error:
                lacking = _LACKING.search(error.stderr)
                outcome = (inconclusive if lacking else failed)(name, f"{error.program}: {complaint(error)}")
            yield outcome


def _listed(runner: Runner, stored: Stored, scratch: Scratch) -> Outcome:
    try:
        found = restore.listed(runner, stored)
    except SourceAbsentError:  # the service has gone since: another pg_restore reads it as well
        with scratch.postgresql() as server:
            found = restore.listed(server.runner, stored)
    tables = stored.entry.fingerprint["tables"]
    absent = [name for name, table in tables.items() if _line(name, table["owner"]) not in found]
    if absent:
        return failed(
            LISTED, f"not in the dump: {', '.join(absent[:5])}", tables=len(tables), absent=len(absent)
        )
    return passed(LISTED, f"the dump lists all {len(tables)} tables", tables=len(tables))


def _line(name: str, owner: str) -> str:
    text = " ".join(["TABLE DATA", *unquoted(name), owner])
    return text.replace("\r", " ").replace("\n", " ")  # as pg_restore does, one line each


def _restorable(stored: Stored, scratch: Scratch) -> Outcome:
    expected = stored.entry.fingerprint
    versions = stored.entry.versions
    needed = max(major(versions.get("server", "")), major(versions.get("client", "")))
    with scratch.postgresql(needed) as server:
        if major(server.version) < needed:
            return inconclusive(
                RESTORABLE,
                f"the scratch server is PostgreSQL {server.version}, and the dump needs {needed} or newer:"
                " set BACKUP_POSTGRESQL_PROGRAMS to a folder with its programs",
            )
        with connect(server.runner, server.env, "postgres") as psql:
            lacking = fingerprint.available(psql, expected["extensions"])
            if lacking:
                return inconclusive(RESTORABLE, f"the scratch server has no extension {', '.join(lacking)}")
            notes = [restore.create_database(psql, _DATABASE, stored.entry.source)]
            psql.ask("SELECT to_jsonb(1)")  # created
        notes.append(_make_roles(server, stored))
        started = time.monotonic()
        path = str(stored.path) if server.sees_files and stored.path and not stored.entry.codecs else None
        restore.restore_into(server.runner, server.env, _DATABASE, stored, path=path)
        restored_s = round(time.monotonic() - started, 2)
        with connect(server.runner, server.env, _DATABASE) as psql:
            found = fingerprint.take(psql, fingerprint.digested(expected))
    wrong = fingerprint.differences(expected, found)
    measured = {
        "tables": len(found["tables"]),
        "rows": fingerprint.all_rows(found),
        "digests": len(fingerprint.digested(expected)),
        "restore_seconds": restored_s,
        "scratch_version": server.version,
    }
    said = "".join(f"; {note}" for note in notes if note)
    if wrong:
        return failed(RESTORABLE, f"restored, and different: {describe(wrong)}{said}", **measured)
    return passed(
        RESTORABLE,
        f"restored and equal: {measured['tables']} tables, {measured['rows']} rows{said}",
        **measured,
    )


def _make_roles(server: ScratchPostgresql, stored: Stored) -> str:
    """Make the roles as the globals of the same set say, or by name only; return what was different."""
    own = server.env["PGUSER"]
    beside = stored.sibling(GLOBALS)
    if beside is not None:
        sql = _read(beside).decode("utf-8", "surrogateescape")
        made = restore.role_statements(sql, own)
        note = ""
    else:
        names = [name for name in stored.entry.fingerprint["roles"] if name != own]
        made = [f"CREATE ROLE {identifier(name)}" for name in names]
        note = "the set has no postgresql/globals: roles were made by name only"
    restore.run_statements(server.runner, server.env, "postgres", made)
    return note


def _read(beside: Stored) -> bytes:
    """Return the globals. Raises `SourceError` if they are damaged: that says nothing about the dump."""
    name, same = beside.entry.name, True
    try:
        data = b"".join(beside.plain())
        if not beside.entry.codecs:
            same = hashlib.sha256(data).hexdigest() == beside.entry.sha256
        why = "its sha256 differs"
    except (DamagedError, NotFoundError) as error:
        same, why = False, error.message
    if not same:
        raise SourceError(
            f"the roles are made from {name}, which is damaged: {why}",
            hint="the dump itself may be good: verify a set whose globals are",
        )
    return data
