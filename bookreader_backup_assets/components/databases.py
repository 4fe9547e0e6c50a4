"""Databases of a server as a whole: closed, renamed, opened, dropped."""

from __future__ import annotations

import time

from bookreader_backup_assets.components.psql import Psql, identifier, literal
from bookreader_backup_assets.core.errors import SourceError

CLOSED_WITHIN = 30.0
"""Seconds to end the connections of a database that is to be renamed."""


def names(psql: Psql) -> set[str]:
    """Return the databases there are."""
    return set(psql.ask("SELECT jsonb_agg(datname) FROM pg_catalog.pg_database"))


def rename(psql: Psql, live: str, *, aside: str, into_place: str) -> None:
    """Put one database in the place of another, in one transaction; the one aside is closed to everybody."""
    there = names(psql)
    for name in (live, into_place):
        if name in there:
            close(psql, name)
    renaming = [f"ALTER DATABASE {identifier(live)} RENAME TO {identifier(aside)}"] if live in there else []
    renaming += [f"ALTER DATABASE {identifier(into_place)} RENAME TO {identifier(live)}"]
    tell(psql, "BEGIN", *renaming, f"ALTER DATABASE {identifier(live)} ALLOW_CONNECTIONS true", "COMMIT")


def close(psql: Psql, name: str) -> None:
    """Let nobody into a database, and end who is in it. Raises `SourceError` if somebody does not go."""
    tell(psql, f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false")
    _end_sessions(psql, f"datname = {literal(name)}", name)


def end_work(psql: Psql, application: str) -> None:
    """End what a restore that was killed still has at work. Raises `SourceError` if it does not go.

    Its programs are told to end when their input does, and finish a statement that they are at.
    """
    _end_sessions(psql, f"application_name = {literal(application)} AND pid <> pg_backend_pid()", application)


def _end_sessions(psql: Psql, which: str, name: str) -> None:
    deadline = time.monotonic() + CLOSED_WITHIN
    ending = (
        "SELECT coalesce(jsonb_agg(jsonb_build_array(concat_ws(' ', usename, application_name, client_addr),"
        f" pg_terminate_backend(pid))), '[]') FROM pg_catalog.pg_stat_activity WHERE {which}"
    )
    while held := psql.ask(ending):
        if time.monotonic() > deadline:
            who = sorted({who for who, _ in held})
            raise SourceError(
                f"{name} is still in use after {CLOSED_WITHIN:.0f} s by {', '.join(who)}",
                hint="stop what holds it, and restore again; nothing was replaced",
            )
        time.sleep(0.1)


def let_in(psql: Psql, name: str) -> None:
    """Let people into a database again, if it is there."""
    if name in names(psql):
        tell(psql, f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true")


def tell(psql: Psql, *statements: str) -> None:
    """Run statements, and return when they are done. Raises `CommandError`."""
    for statement in statements:
        psql.tell(statement + ";")
    psql.ask("SELECT to_jsonb(1)", within=CLOSED_WITHIN * 20)  # they are done


def drop(psql: Psql, name: str) -> None:
    """Remove a database, if it is there, with whoever is in it."""
    if name in names(psql):
        close(psql, name)
        tell(psql, f"DROP DATABASE {identifier(name)}")
