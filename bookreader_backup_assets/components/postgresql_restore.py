"""The steps of a restore, each small enough to be used alone: roles, an empty database, the dump."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.psql import (
    PSQL,
    Psql,
    client_env,
    conninfo,
    identifier,
    literal,
    major,
)
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.runners.base import STALL, Runner

JOBS = 2
"""Processes of one restore."""
RESTORED = 12 * 3600.0
"""Seconds for `pg_restore` to work in silence: it prints nothing, and indexes take their time."""
_PART = re.compile(
    r"""--[^\n]*\n?|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|;|[^-eE'";]+|.""", re.DOTALL
)
_NAME = r'(?:"(?:[^"]|"")*"|[^\s"]+)'
_META = re.compile(r"^\\(?:(?:un)?restrict|connect) .*\n?", re.MULTILINE)


def statements(sql: str) -> Iterator[str]:
    """Yield the statements of what `pg_dumpall` wrote, without comments and psql's own commands.

    A semicolon inside of quotes ends nothing.
    """
    held = ""
    for part in _PART.findall(_META.sub("", sql)):
        if part == ";":
            yield held.strip()
            held = ""
        elif not part.startswith("--"):
            held += part


def role_statements(sql: str, superuser: str) -> list[str]:
    """Return what of the globals makes sense on another server, whose superuser is `superuser`.

    Left out: tablespaces (folders of the machine that was captured), settings of databases that are not
    there yet, a role of the superuser's own name, and who granted what (version 16 and newer want the
    grantor to hold the role, and here the superuser grants).
    """
    own = re.escape(identifier(superuser))
    plain = re.escape(superuser)
    skipped = re.compile(
        rf"(?:CREATE|ALTER|COMMENT ON|SECURITY LABEL .*ON) TABLESPACE\b"
        rf"|(?:GRANT|REVOKE) .* ON TABLESPACE\b"
        rf"|ALTER ROLE {_NAME} IN DATABASE\b|(?:CREATE|ALTER) ROLE (?:{own}|{plain})(?:\s|$)",
        re.DOTALL,
    )
    kept = [statement for statement in statements(sql) if not skipped.match(statement)]
    return [re.sub(rf"(?s)^(GRANT .*) GRANTED BY {_NAME}$", r"\1", statement) for statement in kept]


def about_roles(statements: Iterable[str], roles: Iterable[str]) -> list[str]:
    """Return those of `role_statements` that make, alter, or give or take a membership of, one of `roles`."""
    wanted = {form for role in roles for form in (role, identifier(role))}
    kept = []
    for statement in statements:
        own = re.match(rf"(?s)(?:CREATE|ALTER|COMMENT ON|SECURITY LABEL .*? ON) ROLE ({_NAME})", statement)
        given = re.match(rf"(?s)GRANT ({_NAME}) TO ({_NAME})", statement)
        named = own.groups() if own else given.groups() if given else ()
        if wanted.intersection(named):
            kept.append(statement)
    return kept


def about_database(sql: str, name: str) -> list[str]:
    """Return what `pg_restore --create` says about the database itself, said about `name`: owner, grants,
    settings, comment; not what creates it.
    """
    about = re.compile(
        rf"(?s)(ALTER (?:ROLE {_NAME} IN )?DATABASE|COMMENT ON DATABASE|(?:GRANT|REVOKE) .*? ON DATABASE)"
        rf" {_NAME}(?=\s)(.*)"
    )
    found = (about.fullmatch(statement) for statement in statements(sql))
    return [f"{match[1]} {identifier(name)}{match[2]}" for match in found if match]


def run_statements(
    runner: Runner, env: Mapping[str, str], database: str, sql: Iterable[str], *, within: float = STALL
) -> None:
    """Run statements in one psql, which stops at the first error. Raises `CommandError`."""
    fed = "".join(f"{statement};\n" for statement in sql).encode("utf-8", "surrogateescape")
    runner.run([*PSQL, "-o", "/dev/null"], env=client_env(env, database), stdin=[fed], timeout=within)


def create_database(psql: Psql, name: str, source: Mapping[str, str]) -> str:
    """Create an empty database in the encoding and locale that the dump's had.

    Return what had to be different, "" if nothing: a server without that locale gets `C`, which changes
    how text is sorted, not what is stored.
    """
    encoding, collate, ctype = (source.get(key, "") for key in ("encoding", "collate", "ctype"))
    create = f"CREATE DATABASE {identifier(name)} TEMPLATE template0"
    if encoding:
        create += f" ENCODING {literal(encoding)}"
    if not collate or not psql.ask(f"SELECT to_jsonb({_has_locale(collate, ctype)})"):
        psql.tell(f"{create} LC_COLLATE 'C' LC_CTYPE 'C';")
        return f"this server has no locale {collate}: C was used" if collate else ""
    psql.tell(f"{create} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)};")
    return ""


def _has_locale(*names: str) -> str:
    # C and POSIX are in every system; the others are those that initdb found
    wanted = {_plain(name) for name in names} - {"c", "posix"}
    if not wanted:
        return "true"
    folded = "replace(lower(collcollate), '-', '')"
    return (
        f"(SELECT count(DISTINCT {folded}) = {len(wanted)} FROM pg_catalog.pg_collation"
        f" WHERE collprovider = 'c' AND {folded} IN ({', '.join(map(literal, sorted(wanted)))}))"
    )


def _plain(locale: str) -> str:
    return locale.lower().replace("-", "")


def restore_into(
    runner: Runner, env: Mapping[str, str], database: str, stored: Stored, *, path: str | None = None
) -> None:
    """Restore a dump into an empty database, stopping at the first error.

    In parallel where the dump is a file at `path` where the program runs, else as one stream. Raises
    `CommandError` if anything of it could not be restored, and what reading `stored` raises.
    """
    argv = ["pg_restore", "-w", "--exit-on-error", "--no-tablespaces", f"--dbname={conninfo(database)}"]
    mine = client_env(env, database)
    if path is not None:
        runner.run([*argv, f"--jobs={JOBS}", path], env=mine, timeout=RESTORED)
        return
    for _ in runner.stream(argv, env=mine, stdin=stored.plain(), stall=RESTORED):
        pass


def database_properties(runner: Runner, path: str) -> str:
    """Return the SQL that a dump has about its database itself, without anything that is in it.

    Raises `CommandError` if it cannot be read.
    """
    # without --create they are not in the list
    listing = runner.run(["pg_restore", "--list", "--create", path], env={"LC_ALL": "C"}).stdout.decode(
        "utf-8", "surrogateescape"
    )
    own = re.compile(
        r"\d+; \d+ \d+ (?:DATABASE|DATABASE PROPERTIES|(?:ACL|COMMENT|SECURITY LABEL) - DATABASE) "
    )
    wanted = "".join(line + "\n" for line in listing.split("\n") if own.match(line))
    if not wanted:
        return ""
    argv = ["pg_restore", "--create", "--use-list=/dev/stdin", "--file=-", path]
    fed = wanted.encode("utf-8", "surrogateescape")
    return runner.run(argv, env={"LC_ALL": "C"}, stdin=[fed]).stdout.decode("utf-8", "surrogateescape")


def room(runner: Runner, folder: str | None) -> int | None:
    """Return the bytes free on the disk of a folder where a runner's programs run; None if unknown."""
    if not folder:
        return None
    try:
        said = runner.run(["df", "-Pk", folder], env={"LC_ALL": "C"}, timeout=30).stdout.decode(
            "utf-8", "replace"
        )
        return int(said.strip().splitlines()[-1].split()[3]) * 1024
    except (BackupError, IndexError, ValueError):
        return None


def listed(runner: Runner, stored: Stored) -> set[str]:
    """Return what `pg_restore --list` says is in a dump: `TABLE DATA public books owner`, and so on.

    Raises `CommandError` if it cannot read the dump, and what reading `stored` raises.
    """
    said = b"".join(runner.stream(["pg_restore", "--list"], env={"LC_ALL": "C"}, stdin=stored.plain()))
    lines = said.decode("utf-8", "surrogateescape").split("\n")
    return {match[1] for line in lines if (match := re.match(r"\d+; \d+ \d+ (.*)", line))}


def require_not_newer(entry: Entry, here: Mapping[str, str]) -> None:
    """Raise `RefusedError` for a dump that is newer than the server or the client that are `here`."""
    server, client = entry.versions.get("server", ""), entry.versions.get("client", "")
    if major(server) > major(here["server"]) or major(client) > major(here["client"]):
        raise RefusedError(
            f"the dump is of PostgreSQL {server}, made by pg_dump {client}; here the server is"
            f" {here['server']}, and pg_restore {here['client']}: an older one cannot read a newer dump",
            hint=f"restore into a server of version {max(major(server), major(client))} or newer",
        )


def require_superuser(psql: Psql, env: Mapping[str, str], what_for: str) -> None:
    """Raise `RefusedError` unless the user of `env` is a superuser; `what_for` says what only one can do."""
    if not psql.ask("SELECT to_jsonb(rolsuper) FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        raise RefusedError(
            f"{env.get('PGUSER', 'this user')} is no superuser, and only one can {what_for}",
            hint="set BACKUP_POSTGRESQL_USER (or the user of BACKUP_POSTGRESQL_URL) to a superuser",
        )
