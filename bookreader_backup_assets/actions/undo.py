"""Undo, accept and finish: what is done about a restore after it was made, or was killed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.journal import GAVE_UP, UNDO, Journal, alone, find, unfinished
from bookreader_backup_assets.actions.restore_source import restoration
from bookreader_backup_assets.actions.restoring import (
    WAIVED,
    Restore,
    require_confirmed,
    safety_of,
    swap,
)
from bookreader_backup_assets.actions.system_undo import close, is_system, parts_of, undo_system
from bookreader_backup_assets.core.errors import BackupError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import (
    ABANDONED,
    FAILED,
    RESTORED,
    UNDONE,
    Options,
    RestoreReport,
)


def undo(installation: Installation, identity: str, *, confirm: str) -> RestoreReport:
    """Bring back the state from before a restore, and return what was done, stored beside its report.

    One that was killed before it replaced anything is cleared away. Raises `RefusedError` where there is
    nothing to undo, or nothing to go back to.
    """
    with alone(installation):
        journal = find(installation, identity)
        if is_system(journal):
            require_confirmed(journal.header["target"], confirm, f"what {journal.id} restored")
            parts = parts_of(installation, journal)
            finish(
                installation, target=journal.header["target"], but_for={journal.id, *(p.id for p in parts)}
            )
            return undo_system(installation, journal, partial(_undo_part, installation))
        finish(installation, target=journal.header["target"], but_for={journal.id})
        require_confirmed(journal.header["target"], confirm, f"what {journal.id} restored")
        return _undo_part(installation, journal)


def accept(installation: Installation, identity: str, *, confirm: str) -> None:
    """Remove what undo would need, such as the displaced files: it takes room. Raises `RefusedError`."""
    with alone(installation):
        journal = find(installation, identity)
        finish(installation, target=journal.header["target"])
        require_confirmed(journal.header["target"], confirm, f"what {journal.id} keeps for its undo")
        for each in [*(parts_of(installation, journal) if is_system(journal) else ()), journal]:
            if not is_system(each) and each.last("state"):
                _work(installation, each).restoration.accept(each.last("state", {}))
            if not each.is_accepted:
                each.accepted()


def finish(
    installation: Installation, *, target: str = "", but_for: Collection[str] = ()
) -> list[RestoreReport]:
    """Finish the restores that were killed, but for some ids, and return the reports.

    What had begun to replace is finished, since it had been compared; of others, what was made beside is
    removed. Services that were stopped for them are started. Call it `alone`. Raises `SourceError` for
    one that cannot be finished; with `target`, only if it is of that. A system's parts are finished, and
    the rest of it is left to the same command.
    """
    reports = []
    for journal in sorted(unfinished(installation), key=is_system):  # after its parts
        if journal.id in but_for:
            continue
        try:
            reports.append(
                _finish_system(installation, journal)
                if is_system(journal)
                else _finish(_work(installation, journal))
            )
        except BackupError as error:
            if target and journal.header["target"] != target:
                continue
            raise SourceError(
                f"the restore {journal.id} was killed, and cannot be finished: {error.message}",
                hint=f"{error.hint + '; ' if error.hint else ''}then: bookreader-backup restore finish;"
                f" or leave it as it is: bookreader-backup restore finish --leave {journal.id}",
            ) from error
    return reports


def leave(installation: Installation, identity: str) -> RestoreReport:
    """Give up on a killed restore: report it as failed, as it is. Call it `alone`. Raises `RefusedError`."""
    journal = find(installation, identity)
    if journal not in unfinished(installation):
        raise RefusedError(f"{journal.id} has ended", hint="see: bookreader-backup restore reports")
    if is_system(journal):
        return close(installation, journal)
    work = _work(installation, journal)
    owed = ", ".join(journal.last("services", ()))
    work.at = journal.records[-1]["step"] if journal.records else "begin"
    left = SourceError(
        "it was killed, and left as it was", hint=f"start by hand: {owed}" if owed else "look at its state"
    )
    return journal.end(work.report(FAILED, left))


def _finish_system(installation: Installation, journal: Journal) -> RestoreReport:
    if journal.is_undoing:
        return undo_system(installation, journal, partial(_undo_part, installation))
    return close(installation, journal, start=True)


def _undo_part(installation: Installation, journal: Journal) -> RestoreReport:
    work = _work(installation, journal)
    _require_undoable(work)
    return _undo(work) if journal.has("swap") else _abandon(work)


def _finish(work: Restore) -> RestoreReport:
    journal = work.journal
    if journal.is_undoing:
        return _undo(work)
    if not journal.has("swap") or journal.has("put_back"):
        return _abandon(work)
    if not journal.has("confirmed"):
        swap(work, journal.last("state"))
    else:
        work.start_services()
    return journal.end(work.report(RESTORED))


def _abandon(work: Restore) -> RestoreReport:
    state = work.journal.last("state")
    with work.step("abandon"):
        if state:
            work.restoration.abandon(state)
    work.start_services()
    return work.journal.end(work.report(ABANDONED))


def _undo(work: Restore) -> RestoreReport:
    journal = work.journal
    state = journal.last("state")
    try:
        journal.note(UNDO, state=state)
        work.stop_services()
        with work.step("undo"):
            work.restoration.undo(state, safety_of(work.installation, journal))
    except BackupError:
        journal.note(GAVE_UP)
        raise
    finally:
        work.start_services()
    if journal.report() is None:
        journal.end(work.report(FAILED))
    return journal.undone(work.report(UNDONE))


def _require_undoable(work: Restore) -> None:
    journal, report = work.journal, work.journal.report()
    if journal.is_undone:
        raise RefusedError(f"{journal.id} is undone already", hint="restore again, if it is wanted back")
    if journal.is_accepted:
        raise RefusedError(
            f"{journal.id} was accepted: what undo needs was removed",
            hint="restore a set: bookreader-backup list",
        )
    if report is not None and report["result"] == ABANDONED:
        raise RefusedError(f"{journal.id} was abandoned before it replaced anything: nothing is to be undone")
    kept = journal.last("safety", "")
    if kept.startswith(WAIVED) and journal.has("swap") and not work.restoration.keeps_old:
        raise RefusedError(
            f"{journal.id} kept nothing of the state before: {kept}", hint="restore an older set instead"
        )


def _work(installation: Installation, journal: Journal) -> Restore:
    scenario, name = journal.header["scenario"], journal.header["artifact"]
    options = Options.from_dict(journal.header["options"])
    installation = replace(installation, source_named=journal.header.get("vault", LOCAL))
    for entry in installation.source_catalog().entries():
        if entry.name == name:
            _, made = restoration(installation, scenario, entry, options)
            return Restore(installation, journal, scenario, entry, options, made)
    raise RefusedError(f"the entry of {name}, which {journal.id} restored, is not in the vault any more")
