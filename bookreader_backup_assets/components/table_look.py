"""A table of a dump put beside the live ones under another name, to look at first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bookreader_backup_assets.components import databases
from bookreader_backup_assets.components.postgresql_restore import RESTORED
from bookreader_backup_assets.components.psql import Psql, connect, identifier, literal
from bookreader_backup_assets.components.table_rows import columns_of, compare_rows, copy_rows, kinds, rows_of
from bookreader_backup_assets.components.table_sql import Table
from bookreader_backup_assets.components.table_swap import BEGIN
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.runners.base import Runner

_DESCRIBED = (
    "SELECT coalesce(to_jsonb(obj_description({table}::pg_catalog.regclass, 'pg_class')), '\"\"'::jsonb)"
)
_OWNER = (
    "SELECT to_jsonb(pg_get_userbyid(coalesce((SELECT relowner FROM pg_catalog.pg_class"
    " WHERE oid = to_regclass({table})), (SELECT datdba FROM pg_catalog.pg_database"
    " WHERE datname = current_database()))))"
)


def place(into: str, source: Table) -> Table:
    """Return the table that `--into` names: in the schema of the one it comes from, if it names none."""
    schema, dot, name = into.partition(".")
    return Table(schema, name) if dot and name and schema else Table(source.schema, into)


@dataclass(frozen=True)
class Look:
    """A table `place` in `database`, which is described by `mark`: that tells it from any other."""

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    place: Table
    mark: str

    def make(self, scratch: str, source: Table) -> int:
        """Make it of the rows of `source` in `scratch`, in one transaction, and return how many there are.

        It has the columns and nothing else: no keys, no defaults. One whose type is not there any more is
        text. It is owned by whoever owns the live `source`. Raises `RefusedError` if the name is taken.
        """
        env = {**self.env, "PGAPPNAME": self.mark}
        with connect(self.runner, env, self.database) as live, connect(self.runner, env, scratch) as dumped:
            if self._is_there(live):
                return int(live.ask(f"SELECT to_jsonb(count(*)) FROM {self.place.sql}", within=RESTORED))
            columns = columns_of(dumped, source)
            made = [f"{identifier(name)} {_known(live, kind)}" for name, kind, _ in columns]
            owner = live.ask(_OWNER.format(table=literal(source.sql)))
            origin = source.sql if kinds(dumped, [source])[source] == "p" else f"ONLY {source.sql}"
            listed = ", ".join(identifier(name) for name, *_ in columns)
            databases.tell(
                live,
                BEGIN,
                f"CREATE TABLE {self.place.sql} ({', '.join(made)})",
                f"ALTER TABLE {self.place.sql} OWNER TO {identifier(owner)}",
                f"COMMENT ON TABLE {self.place.sql} IS {literal(self.mark)}",
            )
            rows = rows_of(self.runner, env, scratch, f"SELECT {listed} FROM {origin}")
            copy_rows(rows, live, f"{self.place.sql} ({listed})" if columns else self.place.sql)
            counted = compare_rows(live, self.place.sql, dumped, origin, columns=columns)
            databases.tell(live, f"ANALYZE {self.place.sql}", "COMMIT")
            return counted

    def drop(self) -> None:
        """Drop it, if it is there. Raises `RefusedError` if it is another's."""
        with connect(self.runner, self.env, self.database) as psql:
            if self._is_there(psql):
                databases.tell(psql, f"DROP TABLE {self.place.sql}")

    def _is_there(self, psql: Psql) -> bool:
        if not kinds(psql, [self.place]):
            return False
        if psql.ask(_DESCRIBED.format(table=literal(self.place.sql))) != self.mark:
            raise RefusedError(
                f"{self.place} is there, and this restore did not make it", hint="give another: --into NAME"
            )
        return True


def _known(live: Psql, kind: str) -> str:
    return kind if live.ask(f"SELECT to_jsonb(to_regtype({literal(kind)}) IS NOT NULL)") else "text"
