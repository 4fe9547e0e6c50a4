"""Tables as a dump's own SQL describes them: what there is, its columns, and what makes one again.

`pg_restore --section=pre-data --file=-` writes a comment before every item that says its name and kind; it
is read from the front of the dump, so the data is not read for it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.psql import identifier, unquoted
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.runners.base import Runner

_HEADER = re.compile(
    r"^--\n-- Name: (?P<name>.*); Type: (?P<kind>[^;]*); Schema: (?P<schema>.*?); Owner: (?P<owner>.*)\n--\n",
    re.MULTILINE,
)
# what pg_dump sets for the item that comes after, and its last words
_TRAILING = re.compile(
    r"(?:\s*^SET default_\w+ = [^;\n]*;| *\s*^--\n-- PostgreSQL database dump complete\n--)*\s*\Z",
    re.MULTILINE,
)
_META = re.compile(r"^\\(?:un)?restrict .*\n?", re.MULTILINE)
_PART = r'(?:"(?:[^"]|"")*"|[^\s".(),;]+)'
_NAME = rf"{_PART}\.{_PART}"
_CREATES = re.compile(rf"CREATE (?:UNLOGGED )?TABLE ({_NAME}) \(")
_ATTACHES = re.compile(rf"ALTER TABLE ONLY ({_NAME}) ATTACH PARTITION ({_NAME}) ")
_OWNED = re.compile(rf"ALTER SEQUENCE ({_NAME}) OWNED BY ({_NAME})\.")
_OF_A_KEY = re.compile(rf"ALTER TABLE (?:ONLY )?({_NAME})\s+ADD CONSTRAINT ({_PART}) FOREIGN KEY")
# what belongs to a table and names it; views and functions only use it
_BELONGS = frozenset({
    "TABLE", "SEQUENCE", "SEQUENCE OWNED BY", "TABLE ATTACH", "DEFAULT", "CHECK CONSTRAINT", "CONSTRAINT",
    "FK CONSTRAINT", "INDEX", "INDEX ATTACH", "TRIGGER", "RULE", "POLICY", "ROW SECURITY", "STATISTICS",
    "COMMENT", "ACL",
})  # fmt: skip
_TOKEN = re.compile(
    r"""E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|[(),\[\]]|[^\s'"(),\[\]]+|\s+""", re.DOTALL
)
_AFTER_TYPE = frozenset({"DEFAULT", "NOT", "NULL", "COLLATE", "GENERATED", "CONSTRAINT", "CHECK", "STORAGE"})
_NO_COLUMN = frozenset({"CONSTRAINT", "CHECK", "EXCLUDE", "PRIMARY", "UNIQUE", "FOREIGN", "LIKE"})


@dataclass(frozen=True, order=True)
class Table:
    """A table by its schema and name, as they are, unquoted."""

    schema: str
    name: str

    @classmethod
    def of(cls, qualified: str) -> Table:
        """The table that a quoted `schema.name` means."""
        return cls(*unquoted(qualified))

    @property
    def sql(self) -> str:
        """Its name in SQL, all quoted."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    def __str__(self) -> str:
        """Its name for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Item:
    """One thing that a dump makes, and the SQL that makes it."""

    name: str
    kind: str
    schema: str
    owner: str
    sql: str = field(repr=False)


@dataclass(frozen=True)
class Outline:
    """What a dump makes before and after it loads the data."""

    pre: tuple[Item, ...]
    post: tuple[Item, ...]

    @classmethod
    def read(cls, runner: Runner, stored: Stored) -> Outline:
        """Read the front of a dump. Raises `CommandError`, and what reading `stored` raises."""
        return cls(*(tuple(items(_script(runner, stored, name))) for name in ("pre-data", "post-data")))

    def tables(self) -> dict[Table, Item]:
        """The tables, partitioned ones and partitions among them."""
        made = {item: _CREATES.search(item.sql) for item in self.pre if item.kind == "TABLE"}
        return {Table.of(match[1]): item for item, match in made.items() if match}

    def parents(self) -> dict[Table, Table]:
        """The partitioned table of each partition."""
        matches = (_ATTACHES.search(item.sql) for item in self.pre if item.kind == "TABLE ATTACH")
        return {Table.of(match[2]): Table.of(match[1]) for match in matches if match}

    def making(self, tables: Iterable[Table], schema: str | None) -> tuple[list[Item], list[Item]]:
        """What makes `tables`, and refers to them, before and after their data; with `schema`, all of it."""
        patterns = [_naming(table.sql) for table in tables] + [
            _naming(table) for table in self._owned(tables)
        ]
        chosen = [
            [item for item in items if _in_schema(item, schema) or _is_of(item, patterns)]
            for items in (self.pre, self.post)
        ]
        return chosen[0], chosen[1]

    def views(self, tables: Iterable[Table]) -> list[str]:
        """The views that show `tables`: whoever dropped a table may have dropped them along."""
        patterns = [_naming(table.sql) for table in tables]
        kinds = ("VIEW", "MATERIALIZED VIEW")
        return [
            f"{item.schema}.{item.name}"
            for item in self.pre
            if item.kind in kinds and any(pattern.search(item.sql) for pattern in patterns)
        ]

    def _owned(self, tables: Iterable[Table]) -> list[str]:
        matches = [m for item in self.pre if (m := _OWNED.match(item.sql.lstrip()))]
        wanted = set(tables)
        return [Table.of(match[1]).sql for match in matches if Table.of(match[2]) in wanted]


def chosen(asked: Iterable[str], schema: str | None, there: Iterable[Table]) -> list[Table]:
    """Return the tables that were asked for, as `users` or `public.users`.

    Raises `RefusedError`, which names similar ones, for one that is not there or could be several.
    """
    known = sorted(there)
    found = []
    for name in asked:
        full = [table for table in known if name in (str(table), table.sql)]
        bare = [table for table in known if name == table.name and schema in (None, table.schema)]
        hits = full or [table for table in bare if table.schema == "public"] or bare
        if len(hits) > 1:
            raise RefusedError(
                f"{name!r} could be {', '.join(map(str, hits))}", hint="say which: --table SCHEMA.NAME"
            )
        if not hits:
            raise RefusedError(f"the dump has no table {name!r}", hint=_similar(name, known))
        found += hits
    if schema is not None and not found:
        found = [table for table in known if table.schema == schema]
        if not found:
            schemas = sorted({table.schema for table in known})
            raise RefusedError(
                f"the dump has no tables in a schema {schema!r}", hint=f"it has: {', '.join(schemas)}"
            )
    if not found:
        raise RefusedError("no table was named", hint="name one: --table NAME, or a --schema")
    return sorted(set(found))


def columns(sql: str) -> dict[str, str] | None:
    """Return the columns that a dump's `CREATE TABLE` has, name to type; None where it does not say them
    all, as for a table that inherits.
    """
    match = _CREATES.search(sql)
    if match is None or re.search(r"^\)\s*INHERITS \(", sql, re.MULTILINE):
        return None
    said: dict[str, str] = {}
    for words in _listed(sql[match.end() :]):
        name, *rest = words
        if name in _NO_COLUMN:
            continue
        ends = next((at for at, word in enumerate(rest) if word in _AFTER_TYPE), len(rest))
        said[name[1:-1].replace('""', '"') if name.startswith('"') else name] = "".join(rest[:ends]).strip()
    return said


def unvalidated(item: Item) -> tuple[str, tuple[Table, str] | None]:
    """Return an item's SQL, a foreign key's made so that it does not look at the rows yet, and that key:
    so that what violates it can be listed.
    """
    match = _OF_A_KEY.search(item.sql) if item.kind == "FK CONSTRAINT" else None
    if match is None or re.search(r"NOT VALID;\s*$", item.sql) or "ALTER TABLE ONLY" not in item.sql:
        return item.sql, None  # one of a partitioned table cannot wait
    return re.sub(r";\s*$", " NOT VALID;\n", item.sql), (Table.of(match[1]), unquoted(f"x.{match[2]}")[1])


def refers_from(item: Item) -> Table | None:
    """Return the table that a foreign key belongs to; None for what is no foreign key."""
    match = _OF_A_KEY.search(item.sql) if item.kind == "FK CONSTRAINT" else None
    return Table.of(match[1]) if match else None


def _script(runner: Runner, stored: Stored, section: str) -> str:
    argv = ["pg_restore", f"--section={section}", "--no-tablespaces", "--file=-"]
    said = b"".join(runner.stream(argv, env={"LC_ALL": "C"}, stdin=stored.plain()))
    return said.decode("utf-8", "surrogateescape")


def items(script: str) -> Iterator[Item]:
    """Yield what a script of `pg_restore` makes, item by item."""
    sql = _META.sub("", script)
    headers = list(_HEADER.finditer(sql))
    ends = [*(header.start() for header in headers[1:]), len(sql)][: len(headers)]
    for header, end in zip(headers, ends, strict=True):
        yield Item(**header.groupdict(), sql=_TRAILING.sub("", sql[header.end() : end]).strip() + "\n")


def _naming(qualified: str) -> re.Pattern[str]:
    """A pattern for a table's name however it is quoted, and for no longer name."""
    parts = []
    for part in unquoted(qualified):
        quoted = re.escape(identifier(part))
        parts.append(f"(?:{quoted}|{re.escape(part)})" if re.fullmatch(r"[^\W\d]\w*", part) else quoted)
    return re.compile(rf'(?<![\w".$]){parts[0]}\.{parts[1]}(?![\w"$])')


def _is_of(item: Item, patterns: list[re.Pattern[str]]) -> bool:
    if item.kind not in _BELONGS:
        return False
    if item.kind == "TABLE":  # not one that inherits from it
        match = _CREATES.search(item.sql)
        return match is not None and any(pattern.fullmatch(match[1]) for pattern in patterns)
    return any(pattern.search(item.sql) for pattern in patterns)


def _in_schema(item: Item, schema: str | None) -> bool:
    if schema is None:
        return False
    own = item.kind == "SCHEMA" and item.name == schema
    about = item.kind in ("ACL", "COMMENT") and item.name == f"SCHEMA {schema}"
    return item.schema == schema or own or about


def _similar(name: str, known: list[Table]) -> str:
    said = {form: str(table) for table in known for form in (str(table), table.name)}
    folded = {form.lower(): full for form, full in said.items()}
    close = [folded[form] for form in difflib.get_close_matches(name.lower(), list(folded), n=4, cutoff=0.6)]
    listed = list(dict.fromkeys(close)) or [str(table) for table in known[:10]]
    return f"{'similar' if close else 'it has'}: {', '.join(listed)}"


def _listed(sql: str) -> Iterator[list[str]]:
    """Yield the words of each element of a list in parentheses, the first of which is open."""
    depth = 0
    words: list[str] = []
    for part in _TOKEN.findall(sql):
        if part in ("(", "["):
            depth += 1
        elif part in (")", "]"):
            depth -= 1
        if depth < 0 or (depth == 0 and part == ","):
            if words:
                yield words
            words = []
            if depth < 0:
                return
        elif not part.isspace() or words:
            words.append(" " if part.isspace() else part)
