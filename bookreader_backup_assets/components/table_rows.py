"""The rows of tables that are there: their columns, copied and compared between two databases, and the
sequences that number them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bookreader_backup_assets.components.postgresql_restore import RESTORED
from bookreader_backup_assets.components.psql import (
    COUNTED,
    PINNED,
    PSQL,
    Psql,
    client_env,
    identifier,
    literal,
)
from bookreader_backup_assets.components.table_sql import Table
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.runners.base import Runner

_COLUMNS = """
SELECT coalesce(jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '')
                          ORDER BY a.attnum), '[]')
FROM pg_catalog.pg_attribute a WHERE a.attrelid = {table}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
"""  # noqa: E501
_SEQUENCES = """
WITH RECURSIVE of(oid) AS (
    SELECT unnest(ARRAY[{tables}]::pg_catalog.regclass[])::pg_catalog.oid
    UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN of ON of.oid = i.inhrelid
          JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'),
  uses(sequence, relation, number) AS (
    SELECT d.objid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d JOIN of ON of.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
      AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    UNION SELECT d.refobjid, ad.adrelid, ad.adnum FROM pg_catalog.pg_attrdef ad JOIN of ON of.oid = ad.adrelid
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = ad.oid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass)
SELECT coalesce(jsonb_agg(jsonb_build_object(
  'sequence', jsonb_build_array(s.schemaname, s.sequencename), 'last', s.last_value, 'down', s.increment_by < 0,
  'cycles', s.cycle, 'least', s.min_value, 'most', s.max_value,
  'table', format('%s%I.%I', CASE WHEN t.relkind = 'r' THEN 'ONLY ' ELSE '' END, tn.nspname, t.relname),
  'column', CASE WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN a.attname END)), '[]')
FROM uses JOIN pg_catalog.pg_class c ON c.oid = uses.sequence AND c.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_sequences s ON s.schemaname = n.nspname AND s.sequencename = c.relname
JOIN pg_catalog.pg_class t ON t.oid = uses.relation JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = uses.number
"""  # noqa: E501

Columns = list[tuple[str, str, bool]]
"""Name, type, and whether it is generated from others."""


def columns_of(psql: Psql, table: Table) -> Columns:
    """Return the columns of a table that is there."""
    return [(name, kind, made) for name, kind, made in psql.ask(_COLUMNS.format(table=literal(table.sql)))]


def kinds(psql: Psql, tables: Iterable[Table]) -> dict[Table, str]:
    """Return those of `tables` that are there, with what they are: `r` a table, `p` a partitioned one."""
    named = {table.sql: table for table in tables}
    if not named:
        return {}
    found = psql.ask(
        "SELECT coalesce(jsonb_object_agg(name, c.relkind::text), '{}') FROM unnest(ARRAY["
        f"{', '.join(map(literal, named))}]) AS name JOIN pg_catalog.pg_class c ON c.oid = to_regclass(name)"
    )
    return {table: found[sql] for sql, table in named.items() if sql in found}


def rows_of(runner: Runner, env: Mapping[str, str], database: str, query: str) -> Iterator[bytes]:
    """Stream what `query` selects in `database`, as `COPY` writes it. Raises `CommandError` at the end."""
    out = f"{PINNED}\nSET statement_timeout = 0;\nCOPY ({query}) TO STDOUT;\n"
    mine = {**client_env(env, database), "PGCLIENTENCODING": "UTF8"}
    return runner.stream(PSQL, env=mine, stdin=[out.encode("utf-8", "surrogateescape")], stall=RESTORED)


def copy_rows(rows: Iterator[bytes], live: Psql, target: str) -> None:
    """Stream rows into `target`, as `schema.table (columns)`. Raises `CommandError`, or what that raises."""
    live.tell(f"COPY {target} FROM STDIN;")
    for chunk in rows:
        live.session.send(chunk)
    live.session.send(b"\\.\n")
    live.ask("SELECT to_jsonb(1)", within=RESTORED)


def compare_rows(live: Psql, target: str, source: Psql, origin: str, *, columns: Columns) -> int:
    """Return how many rows there are. Raises `DamagedError` unless two tables hold the same, their columns
    in whatever order.
    """
    row = ", ".join(identifier(name) for name, *_ in columns)
    hashed = f'coalesce(sum(hashtextextended(ROW({row})::text COLLATE "C", 0)), 0)::text'
    query = f"SELECT jsonb_build_array(count(*), {hashed}) FROM "
    there, here = source.ask(query + origin, within=COUNTED), live.ask(query + target, within=COUNTED)
    if here == there:
        return int(here[0])
    raise DamagedError(
        f"{target.removeprefix('ONLY ')} has {here[0]} rows that are not the {there[0]} of the dump:"
        " a generated column, or a trigger that always fires, makes others of them; nothing was replaced",
        hint="--into another name to look at the rows, or restore the whole database",
    )


def set_sequences(live: Psql, source: Psql, tables: Iterable[Table]) -> int:
    """Set the sequences of `tables` so far that they give no number which is used; none goes back.

    One that cycles stays as it is. Return how many were set.
    """
    listed = ", ".join(literal(table.sql) for table in tables)
    if not listed:
        return 0
    then = {tuple(s["sequence"]): s["last"] for s in source.ask(_SEQUENCES.format(tables=listed))}
    furthest: dict[tuple[str, ...], tuple[int, int | None]] = {}
    for use in live.ask(_SEQUENCES.format(tables=listed)):
        name = tuple(use["sequence"])
        if use["cycles"]:
            continue
        pick = min if use["down"] else max
        used = None
        if use["column"] is not None:
            column = f"{'min' if use['down'] else 'max'}({identifier(use['column'])})"
            used = live.ask(
                f"SELECT coalesce(to_jsonb({column}), 'null') FROM {use['table']}", within=COUNTED
            )
        known = [
            n for n in (use["last"], then.get(name), used, furthest.get(name, (None,))[0]) if n is not None
        ]
        if known:
            furthest[name] = (min(max(pick(known), use["least"]), use["most"]), use["last"])
    setting = {Table(*name): value for name, (value, last) in furthest.items() if value != last}
    for table, value in setting.items():
        live.ask(f"SELECT to_jsonb(setval({literal(table.sql)}, {value}))")
    return len(setting)


def require_same_columns(live: Psql, source: Psql, tables: Iterable[Table]) -> None:
    """Raise `RefusedError` unless the tables have the same columns here and there, in whatever order."""
    for table in tables:
        require_columns(table, dict(_typed(columns_of(live, table))), dict(_typed(columns_of(source, table))))


def require_columns(table: Table, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise `RefusedError`, which says what differs, unless columns have the same names and types."""
    wrong = [f"{name} ({kind}) is only in the dump" for name, kind in there.items() if name not in here]
    wrong += [f"{name} ({kind}) is not in the dump" for name, kind in here.items() if name not in there]
    wrong += [f"{n} is {here[n]}, in the dump {there[n]}" for n in there if n in here and here[n] != there[n]]
    if wrong:
        raise RefusedError(
            f"{table} is no longer what was captured: {', '.join(wrong)}",
            hint="--into another name to look at the rows, or restore the whole database",
        )


def _typed(columns: Columns) -> Iterator[tuple[str, str]]:
    return ((name, f"{kind}{', generated' if made else ''}") for name, kind, made in columns)
