"""The last drill: whether backups were brought back lately, and how that went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_report import DRILL
from bookreader_backup_assets.core.drill import CHECKS, DrillReport, Result
from bookreader_backup_assets.core.errors import DamagedError, NotFoundError

OFTEN = timedelta(days=62)
"""How long ago the last may be: two months, of which the plan has one each."""


@dataclass(frozen=True)
class Drilled:
    """The last report, if there is one; `due` is when the next has to be there; `problem` is "" if none."""

    report: DrillReport | None
    due: datetime
    problem: str = ""

    @property
    def slowest(self) -> Result | None:
        """What took longest to come back."""
        return max(self.report.results, key=lambda one: one.seconds, default=None) if self.report else None


def drilled(catalog: Catalog, since: datetime, now: datetime) -> Drilled:
    """Return how the last drill went, in a vault that was made at `since`. Raises `VaultError`."""
    # a drill of the future has not been
    held = [entry for entry in catalog.entries(asset=DRILL) if entry.captured_at <= now]
    if not held:
        return Drilled(None, since + OFTEN, _late("there was no drill yet", since, now))
    last = held[-1]
    try:
        report = DrillReport.from_json(b"".join(catalog.vault.open(last.name)), name=last.name)
    except (DamagedError, NotFoundError) as error:
        return Drilled(None, last.captured_at + OFTEN, f"the report of the last drill: {error.message}")
    bad = [check.message for name in CHECKS if not (check := report.check(name)).passed]
    said = f"the last drill ({report.scenario}, {report.ended_at:%Y-%m-%d}) failed: {'; '.join(bad)}"
    late = _late("the last drill is old", report.ended_at, now)
    return Drilled(report, report.ended_at + OFTEN, said if bad else late)


def _late(said: str, since: datetime, now: datetime) -> str:
    days = (now - since).days
    return f"{said}, and {days} days went by: bookreader-backup drill" if now - since > OFTEN else ""
