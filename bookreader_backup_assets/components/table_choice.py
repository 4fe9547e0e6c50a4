"""Which tables a restore is of, in the dump and in the live database, and what an operator should know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bookreader_backup_assets.components import postgresql_fingerprint as fingerprint
from bookreader_backup_assets.components import table_keys, table_look
from bookreader_backup_assets.components.psql import COUNTED, Psql, identifier, literal
from bookreader_backup_assets.components.table_rows import columns_of, kinds, require_columns
from bookreader_backup_assets.components.table_sql import Outline, Table, chosen, columns
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options

_LEAVES = """
SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname)), '[]')
FROM unnest({tables}) AS name, pg_catalog.pg_partition_tree(name::pg_catalog.regclass) AS t
JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.isleaf AND c.relkind = 'r'
"""
_ALWAYS = """
SELECT coalesce(jsonb_agg(tgname ORDER BY tgname), '[]') FROM pg_catalog.pg_trigger
WHERE NOT tgisinternal AND tgenabled IN ('A', 'R') AND tgrelid = ANY({tables}::pg_catalog.regclass[])
"""
_MIGRATION = (
    "SELECT coalesce(to_jsonb(string_agg(version_num, ', ' ORDER BY version_num)), 'null')"
    " FROM public.alembic_version"
)
_ALEMBIC = Table("public", "alembic_version")


@dataclass(frozen=True)
class Choice:
    """What a restore is of.

    `asked` are the tables that were named; `tables` those of them, or their partitions, that have rows of
    their own; `present` those that are live. To be made: `missing` tables, `parents` (partitioned tables)
    and the `schema`. Live partitions that the dump lacks are `emptied`. `into` is another place.
    """

    entry: Entry
    outline: Outline
    asked: tuple[Table, ...]
    tables: tuple[Table, ...]
    present: Mapping[Table, str]
    parents: tuple[Table, ...] = ()
    emptied: tuple[Table, ...] = ()
    schema: str | None = None
    into: Table | None = None

    @property
    def missing(self) -> tuple[Table, ...]:
        """Tables that are to be made."""
        return tuple(table for table in self.tables if table not in self.present)

    @property
    def share(self) -> float:
        """The part of the dump's rows that these are."""
        then = captured(self.entry)
        return sum(then[table] for table in self.tables) / max(1, sum(then.values()))

    def require_unchanged(self, psql: Psql) -> None:
        """Refuse early what `compare` would refuse, as far as the dump's SQL says it, and owners that are
        not there. Raises `RefusedError`.
        """
        if self.into is not None:
            return
        dumped = self.outline.tables()
        for table in self.tables:
            said = columns(dumped[table].sql)
            if table in self.present and said is not None:
                require_columns(table, {name: kind for name, kind, _ in columns_of(psql, table)}, said)
        owners = {dumped[table].owner for table in (*self.missing, *self.parents)}
        if lacking := sorted(owners - set(psql.ask(fingerprint.ROLES))):
            raise RefusedError(
                f"who owns the tables that are to be made is not on this server: {', '.join(lacking)}",
                hint=f"make it: CREATE ROLE {identifier(lacking[0])}",
            )

    def lines(self, psql: Psql) -> list[str]:
        """What is there of each table, what the dump has, and what refers to it."""
        then = captured(self.entry)
        said = []
        for table in self.tables:
            if table not in self.present:
                said.append(f"{table}: not there, {then[table]} rows in the dump")
                continue
            now = psql.ask(f"SELECT to_jsonb(count(*)) FROM ONLY {table.sql}", within=COUNTED)
            keys = table_keys.touching(psql, [table])
            others = sorted(
                {str(key.refers) for key in keys if key.refers != table and key.referred == table}
            )
            referred = f", referred to by {', '.join(others)}" if others else ""
            said.append(f"{table}: {now} rows now, {then[table]} in the dump{referred}")
        return said

    def notes(self, psql: Psql) -> list[str]:
        """What an operator should know."""
        notes = []
        then = self.entry.fingerprint["alembic_version"]
        now = psql.ask(_MIGRATION) if _has_migration(psql) else None
        if now != then:
            notes.append(f"the dump is of migration {then}, the database is at {now}")
        if self.into is not None:
            return notes
        if self.emptied:
            notes.append(
                f"emptied, since the dump has no such partition: {', '.join(map(str, self.emptied))}"
            )
        if made := [*self.missing, *self.parents]:
            notes.append(f"made, since there is none: {', '.join(map(str, made))}")
            if views := self.outline.views(made):
                notes.append(f"views of them are not made again, if they are gone: {', '.join(views)}")
        present = [table for table in self.tables if table in self.present]
        if firing := psql.ask(_ALWAYS.format(tables=names(present))):
            notes.append(f"triggers that always fire will: {', '.join(firing)}")
        return notes


def choose(psql: Psql, outline: Outline, entry: Entry, options: Options) -> Choice:
    """Return what a restore of `entry`, whose dump is `outline`, would be of in the live database.

    Raises `RefusedError` for what the dump lacks, and for what is there in another form.
    """
    parents, held = outline.parents(), captured(entry)
    known = [table for table in outline.tables() if table in held or table in parents.values()]
    asked = tuple(chosen(options.tables, options.schema, known))

    def within(table: Table) -> bool:
        return table in asked or (table in parents and within(parents[table]))

    meant = [table for table in known if within(table)]
    tables = tuple(sorted(table for table in meant if table in held))
    partitioned = [table for table in meant if table not in held]
    there = kinds(psql, meant)
    if options.into is not None:
        into = _place(psql, options.into, asked)
        return Choice(entry, outline, asked, tables, there, into=into)
    _require_same_kind(there, held, parents, tables)
    live = [table for table in partitioned if table in there]
    leaves = psql.ask(_LEAVES.format(tables=names(live)))
    schema = options.schema if not options.tables and options.schema is not None else None
    if schema is not None:
        count = "SELECT to_jsonb(count(*)) FROM pg_catalog.pg_namespace WHERE nspname = "
        schema = None if psql.ask(count + literal(schema)) else schema
    return Choice(
        entry,
        outline,
        asked,
        tables,
        there,
        parents=tuple(table for table in partitioned if table not in there),
        emptied=tuple(sorted({Table(*leaf) for leaf in leaves} - set(tables))),
        schema=schema,
    )


def captured(entry: Entry) -> dict[Table, int]:
    """The rows that were captured, of each table that has rows of its own."""
    return {Table.of(name): int(table["rows"]) for name, table in entry.fingerprint["tables"].items()}


def names(tables: Iterable[Table]) -> str:
    """The names of tables as an SQL array of texts."""
    return f"ARRAY[{', '.join(literal(table.sql) for table in tables)}]::text[]"


def _place(psql: Psql, into: str, asked: tuple[Table, ...]) -> Table:
    if len(asked) > 1:
        raise RefusedError(
            f"--into takes one table, and these are {', '.join(map(str, asked))}", hint="name one of them"
        )
    place = table_look.place(into, asked[0])
    if kinds(psql, [place]):
        raise RefusedError(f"{place} is there already", hint="give another name: --into NAME")
    return place


def _require_same_kind(
    there: Mapping[Table, str],
    held: Mapping[Table, int],
    parents: Mapping[Table, Table],
    tables: Iterable[Table],
) -> None:
    for table, kind in there.items():
        if kind != ("r" if table in held else "p"):
            raise RefusedError(
                f"{table} is no longer the kind of thing that was captured",
                hint="--into another name to look at the rows, or restore the whole database",
            )
    for table in tables:
        if table not in there and parents.get(table) in there:
            raise RefusedError(
                f"the partition {table} of {parents[table]} is not there any more",
                hint="make it, then restore; or restore the whole database",
            )


def _has_migration(psql: Psql) -> bool:
    return kinds(psql, [_ALEMBIC]).get(_ALEMBIC) == "r" and any(
        name == "version_num" for name, *_ in columns_of(psql, _ALEMBIC)
    )
