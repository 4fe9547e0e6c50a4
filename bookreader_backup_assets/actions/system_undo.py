"""The journal of a system's restore: what it says, how it is ended, and the way back through its parts.

A part is a restore of its own, with a journal that names the system's (`within`). An attempt that failed is
gone on with by another (`goes_on`), and their parts belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.journal import GAVE_UP, UNDO, Journal, journals
from bookreader_backup_assets.core.check import Outcome, Verdict, failed
from bookreader_backup_assets.core.errors import BackupError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import (
    ABANDONED,
    FAILED,
    RESTORED,
    UNDONE,
    RestoreReport,
    StepTaken,
)

SYSTEM = "system"
"""The scenario of it."""


def is_system(journal: Journal) -> bool:
    """Whether a journal is that of a system, and not of a part."""
    return bool(journal.header["scenario"] == SYSTEM)


def attempts(installation: Installation, journal: Journal) -> list[Journal]:
    """Return a system's attempts, this one first, then those that it went on with."""
    known = {one.id: one for one in journals(installation)}
    found = [journal]
    while (before := found[-1].header.get("goes_on")) in known:
        found.append(known[before])
    return found


def parts_of(installation: Installation, journal: Journal) -> list[Journal]:
    """Return the journals of the parts of a system, all attempts together, newest first."""
    ids = {one.id for one in attempts(installation, journal)}
    return [one for one in reversed(journals(installation)) if one.header.get("within") in ids]


def report_of(
    installation: Installation,
    journal: Journal,
    result: str,
    *,
    error: BaseException | None = None,
    outcomes: Iterable[Outcome] = (),
) -> RestoreReport:
    """Return the report of a system's restore, from its journal and those of its parts."""
    steps = [StepTaken(**record["did"]) for record in journal.records if "did" in record]
    begun = [record["begins"] for record in journal.records if "begins" in record]
    said, hint = "" if error is None else f"{type(error).__name__}: {error}", ""
    if isinstance(error, BackupError):
        said, hint = error.message, error.hint
    replaced = any(_is_there(part) for part in parts_of(installation, journal))
    if result == UNDONE or not replaced:
        undo = "nothing to undo: the state from before is there"
    else:
        undo = journal.undo_command
    return RestoreReport(
        id=journal.id,
        installation=installation.id,
        host=installation.host,
        scenario=SYSTEM,
        set=journal.header["set"],
        artifact=journal.header["artifact"],
        target=journal.header["target"],
        options=journal.header["options"],
        began_at=journal.began_at,
        ended_at=installation.now(),
        result=result if replaced or result != FAILED else ABANDONED,
        safety="each part's own",
        steps=tuple(steps),
        outcomes=tuple(outcomes),
        stopped_at=begun[-1] if error is not None and begun else "",
        error=said,
        hint=hint,
        undo=undo,
        notes=(*journal.header.get("notes", ()), *journal.last("notes", ())),
        state={"parts": [part.id for part in reversed(parts_of(installation, journal))]},
    )


def close(installation: Installation, journal: Journal, *, start: bool = False) -> RestoreReport:
    """End a system's restore that was killed, as it is; with `start`, start the services that it stopped.

    The same command goes on from there.
    """
    outcomes = start_services(installation, journal) if start else []
    owed = ", ".join(journal.last("services", ()))
    left = SourceError(
        "it was killed", hint=f"start by hand: {owed}; {way_on(journal)}" if owed else way_on(journal)
    )
    report = journal.report()
    if report is not None:  # an undo was killed, and is left
        journal.note(GAVE_UP)
        return report_of(installation, journal, FAILED, error=left, outcomes=outcomes)
    return journal.end(report_of(installation, journal, FAILED, error=left, outcomes=outcomes))


def way_on(journal: Journal) -> str:
    """Say what can be done about one that has stopped."""
    return f"the same command goes on from there; or go back: {journal.undo_command}"


def undo_system(
    installation: Installation, journal: Journal, undo_part: Callable[[Journal], RestoreReport]
) -> RestoreReport:
    """Undo the parts, last first, with the services stopped; those that ran before run again.

    Made again after a crash, it finishes. Raises what a part's undo raises; those undone stay so.
    """
    if journal.is_undone or journal.is_accepted:
        raise RefusedError(
            f"{journal.id} {'is undone already' if journal.is_undone else 'was accepted'}",
            hint="restore a set: bookreader-backup list",
        )
    if (report := journal.report()) is not None and report["result"] == ABANDONED:
        raise RefusedError(f"{journal.id} was abandoned before it replaced anything: nothing is to be undone")
    ran = journal.last("services", ()) or journal.last("ran", ())
    journal.note(UNDO)
    try:
        journal.note("stop", services=list(ran))
        for name in installation.services.running():
            installation.services.stop(name)
        for part in parts_of(installation, journal):
            if part.report() is None or part.is_undoing or _is_there(part):
                journal.note("part", begins=f"undo {part.id}")
                undo_part(part)
    except BackupError:
        journal.note(GAVE_UP)
        raise
    finally:
        outcomes = start_services(installation, journal)
    if journal.report() is None:
        journal.end(report_of(installation, journal, FAILED))
    return journal.undone(report_of(installation, journal, UNDONE, outcomes=outcomes))


def start_services(installation: Installation, journal: Journal) -> list[Outcome]:
    """Start again the services that ran before, and no others; return those that stay away."""
    away = []
    for name in journal.last("services", ()):
        try:
            installation.services.start(name)
        except BackupError as error:
            away.append(failed("services", f"{name} did not come back: {error.message}"))
    journal.note("started", services=[])
    return away


def _is_there(part: Journal) -> bool:
    """Whether what a part restored is in place, so that there is something to undo."""
    report = part.report()
    swapped = part.has("swap") and not part.has("put_back")
    return swapped and not part.is_undone and (report is None or report["result"] in (RESTORED, FAILED))


def outcomes_of(part: str, report: dict[str, object]) -> list[Outcome]:
    """Return what a part's stored report says was found, under the part's name."""
    found: list[dict[str, object]] = report["outcomes"]  # type: ignore[assignment]
    return [
        Outcome(f"{part}/{one['check']}", Verdict(str(one["verdict"])), str(one["message"])) for one in found
    ]
