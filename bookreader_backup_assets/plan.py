"""The plan: which component is captured when, in which timezone, and how old its newest may get.

A plan is a TOML file: `production` ships with this package, any other is named by its path.
"""

from __future__ import annotations

import tomllib
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bookreader_backup_assets.core.drill import Objective
from bookreader_backup_assets.core.errors import SettingsError

SHIPPED = Path(__file__).parent / "plans"
_COMPONENTS = ("postgresql", "redis", "storage", "config")


def _clock_time(value: object) -> time:
    try:
        parsed = time.fromisoformat(str(value))
    except ValueError:
        raise ValueError("a time of day such as '02:30'") from None
    if parsed.second or parsed.microsecond or parsed.tzinfo:
        raise ValueError("a time of day such as '02:30'")
    return parsed


def _timezone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a timezone such as 'UTC' or 'Europe/Moscow'") from None


def _digests(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(table, str) and "." in table for table in value):
        return value
    raise ValueError("true, false, or a list of tables such as ['public.users']")


ClockTime = Annotated[time, BeforeValidator(_clock_time)]
Zone = Annotated[ZoneInfo, BeforeValidator(_timezone)]


class Row(BaseModel):
    """One component's row: `at` is local time, `rpo_hours` the age at which its newest is too old."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: ClockTime
    rpo_hours: float = Field(default=26, gt=0)


class PostgresqlRow(Row):
    """`digests` names tables (`schema.table`) compared by content, or `true` for all of them."""

    digests: Annotated[bool | list[str], BeforeValidator(_digests)] = False


class Hours(BaseModel):
    """Hours, by row of the guide's appendix C."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database: float = Field(ge=0)
    storage: float = Field(ge=0)
    system: float = Field(ge=0)
    file: float = Field(ge=0)


class DrillRow(BaseModel):
    """The monthly drill: `day` of the month and `at`, local time; and what it is held against."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: ClockTime = time(4)
    day: int = Field(default=1, ge=1, le=28)
    rto_hours: Hours = Hours(database=1, storage=2, system=4, file=0.25)
    rpo_hours: Hours = Hours(database=24, storage=24, system=168, file=24)

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives by row of the guide's table."""
        rto, rpo = self.rto_hours.model_dump(), self.rpo_hours.model_dump()
        return {row: Objective(rto[row] * 3600, rpo[row] * 3600) for row in rto}


class Plan(BaseModel):
    """The whole table. A component without a row is not captured by schedules."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    timezone: Zone
    deadline: ClockTime
    postgresql: PostgresqlRow | None = None
    redis: Row | None = None
    storage: Row | None = None
    config: Row | None = None
    drill: DrillRow = DrillRow()

    @model_validator(mode="after")
    def _captures_something(self) -> Self:
        if not self.rows:
            raise ValueError(f"a plan of at least one component: {', '.join(_COMPONENTS)}")
        return self

    @property
    def rows(self) -> dict[str, Row]:
        """The planned components, in the order in which they are captured."""
        named = {
            "postgresql": self.postgresql,
            "redis": self.redis,
            "storage": self.storage,
            "config": self.config,
        }
        return {name: row for name, row in named.items() if row is not None}


def load_plan(name: str, *, timezone: str | None = None) -> Plan:
    """Return the shipped plan of that name, or the one in the file at that path.

    `timezone` replaces the plan's own. Raises `SettingsError` naming the line and what may stand there.
    """
    path = SHIPPED / f"{name}.toml"
    if not path.exists():
        path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
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


_MODELS: dict[str, type[BaseModel]] = {"postgresql": PostgresqlRow, "drill": DrillRow}


def _explain(path: Path, text: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    wrong = first["msg"].replace("Value error, ", "it must be ")
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = Plan if len(where) == 1 else _MODELS.get(where[0], Row)
        model = Hours if len(where) > 2 else model
        wrong = f"unknown; there may be: {', '.join(model.model_fields)}"
    elif first["type"] == "missing":
        wrong = "it is missing"
    elif first["type"] == "model_type":
        wrong = f"it must be a section: [{where[0]}]"
    line = _line_of(where, text) or _line_of(where[:1], text)
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
