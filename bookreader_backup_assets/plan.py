"""The plan: which component is captured when, for how long it is kept, and how old its newest may get.

A plan is a TOML file: `production` and `development` ship with this package, any other is named by its path.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from bookreader_backup_assets.core.errors import SettingsError
from bookreader_backup_assets.plan_rows import (
    ClockTime,
    CodeRow,
    ConfigRow,
    Copy,
    DrillRow,
    Hours,
    Keep,
    LabelsRow,
    LogsRow,
    PostgresqlRow,
    PruneRow,
    Row,
    WeeklyRow,
)

SHIPPED = Path(__file__).parent / "plans"
VAULTS = ("nas", "offsite", "git")
"""The vaults besides the local one that a row may name."""
_COMPONENTS = ("postgresql", "redis", "storage", "config")


def _timezone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a timezone such as 'UTC' or 'Europe/Moscow'") from None


Zone = Annotated[ZoneInfo, BeforeValidator(_timezone)]


class Plan(BaseModel):
    """The whole table. A component without a row is not captured by schedules."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    timezone: Zone
    deadline: ClockTime
    weekly: WeeklyRow | None = None
    postgresql: PostgresqlRow | None = None
    redis: Row | None = None
    storage: Row | None = None
    config: ConfigRow | None = None
    code: CodeRow | None = None
    logs: LogsRow | None = None
    labels: LabelsRow = LabelsRow()
    prune: PruneRow = PruneRow()
    drill: DrillRow = DrillRow()

    @model_validator(mode="after")
    def _captures_something(self) -> Self:
        if not self.rows:
            raise ValueError(f"a plan of at least one component: {', '.join(_COMPONENTS)}")
        return self

    @property
    def rows(self) -> dict[str, Row]:
        """The components of a day's set, in the order in which they are captured."""
        named = {
            "postgresql": self.postgresql,
            "redis": self.redis,
            "storage": self.storage,
            "config": self.config,
        }
        return {name: row for name, row in named.items() if row is not None}

    @property
    def objectives(self) -> dict[str, timedelta]:
        """How old the newest of each planned component may get."""
        every = {**self.rows, "code": self.code, "logs": self.logs}
        return {name: timedelta(hours=row.rpo_hours) for name, row in every.items() if row is not None}

    @property
    def kept(self) -> dict[str, Row | CodeRow | LogsRow | WeeklyRow | LabelsRow]:
        """Every row that says for how long something is kept, and where."""
        every = {
            **self.rows,
            "code": self.code,
            "logs": self.logs,
            "weekly": self.weekly,
            "labels": self.labels,
        }
        return {name: row for name, row in every.items() if row is not None}

    def copies(self, vault: str) -> dict[str, Copy]:
        """Return the rows that want a copy in a vault, by component, or `weekly` and `labels`."""
        return {name: copy for name, row in self.kept.items() if (copy := getattr(row, vault, None))}

    def full_on(self, day: date) -> bool:
        """Whether that day's captures are one weekly full."""
        return self.weekly is not None and self.weekly.due_on(day)

    def due_on(self, component: str, day: date) -> bool:
        """Whether a component is captured on that day, by a row of its own or by the weekly full."""
        if component == "code":
            return self.code is not None and self.code.due_on(day)
        return component in self.rows and (self.full_on(day) or self.rows[component].due_on(day))

    def due(self, component: str, day: date) -> datetime:
        """Return the instant (UTC) at which a component is captured on that day."""
        if component == "code" and self.code is not None:
            at = self.code.at
        else:
            at = self.weekly.at if self.weekly and self.full_on(day) else self.rows[component].at
        return due(day, at, self.timezone)


def due(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return the instant (UTC) at which the clock of a zone has shown `at` for the last time that day.

    In the night that has an hour twice, Dagster's schedules mean the second, too. A time that the clocks
    skip comes after the gap.
    """
    return max(datetime.combine(day, at.replace(fold=fold), zone).astimezone(UTC) for fold in (0, 1))


def load_plan(name: str, *, timezone: str | None = None) -> Plan:
    """Return the shipped plan of that name, or the one in the file at that path.

    `timezone` replaces the plan's own. Raises `SettingsError` naming the line and what may stand there.
    """
    path = SHIPPED / f"{name}.toml"
    if not path.exists():
        path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text", hint="a plan is TOML, in UTF-8") from None
    except OSError:
        shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        raise SettingsError(
            f"there is no plan {name!r}", hint=f"set BACKUP_PLAN to a file, or to one of: {shipped}"
        ) from None
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    if timezone is not None:
        try:
            document["timezone"] = _timezone(timezone)
        except ValueError as error:
            raise SettingsError(f"BACKUP_TIMEZONE: {timezone!r} is not {error}") from None
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        raise SettingsError(_explain(path, text, error)) from None


_MODELS: dict[str, type[BaseModel]] = {
    "weekly": WeeklyRow,
    "postgresql": PostgresqlRow,
    "config": ConfigRow,
    "code": CodeRow,
    "logs": LogsRow,
    "labels": LabelsRow,
    "prune": PruneRow,
    "drill": DrillRow,
}


def _explain(path: Path, text: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    wrong = first["msg"].replace("Value error, ", "it must be ")
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = Plan if len(where) == 1 else _MODELS.get(where[0], Row)
        if len(where) > 2:
            model = Keep if where[1] == "keep" else Copy if where[1] in VAULTS else Hours
        wrong = f"unknown; there may be: {', '.join(model.model_fields)}"
        if where[1:] == ["git"]:
            wrong = "only [config] goes to a git remote: it is small, and always encrypted"
    elif first["type"] == "missing":
        wrong = "it is missing"
    elif first["type"] == "model_type":
        wrong = f"it must be a section: [{where[0]}]" if len(where) == 1 else "it must be as { days = 7 }"
    line = _line_of(where, text) or _line_of(where[:2], text) or _line_of(where[:1], text)
    at = f"line {line}, " if line else ""
    return ": ".join(part for part in (str(path), f"{at}{'.'.join(where)}", wrong) if part)


def _line_of(where: list[str], text: str) -> int | None:
    """Return the line of a key: the first that assigns or opens it, within its section."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            section = bare.partition("]")[0].strip("[ ")
            if [section] == where:
                return number
        key = bare.partition("=")[0].strip().strip('"')
        if where[:2] == ([section, key] if section else [key]):
            return number
    return None
