"""What retention goes by: what the plan keeps in a vault, what the vault holds, and what was pinned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Literal
from zoneinfo import ZoneInfo

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.set_id import day_of

Unit = Literal["days", "weeks", "versions"]
WEEKLY = "backup_set/weekly"
"""The asset of the manifests of weekly fulls."""


@dataclass(frozen=True)
class Keep:
    """For how long: so many days or weeks after the day of its set, or so many verified versions.

    `days = 7` keeps the set of today and those of the seven days before: one can go back seven whole days.
    """

    count: int
    unit: Unit

    def __str__(self) -> str:
        """As the guide's tables have it: `7 days`."""
        return f"{self.count} {self.unit if self.count > 1 else self.unit.removesuffix('s')}"

    @property
    def days(self) -> int | None:
        """How many days after its own a set is kept; None where versions are counted."""
        return None if self.unit == "versions" else self.count * (7 if self.unit == "weeks" else 1)


@dataclass(frozen=True)
class Policy:
    """What the plan keeps in one vault. None is no limit, for `weekly` and `labels` as for a row.

    `rows` are by component, and only of those that the plan wants in this vault by themselves. `weekly` is
    of the sets of days for which `full_on` is true: of none, where the plan wants no fulls in this vault.
    `labels` is of labelled sets. `objectives` are by component, how old its newest may get where it is
    captured: with an older one here, nothing of it is removed; a component without a row comes only with
    weekly fulls, and may be a week older. `share` is the part of the artifacts that one prune may remove.
    """

    vault: str
    zone: ZoneInfo
    rows: Mapping[str, Keep | None] = field(default_factory=dict)
    weekly: Keep | None = None
    labels: Keep | None = None
    full_on: Callable[[date], bool] = lambda _day: False
    objectives: Mapping[str, timedelta] = field(default_factory=dict)
    share: float = 0.5

    def with_fulls(self, entries: Iterable[Entry]) -> Policy:
        """Return this policy, by which each set that was sealed as a weekly full stays one.

        `entries` are of the vault that it is for. Which day has the full may change, or none may have it any
        more: what is there was kept as one. Without a row for them in the plan they have no limit.
        """
        sealed = {day for entry in entries if entry.asset == WEEKLY and (day := _day(entry)) is not None}
        planned = self.full_on
        return replace(self, full_on=lambda day: day in sealed or planned(day)) if sealed else self


@dataclass(frozen=True)
class Held:
    """One artifact in the vault, and what there is to know about it.

    `sets` are the ids of the sets that it is in: its own, and later ones that found it unchanged. `needs`
    names the archives that its index points to. `lacks` names the vaults in which the plan wants a proven
    copy of it, and there is none, or nobody can tell. `locked_until` is the vault's own lock. `held_by` says,
    in words, what still needs it, such as the undo of a restore.
    """

    entry: Entry
    verified: bool
    sets: frozenset[str]
    needs: frozenset[str] = frozenset()
    lacks: tuple[str, ...] = ()
    locked_until: datetime | None = None
    held_by: tuple[str, ...] = ()

    @cached_property
    def all_sets(self) -> tuple[str, ...]:
        """Its own set, and those that found it unchanged."""
        return (self.entry.set, *self.later_sets)

    @cached_property
    def later_sets(self) -> frozenset[str]:
        """The sets that found it unchanged."""
        return self.sets - {self.entry.set}


@dataclass(frozen=True)
class Pin:
    """A set that stays, whatever the plan says, until a day: kept by the operator, and why."""

    set: str
    until: date
    because: str


def _day(entry: Entry) -> date | None:
    try:
        return day_of(entry.set)
    except RefusedError:
        return None
