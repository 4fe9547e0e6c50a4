"""Fingerprints compared: what the source held at capture against what came back.

A fingerprint is a JSON dictionary whose `kind` says how to read it:
`tables` (PostgreSQL), `keys` (Redis), `files` (storage), `paths` (config), `refs` (code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One place where two fingerprints disagree."""

    where: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.where}: expected {self.expected}, found {self.found}"


def compare(expected: dict[str, Any], found: dict[str, Any]) -> list[Difference]:
    """Return every difference, in the order of the expected fingerprint; none means equal.

    Nested dictionaries are walked, so that a difference names the table or database it is in. A key that
    only one side has is a difference; a value that was not counted (None) on either side is not.
    """
    return list(_walk("", expected, found))


def _walk(where: str, expected: Any, found: Any) -> list[Difference]:
    if isinstance(expected, dict) and isinstance(found, dict):
        differences: list[Difference] = []
        for key in [*expected, *(key for key in found if key not in expected)]:
            path = f"{where} {key}".strip()
            if key not in expected:
                differences.append(Difference(path, "nothing", _brief(found[key])))
            elif key not in found:
                differences.append(Difference(path, _brief(expected[key]), "nothing"))
            else:
                differences += _walk(path, expected[key], found[key])
        return differences
    if expected is None or found is None or expected == found:
        return []
    return [Difference(where, _brief(expected), _brief(found))]


def _brief(value: Any) -> Any:
    return "something" if isinstance(value, dict) else value


def describe(differences: list[Difference], limit: int = 5) -> str:
    """Return the first differences as one sentence."""
    shown = "; ".join(str(difference) for difference in differences[:limit])
    more = len(differences) - limit
    return shown + (f"; and {more} more" if more > 0 else "")
