"""Whether something is missing between one archive of logs and those before it.

It is told from what was recorded at the captures, whenever it is asked: of each source, the oldest line that
was still kept. What an earlier archive had seen there, and a later one has not, was rotated away; whether a
line was lost with it shows from what the archives hold together. An hour that is filled in later mends what
comes after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.hour import brief, is_hour

NO_GAP = "no_gap"
_CAPTURE_FIRST = "capture before a container goes away: bookreader-backup backup --label pre-deploy logs"


@dataclass(frozen=True)
class _Archive:
    """An entry's fingerprint: its window, whether that is an hour of the plan, and its sources by id."""

    name: str
    since: str
    until: str
    hour: bool
    sources: dict[str, dict[str, Any]]

    def holds(self, identity: str, known: str | None) -> bool:
        """Whether it has all that a source logged in its window, `known` being the oldest line ever seen."""
        source = self.sources.get(identity)
        if source is None or "error" in source:
            return False
        oldest = source["oldest"]
        if oldest is None:
            return bool(source["whole"]) and (known is None or known >= self.until)
        return bool(oldest <= self.since or (source["whole"] and oldest == known))


@dataclass
class _Findings:
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gaps: list[dict[str, str]] = field(default_factory=list)

    def gap(self, source: str, since: str, until: str) -> str:
        """Note a gap, and return its two instants in words."""
        self.gaps.append({"source": source, "from": since, "until": until})
        return f"from {brief(since)} to {brief(until)}"


def no_gap(entry: Entry, others: Sequence[Entry]) -> Outcome:
    """Return whether `entry` goes on where the archives before it end, and lacks nothing of its window."""
    this = _archive(entry)
    rest = sorted(
        (_archive(other) for other in others if other.name != entry.name),
        key=lambda one: (one.since, one.until),
    )
    found = _Findings()
    _joins(this, rest, found)
    for identity in this.sources:
        _rotated(this, rest, identity, found)
    _gone(this, rest, found)
    message = "; ".join([*found.lost, *found.unknown, *found.notes])
    if found.lost:
        return failed(NO_GAP, message, gaps=found.gaps)
    if found.unknown:
        return inconclusive(NO_GAP, message, gaps=found.gaps)
    return passed(NO_GAP, message, gaps=[])


def _joins(this: _Archive, rest: list[_Archive], found: _Findings) -> None:
    before = [one for one in rest if one.since < this.since]
    reached = max((one.until for one in before), default="")
    if not any(one.hour for one in before):  # a label may be kept longer than the hours around it
        found.notes.append("it is the first: there is no hour before it")
    elif reached < this.since:
        gap = found.gap("all", reached, this.since)
        found.lost.append(f"nothing is archived {gap}: materialize those hours, then verify this one again")
    else:
        found.notes.append(f"it goes on at {brief(this.since)}, where the one before it ends")


def _rotated(this: _Archive, rest: list[_Archive], identity: str, found: _Findings) -> None:
    """Look whether the log of a source reached back to where the archives have it."""
    source = this.sources[identity]
    name, oldest = source["name"], source["oldest"]
    if "error" in source:
        found.lost.append(f"{name} was not read to its end: {source['error']}")
        return
    known = _earliest(one.sources[identity]["oldest"] for one in (this, *rest) if identity in one.sources)
    held = max(this.since, source.get("created") or "")  # before it was made, it logged nothing
    if held >= this.until:
        return
    for one in rest:
        if one.since <= held < one.until and one.holds(identity, known):
            held = one.until
    if this.holds(identity, known) or held >= this.until or (oldest is not None and oldest <= held):
        return
    gap = found.gap(name, held, min(oldest or this.until, this.until))
    if known is not None and (oldest is None or known < oldest):
        said = f"what {name} logged {gap} was rotated away before it was captured"
        last = [one.sources[identity]["last"] for one in rest if identity in one.sources]
        captured = max((stamp for stamp in last if stamp is not None and stamp < held), default=None)
        found.lost.append(
            f"{said}; its last line in an archive is of {brief(captured)}" if captured else said
        )
    else:
        found.unknown.append(f"what {name} logged {gap} may have been rotated away ({source['driver']})")


def _earliest(stamps: Iterable[str | None]) -> str | None:
    return min((stamp for stamp in stamps if stamp is not None), default=None)


def _gone(this: _Archive, rest: list[_Archive], found: _Findings) -> None:
    """Name the containers that the archives just before, or within, still had."""
    last: dict[str, _Archive] = {}
    for one in sorted(rest, key=lambda one: one.until):
        if one.until >= this.since and one.since < this.until and (not one.hour or one.since < this.since):
            last.update(dict.fromkeys(one.sources, one))
    for identity, one in last.items():
        source = one.sources[identity]
        if identity in this.sources or not source.get("running", False):
            continue
        said = f"{source['name']} was there at {brief(one.until)}, and is gone"
        found.gap(source["name"], one.until, this.until)
        if one.until > this.since:
            found.unknown.append(f"{said}: what it logged till then is in {one.name}, and nothing after it")
        else:
            found.unknown.append(f"{said}, and what it logged since is not kept: {_CAPTURE_FIRST}")


def _archive(entry: Entry) -> _Archive:
    said = entry.fingerprint
    return _Archive(
        name=entry.name,
        since=said["since"],
        until=said["until"],
        hour=entry.label is None and is_hour(entry.set),
        sources={source["id"]: {**source, "name": name} for name, source in said["sources"].items()},
    )
