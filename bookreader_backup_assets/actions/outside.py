"""The vaults away from this host: what the plan wants in each, and how each is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.hour import is_hour
from bookreader_backup_assets.core.plan_reasons import MANIFESTS
from bookreader_backup_assets.core.policy import Policy
from bookreader_backup_assets.core.set_id import day_of, label_of
from bookreader_backup_assets.vaults.base import Place, Terms, Vault

_SAFETY = "pre-restore"  # what a restore displaced: worth something only where it happened
_DRILLS = "assurance"
_WEEKLY, _LABELS = "weekly", "labels"


@dataclass(frozen=True)
class Outside:
    """A vault away from this host.

    `policy` says how long the plan keeps what is there; `terms` are by row of the plan that wants copies
    there: by component, or `weekly` and `labels`. `reads` is the installation whose artifacts are read
    there, if not this one: on a host that is to take its place.
    """

    place: Place
    policy: Policy
    terms: Mapping[str, Terms] = field(default_factory=dict)
    reads: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.place.name

    def wants(self, entry: Entry) -> bool:
        """Whether the plan wants a copy of an artifact here."""
        return self._row(entry) is not None

    def has_row(self, component: str) -> bool:
        """Whether each artifact of a component is wanted here, and not only what is in a weekly full."""
        return component in self.terms

    def vault(self, installation: str, entry: Entry | None = None) -> Vault:
        """Return this installation's vault, on the terms of an artifact that is to be put there."""
        row = self._row(entry) if entry else None
        return self.place.vault(installation, self.terms.get(row or ""))

    def find(self, own: str | None) -> str:
        """Return whose artifacts are read: those that were named, or our own, or the only ones there are.

        Raises `RefusedError` where that is nobody's, or could be several's.
        """
        if self.reads:
            return self.reads
        there = self.place.installations()
        if own in there:
            return str(own)
        if len(there) == 1:
            return there[0]
        if not there:
            raise RefusedError(
                f"nothing was ever replicated to {self.name}", hint="bookreader-backup replicate"
            )
        raise RefusedError(
            f"{self.name} has the artifacts of {len(there)} installations: {', '.join(there)}",
            hint="say which: BACKUP_OFFSITE_INSTALLATION=ID",
        )

    def _row(self, entry: Entry) -> str | None:
        """Return the row of the plan by which an artifact is wanted here: its component's, or its set's."""
        if (label := label_of(entry.set)) or entry.component == _DRILLS:
            return _LABELS if label and label != _SAFETY and _LABELS in self.terms else None
        if entry.component == MANIFESTS:
            weekly = entry.artifact == _WEEKLY
            return next((row for row in self.terms if row != _LABELS and (row == _WEEKLY) == weekly), None)
        if entry.component in self.terms:
            return entry.component
        full = _WEEKLY in self.terms and not is_hour(entry.set) and self.policy.full_on(_day(entry))
        return _WEEKLY if full else None


def _day(entry: Entry) -> date:
    try:
        return day_of(entry.set)
    except RefusedError:
        return entry.captured_at.date()
