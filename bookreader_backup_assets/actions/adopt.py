"""Adopt: take what the guide's script has left into the vault, as far as it is whole; touch nothing of it.

Every file is read to its end before anything is written: half a dump gets no entry. What is whole is written
as a capture of its day is, read back, and restored into a scratch server where that is its check. What could
not be proven here stands as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from bookreader_backup_assets.actions import adopt_database, adopt_files, adopt_storage
from bookreader_backup_assets.actions.adopt_found import (
    ADOPTED,
    Found,
    Item,
    Seen,
    Sums,
    digest,
    kept,
    walk,
)
from bookreader_backup_assets.actions.adopted import Adopted
from bookreader_backup_assets.actions.capture import take
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError, DamagedError
from bookreader_backup_assets.core.guide_names import SUMS, GuideName

READY, ALREADY, DAMAGED, REFUSED, PASSED_OVER, READ = (
    "ready", "already", "damaged", "refused", "passed over", "read",
)  # fmt: skip
"""What becomes of a file, besides the standing of an artifact that was made of it."""
_EARLIER = timedelta(minutes=5)

Look = Callable[[Installation, Found], Seen]
LOOKS: dict[str, Look] = {
    "postgresql/dump": adopt_database.look,
    "postgresql/sql": adopt_database.look_at_sql,
    "redis/rdb": adopt_files.look_at_rdb,
    "storage/archive": adopt_storage.look,
    "config/archive": adopt_files.look_at_config,
}
"""How each asset's files are read."""


@dataclass(frozen=True)
class Line:
    """What became of one file below the folder, and why. `set` is the day it is of, `artifact` what it is
    in the vault; `bad` whether somebody should look at it.
    """

    file: str
    asset: str
    verdict: str
    set: str = ""
    artifact: str = ""
    bytes: int = 0
    why: str = ""
    bad: bool = False


def adopt(installation: Installation, folder: Path, *, plan: bool = False) -> Iterator[Line]:
    """Adopt what is in `folder`, the newest first, yielding a line for each file; with `plan` only look.

    Whatever is wrong with one file is in its line. Raises `RefusedError` where it is no folder, and
    `SourceError` where it may not be listed.
    """
    items = walk(folder)
    sums = Sums.read(items)
    known = kept(Catalog(installation.vault))
    for item in items:
        asset = item.named.kind if item.named else ""
        if item.named is None or item.why or asset == SUMS:
            why = item.why or sums.said.get(item.shown, "")
            yield Line(item.shown, asset, PASSED_OVER if item.why or why else READ, why=why)
            continue
        try:
            yield _adopt_one(installation, item, item.named, sums, known, plan=plan)
        except BackupError as error:
            verdict = DAMAGED if isinstance(error, DamagedError) else REFUSED
            why = "; ".join(filter(None, (error.message, error.hint)))
            yield Line(item.shown, asset, verdict, item.named.day, bytes=item.size, why=why, bad=True)


def _adopt_one(
    installation: Installation,
    item: Item,
    named: GuideName,
    sums: Sums,
    known: dict[str, Entry],
    *,
    plan: bool,
) -> Line:
    if item.size == 0:
        raise DamagedError("it is empty")
    at = named.instant(installation.zone, item.written, installation.now())
    with installation.watch(f"reading {item.shown}", item.size) as progress:
        sha256 = digest(item.path, progress)
    if (entry := known.get(sha256)) is not None:
        return _already(installation, item, entry, plan=plan)
    listed = sums.of.get(item.path.name)
    if listed not in (None, sha256):
        raise DamagedError("its sha256 is not the one that its manifest has")
    host = sums.hosts.get((named.day, named.time), "")
    found = Found(item, named, at, sha256, host, listed is not None)
    seen = LOOKS[named.kind](installation, found)
    why = "; ".join(filter(None, (_about(problem) for problem in (*_notes(found), *seen.problems))))
    day = seen.captured_at.astimezone(installation.zone).date().isoformat()
    if (entry := _same_dump(known, named.kind, seen)) is not None:
        return Line(item.shown, entry.asset, ALREADY, entry.set, entry.name, item.size, why)
    if plan:
        return Line(item.shown, named.kind, READY, day, bytes=item.size, why=why)
    entry = _store(installation, found, seen, day)
    known[sha256] = entry
    standing, bad = _proven(installation, entry)
    why = "; ".join(filter(None, [bad, why]))
    return Line(item.shown, entry.asset, standing, day, entry.name, item.size, why, bool(bad))


def _already(installation: Installation, item: Item, entry: Entry, *, plan: bool) -> Line:
    """Return the line of what the vault has; what was adopted and could not be proven then is tried again."""
    verdict, bad = Catalog(installation.vault).standing(entry).verdict, ""
    if entry.label == ADOPTED and verdict in (None, Verdict.INCONCLUSIVE):
        bad = "it is not proven yet" if plan else _proven(installation, entry)[1]
    elif verdict is Verdict.FAILED:
        bad = "it has failed its checks: `bookreader-backup verify` says which"
    return Line(item.shown, entry.asset, ALREADY, entry.set, entry.name, item.size, bad, bool(bad))


def _proven(installation: Installation, entry: Entry) -> tuple[str, str]:
    """Make the checks of an artifact; return where it stands, and what did not pass."""
    proof = verify(installation, installation.component(entry.asset), entry)
    bad = [f"{outcome.check}: {outcome.message}" for outcome in proof.checks if not outcome.passed]
    return str(Catalog(installation.vault).standing(entry)), "; ".join(bad)


def _store(installation: Installation, found: Found, seen: Seen, day: str) -> Entry:
    """Write an artifact, named and dated after the moment that its content is of, and its entry."""
    _ = installation.id  # made now, not then
    then = replace(
        installation,
        now=lambda: seen.captured_at,
        host=found.host or installation.host,
        watch=lambda _doing, size: installation.watch(f"adopting {found.item.shown}", size),
    )
    component = Adopted(installation.component(found.named.kind), seen.capture, _notes(found))
    return take(then, component, day, ADOPTED, late=True)


def _same_dump(known: dict[str, Entry], asset: str, seen: Seen) -> Entry | None:
    """Return the entry of the dump of Redis that was made at that instant: it may have been copied twice."""
    if asset != "redis/rdb":
        return None
    held = (entry for entry in known.values() if entry.asset == asset and entry.label == ADOPTED)
    return next((entry for entry in held if entry.captured_at == seen.captured_at), None)


def _notes(found: Found) -> tuple[Problem, ...]:
    """Return what its name and its file's time say of each other, where they disagree."""
    if found.named.kind == "redis/rdb" or found.item.written > found.at - _EARLIER:
        return ()  # a dump of Redis says itself when it was made
    before = timedelta(seconds=int((found.at - found.item.written).total_seconds()))
    said = f"the file was last written {before} before the time of its name: is it of another timezone?"
    return (Problem(said),)


def _about(problem: Problem) -> str:
    return f"{problem.where}: {problem.what}" if problem.where else problem.what
