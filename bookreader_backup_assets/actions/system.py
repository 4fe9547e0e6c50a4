"""The whole of BookReader, brought back on a host that may have none of it, or a damaged one.

Configuration, images, containers, PostgreSQL, Redis, storage, services, and what is asked of them
afterwards. Each part is a restore of its own, with its own journal, comparison and undo; the journal here
says which are done, so that the same command goes on with those that are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.journal import Journal, alone, journals, unfinished
from bookreader_backup_assets.actions.restore import restore_alone
from bookreader_backup_assets.actions.restore_source import LATEST, restoration
from bookreader_backup_assets.actions.restoring import require_confirmed
from bookreader_backup_assets.actions.system_check import System
from bookreader_backup_assets.actions.system_plan import (
    IMAGES,
    MAKE,
    UP,
    Choice,
    SystemPlan,
    choose_parts,
    plan_of,
    require_system,
)
from bookreader_backup_assets.actions.system_undo import (
    SYSTEM,
    is_system,
    outcomes_of,
    parts_of,
    report_of,
    start_services,
    way_on,
)
from bookreader_backup_assets.actions.undo import finish
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError, SpaceError
from bookreader_backup_assets.core.restore_plan import FAILED, RESTORED, Options, RestoreReport

READY = 120.0
"""Seconds for a server that was just started to let somebody in."""
CHECK = "check"
"""The step in which the system that runs is asked."""


def restore_system(
    installation: Installation,
    from_set: str = LATEST,
    without: Collection[str] = (),
    *,
    confirm: str,
    no_safety: str = "",
) -> RestoreReport:
    """Restore all parts of one set but those in `without`, start everything, and return the report, stored.

    `confirm` is the host's name typed back. Raises `RefusedError`, `DamagedError`, `SpaceError` before
    anything is touched. What fails later is reported and raised, and the parts that are in place stay: the
    same command goes on after them, and the undo of the report goes back. Services that stay away, or
    answers that do not come, are outcomes of a report that is not good.
    """
    system = require_system(installation)
    choice = choose_parts(installation, from_set, without)
    with alone(installation):
        header = _header(installation, choice)
        mine, before = _earlier(installation, header)
        going_on = [part.id for part in parts_of(installation, mine) if not part.has("swap")] if mine else []
        finish(installation, target=installation.host, but_for={mine.id if mine else "", *going_on})
        planned = plan_of(installation, choice)
        require_confirmed(installation.host, confirm, _replaced(planned))
        for room in planned.rooms:
            if not room.enough and not mine and not before:
                raise SpaceError(
                    f"{room.where} has {room.free} bytes free, and the restore wants {room.needed}",
                    hint="free space there; nothing was touched",
                )
        more: dict[str, Any] = {"goes_on": before.id} if before else {}
        more |= {"notes": [choice.passed_over]} if choice.passed_over else {}
        journal = mine or Journal.begin(installation, SYSTEM, {**header, **more})
        return _Work(installation, system, journal, choice, no_safety).carry_out()


def _header(installation: Installation, choice: Choice) -> dict[str, Any]:
    return {
        "artifact": choice.manifest.name if choice.manifest else f"set {choice.set}",
        "target": installation.host,
        "options": {"without": list(choice.without)},
        "set": choice.set,
        "parts": {part: entry.name for part, entry in choice.entries.items()},
    }


def _earlier(installation: Installation, header: dict[str, Any]) -> tuple[Journal | None, Journal | None]:
    """Return the killed restore of the same, or the last attempt that failed, to go on with."""
    same = ("target", "options", "set", "parts")
    known = [one for one in journals(installation) if is_system(one)]
    if not known or any(known[-1].header[name] != header[name] for name in same):
        return None, None
    last = known[-1]
    if last.is_undoing or last.is_undone or last.is_accepted:
        return None, None
    if last in unfinished(installation):
        return last, None
    report = last.report()
    return None, last if report is not None and report["result"] == FAILED else None


def _replaced(planned: SystemPlan) -> str:
    return "; ".join(part.replaces for part in planned.parts)


@dataclass
class _Work:
    """One restore of a system being carried out."""

    installation: Installation
    system: System
    journal: Journal
    choice: Choice
    no_safety: str
    outcomes: list[Outcome] = field(default_factory=list)
    made: bool = False

    def carry_out(self) -> RestoreReport:
        """Take every step, and end the journal with a report whatever happens, but for a kill."""
        try:
            self._stop_services()
            for part, entry in self.choice.entries.items():
                if part != "config":
                    self._make_containers()
                self._restore(part, entry)
            self._make_containers()
            with self._step(UP) as say:
                self._up(say)
        except BaseException as error:
            if isinstance(error, BackupError):
                error.hint = f"{error.hint + '; ' if error.hint else ''}{way_on(self.journal)}"
            with suppress(Exception):  # the error that led here is the one to tell
                self.outcomes += start_services(self.installation, self.journal)
                self.journal.end(self._report(FAILED, error))
            raise
        with self._step(CHECK):
            self.outcomes += self.system.check(self.choice.entries.get("postgresql"))
        return self.journal.end(self._report(RESTORED))

    def _report(self, result: str, error: BaseException | None = None) -> RestoreReport:
        return report_of(self.installation, self.journal, result, error=error, outcomes=self.outcomes)

    def _stop_services(self) -> None:
        services = self.installation.services
        running = services.running()
        owed = tuple(self.journal.last("services", ()))  # before it was killed
        owed += tuple(name for name in running if name not in owed)
        self.journal.note("stop", services=list(owed), ran=list(owed), begins="stop")
        if running:
            with self._step("stop") as say:
                for name in running:
                    services.stop(name)
                say(", ".join(running))

    def _make_containers(self) -> None:
        """Have the images here, the containers made, and PostgreSQL and Redis started: once."""
        if not self.system.stack.makes or self.made:
            return
        with self._step(IMAGES) as say:
            notes = self.system.stack.provide(self.choice.images)
            self.journal.note(IMAGES, notes=list(notes))
            say(f"{len(self.choice.images)} of the manifest; {len(notes)} differ")
        with self._step(MAKE):
            self.system.stack.create()
            self.system.stack.start_data()
        self.made = True

    def _restore(self, part: str, entry: Entry) -> None:
        with self._step(part, entry.size) as say:
            there = self._in_place(part, entry)
            if there is not None:
                say(f"in place already: {there.id}")
                report = there.report()
                assert report is not None
            else:
                self._await(part, entry)
                made = restore_alone(
                    self.installation,
                    part,
                    entry,
                    Options(),
                    confirm=None,
                    no_safety=self.no_safety,
                    within=self.journal.id,
                )
                say(made.id)
                report = {"outcomes": [vars(outcome) for outcome in made.outcomes]}
        self.outcomes += outcomes_of(part, report)

    def _in_place(self, part: str, entry: Entry) -> Journal | None:
        """Return the part's restore by this command that has ended, if what it restored is still there."""
        for journal in parts_of(self.installation, self.journal):
            header, report = journal.header, journal.report()
            if header["scenario"] != part or header["artifact"] != entry.name or journal.is_undone:
                continue
            if report is not None and report["result"] == RESTORED:
                _, made = restoration(self.installation, part, entry, Options())
                try:
                    return journal if made.confirm(journal.last("state")).passed else None
                except BackupError:
                    return None
        return None

    def _await(self, part: str, entry: Entry) -> None:
        """Wait for a server that was just made: it may let nobody in for a while, and say it is healthy."""
        if not self.system.stack.makes or part not in {"postgresql", "redis"}:
            return
        _, made = restoration(self.installation, part, entry, Options())
        for attempt in Retrying(
            retry=retry_if_exception_type(SourceAbsentError),
            stop=stop_after_delay(READY),
            wait=wait_fixed(0.3),
            reraise=True,
        ):
            with attempt:
                made.preview()

    def _up(self, say: Callable[[str], None]) -> None:
        """Start everything. What stays away is an outcome: the data is there."""
        ran = list(self.journal.last("services", ()))
        try:
            self.system.stack.up()
        except BackupError as error:
            self.outcomes.append(failed("services", error.message))
        away = start_services(self.installation, self.journal)
        if not any(outcome.check == "services" for outcome in self.outcomes):
            self.outcomes += away
            running = self.installation.services.running()
            if not away and (ran or running):
                self.outcomes.append(passed("services", f"{', '.join(running)} run"))
        say(", ".join(self.installation.services.running()) or "nothing is started from here")

    @contextmanager
    def _step(self, name: str, moved: int | None = None) -> Iterator[Callable[[str], None]]:
        """Write that a step begins, and then how long it took; yield what takes what there is to say."""
        said = ""

        def say(text: str) -> None:
            nonlocal said
            said = text

        self.journal.note("next", begins=name)
        began = time.monotonic()
        with self.installation.watch(f"system: {name}", None):
            yield say
        seconds = round(time.monotonic() - began, 3)
        self.journal.note("did", did={"step": name, "seconds": seconds, "bytes": moved, "said": said})
