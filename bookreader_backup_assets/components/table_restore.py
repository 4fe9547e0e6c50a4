"""One or several tables, or a schema, out of a dump: into a scratch database on the live server, compared,
and then in one transaction into the place of the live ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bookreader_backup_assets.components import postgresql_restore as restore
from bookreader_backup_assets.components import table_look
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.psql import connect, versions
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.table_choice import choose, names
from bookreader_backup_assets.components.table_rows import kinds, require_same_columns
from bookreader_backup_assets.components.table_scratch import ScratchDatabase
from bookreader_backup_assets.components.table_sql import Outline, Table
from bookreader_backup_assets.components.table_swap import Swap
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Progress, quiet
from bookreader_backup_assets.runners.base import Runner

_EXPANDS = 4  # tables over their part of the compressed dump
_EMPTY = 10_000_000  # bytes of a database with nothing in it
_RATE = 10e6  # bytes of dump per second: a guess, until a drill has measured it
_LOOK = """
SELECT jsonb_build_object(
  'data', current_setting('data_directory', true),
  'bytes', (SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint
            FROM unnest({tables}) AS name))
"""


@dataclass(frozen=True)
class TableRestoration:
    """Implements `Restoration` for the tables that `options` name, or the schema.

    `undo` takes them out of the safety capture by the same way.
    """

    runner: Runner
    env: Mapping[str, str] = field(repr=False)
    database: str
    stored: Stored
    options: Options

    quiet = False
    displaces = False
    keeps_old = False

    @property
    def target(self) -> str:
        """The name of the database."""
        return self.database

    def preview(self) -> Preview:
        """See `Restoration.preview`. Refuses tables that the dump lacks, or that have changed since."""
        outline = Outline.read(self.runner, self.stored)
        with connect(self.runner, self.env, self.database) as psql:
            restore.require_not_newer(self.stored.entry, versions(psql, self.runner, "pg_restore"))
            choice = choose(psql, outline, self.stored.entry, self.options)
            restore.require_superuser(psql, self.env, "keep triggers from firing while tables are replaced")
            choice.require_unchanged(psql)
            look = psql.ask(_LOOK.format(tables=names((*choice.tables, *choice.emptied))))
            lines, notes = choice.lines(psql), choice.notes(psql)
        asked = ", ".join(map(str, choice.asked))
        steps = [
            f"restore {asked} of {self.stored.entry.name} into a scratch database on the same server",
            "compare rows and digests with those captured",
            f"replace {asked} in one transaction, foreign keys checked: writers wait, readers read on",
        ]
        if choice.into is not None:
            steps[-1] = f"make {choice.into} of it; nothing is replaced"
        needed = int(self.stored.entry.size * _EXPANDS * choice.share + look["bytes"]) + _EMPTY
        return Preview(
            replaces=f"in database {self.database}: {'; '.join(lines)}",
            present=bool(choice.present) and choice.into is None,
            steps=tuple(steps),
            rooms=(Room("PostgreSQL's data folder", needed, restore.room(self.runner, look["data"])),),
            seconds=round(self.stored.entry.size / _RATE + 5),
            notes=tuple(notes),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        outline = Outline.read(self.runner, self.stored)
        with connect(self.runner, self.env, self.database) as psql:
            choice = choose(psql, outline, self.stored.entry, self.options)
        return {
            "scratch": f"bookreader_restore_{stamp}",
            "undo": f"bookreader_undo_{stamp}",
            "application": f"bookreader-restore-{stamp}",
            "asked": [table.sql for table in choice.asked],
            "tables": [table.sql for table in choice.tables],
            "missing": [table.sql for table in choice.missing],
            "parents": [table.sql for table in choice.parents],
            "emptied": [table.sql for table in choice.emptied],
            "schema": choice.schema,
            "into": choice.into.sql if choice.into is not None else None,
        }

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`. Raises `CommandError` if anything could not be restored."""
        self.abandon(state)
        self._scratch(state).load(self.stored, _tables(state["tables"]), progress)

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`. Raises `RefusedError` for columns that are not the live ones."""
        outcome = self._scratch(state).compared(self.stored, _tables(state["tables"]))
        if outcome.passed and state["into"] is None:
            with (
                connect(self.runner, self.env, self.database) as live,
                connect(self.runner, self.env, state["scratch"]) as source,
            ):
                require_same_columns(live, source, kinds(live, _tables(state["tables"])))
        return outcome

    def swap(self, state: State) -> None:
        """See `Restoration.swap`. Raises `RefusedError` for foreign keys that would be broken, listed."""
        scratch = self._scratch(state)
        scratch.end_work()
        if not self._swapped(state):
            try:
                state["counted"] = self._swap(state)
            except SourceError:
                scratch.end_work()
                if not scratch.is_committed():  # as it is, if the connection went just as it was
                    raise
        state["swapped"] = True

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`. The rows were compared before the commit: since then they may change."""
        wanted = _tables([state["into"]] if state["into"] is not None else state["tables"])
        with connect(self.runner, self.env, self.database) as psql:
            there = kinds(psql, wanted)
        names = ", ".join(map(str, wanted))
        if lost := [str(table) for table in wanted if table not in there]:
            return failed("swapped", f"{self.database} has no {', '.join(lost)}")
        if not self._swapped(state):
            return failed("swapped", f"{names} in {self.database} were not replaced")
        self._scratch(state).empty(_tables(state["tables"]))
        counted = state.get("counted", {})
        said = ", ".join(f"{number} {name}" for name, number in counted.items())
        return passed("swapped", f"{names}: equal to the dump when committed; {said}".rstrip("; "), **counted)

    def undo(self, state: State, safety: Stored | None) -> None:
        """See `Restoration.undo`. What was written to the tables since the restore is lost."""
        self._scratch(state).end_work()
        if state["into"] is not None:
            self._look(state).drop()
        elif self._swapped(state):
            self._put_back(state, safety)
        self._scratch(state).drop()
        self._scratch(state, "undo").drop()

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        self._scratch(state).end_work()
        self._scratch(state).drop()
        self._scratch(state, "undo").drop()

    def accept(self, state: State) -> None:
        """See `Restoration.accept`: the scratch database goes. The safety capture is the vault's."""
        self.abandon(state)

    def _swap(self, state: State) -> dict[str, int]:
        if state["into"] is not None:
            return {"rows": self._look(state).make(state["scratch"], Table.of(state["asked"][0]))}
        with connect(self.runner, self.env, self.database) as psql:
            there = kinds(psql, _tables(state["tables"]))
        missing = _tables(state["missing"])
        if other := [str(t) for t in _tables(state["tables"]) if (t in there) == (t in missing)]:
            raise RefusedError(
                f"{', '.join(other)}: made or dropped since this restore began",
                hint="restore again; nothing was replaced",
            )
        scratch = self._scratch(state)
        swap = Swap(
            self.runner,
            self.env,
            self.database,
            scratch=scratch.name,
            application=scratch.application,
            tables=_tables(state["tables"]),
            outline=Outline.read(self.runner, self.stored),
            parents=_tables(state["parents"]),
            emptied=_tables(state["emptied"]),
            schema=state["schema"],
        )
        return swap.make(scratch.mark)

    def _put_back(self, state: State, safety: Stored | None) -> None:
        """Replace by what the safety capture has, and drop what was made."""
        before = _tables(sorted({*state["tables"], *state["emptied"]} - set(state["missing"])))
        scratch = self._scratch(state, "undo")
        if scratch.is_committed():
            return
        if before and safety is None:
            raise RefusedError(
                f"what {', '.join(map(str, before))} held before is not there any more",
                hint="restore it from a set: bookreader-backup list",
            )
        scratch.drop()
        outline = Outline((), ())
        if safety is None:
            scratch.create({})
        else:
            scratch.load(safety, before, quiet)
            found = scratch.compared(safety, before)
            if not found.passed:
                raise DamagedError(f"the safety capture does not come back: {found.message}")
            outline = Outline.read(self.runner, safety)
        Swap(
            self.runner,
            self.env,
            self.database,
            scratch=scratch.name,
            application=scratch.application,
            tables=before,
            outline=outline,
            dropped=_tables([*state["missing"], *state["parents"]]),
            dropped_schema=state["schema"],
        ).make(scratch.mark)

    def _swapped(self, state: State) -> bool:
        if state["into"] is not None:
            return bool(state.get("swapped"))
        return bool(state.get("swapped")) or self._scratch(state).is_committed()

    def _scratch(self, state: State, which: str = "scratch") -> ScratchDatabase:
        maintenance = "template1" if self.database == "postgres" else "postgres"
        return ScratchDatabase(self.runner, self.env, maintenance, state[which], state["application"])

    def _look(self, state: State) -> table_look.Look:
        into = Table.of(state["into"])
        return table_look.Look(self.runner, self.env, self.database, into, state["application"])


def _tables(named: Iterable[str]) -> tuple[Table, ...]:
    return tuple(map(Table.of, named))
