"""What a restore would do, said before anything is touched, and what it did, said afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bookreader_backup_assets.core.artifact import FORMAT_VERSION
from bookreader_backup_assets.core.check import Outcome


@dataclass(frozen=True)
class Options:
    """What an operator asks of a restore besides what and from where. Each scenario knows some of them.

    `tables` and `schema` choose what of a database, `paths` (paths or globs) what of an archive. `into` is
    another place to put it: a table's name, or a folder. `in_place` writes only the files that differ;
    `migrate` runs the code's migrations afterwards; `outside_links` makes symlinks that lead out of the
    target, which are left out otherwise.
    """

    tables: tuple[str, ...] = ()
    schema: str | None = None
    paths: tuple[str, ...] = ()
    into: str | None = None
    in_place: bool = False
    migrate: bool = False
    outside_links: bool = False

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Options:
        """Return the options that `dataclasses.asdict` made a dictionary of."""
        lists = {name: tuple(document.get(name, ())) for name in ("tables", "paths")}
        return cls(**{**document, **lists})


@dataclass(frozen=True)
class Room:
    """Bytes that a restore needs for a while, and that are free there; None where nobody can tell."""

    where: str
    needed: int
    free: int | None

    @property
    def enough(self) -> bool:
        """Whether it fits, as far as that is known."""
        return self.free is None or self.free >= self.needed


@dataclass(frozen=True)
class Preview:
    """What one restoration knows before it begins.

    `replaces` says in words what is there now, and `present` whether there is anything; `steps` what will
    be done, in order; `seconds` is a rough guess; `notes` is what an operator should know, such as the
    database's migration beside the code's. `reads` are the artifact's bytes that are read, where that is
    not all of them.
    """

    replaces: str
    present: bool
    steps: tuple[str, ...]
    rooms: tuple[Room, ...] = ()
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    reads: int | None = None


@dataclass(frozen=True)
class RestorePlan:
    """A whole restore before it begins: printed by `--plan`, and nothing else happens.

    `target` is what the operator types back; `reads` the artifacts and their bytes; `stops` the services
    that are stopped for a while; `safety` what is kept of the present state.
    """

    scenario: str
    set: str
    target: str
    artifact: str
    standing: str
    captured_at: datetime
    reads: Mapping[str, int]
    stops: tuple[str, ...]
    safety: str
    preview: Preview


@dataclass(frozen=True)
class StepTaken:
    """One step of a restore or drill: its name, seconds, bytes if it moved any, and what there is to say."""

    step: str
    seconds: float
    bytes: int | None = None
    said: str = ""


RESTORED, FAILED, ABANDONED, UNDONE = "restored", "failed", "abandoned", "undone"
"""What a report ends in. `abandoned`: nothing was replaced, and what was made beside is removed."""


@dataclass(frozen=True)
class RestoreReport:
    """What a restore did, kept in the vault, never in what was restored.

    `safety` is what was kept of the state before: an artifact's name, `displaced`, `absent`, or
    `waived: REASON`. `undo` is the command that goes back, or why there is none. `stopped_at` names the
    step that failed, with `error` and `hint`.
    """

    id: str
    installation: str
    host: str
    scenario: str
    set: str
    artifact: str
    target: str
    options: dict[str, Any]
    began_at: datetime
    ended_at: datetime
    result: str
    safety: str = ""
    steps: tuple[StepTaken, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    stopped_at: str = ""
    error: str = ""
    hint: str = ""
    undo: str = ""
    notes: tuple[str, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def good(self) -> bool:
        """Whether it was restored, and every comparison found it equal."""
        return self.result == RESTORED and all(outcome.passed for outcome in self.outcomes)
