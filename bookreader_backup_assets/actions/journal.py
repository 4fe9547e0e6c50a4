"""The journal of a restore: what is about to be done, written into the vault before it is done.

A journal is a folder `restores/<id>/` of small files, each written once and synced: `00_begun.json`, a
record per step, and `report.json` at the end. One without a report belongs to a restore that was killed,
and tells the next command what to finish: which services to start, what to swap or to remove.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from filelock import FileLock, Timeout

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.program_log import refusals
from bookreader_backup_assets.core.artifact import FORMAT_VERSION, dump_document, load_document
from bookreader_backup_assets.core.errors import NameTakenError, NotFoundError, RefusedError
from bookreader_backup_assets.core.restore_plan import RESTORED, UNDONE, RestoreReport

FOLDER = "restores/"
_BEGUN, _REPORT, _UNDONE, _ACCEPTED = "00_begun", "report", "undone", "accepted"
UNDO, GAVE_UP = "undo", "undo_gave_up"
_TWINS = 100
_LETS_GO = 2.0  # seconds: a child that a killed restore was just starting has the lock until it is started


@dataclass
class Journal:
    """One restore's journal. `header` says what is restored; `records` are the steps, oldest first."""

    installation: Installation
    id: str
    header: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(cls, installation: Installation, scenario: str, header: dict[str, Any]) -> Journal:
        """Write the first record of a new journal. Raises `SpaceError` and the like where it cannot be."""
        now = installation.now()
        header = {**header, "vault": installation.source_named}
        taken = now.astimezone(installation.zone).strftime("%Y-%m-%d_%H-%M-%S")
        known = {journal.stamp for journal in journals(installation)}
        for twin in range(1, _TWINS):
            journal = cls(installation, f"{taken}{f'_{twin}' if twin > 1 else ''}_{scenario}", header)
            if journal.stamp in known:
                continue
            try:
                journal._put(_BEGUN, {"scenario": scenario, "began_at": now.isoformat(), **header})
            except NameTakenError:
                continue
            journal.header = {"scenario": scenario, "began_at": now.isoformat(), **header}
            return journal
        raise NameTakenError(f"{FOLDER}{taken}_{scenario} is taken", hint="is the clock standing?")

    def note(self, step: str, **facts: Any) -> None:
        """Write that `step` is about to be done, with what it takes to finish it or to go back."""
        record = {"step": step, "at": self.installation.now().isoformat(), **facts}
        number = len(self.records) + 1
        while True:
            try:
                self._put(f"{number:02}_{step}", record)
            except NameTakenError:
                number += 1
            else:
                break
        self.records.append(record)

    def end(self, report: RestoreReport) -> RestoreReport:
        """Write the report: this restore has ended."""
        return self._close(_REPORT, report)

    def undone(self, report: RestoreReport) -> RestoreReport:
        """Write that the state from before is back."""
        return self._close(_UNDONE, report)

    def accepted(self) -> None:
        """Write that there is nothing left to go back to."""
        self._put(_ACCEPTED, {"at": self.installation.now().isoformat()})

    @property
    def stamp(self) -> str:
        """What tells this restore's names from those of every other: its time, and its number then."""
        return self.id.rpartition("_")[0].replace("-", "")

    @property
    def undo_command(self) -> str:
        """What an operator types to go back."""
        named = self.installation.vault_named
        words = ["bookreader-backup", "restore", "undo", self.id, *(["--vault", named] if named else [])]
        return shlex.join([*words, "--confirm", self.header["target"]])

    @property
    def began_at(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.header["began_at"])

    def last(self, name: str, default: Any = None) -> Any:
        """Return what the last record that has `name` says of it."""
        found = [record[name] for record in self.records if name in record]
        return found[-1] if found else default

    def has(self, step: str) -> bool:
        """Whether a step was about to be done."""
        return any(record["step"] == step for record in self.records)

    @property
    def is_undoing(self) -> bool:
        """Whether an undo was begun, and neither ended nor gave up."""
        steps = [record["step"] for record in self.records if record["step"] in (UNDO, GAVE_UP)]
        return steps[-1:] == [UNDO] and not self.is_undone

    @property
    def is_undone(self) -> bool:
        """Whether it was undone."""
        return self._there(_UNDONE)

    @property
    def is_accepted(self) -> bool:
        """Whether what undo needs was removed."""
        return self._there(_ACCEPTED)

    def report(self) -> dict[str, Any] | None:
        """Return the report as a dictionary, or None if the restore never ended."""
        try:
            return _read(self.installation, f"{FOLDER}{self.id}/{_REPORT}.json")
        except NotFoundError:
            return None

    def _there(self, name: str) -> bool:
        try:
            self.installation.vault.stat(f"{FOLDER}{self.id}/{name}.json")
        except NotFoundError:
            return False
        return True

    def _close(self, name: str, report: RestoreReport) -> RestoreReport:
        self.installation.vault.put(f"{FOLDER}{self.id}/{name}.json", [dump_document(report)])
        level = logging.INFO if report.result in {RESTORED, UNDONE} else logging.ERROR
        said = f"{report.result}: {report.error}" if report.error else report.result
        self.installation.log.log(level, "restore %s %s", self.id, said)
        return report

    def _put(self, name: str, record: dict[str, Any]) -> None:
        document = {"format_version": FORMAT_VERSION, **record}
        data = (json.dumps(document, indent=1) + "\n").encode("ascii")
        self.installation.vault.put(f"{FOLDER}{self.id}/{name}.json", [data])


def journals(installation: Installation) -> list[Journal]:
    """Return the journals in the vault, oldest first."""
    return sorted(_read_all(installation), key=lambda journal: (journal.began_at, journal.id))


def _read_all(installation: Installation) -> Iterator[Journal]:
    steps: dict[str, list[str]] = {}
    for stored in installation.vault.list(FOLDER):
        _, identity, name = stored.name.split("/", 2)
        steps.setdefault(identity, []).append(name)
    for identity, names in steps.items():
        read = {
            name: _read(installation, f"{FOLDER}{identity}/{name}") for name in names if name[:2].isdigit()
        }
        header = read.pop(f"{_BEGUN}.json", None)
        if header is not None:
            yield Journal(installation, identity, header, [read[name] for name in sorted(read)])


def find(installation: Installation, identity: str) -> Journal:
    """Return the journal of a report's id, or of a path to it. Raises `RefusedError` if there is none."""
    wanted = identity.removesuffix(f"/{_REPORT}.json").rpartition("/")[2]
    known = journals(installation)
    for journal in known:
        if journal.id == wanted:
            return journal
    raise RefusedError(
        f"there is no restore {identity!r}",
        hint=f"there are: {', '.join(j.id for j in known[-5:])}" if known else "nothing was restored yet",
    )


def unfinished(installation: Installation) -> list[Journal]:
    """Return the journals of restores, and of undos, that were killed: ask with the lock held."""
    return [journal for journal in journals(installation) if journal.report() is None or journal.is_undoing]


@contextmanager
def alone(installation: Installation, what: str = "restore") -> Iterator[None]:
    """Let one restore or prune at a time work. Raises `RefusedError` while another does, or where the vault
    cannot take its journal.

    The kernel lets go of the lock however its holder ends.
    """
    lock = FileLock(installation.lock, mode=0o600)
    try:
        installation.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(timeout=_LETS_GO)
    except Timeout:
        raise RefusedError(
            "a prune or a restore is at work on this installation", hint="wait until it has ended"
        ) from None
    except OSError as error:
        raise RefusedError(
            f"a {what} writes its journal into the vault, and cannot: {installation.lock}: {error.strerror}",
            hint="make it writable, or copy it to where it is, and name that copy: --vault FOLDER",
        ) from None
    try:
        with refusals(installation.log, what):
            yield
    finally:
        lock.release()


def _read(installation: Installation, name: str) -> dict[str, Any]:
    return load_document(b"".join(installation.vault.open(name)), name)
