"""The steps of a restore, each small enough to be used alone: roles, an empty database, the dump."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.psql import PSQL, Psql, client_env, conninfo, identifier, literal
from bookreader_backup_assets.runners.base import Runner

JOBS = 2
"""Processes of one restore."""
RESTORED = 12 * 3600.0
"""Seconds for `pg_restore` to work in silence: it prints nothing, and indexes take their time."""
_PART = re.compile(
    r"""--[^\n]*\n?|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|;|[^-eE'";]+|.""", re.DOTALL
)
_NAME = r'(?:"(?:[^"]|"")*"|[^\s"]+)'
_META = re.compile(r"^\\(?:un)?restrict .*\n?", re.MULTILINE)


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


def run_statements(runner: Runner, env: Mapping[str, str], database: str, sql: Iterable[str]) -> None:
    """Run statements in one psql, which stops at the first error. Raises `CommandError`."""
    fed = "".join(f"{statement};\n" for statement in sql).encode("utf-8", "surrogateescape")
    runner.run([*PSQL, "-o", "/dev/null"], env=client_env(env, database), stdin=[fed])


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
    runner: Runner, env: Mapping[str, str], database: str, stored: Stored, *, sees_files: bool = False
) -> None:
    """Restore a dump into an empty database, stopping at the first error.

    In parallel where the program can seek in the file itself (`sees_files`), else as one stream. Raises
    `CommandError` if anything of it could not be restored, and what reading `stored` raises.
    """
    argv = ["pg_restore", "-w", "--exit-on-error", "--no-tablespaces", f"--dbname={conninfo(database)}"]
    mine = client_env(env, database)
    if sees_files and stored.path is not None and not stored.entry.codecs:
        runner.run([*argv, f"--jobs={JOBS}", str(stored.path)], env=mine, timeout=RESTORED)
        return
    for _ in runner.stream(argv, env=mine, stdin=stored.plain(), stall=RESTORED):
        pass


def listed(runner: Runner, stored: Stored) -> set[str]:
    """Return what `pg_restore --list` says is in a dump: `TABLE DATA public books owner`, and so on.

    Raises `CommandError` if it cannot read the dump, and what reading `stored` raises.
    """
    said = b"".join(runner.stream(["pg_restore", "--list"], env={"LC_ALL": "C"}, stdin=stored.plain()))
    lines = said.decode("utf-8", "surrogateescape").split("\n")
    return {match[1] for line in lines if (match := re.match(r"\d+; \d+ \d+ (.*)", line))}
