"""What a database holds, counted through one session: at capture in the dump's snapshot, and again
after a restore.

    {"kind": "tables",
     "tables": {"<schema.name, quoted as the server does>": {"rows": 3, "digest": "…" or null, "owner": "…"}},
     "sequences": {"<schema.name>": last value, or null before its first use},
     "alembic_version": "…" or null,
     "extensions": {"<name>": "<version>"},
     "roles": ["<every role of the server>"],
     "grants": {"<schema.name>": ["reader SELECT", …]}}     (privileges of others than the owner)

A digest is the sum of `hashtextextended(row::text, 0)` over the rows: it does not depend on their order, and
costs about twice a count (4.3 s for 438 MB). Sequences do not keep to snapshots: a restored one may be ahead.
"""

from __future__ import annotations

from typing import Any

from bookreader_backup_assets.components.psql import COUNTED, Psql, literal
from bookreader_backup_assets.core import fingerprint as core
from bookreader_backup_assets.core.fingerprint import Difference

Digests = bool | tuple[str, ...]
"""Which tables get a digest: all, none, or those named, as `books` or `public.books`."""

# what pg_dump dumps the data of: partitions and plain tables, not those of the system or of extensions
_OURS = """
  n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
"""
_TABLES = f"""
SELECT coalesce(jsonb_object_agg(format('%I.%I', n.nspname, c.relname),
                pg_get_userbyid(c.relowner)), '{{}}')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND {_OURS}
"""
# one that counts down or starts over has no "at least"
_SEQUENCES = f"""
SELECT coalesce(jsonb_object_agg(format('%I.%I', n.nspname, c.relname), s.last_value), '{{}}')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_sequences s ON s.schemaname = n.nspname AND s.sequencename = c.relname
WHERE c.relkind = 'S' AND s.increment_by > 0 AND NOT s.cycle AND {_OURS}
"""
_EXTENSIONS = (
    "SELECT coalesce(jsonb_object_agg(extname, extversion), '{}') FROM pg_catalog.pg_extension"
    " WHERE extname <> 'plpgsql'"
)
_IS_ALEMBIC = (
    "SELECT to_jsonb(count(*)) FROM pg_catalog.pg_attribute"
    " WHERE attname = 'version_num' AND NOT attisdropped AND attrelid = 'public.alembic_version'::regclass"
)
_ALEMBIC = (
    "SELECT coalesce(to_jsonb(string_agg(version_num, ', ' ORDER BY version_num)), 'null')"
    " FROM public.alembic_version"
)
ROLES = (
    "SELECT coalesce(jsonb_agg(rolname ORDER BY rolname COLLATE \"C\"), '[]') FROM pg_catalog.pg_roles"
    " WHERE rolname !~ '^pg_'"
)

# the owner's own are implied; MAINTAIN is new in version 17, and what GRANT ALL means there
_GRANTS = f"""
SELECT coalesce(jsonb_object_agg(what, given), '{{}}') FROM (
  SELECT what, jsonb_agg(DISTINCT coalesce(r.rolname, 'PUBLIC') || ' ' || a.privilege_type) AS given
  FROM (
    SELECT format('%I.%I', n.nspname, c.relname) AS what, c.relowner AS owner, c.relacl AS acl
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_OURS}
    UNION ALL
    SELECT format('schema %I', n.nspname), n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
  ) AS o, pg_catalog.aclexplode(o.acl) AS a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
  WHERE a.grantee <> o.owner AND a.privilege_type <> 'MAINTAIN'
  GROUP BY what
) AS g
"""


def take(psql: Psql, digests: Digests) -> dict[str, Any]:
    """Return the fingerprint of the database as the session sees it.

    Raises `SourceError` or `CommandError` if the session ends, or a table may not be read.
    """
    return counted(psql, outline(psql), digests)


def outline(psql: Psql) -> dict[str, Any]:
    """Return a fingerprint without the counts: quick, and to be taken before the dump begins.

    A sequence read later could be ahead of the dump's, which would look like a loss.
    """
    owners = psql.ask(_TABLES)
    return {
        "kind": "tables",
        "tables": {name: {"rows": None, "digest": None, "owner": owners[name]} for name in sorted(owners)},
        "sequences": psql.ask(_SEQUENCES),
        "alembic_version": None,
        "extensions": psql.ask(_EXTENSIONS),
        "roles": psql.ask(ROLES),
        "grants": psql.ask(_GRANTS),
    }


def counted(psql: Psql, outline: dict[str, Any], digests: Digests) -> dict[str, Any]:
    """Return the fingerprint that `outline` becomes by counting. Raises as `take` does."""
    tables = {}
    for name, table in outline["tables"].items():
        rows, digest = _count(psql, name, digest=_chosen(name, digests))
        tables[name] = {"rows": rows, "digest": digest, "owner": table["owner"]}
    alembic_version = None
    if "public.alembic_version" in tables and psql.ask(_IS_ALEMBIC):
        alembic_version = psql.ask(_ALEMBIC)
    return {**outline, "tables": tables, "alembic_version": alembic_version}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[Difference]:
    """Return where a restored database is not what was captured; none means that it is.

    Tables, rows, digests, owners, grants and the migration must be equal, sequences must not be behind.
    Roles and the versions of extensions are the server's, not the database's. Entries of the first
    releases have no grants.
    """
    compared = [name for name in ("kind", "tables", "grants", "alembic_version") if name in expected]
    wrong = core.compare({key: expected[key] for key in compared}, {key: found[key] for key in compared})
    for name, value in expected["sequences"].items():
        now = found["sequences"].get(name, "nothing")
        if now == "nothing" or (now or 0) < (value or 0):
            wrong.append(Difference(f"sequences {name}", f"at least {value}", now))
    return wrong


def digested(fingerprint: dict[str, Any]) -> tuple[str, ...]:
    """The tables that have a digest in it."""
    return tuple(name for name, table in fingerprint["tables"].items() if table["digest"] is not None)


def all_rows(fingerprint: dict[str, Any]) -> int:
    """The rows of all tables in it."""
    return sum(table["rows"] for table in fingerprint["tables"].values())


def _chosen(name: str, digests: Digests) -> bool:
    if isinstance(digests, bool):
        return digests
    return name in digests or name.removeprefix("public.") in digests


def _count(psql: Psql, name: str, *, digest: bool) -> tuple[int, str | None]:
    # the whole row as text: `(t.*)`, since a column may be called t
    hashed = 'sum(hashtextextended((t.*)::text COLLATE "C", 0))::text' if digest else "NULL::text"
    counted = psql.ask(f"SELECT jsonb_build_array(count(*), {hashed}) FROM ONLY {name} AS t", within=COUNTED)
    if digest and counted[1] is None:
        counted[1] = "0"  # no rows
    return counted[0], counted[1]


def available(psql: Psql, extensions: dict[str, str]) -> list[str]:
    """Return those of `extensions` that the server does not have."""
    if not extensions:
        return []
    names = ", ".join(map(literal, extensions))
    have = psql.ask(
        "SELECT coalesce(jsonb_agg(name), '[]') FROM pg_catalog.pg_available_extensions"
        f" WHERE name IN ({names})"
    )
    return sorted(set(extensions) - set(have))
