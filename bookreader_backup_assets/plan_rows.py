"""The rows of a plan: one section of the file each, and what may stand in it."""

from __future__ import annotations

from datetime import date, time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bookreader_backup_assets.core import policy
from bookreader_backup_assets.core.drill import Objective

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""In the order of `date.weekday()`."""
_DAY, _WEEK = 26, 7 * 24 + 2  # hours: the interval, and two of buffer, as the guide monitors it


def _clock_time(value: object) -> time:
    try:
        parsed = time.fromisoformat(str(value))
    except ValueError:
        raise ValueError("a time of day such as '02:30'") from None
    if parsed.second or parsed.microsecond or parsed.tzinfo:
        raise ValueError("a time of day such as '02:30'")
    return parsed


def _digests(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(table, str) and "." in table for table in value):
        return value
    raise ValueError("true, false, or a list of tables such as ['public.users']")


ClockTime = Annotated[time, BeforeValidator(_clock_time)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Count = Annotated[int, Field(ge=1, strict=True)]
_MODEL = ConfigDict(extra="forbid", frozen=True)


class Keep(BaseModel):
    """For how long: days, weeks, or so many versions. Exactly one of them."""

    model_config = _MODEL

    days: Count | None = None
    weeks: Count | None = None
    versions: Count | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([one for one in (self.days, self.weeks, self.versions) if one is not None]) != 1:
            raise ValueError("one of days, weeks and versions, such as { days = 7 }")
        return self

    @property
    def rule(self) -> policy.Keep:
        """The same as retention has it."""
        if self.days is not None:
            return policy.Keep(self.days, "days")
        if self.weeks is not None:
            return policy.Keep(self.weeks, "weeks")
        assert self.versions is not None
        return policy.Keep(self.versions, "versions")

    def __str__(self) -> str:
        """As the guide's tables have it: `7 days`."""
        return str(self.rule)


class Copy(Keep):
    """A copy in a vault outside: for how long, in which storage class, and locked for how many days.

    A class and a lock mean something where the vault is a bucket; a lock needs one that has object lock.
    """

    storage_class: str = "STANDARD"
    lock_days: int = Field(default=0, ge=0, strict=True)


class Row(BaseModel):
    """One component's row: `at` is local time; `every` day, or week on `weekday`.

    `rpo_hours` is the age at which its newest is too old: 26, or 170 of a weekly one, unless it says.
    `keep` is for the local vault; `nas` and `offsite` are copies. `encrypt` says whether it is
    encrypted at capture: without it, what holds personal data is, where it leaves the host.
    """

    model_config = _MODEL

    at: ClockTime
    every: Literal["day", "week"] = "day"
    weekday: Weekday = "sunday"
    rpo_hours: float = Field(default=_DAY, gt=0)
    keep: Keep | None = None
    nas: Copy | None = None
    offsite: Copy | None = None
    encrypt: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _buffered(cls, given: Any) -> Any:
        every = cls.model_fields["every"].default
        if isinstance(given, dict) and given.get("every", every) == "week":
            return {"rpo_hours": _WEEK, **given}
        return given

    def due_on(self, day: date) -> bool:
        """Whether it is captured on that day."""
        return self.every == "day" or WEEKDAYS[day.weekday()] == self.weekday


class PostgresqlRow(Row):
    """`digests` names tables (`schema.table`) compared by content, or `true` for all of them."""

    digests: Annotated[bool | list[str], BeforeValidator(_digests)] = False


class ConfigRow(Row):
    """The configuration, which is small and always encrypted: `git` is a copy on a git remote."""

    git: Copy | None = None

    @model_validator(mode="after")
    def _always_encrypted(self) -> Self:
        if self.encrypt is False:
            raise ValueError("without `encrypt = false`: the configuration is always encrypted")
        return self


class CodeRow(Row):
    """The repository, weekly."""

    every: Literal["week"] = "week"


class LogsRow(BaseModel):
    """The logs of each hour, captured at `minute` of the next one."""

    model_config = _MODEL

    minute: int = Field(default=5, ge=0, le=59)
    rpo_hours: float = Field(default=3, gt=0)
    keep: Keep | None = None
    nas: Copy | None = None
    offsite: Copy | None = None
    encrypt: bool | None = None


class WeeklyRow(BaseModel):
    """The weekly full: on `weekday`, `at` local time, everything at once, instead of that day's rows."""

    model_config = _MODEL

    at: ClockTime
    weekday: Weekday = "sunday"
    keep: Keep | None = None
    nas: Copy | None = None
    offsite: Copy | None = None

    def due_on(self, day: date) -> bool:
        """Whether that day has it."""
        return WEEKDAYS[day.weekday()] == self.weekday


class LabelsRow(BaseModel):
    """Labelled sets, such as those before a deployment."""

    model_config = _MODEL

    keep: Keep | None = None
    nas: Copy | None = None
    offsite: Copy | None = None


class PruneRow(BaseModel):
    """The daily prune: `at` local time, once replicas are there; and the part of a vault it may remove."""

    model_config = _MODEL

    at: ClockTime = time(6)
    share: float = Field(default=0.5, gt=0, le=1)


class Hours(BaseModel):
    """Hours, by row of the guide's appendix C."""

    model_config = _MODEL

    database: float = Field(ge=0)
    storage: float = Field(ge=0)
    system: float = Field(ge=0)
    file: float = Field(ge=0)


class DrillRow(BaseModel):
    """The monthly drill: `day` of the month and `at`, local time; and what it is held against."""

    model_config = _MODEL

    at: ClockTime = time(4)
    day: int = Field(default=1, ge=1, le=28)
    rto_hours: Hours = Hours(database=1, storage=2, system=4, file=0.25)
    rpo_hours: Hours = Hours(database=24, storage=24, system=168, file=24)

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives by row of the guide's table."""
        rto, rpo = self.rto_hours.model_dump(), self.rpo_hours.model_dump()
        return {row: Objective(rto[row] * 3600, rpo[row] * 3600) for row in rto}
