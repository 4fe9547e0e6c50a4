"""Drill: bring a set back into scratch servers and folders, compare it, time it, and file what was found.

Production is never reached: a part is given an artifact and a scratch place, and nothing else.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_folder import drill_folder
from bookreader_backup_assets.actions.drill_ground import Ground
from bookreader_backup_assets.actions.drill_report import file_report
from bookreader_backup_assets.actions.fetched import Fetched, wanted
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.restore_source import LATEST, choose, newest_set, weekly_only
from bookreader_backup_assets.actions.restore_source import SCENARIOS as ASSETS
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components import drill as parts
from bookreader_backup_assets.components import drill_files
from bookreader_backup_assets.core.artifact import Entry, Proof
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive
from bookreader_backup_assets.core.drill import SCENARIOS, DrillReport, Part, judge
from bookreader_backup_assets.core.errors import (
    BackupError,
    DamagedError,
    KeyMissingError,
    RefusedError,
    SpaceError,
    VaultError,
)
from bookreader_backup_assets.core.manifest import SAME_BYTES
from bookreader_backup_assets.core.restore_plan import Room

_ROOM = 1.1
_BLOCK = 4096  # bytes that a path may take besides its content


def drill(
    installation: Installation, ground: Ground, scenario: str, from_set: str = LATEST
) -> tuple[Entry, DrillReport]:
    """Carry out a drill, and return its report, filed in the installation's own vault.

    Whatever goes wrong with a part is in the report. Raises `RefusedError` for an unknown scenario, where
    nothing was captured yet, or where there is no such set; and what is wrong with this machine.
    """
    if scenario not in SCENARIOS:
        raise RefusedError(
            f"there is no drill called {scenario!r}", hint=f"there are: {', '.join(SCENARIOS)}"
        )
    source = replace(installation, vault=ground.vault, codecs=ground.codecs)
    catalog = Catalog(ground.vault).at(installation.now())
    wanted, set_id, notes = _choose(installation, catalog, ground.source, scenario, from_set)
    if not set_id or not catalog.entries(set_id=set_id):
        sets = catalog.sets()
        raise RefusedError(
            f"there is no set {set_id!r}" if set_id else "nothing was captured yet",
            hint=f"there are: {', '.join(sets[-5:])}" if sets else "`bookreader-backup backup` captures",
        )
    began = installation.now()
    with drill_folder(ground.folder) as folder:
        attempts = [
            _Attempt(installation, source, ground, catalog, folder / one, notes=notes) for one in wanted
        ]
        made = tuple(attempt.make(one, set_id) for attempt, one in zip(attempts, wanted, strict=True))
    report = DrillReport(
        installation=installation.id,
        host=installation.host,
        scenario=scenario,
        set=set_id,
        vault=ground.source,
        key=ground.key_name,
        began_at=began,
        ended_at=installation.now(),
        parts=made,
        results=judge(scenario, made, ground.objectives, began),
        notes=tuple(notes),
    )
    entry = file_report(installation, report)
    level = logging.INFO if report.good else logging.ERROR
    installation.log.log(level, "drill %s of %s %s", scenario, set_id, "good" if report.good else "not good")
    return entry, report


def _choose(
    installation: Installation, catalog: Catalog, vault: str, scenario: str, from_set: str
) -> tuple[list[str], str, list[str]]:
    """Return the parts of a drill, the set ("" where there is none), and what the report should say of it.

    What comes into the vault with weekly fulls only holds up nothing that comes there each day.
    """
    planned = {asset.split("/")[0] for asset in installation.planned}
    wanted = [one for one in SCENARIOS[scenario] if one == scenario or ASSETS[one].split("/")[0] in planned]
    if from_set != LATEST:
        return wanted, from_set, []
    weekly = () if scenario in wanted else weekly_only(installation, vault, wanted)
    set_id = newest_set(catalog, [ASSETS[one] for one in wanted if one not in weekly])
    left = [one for one in weekly if catalog.of_day(ASSETS[one], set_id) is None]
    notes = [f"{one} was left out: it comes into {vault} with weekly fulls only" for one in left]
    return [one for one in wanted if one not in left], set_id, notes


@dataclass
class _Attempt:
    """One part of a drill under way. `place` is a folder of its own, made when it is needed.

    `notes` are for the report.
    """

    installation: Installation
    source: Installation
    ground: Ground
    catalog: Catalog
    place: Path
    steps: parts.Steps = field(default_factory=parts.Steps)
    notes: list[str] = field(default_factory=list)

    def make(self, scenario: str, set_id: str) -> Part:
        """Bring the part back, and say how it went, whatever happened."""
        try:
            entry = choose(self.catalog, ASSETS[scenario], set_id)
        except BackupError as error:
            return Part(scenario, "", None, outcomes=(failed("there", _said(error)),))
        as_of = max(self.catalog.moments(entry), default=entry.captured_at)
        with self.source.watch(f"restoring {entry.asset} into scratch", entry.size) as progress:
            kept = Fetched(self.place.parent) if wanted(self.source, scenario, entry) else None
            stored = StoredArtifact(self.source, entry, progress, fetched=kept)
            try:
                outcome = self._bring_back(scenario, stored)
                found = [outcome]
            except (KeyMissingError, SpaceError) as error:  # that says nothing about the artifact
                outcome = failed(parts.CAME_BACK, _said(error))
                found = [inconclusive(parts.CAME_BACK, _said(error))]
            except BackupError as error:
                outcome = failed(parts.CAME_BACK, _said(error))
                found = [outcome, *_damage(stored, error)]
            finally:
                shutil.rmtree(self.place, ignore_errors=True)
        self._prove(entry, found)
        moved = [step.bytes for step in self.steps.taken if step.bytes is not None]
        return Part(
            scenario=scenario,
            artifact=entry.name,
            as_of=as_of,
            bytes=sum(moved),
            steps=tuple(self.steps.taken),
            outcomes=(outcome,),
        )

    def _bring_back(self, scenario: str, stored: StoredArtifact) -> Outcome:
        match scenario:
            case "postgresql":
                return parts.database(stored, self.source.scratch, self.steps)
            case "redis":
                return parts.keys(stored, self.source.scratch, self.steps)
            case "config":
                return parts.configuration(stored, self.ground.keys, self.steps)
            case "storage":
                self._make_place(stored.entry.fingerprint)
                return drill_files.whole(stored, self.place, self.steps)
            case _:
                self._make_place({})
                seed = int(self.installation.now().timestamp())
                outcome = drill_files.sample(stored, self.place, self.steps, seed=seed)
                if stored.entry.codecs:
                    read = f"{outcome.measured.get('bytes_read')} of its {stored.entry.size} bytes"
                    said = f"is encrypted: for one file {read} were read, from its start"
                    self.notes.append(f"{stored.entry.name} {said}")
                return outcome

    def _make_place(self, fingerprint: Mapping[str, int]) -> None:
        """Make the part's folder. Raises `SpaceError` where what it is to hold has no room."""
        self.place.mkdir(mode=0o700)
        paths = sum(fingerprint.get(kind, 0) for kind in ("files", "folders", "links"))
        needed = int((fingerprint.get("bytes", 0) + paths * _BLOCK) * _ROOM)
        room = Room(str(self.ground.folder), needed, shutil.disk_usage(self.place).free)
        if not room.enough:
            raise SpaceError(
                f"a drill needs {room.needed} bytes in {room.where}, and {room.free} are free",
                hint="free space there, or set BACKUP_SCRATCH to a folder on a larger disk",
            )

    def _prove(self, entry: Entry, found: list[Outcome]) -> None:
        """Keep what was found beside the artifact, unless it lies in a copy of a vault."""
        if self.ground.copy:
            return
        seconds = sum(step.seconds for step in self.steps.taken)
        proof = Proof(
            installation=entry.installation,
            artifact=entry.name,
            sha256=entry.sha256,
            at=self.installation.now(),
            checks=tuple(replace(outcome, seconds=round(seconds, 3)) for outcome in found),
            host=self.installation.host,
            seconds=round(seconds, 3),
        )
        try:
            self.source.keep(proof)
        except VaultError as error:  # who may only read there has drilled all the same
            if self.ground.vault is self.installation.vault:
                raise
            self.notes.append(f"no proof was kept in {self.ground.source}: {error.message}")


def _damage(stored: StoredArtifact, error: BackupError) -> Iterator[Outcome]:
    """Yield that the stored bytes have changed, if that is what went wrong."""
    if isinstance(error, DamagedError):
        found = stored.measured().sha256
        if found != stored.entry.sha256:
            outcome = failed("sha256", "the stored bytes have changed since the capture", sha256=found)
            yield outcome
            if stored.installation.vault.name != LOCAL:  # what is proven elsewhere says nothing of it then
                yield replace(outcome, check=SAME_BYTES)


def _said(error: BackupError) -> str:
    return "; ".join(part for part in (error.message, error.hint) if part)
