"""One restore being carried out: its steps timed and journaled, its services stopped and started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.journal import Journal
from bookreader_backup_assets.actions.restore_source import SCENARIOS
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.restoration import Restoration, State
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import (
    ABANDONED,
    RESTORED,
    Options,
    RestoreReport,
    StepTaken,
)

DISPLACED, ABSENT, ELSEWHERE, WAIVED = "displaced", "absent", "nothing replaced", "waived"
"""What was kept of the state before, if it is not the name of a safety capture."""


@dataclass
class Restore:
    """One restore being carried out. `steps` and `outcomes` become its report."""

    installation: Installation
    journal: Journal
    scenario: str
    entry: Entry
    options: Options
    restoration: Restoration
    steps: list[StepTaken] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    at: str = "begin"

    @contextmanager
    def step(self, name: str, *, said: str = "", moved: int | None = None) -> Iterator[None]:
        """Time a step, and remember it as the one that was being made."""
        self.at = name
        started = time.monotonic()
        yield
        self.steps.append(StepTaken(name, round(time.monotonic() - started, 3), moved, said))

    def report(self, result: str, error: BaseException | None = None) -> RestoreReport:
        """Return the report as it is now."""
        if result != RESTORED:
            undo = "nothing to undo: the state from before is there"
        elif self.journal.last("safety", "").startswith(WAIVED) and not self.restoration.keeps_old:
            undo = "no safety capture was made"
        else:
            undo = self.journal.undo_command
        said, hint = "" if error is None else f"{type(error).__name__}: {error}", ""
        if isinstance(error, BackupError):
            said, hint = error.message, error.hint
        return RestoreReport(
            id=self.journal.id,
            installation=self.installation.id,
            host=self.installation.host,
            scenario=self.scenario,
            set=self.entry.set,
            artifact=self.entry.name,
            target=self.restoration.target,
            options=asdict(self.options),
            began_at=self.journal.began_at,
            ended_at=self.installation.now(),
            result=result,
            safety=self.journal.last("safety", ""),
            steps=tuple(self.steps),
            outcomes=tuple(self.outcomes),
            stopped_at=self.at if error is not None else "",
            error=said,
            hint=hint,
            undo=undo,
            notes=tuple(self.journal.header.get("notes", ())),
            state=self.journal.last("state", {}),
        )

    def stop_services(self) -> None:
        """Stop what uses the data and runs, having written down what that is."""
        if not self.restoration.quiet:
            return
        running = self.installation.services.running()
        owed = tuple(self.journal.last("services", ()))  # by a restore that was killed
        self.journal.note("stop", services=[*owed, *(name for name in running if name not in owed)])
        with self.step("stop", said=", ".join(running) or "none runs"):
            for name in running:
                self.installation.services.stop(name)

    def start_services(self) -> None:
        """Start again what `stop_services` wrote down, and nothing else; staying away is an outcome."""
        stopped, at = self.journal.last("services", []), self.at
        for name in stopped:
            try:
                with self.step("start", said=name):
                    self.installation.services.start(name)
            except BackupError as error:
                self.outcomes.append(failed("services", f"{name} did not come back: {error.message}"))
        self.at = at  # what an error stopped at is not this
        if stopped:
            self.journal.note("started", services=[])
            if not any(outcome.check == "services" for outcome in self.outcomes):
                self.outcomes.append(passed("services", f"{', '.join(stopped)} run again"))


def swap(work: Restore, state: State) -> None:
    """Make the steps that touch what is live, with the services stopped that must not see it.

    What goes wrong is undone before they are started again, and raised.
    """
    try:
        work.stop_services()
        work.journal.note("swap", state=state)
        try:
            with work.step("swap"):
                work.restoration.swap(state)
            with work.step("confirm"):
                found = work.restoration.confirm(state)
            if not found.passed:
                raise DamagedError(f"after the swap, {found.message}", hint="the state from before is back")
        except BaseException as error:
            _put_back(work, state, error)
            raise
        work.outcomes.append(found)
        work.journal.note("confirmed", state=state)
    finally:
        work.start_services()


def _put_back(work: Restore, state: State, error: BaseException) -> None:
    """Bring back the state from before, while the services are still stopped."""
    at = work.at
    try:
        with work.step("undo"):
            work.restoration.undo(state, safety_of(work.installation, work.journal))
    except BackupError as failed_too:
        raise SourceError(
            f"{error}; then the state from before could not be brought back: {failed_too.message}",
            hint="when that is mended, bring it to its end: bookreader-backup restore finish",
        ) from error
    finally:
        work.at = at
    work.journal.note("put_back", state=state)


def clear_away(work: Restore, state: State, error: BaseException) -> None:
    """After an error: remove what was made, and write the report.

    Where that fails too there is no report, and the next command finishes it.
    """
    stopped_at = work.at
    swapped = work.journal.has("swap") and not work.journal.has("put_back")
    with suppress(Exception):  # the error that led here is the one to tell
        if state and not swapped:
            work.restoration.abandon(state)
        if not swapped:
            work.at = stopped_at
            work.journal.end(work.report(ABANDONED, error))


def safety_of(installation: Installation, journal: Journal) -> StoredArtifact | None:
    """Return the safety capture of a restore, or None if there was none."""
    name = journal.last("safety", "")
    for entry in Catalog(installation.vault).entries(asset=SCENARIOS[journal.header["scenario"]]):
        if entry.name == name:
            return StoredArtifact(installation, entry)
    return None


def require_confirmed(target: str, confirm: str, replaces: str) -> None:
    """Raise `RefusedError` unless the target was typed back; a folder may end in a slash."""
    typed = confirm.rstrip("/") if target.startswith("/") and target != "/" else confirm
    if typed != target:
        said = f"{confirm!r} is not its name" if confirm else "that was not confirmed"
        raise RefusedError(
            f"this would replace {replaces}, and {said}", hint=f"type its name back: --confirm {target}"
        )
