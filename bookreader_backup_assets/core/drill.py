"""A drill's report: what came back into a scratch place, how long it took, and how old it was.

What is measured is held against objectives: the time a recovery may take (RTO), and the age that what it
brings back may have (RPO).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bookreader_backup_assets.core.artifact import FORMAT_VERSION, dump_document, load_document, parse_utc
from bookreader_backup_assets.core.check import Outcome, Verdict, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError
from bookreader_backup_assets.core.restore_plan import StepTaken

PARTIAL, SYSTEM = "partial", "system"
SCENARIOS: Mapping[str, tuple[str, ...]] = {
    PARTIAL: ("postgresql", "redis", "config", "file"),
    SYSTEM: ("config", "postgresql", "redis", "storage", "file"),
    **{one: (one,) for one in ("postgresql", "redis", "storage", "file", "config")},
}
"""What each drill brings back, in that order."""
OBJECTIVES = {
    "postgresql": "database",
    "redis": "database",
    "storage": "storage",
    "file": "file",
    "config": "file",
    SYSTEM: "system",
}
"""The row of the guide's appendix C that each scenario is held against. It has none for Redis and the
configuration: the first is a database, the second a handful of files."""
CHECKS = {
    "compared": "everything came back, and equals what was captured",
    "within_rto": "each scenario took no longer than its objective",
    "within_rpo": "what came back was no older than its objective",
}


_CLOCKS_DIFFER = 300.0  # seconds


@dataclass(frozen=True)
class Objective:
    """Seconds that a recovery may take, and that what it brings back may be old."""

    rto: float
    rpo: float


@dataclass(frozen=True)
class Part:
    """One thing brought back: from which artifact, in which steps, and what the comparison found.

    `as_of` is the instant the source held what came back: when it was captured, or last found unchanged.
    `bytes` were read from the vault.
    """

    scenario: str
    artifact: str
    as_of: datetime | None
    bytes: int = 0
    steps: tuple[StepTaken, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took, all steps together."""
        return round(sum(step.seconds for step in self.steps), 3)

    @property
    def equal(self) -> bool:
        """Whether it came back, and every comparison found it equal."""
        return bool(self.outcomes) and all(outcome.passed for outcome in self.outcomes)


@dataclass(frozen=True)
class Result:
    """One scenario against its objective, all in seconds; `age` is None where nothing came back.

    `recovered` says whether all of it came back equal: the time of what did not is no recovery time.
    """

    scenario: str
    objective: str
    recovered: bool
    seconds: float
    rto: float
    age: float | None
    rpo: float

    @property
    def within_rto(self) -> bool:
        """Whether it was recovered in time."""
        return self.recovered and self.rto > 0 and self.seconds <= self.rto

    @property
    def within_rpo(self) -> bool:
        """Whether what could have been lost is within the objective; the future's age tells nothing."""
        return self.age is not None and -_CLOCKS_DIFFER <= self.age <= self.rpo


@dataclass(frozen=True)
class DrillReport:
    """What a drill did. `key` says which key opened what was encrypted; `vault` what it was read from."""

    installation: str
    host: str
    scenario: str
    set: str
    vault: str
    key: str
    began_at: datetime
    ended_at: datetime
    parts: tuple[Part, ...]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def bytes_per_second(self) -> float:
        """Stored bytes brought back and compared per second, over all parts."""
        seconds = sum(part.seconds for part in self.parts)
        return sum(part.bytes for part in self.parts) / seconds if seconds else 0.0

    @property
    def age(self) -> float | None:
        """Seconds that the oldest of what came back was old; None where nothing did."""
        ages = [result.age for result in self.results if result.age is not None]
        return max(ages) if ages else None

    @property
    def good(self) -> bool:
        """Whether it came back equal, in time and young enough."""
        return all(self.check(name).passed for name in CHECKS)

    def check(self, name: str) -> Outcome:
        """Make one of `CHECKS`."""
        return {"compared": self._compared, "within_rto": self._rto, "within_rpo": self._rpo}[name]()

    def to_json(self) -> bytes:
        """The report as it is stored."""
        return dump_document(self)

    @classmethod
    def from_json(cls, data: bytes, *, name: str = "a report") -> DrillReport:
        """Return the report in `data`. Raises `DamagedError` if it is none."""
        document = load_document(data, name)
        try:
            return cls(
                **{
                    **document,
                    "began_at": parse_utc(document["began_at"]),
                    "ended_at": parse_utc(document["ended_at"]),
                    "parts": tuple(_part(part) for part in document["parts"]),
                    "results": tuple(Result(**result) for result in document["results"]),
                    "notes": tuple(document["notes"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{name} is not a drill's report: {error}") from None

    def to_text(self) -> str:
        """The report for people."""
        lines = [
            f"Restore drill: {self.scenario}",
            f"Set: {self.set}, from {self.vault}",
            f"Began: {self.began_at:%Y-%m-%d %H:%M:%S} UTC, on {self.host}",
            f"Key: {self.key}",
            "",
        ]
        for part in self.parts:
            lines += [f"{part.scenario}: {part.artifact or 'nothing'}, {part.bytes} bytes"]
            lines += [f"  {step.step}: {step.seconds:.2f} s {step.said}".rstrip() for step in part.steps]
            lines += [f"  {o.check}: {o.verdict}: {o.message}" for o in part.outcomes]
        lines += ["", "Against the objectives:"]
        for one in self.results:
            age = "nothing came back" if one.age is None else f"{one.age / 3600:.1f} h old"
            allowed = f"{one.rpo / 3600:.1f} h allowed"
            lines += [f"  {one.scenario}: {one.seconds:.1f} s of {one.rto:.0f} s; {age}, {allowed}"]
        lines += ["", *(f"{name}: {self.check(name).message}" for name in CHECKS), *self.notes]
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode() + "\n"

    def _compared(self) -> Outcome:
        bad = [(part, o) for part in self.parts for o in part.outcomes if not o.passed]
        silent = [part.scenario for part in self.parts if not part.outcomes]
        measured = {"parts": len(self.parts), "equal": sum(part.equal for part in self.parts)}
        if not self.parts:
            return failed("compared", "nothing was brought back", **measured)
        if bad or silent:
            said = "; ".join(
                [f"{part.scenario}: {o.message}" for part, o in bad]
                + [f"{scenario}: nothing was compared" for scenario in silent]
            )
            unsure = not silent and all(o.verdict is Verdict.INCONCLUSIVE for _, o in bad)
            return (inconclusive if unsure else failed)("compared", said, **measured)
        equal = ", ".join(part.scenario for part in self.parts)
        return passed("compared", f"came back and equal what was captured: {equal}", **measured)

    def _rto(self) -> Outcome:
        measured = {f"{one.scenario}_seconds": one.seconds for one in self.results}
        late = [
            f"{one.scenario} took {one.seconds:.1f} s, and may take {one.rto:.0f} s"
            if one.recovered
            else f"{one.scenario} was not recovered"
            for one in self.results
            if not one.within_rto
        ]
        if late or not self.results:
            return failed("within_rto", "; ".join(late) or "nothing was brought back", **measured)
        said = ", ".join(f"{one.scenario} {one.seconds:.1f} s of {one.rto:.0f} s" for one in self.results)
        return passed("within_rto", said, **measured)

    def _rpo(self) -> Outcome:
        measured = {
            f"{r.scenario}_age_hours": round(r.age / 3600, 2) for r in self.results if r.age is not None
        }
        old = [
            f"{one.scenario}: nothing came back"
            if one.age is None
            else f"{one.scenario} was {one.age / 3600:.1f} h old, and may be {one.rpo / 3600:.1f} h"
            for one in self.results
            if not one.within_rpo
        ]
        if old or not self.results:
            return failed("within_rpo", "; ".join(old) or "nothing was brought back", **measured)
        return passed("within_rpo", f"the oldest was {(self.age or 0) / 3600:.1f} h old", **measured)


def judge(
    scenario: str, parts: Iterable[Part], objectives: Mapping[str, Objective], at: datetime
) -> tuple[Result, ...]:
    """Return how each part did, and, for the whole system, all of them together."""
    held = list(parts)
    groups = [(part.scenario, [part]) for part in held]
    if scenario == SYSTEM:
        groups.append((SYSTEM, [part for part in held if part.scenario != "file"]))  # it is in storage
    return tuple(_result(name, group, objectives[OBJECTIVES[name]], at) for name, group in groups)


def _result(scenario: str, parts: list[Part], objective: Objective, at: datetime) -> Result:
    moments = [part.as_of for part in parts if part.as_of is not None]
    return Result(
        scenario=scenario,
        objective=OBJECTIVES[scenario],
        recovered=bool(parts) and all(part.equal for part in parts),
        seconds=round(sum(part.seconds for part in parts), 3),
        rto=objective.rto,
        age=round((at - min(moments)).total_seconds(), 3) if parts and len(moments) == len(parts) else None,
        rpo=objective.rpo,
    )


def _part(document: dict[str, Any]) -> Part:
    return Part(
        **{
            **document,
            "as_of": parse_utc(document["as_of"]) if document["as_of"] else None,
            "steps": tuple(StepTaken(**step) for step in document["steps"]),
            "outcomes": tuple(
                Outcome(**{**one, "verdict": Verdict(one["verdict"])}) for one in document["outcomes"]
            ),
        }
    )
