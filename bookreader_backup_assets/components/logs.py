"""Logs: what containers and this program logged in one hour, or since the last one, as ordinary text.

Here alone the past can be captured: an engine still has it. What it no longer has is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.logs_gap import NO_GAP, no_gap
from bookreader_backup_assets.components.logs_text import Tally, recount, written
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.fingerprint import compare, describe
from bookreader_backup_assets.core.hour import HOUR, brief, instant_of, stamp
from bookreader_backup_assets.runners.logs import Logs, Source

LOGS = "logs/archive"
READABLE = "readable"
_COUNTED = ("lines", "bytes", "first", "last")


@dataclass(frozen=True)
class LogsArchive:
    """What all sources in `logs` have logged from `since` to `until`.

    Without those two, it is what they logged since the newest archived hour ended, which `archived` tells,
    or else in the last hour, until `now`.
    """

    logs: tuple[Logs, ...]
    archived: Callable[[], datetime | None]
    now: Callable[[], datetime]
    since: datetime | None = None
    until: datetime | None = None
    component: str = "logs"
    artifact: str = "archive"
    stem: str = "logs"
    suffix: str = ".log"
    kind: str | None = None
    codecs: tuple[str, ...] = ("gzip",)

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            READABLE: "it is read to its end, and has the lines that were counted, all of its time",
            NO_GAP: "it goes on where the one before ends, and nothing was rotated away unseen",
        }

    def probe(self) -> dict[str, str]:
        """See `Component.probe`: every log is tried."""
        found = [(logs, source) for logs in self.logs for source in logs.sources()]
        for logs, source in found:
            logs.oldest(source)
        return {"logs": str(len(found))}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`. Raises `RefusedError` for a time that is not over."""
        now = self.now()
        until = self.until or now
        since = self.since or min(self.archived() or until - HOUR, until)
        if until > now:
            raise RefusedError(
                f"the hour from {brief(stamp(since))} is not over, and its logs are not complete",
                hint="capture it then, or one before: bookreader-backup backup --label LABEL logs takes "
                "what there is now",
            )
        reading = _Reading(self.logs, stamp(since), stamp(until))

        def facts() -> Facts:
            return Facts(
                captured_at=until,
                fingerprint={
                    "kind": "logs",
                    "since": reading.since,
                    "until": reading.until,
                    "sources": reading.sources,
                },
                problems=tuple(reading.problems),
            )

        yield Capture(reading.chunks(), facts)

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - an hour is its own
        """See `Component.unchanged_since`."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`."""
        if READABLE in names:
            try:
                yield _readable(stored)
            except DamagedError as error:
                yield failed(READABLE, error.message)
        if NO_GAP in names:
            yield no_gap(stored.entry, stored.others())


def window_of(entry: Entry) -> tuple[datetime, datetime]:
    """Return the two instants that an archive's lines lie between."""
    return instant_of(entry.fingerprint["since"]), instant_of(entry.fingerprint["until"])


@dataclass
class _Reading:
    """All sources being read, one after the other, with what is found out about each."""

    logs: tuple[Logs, ...]
    since: str
    until: str
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def chunks(self) -> Iterator[bytes]:
        """Yield the text of all of it. Raises `SourceError` where nobody can tell who logs."""
        for logs in self.logs:
            for source in logs.sources():
                yield from self._read(logs, source)
        if not self.logs:
            self.problems.append(Problem("nothing logs here: set BACKUP_LOG for this program's own log"))

    def _read(self, logs: Logs, source: Source) -> Iterator[bytes]:
        tally = Tally()
        found: dict[str, Any] = {"oldest": None, "whole": False}
        try:
            yield from written(source.name, logs.lines(source, self.since, self.until), tally)
            # asked afterwards: what is still there then, was there while it was read
            oldest = logs.oldest(source)
            whole = oldest is None or oldest <= self.since or logs.is_whole(source)
            found = {"oldest": oldest, "whole": whole}
        except SourceAbsentError as error:
            if any(one.id == source.id for one in logs.sources()):
                raise
            found["error"] = f"it was removed while it was read: {error.message}"
        except SourceError as error:
            found["error"] = error.message
        self.sources[source.name] = {"id": source.id, **source.about, **tally.counted(), **found}
        if "error" in found:
            self.problems.append(Problem(found["error"], source.name))
        elif (created := source.about.get("created", "")) >= self.until:
            said = f"made at {brief(created)} only: nothing of it is here"
            self.problems.append(Problem(said, source.name))


def _readable(stored: Stored) -> Outcome:
    entry = stored.entry
    tallies = recount(stored.plain())
    recorded = entry.fingerprint["sources"]
    since, until = entry.fingerprint["since"], entry.fingerprint["until"]
    expected = {name: {key: one[key] for key in _COUNTED} for name, one in recorded.items()}
    found = {name: tallies.get(name, Tally()).counted() for name in {**recorded, **tallies}}
    lines = sum(tally.lines for tally in tallies.values())
    measured = {"lines": lines, "bytes": sum(tally.size for tally in tallies.values())}
    if differences := compare(expected, found):
        return failed(READABLE, f"its lines are not those counted: {describe(differences)}", **measured)
    for name, tally in tallies.items():
        assert tally.first is not None
        assert tally.last is not None
        if not since <= tally.first <= tally.last < until:
            said = f"{brief(tally.first)} to {brief(tally.last)}"
            return failed(READABLE, f"{name} has lines of another time: {said}", **measured)
    said = f"{lines} lines of {len(recorded)} logs, from {brief(since)} to {brief(until)}"
    return passed(READABLE, said, **measured)
