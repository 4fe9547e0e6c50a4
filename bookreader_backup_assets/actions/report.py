"""What there is to say about a day's set and about each component, for `backup`, `list` and `status`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.manifest import Failure

APART = ("code/", "logs/")
"""What has weeks and hours of its own, and is captured at other times than a day's set."""


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

    `due` is false where its first is still to come: of code and logs, and of copies of weekly fulls only.
    """

    asset: str
    newest: Entry | None
    age: timedelta | None
    objective: timedelta
    due: bool = True

    @property
    def good(self) -> bool:
        """Whether what could be lost is within the objective."""
        return (self.age is not None and self.age <= self.objective) or not self.due


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


def ages(
    catalog: Catalog,
    objectives: dict[str, timedelta],
    now: datetime,
    *,
    begun: datetime | None = None,
    rare: Collection[str] = (),
) -> list[Age]:
    """Return, for each asset with an objective, how old its newest verified artifact is.

    An artifact that was found unchanged is as young as that finding; one of the future tells nothing. What
    is not captured with the rest, code and logs, and what is `rare`, is due once the oldest artifact of all
    is as old as its objective, counted from `begun` where that is earlier.
    """
    known = catalog.at(now)
    captured = [entry.captured_at for entry in catalog.entries() if not entry.late]
    first = min([*captured, *([begun] if begun else [])], default=now)
    report = []
    for asset, objective in objectives.items():
        newest = known.newest(asset, verified=True)
        age = now - max(known.moments(newest)) if newest else None
        apart = (asset.startswith(APART) or asset in rare) and known.newest(asset) is None
        report.append(Age(asset, newest, age, objective, due=not apart or now - first > objective))
    return report
