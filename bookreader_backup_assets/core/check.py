"""What a check found. Three verdicts, because "could not tell" is neither a pass nor a failure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.StrEnum):
    """`inconclusive` is a warning that says why; it never counts as passed."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Outcome:
    """One check of one artifact: its name, the verdict, one sentence, and what was measured.

    `measured` holds JSON values (numbers with their unit in the key). `seconds` is how long it took.
    """

    check: str
    verdict: Verdict
    message: str
    measured: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """True for a pass only."""
        return self.verdict is Verdict.PASSED


def passed(check: str, message: str, **measured: Any) -> Outcome:
    """A check that held."""
    return Outcome(check, Verdict.PASSED, message, measured)


def failed(check: str, message: str, **measured: Any) -> Outcome:
    """A check that did not hold."""
    return Outcome(check, Verdict.FAILED, message, measured)


def inconclusive(check: str, message: str, **measured: Any) -> Outcome:
    """A check that could not be carried out here; `message` says why."""
    return Outcome(check, Verdict.INCONCLUSIVE, message, measured)
