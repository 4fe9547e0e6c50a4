"""A drill's report as an artifact: captured, read back and checked like any other; of no day's set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.drill import CHECKS, DrillReport

DRILL = "assurance/restore_drill"
"""The asset."""
LABEL = "drill"
"""The label of every report: no backup, and of no day's set."""


@dataclass(frozen=True)
class DrillComponent:
    """The report of one drill as a component."""

    report: DrillReport | None = None
    component: str = "assurance"
    artifact: str = "restore_drill"
    stem: str = "restore"
    suffix: str = ".json"
    kind: str | None = None
    codecs: tuple[str, ...] = ()

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return CHECKS

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        return {}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`."""
        assert self.report is not None
        report = self.report
        facts = Facts(
            captured_at=report.ended_at,
            fingerprint={"kind": "drill", "scenario": report.scenario, "set": report.set},
            companions={("text", ".txt"): [report.to_text().encode()]},
        )
        data = report.to_json()
        yield Capture(iter([data]), lambda: facts, len(data))

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - each drill is a moment of its own
        """See `Component.unchanged_since`."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`: what the report says against the objectives that it names."""
        report = DrillReport.from_json(b"".join(stored.plain()), name=stored.entry.name)
        yield from (report.check(name) for name in CHECKS if name in names)


def file_report(installation: Installation, report: DrillReport) -> Entry:
    """Keep a report in the vault, check it, and return its entry."""
    began = report.began_at.astimezone(installation.zone)
    set_id = f"{began:%Y-%m-%d_%H-%M-%S}_{LABEL}"
    component = DrillComponent(report)
    entry, _ = capture(installation, component, set_id, label=LABEL)
    verify(installation, component, entry)
    return entry


def read_report(installation: Installation, entry: Entry) -> DrillReport:
    """Return the report of an entry. Raises `DamagedError`."""
    data = b"".join(installation.vault.open(entry.name))
    return DrillReport.from_json(data, name=entry.name)


def reports_of(installation: Installation, month: str, catalog: Catalog | None = None) -> list[Entry]:
    """Return the reports that were filed in a month, such as `2025-10`, oldest first."""
    held = (catalog or Catalog(installation.vault)).entries(asset=DRILL)
    return [entry for entry in held if month_of(installation, entry) == month]


def month_of(installation: Installation, entry: Entry) -> str:
    """Return the month of a report, in the plan's timezone."""
    return f"{entry.captured_at.astimezone(installation.zone):%Y-%m}"
