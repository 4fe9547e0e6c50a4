"""What the restore of a whole system is made of: the parts of one set, and what each finds here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.restore_source import (
    LATEST,
    SCENARIOS,
    choose,
    newest_set,
    restoration,
    set_passed_over,
    weekly_only,
)
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.actions.system_check import System
from bookreader_backup_assets.core.artifact import Entry, load_document
from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError
from bookreader_backup_assets.core.restore_plan import Options, Room
from bookreader_backup_assets.core.set_id import label_of
from bookreader_backup_assets.runners.stack import Recorded

PARTS = ("config", "postgresql", "redis", "storage")
"""The parts of a system, in the order in which they are restored."""
IMAGES, MAKE, UP = "images", "make", "up"
"""The steps besides: the first two after the configuration, the last in the end."""
_EXPANDS = 4  # a part over its stored size, where its place cannot be asked yet
_RATE = 20e6  # stored bytes per second, likewise


@dataclass(frozen=True)
class Choice:
    """One set's artifacts, by part; `images` are those of its manifest, if it was sealed.

    `passed_over` says so where it is not the newest set there is, and was not named, or lacks a part that the
    vault has of other days.
    """

    set: str
    entries: Mapping[str, Entry]
    without: tuple[str, ...]
    manifest: Entry | None
    images: Recorded
    passed_over: str = ""


@dataclass(frozen=True)
class PartPlan:
    """One part: the artifact it comes from, what it replaces as far as that can be seen, and its bytes."""

    part: str
    artifact: str
    standing: str
    reads: int
    replaces: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SystemPlan:
    """The restore of a whole system before it begins. `target` is typed back; `rto` is in seconds."""

    set: str
    target: str
    manifest: str
    parts: tuple[PartPlan, ...]
    without: tuple[str, ...]
    images: tuple[str, ...]
    stops: tuple[str, ...]
    steps: tuple[str, ...]
    rooms: tuple[Room, ...]
    seconds: float
    rto: float
    notes: tuple[str, ...]


def require_system(installation: Installation) -> System:
    """Return what brings the system up. Raises `RefusedError` where nobody has said how."""
    if installation.system is None:
        raise RefusedError("this installation does not know its system", hint="restore its parts one by one")
    return installation.system


def choose_parts(installation: Installation, from_set: str, without: Collection[str]) -> Choice:
    """Return the artifacts of one set. Raises `RefusedError` naming every part that it has not."""
    catalog = installation.source_catalog().at(installation.now())
    if unknown := sorted(set(without) - set(PARTS)):
        raise RefusedError(f"there is no part {unknown[0]!r}", hint=f"there are: {', '.join(PARTS)}")
    planned = {asset.split("/")[0] for asset in installation.planned}
    wanted = [part for part in PARTS if part in planned and part not in without]
    if not wanted:
        raise RefusedError("no part is left to restore", hint=f"there are: {', '.join(PARTS)}")
    set_id, newer = from_set, ""
    left: list[str] = []
    if from_set == LATEST:
        vault = installation.source_named
        weekly = weekly_only(installation, vault, wanted)
        assets = [SCENARIOS[part] for part in wanted if part not in weekly]
        set_id = newest_set(catalog, assets) or from_set
        left = [part for part in weekly if catalog.of_day(SCENARIOS[part], set_id) is None]
        wanted = [part for part in wanted if part not in left]
        said = [f"{part} is left as it is: it comes into {vault} with weekly fulls only" for part in left]
        newer = "; ".join(filter(None, [set_passed_over(catalog, assets, set_id), *said]))
    entries: dict[str, Entry] = {}
    lacking: dict[str, RefusedError] = {}
    for part in wanted:
        try:
            entries[part] = choose(catalog, SCENARIOS[part], set_id)
        except RefusedError as error:
            lacking[part] = error
    if lacking:
        hints = dict.fromkeys(error.hint for error in lacking.values())
        leave = " ".join(f"--without {part}" for part in lacking)
        also = f"; or leave it as it is: {leave}" if entries else ""
        raise RefusedError(
            "; ".join(error.message for error in lacking.values()), hint=f"{'; '.join(hints)}{also}"
        )
    sealed = catalog.of_day(LABELLED if label_of(set_id) else MANIFEST, set_id)
    without = tuple(sorted({*without, *left}))
    return Choice(set_id, entries, without, sealed, _images(installation, sealed), newer)


def plan_system(
    installation: Installation, from_set: str = LATEST, without: Collection[str] = ()
) -> SystemPlan:
    """Return what a restore of the whole system would do. Touches nothing. Raises what would refuse it."""
    return plan_of(installation, choose_parts(installation, from_set, without))


def plan_of(installation: Installation, choice: Choice) -> SystemPlan:
    """Return the plan of what was chosen. Raises like `plan_system`."""
    system = require_system(installation)
    images = system.stack.images(choice.images)  # first: it says whether there is an engine at all
    catalog = installation.source_catalog()
    parts, rooms, seconds = [], dict[str, Room](), 0.0
    for part, entry in choice.entries.items():
        one, its_rooms, takes = _part(installation, catalog, system, part, entry)
        parts.append(one)
        seconds += takes
        for room in its_rooms:
            before = rooms.get(room.where, Room(room.where, 0, room.free))
            rooms[room.where] = Room(room.where, before.needed + room.needed, room.free)
    notes = [choice.passed_over] if choice.passed_over else []
    notes += [f"{one.part}: {note}" for one in parts for note in one.notes]
    if choice.manifest is None:
        notes.append(f"the set {choice.set} was never sealed: which images it ran on is not known")
    return SystemPlan(
        set=choice.set,
        target=installation.host,
        manifest=choice.manifest.name if choice.manifest else "",
        parts=tuple(parts),
        without=choice.without,
        images=images,
        stops=installation.services.running(),
        steps=tuple(_steps(choice, system)),
        rooms=tuple(rooms.values()),
        seconds=round(seconds),
        rto=system.rto,
        notes=tuple(notes),
    )


def _part(
    installation: Installation, catalog: Catalog, system: System, part: str, entry: Entry
) -> tuple[PartPlan, tuple[Room, ...], float]:
    _, made = restoration(installation, part, entry, Options())
    reads = entry.size + sum(companion.size for companion in entry.companions)
    standing = str(catalog.standing(entry))
    try:
        preview = made.preview()
    except SourceAbsentError as error:
        if not system.stack.makes:
            raise
        one = PartPlan(part, entry.name, standing, reads, f"not there yet: {error.message.split(';')[0]}")
        room = Room(f"the disk of {part}", entry.size * _EXPANDS, None)
        return one, (room,), 5 + entry.size / _RATE
    one = PartPlan(part, entry.name, standing, reads, preview.replaces, preview.notes)
    return one, preview.rooms, preview.seconds or 0.0


def _steps(choice: Choice, system: System) -> list[str]:
    made = ["stop the services that use the data"]
    what = {"config": "the configuration", "postgresql": "the database", "redis": "Redis"}
    for part in PARTS:
        if part in choice.entries:
            made.append(f"restore {what.get(part, part)}, compared before and after it is put in place")
        if part == "config" and system.stack.makes:
            made.append("have the images of the manifest here: pulled by digest, named, or built by compose")
            made.append("make the containers that are not there, and start PostgreSQL and Redis alone")
    if system.stack.makes:
        made.append("start everything, and wait until it is healthy")
    asks = ["the migration", *(["the files that rows point to"] if system.columns else [])]
    return [*made, f"look at {', '.join([*asks, *system.health_urls])}"]


def _images(installation: Installation, sealed: Entry | None) -> Recorded:
    if sealed is None:
        return {}
    document = load_document(b"".join(StoredArtifact(installation.source, sealed).plain()), sealed.name)
    images: Recorded = document.get("images", {})
    return images
