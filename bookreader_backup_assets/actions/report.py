"""What there is to say about a day's set and about each component, for `backup`, `list` and `status`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.manifest import UNCHANGED, Failure

APART = ("code/", "logs/")
"""What has weeks and hours of its own, and is captured at other times than a day's set."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""How far ahead of this clock an artifact may be."""


@dataclass(frozen=True)
class Line:
    """One asset of a set: its artifact and where it stands, or why there is none."""

    asset: str
    entry: Entry | None
    standing: str
    unchanged: bool
    outcomes: tuple[Outcome, ...]
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether there is an artifact, and every check of it passed."""
        return self.standing == "verified"


@dataclass(frozen=True)
class Age:
    """The newest verified artifact of an asset, and its age against the plan's objective.

    `due` is false of code and logs whose first week or hour is still to come.
    """

    asset: str
    newest: Entry | None
    age: timedelta | None
    objective: timedelta
    due: bool = True

    @property
    def good(self) -> bool:
        """Whether what could be lost is within the objective; an artifact of the future tells nothing."""
        young = self.age is not None and -CLOCKS_DIFFER <= self.age <= self.objective
        return young or not self.due


def day_report(catalog: Catalog, day: str, assets: tuple[str, ...]) -> list[Line]:
    """Return a line for each of `assets` in the set of a day."""
    failures = {failure.asset: failure for failure in catalog.failures(day)}
    return [_line(catalog, day, asset, failures.get(asset)) for asset in assets]


def _line(catalog: Catalog, day: str, asset: str, failure: Failure | None) -> Line:
    entry = catalog.of_day(asset, day)
    if entry is not None:
        outcomes = {o.check: o for proof in catalog.proofs(entry) for o in proof.checks}
        standing = catalog.standing(entry)
        made = tuple(outcomes[check] for check in entry.checks if check in outcomes)
        bad = [f"{o.check}: {o.message}" for o in made if o.verdict is not Verdict.PASSED]
        if failure is not None and failure.at > entry.captured_at:
            bad.append(f"a later capture failed: {failure.error}")
        return Line(asset, entry, str(standing), entry.set != day, made, "; ".join(bad))
    why = "; ".join(filter(None, (failure.error, failure.hint))) if failure else "not captured"
    return Line(asset, entry, "missing", unchanged=False, outcomes=(), why=why)


def ages(catalog: Catalog, objectives: dict[str, timedelta], now: datetime) -> list[Age]:
    """Return, for each asset with an objective, how old its newest verified artifact is.

    An artifact that was found unchanged is as young as that finding. What is not captured with the rest,
    code and logs, is due once the oldest artifact of all is as old as its objective.
    """
    report = []
    begun = min((entry.captured_at for entry in catalog.entries() if not entry.late), default=now)
    for asset, objective in objectives.items():
        newest = catalog.newest(asset, verified=True)
        age = now - max(moments(catalog, newest)) if newest else None
        apart = asset.startswith(APART) and catalog.newest(asset) is None
        report.append(Age(asset, newest, age, objective, due=not apart or now - begun > objective))
    return report


def moments(catalog: Catalog, entry: Entry) -> list[datetime]:
    """Return the instants at which the source held what an entry has: captured, or found unchanged."""
    unchanged = [p.at for p in catalog.proofs(entry) if any(o.check == UNCHANGED for o in p.checks)]
    return [entry.captured_at, *unchanged]
