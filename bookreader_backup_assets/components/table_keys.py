"""Foreign keys that touch tables, in both directions, and the rows that violate them.

A restore of tables switches off the triggers that hold foreign keys, and looks for itself before it commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bookreader_backup_assets.components.psql import COUNTED, Psql, literal
from bookreader_backup_assets.components.table_sql import Table
from bookreader_backup_assets.core.errors import RefusedError

EXAMPLES = 3
"""Keys shown of each violated constraint."""

# The key of a partition is a copy of its partitioned table's, which is looked at instead: what refers to
# a partitioned table refers to any of its partitions.
_TOUCHING = """
WITH RECURSIVE
  related(oid) AS (
    SELECT unnest(ARRAY[{tables}]::pg_catalog.regclass[])::pg_catalog.oid
    UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN related r ON r.oid = i.inhrelid
          JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'),
  touching(oid, above) AS (
    SELECT c.oid, c.conparentid FROM pg_catalog.pg_constraint c
    WHERE c.contype = 'f' AND (c.conrelid IN (SELECT oid FROM related) OR c.confrelid IN (SELECT oid FROM related))
    UNION SELECT c.oid, c.conparentid FROM touching t JOIN pg_catalog.pg_constraint c ON c.oid = t.above)
SELECT coalesce(jsonb_agg(jsonb_build_object(
  'name', c.conname, 'full', c.confmatchtype = 'f', 'valid', c.convalidated,
  'period', coalesce(to_jsonb(c) ->> 'conperiod', 'false')::boolean,
  'refers', jsonb_build_array(fn.nspname, f.relname), 'only_refers', f.relkind = 'r',
  'referred', jsonb_build_array(pn.nspname, p.relname), 'only_referred', p.relkind = 'r',
  'columns', (
    SELECT jsonb_agg(jsonb_build_array(format('%I', fa.attname), format('%I', pa.attname),
             format('OPERATOR(%I.%s)', opn.nspname, op.oprname),
             CASE WHEN fa.attcollation <> pa.attcollation AND pa.attcollation <> 0
                  THEN format(' COLLATE %I.%I', con.nspname, co.collname) ELSE '' END) ORDER BY u.at)
    FROM unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY AS u(fk, pk, op, at)
    JOIN pg_catalog.pg_attribute fa ON fa.attrelid = c.conrelid AND fa.attnum = u.fk
    JOIN pg_catalog.pg_attribute pa ON pa.attrelid = c.confrelid AND pa.attnum = u.pk
    JOIN pg_catalog.pg_operator op ON op.oid = u.op JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
    LEFT JOIN pg_catalog.pg_collation co ON co.oid = pa.attcollation
    LEFT JOIN pg_catalog.pg_namespace con ON con.oid = co.collnamespace)
  ) ORDER BY fn.nspname, f.relname, c.conname), '[]')
FROM touching t JOIN pg_catalog.pg_constraint c ON c.oid = t.oid AND c.conparentid = 0
JOIN pg_catalog.pg_class f ON f.oid = c.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = c.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
"""  # noqa: E501 - a statement reads better whole

_UNIQUE_LATER = """
SELECT coalesce(jsonb_agg(jsonb_build_array(c.conname, format('%I.%I', n.nspname, t.relname), (
  SELECT jsonb_agg(format('%I', a.attname)) FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = t.oid AND a.attnum = ANY(c.conkey)))), '[]')
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class t ON t.oid = c.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE c.contype IN ('p', 'u') AND c.condeferrable
  AND c.conrelid = ANY(ARRAY[{tables}]::pg_catalog.regclass[])
"""


@dataclass(frozen=True)
class Key:
    """One foreign key. `columns` are of quoted names: its own, the one referred to, what compares the two
    (the referred one left), and a collation to compare by.
    """

    name: str
    refers: Table
    referred: Table
    columns: tuple[tuple[str, str, str, str], ...]
    full: bool
    valid: bool
    period: bool
    only_refers: bool
    only_referred: bool

    def __str__(self) -> str:
        return f"{self.name} of {self.refers}"

    @property
    def violations(self) -> str:
        """The query that counts the rows which violate it, and shows some of their keys."""
        own = [f"f.{column}" for column, *_ in self.columns]
        meets = " AND ".join(
            f"p.{theirs} {operator} f.{mine}{collation}" for mine, theirs, operator, collation in self.columns
        )
        refers = f"{'ONLY ' if self.only_refers else ''}{self.refers.sql}"
        referred = f"{'ONLY ' if self.only_referred else ''}{self.referred.sql}"
        whole = " AND ".join(f"{column} IS NOT NULL" for column in own)
        missing = f"({whole} AND NOT EXISTS (SELECT FROM {referred} AS p WHERE {meets}))"
        if self.full and len(own) > 1:  # all or none must be null
            some = " OR ".join(f"{column} IS NOT NULL" for column in own)
            missing = f"({missing} OR (({some}) AND NOT ({whole})))"
        shown = own[0] if len(own) == 1 else f"ROW({', '.join(own)})"
        return (
            f"WITH bad AS MATERIALIZED (SELECT left({shown}::text, 100) AS key FROM {refers} AS f"
            f" WHERE {missing}) SELECT jsonb_build_array((SELECT count(*) FROM bad),"
            " coalesce((SELECT jsonb_agg(key ORDER BY key)"
            f" FROM (SELECT DISTINCT key FROM bad ORDER BY key LIMIT {EXAMPLES + 1}) AS shown), '[]'))"
        )


def require_unique(psql: Psql, tables: Iterable[Table]) -> None:
    """Look for rows that are not unique where they must be by the end of a transaction: a trigger sees to it
    otherwise. Raises `RefusedError`.
    """
    listed = ", ".join(literal(table.sql) for table in tables)
    for name, own, columns in psql.ask(_UNIQUE_LATER.format(tables=listed)):
        filled = " AND ".join(f"{column} IS NOT NULL" for column in columns)
        twice = f"FROM ONLY {own} WHERE {filled} GROUP BY {', '.join(columns)} HAVING count(*) > 1"
        if count := psql.ask(f"SELECT to_jsonb(count(*)) FROM (SELECT 1 {twice}) AS t", within=COUNTED):
            raise RefusedError(
                f"{count} values would not be unique, and nothing was replaced: {name} of {own}",
                hint="--into another name to look at the rows, or restore the whole database",
            )


def touching(psql: Psql, tables: Iterable[Table]) -> list[Key]:
    """Return the foreign keys that go from or to `tables`, all of which are there."""
    regclasses = ", ".join(literal(table.sql) for table in tables)
    return [
        Key(
            **{
                **found,
                "refers": Table(*found["refers"]),
                "referred": Table(*found["referred"]),
                "columns": tuple(tuple(column) for column in found["columns"]),
            }
        )
        for found in psql.ask(_TOUCHING.format(tables=regclasses))
    ]


def require_met(psql: Psql, keys: Iterable[Key], added: Collection[tuple[Table, str]] = ()) -> int:
    """Look for rows that violate one of `keys`, and return how many keys were looked at.

    One that is not validated holds for no row that is there, unless it is one of those just `added`. Raises
    `RefusedError`, which lists the violations.
    """
    bad = []
    looked_at = [key for key in keys if key.valid or (key.refers, key.name) in added]
    for key in looked_at:
        if key.period:
            raise RefusedError(
                f"{key} compares periods, which cannot be checked here; nothing was replaced",
                hint="--into another name to look at the rows, or restore the whole database",
            )
        count, examples = psql.ask(key.violations, within=COUNTED)
        if count:
            more = ", …" if len(examples) > EXAMPLES else ""
            own = ", ".join(column for column, *_ in key.columns)
            bad.append(
                f"{key}: {count} row{'s' if count > 1 else ''} whose {own} is not in {key.referred}"
                f" ({', '.join(examples[:EXAMPLES])}{more})"
            )
    if bad:
        raise RefusedError(
            "rows would refer to what is not there, and nothing was replaced: " + "; ".join(bad),
            hint="restore those tables too, in one command; or --into another name, and take what you need",
        )
    return len(looked_at)
