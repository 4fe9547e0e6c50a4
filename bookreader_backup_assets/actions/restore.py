"""Restore: plan, identity, safety capture, restore beside, compare, swap, services back, report.

Nothing live is touched before the comparison has found what lies beside equal to what was captured, and
every step is in the journal before it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from bookreader_backup_assets.actions.capture import ROOM, capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.damage import damage_recorded
from bookreader_backup_assets.actions.fetched import fetched, room, wanted
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.journal import Journal, alone, unfinished
from bookreader_backup_assets.actions.restore_source import (
    LATEST,
    SCENARIOS,
    choose,
    passed_over,
    restoration,
)
from bookreader_backup_assets.actions.restoring import (
    ABSENT,
    DISPLACED,
    ELSEWHERE,
    WAIVED,
    Restore,
    clear_away,
    require_confirmed,
    swap,
)
from bookreader_backup_assets.actions.undo import finish
from bookreader_backup_assets.components.restoration import Restoration, State
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError, SpaceError
from bookreader_backup_assets.core.restore_plan import (
    RESTORED,
    Options,
    Preview,
    RestorePlan,
    RestoreReport,
    Room,
)

_ANOTHER_SET = "nothing live was touched; take another set: `bookreader-backup list`"
SAFETY = "pre-restore"
"""The label of what is captured of the present state before a restore."""


def plan(
    installation: Installation, scenario: str, from_set: str = LATEST, options: Options | None = None
) -> RestorePlan:
    """Return what a restore would do. Touches nothing. Raises what would refuse it."""
    entry = _entry(installation, scenario, from_set)
    _, made = restoration(installation, scenario, entry, options or Options())
    planned = _plan(installation, scenario, from_set, entry, made, into=options.into if options else None)
    notes = (*_passed_over(installation, scenario, from_set), *planned.preview.notes)
    return replace(planned, preview=replace(planned.preview, notes=notes))


def restore(
    installation: Installation,
    scenario: str,
    from_set: str = LATEST,
    options: Options | None = None,
    *,
    confirm: str,
    no_safety: str = "",
) -> RestoreReport:
    """Carry out a restore, and return its report, stored.

    `confirm` is the plan's target typed back. Raises `RefusedError`, `DamagedError`, `SpaceError` before
    anything is touched; what fails later is raised after it was cleared away and reported. A restore that
    was killed is gone on with, or finished first if it was another.
    """
    entry = _entry(installation, scenario, from_set)
    with alone(installation):
        return restore_alone(
            installation,
            scenario,
            entry,
            options or Options(),
            confirm=confirm,
            no_safety=no_safety,
            notes=_passed_over(installation, scenario, from_set),
        )


def restore_alone(
    installation: Installation,
    scenario: str,
    entry: Entry,
    options: Options,
    *,
    confirm: str | None,
    no_safety: str = "",
    within: str = "",
    notes: tuple[str, ...] = (),
) -> RestoreReport:
    """Carry out a restore as `restore` does, for one that holds the lock.

    `within` is the id of the restore of a system that this is a part of; `confirm` is None where that one
    was confirmed; `notes` are for its report.
    """
    with fetched(installation, scenario, entry) as kept:
        stored, made = restoration(installation, scenario, entry, options, kept)
        header = {"artifact": entry.name, "target": made.target, "options": _jsonable(options)}
        header |= {"within": within} if within else {}
        killed = [one for one in unfinished(installation) if _same(one, scenario, header)]
        mine = next((one for one in killed if not one.has("swap")), None)
        half_way = {one.id for one in killed if one.has("swap") and not one.has("confirmed")}
        for ended in finish(installation, target=made.target, but_for={within, mine.id if mine else ""}):
            if ended.id in half_way and ended.result == RESTORED:
                return ended  # its undo, and no other, goes back to the state before
        with damage_recorded(stored):
            planned = _plan(installation, scenario, entry.set, entry, made, into=options.into)
        if options.into is None and confirm is not None:  # who named another place has typed it
            require_confirmed(planned.target, confirm, planned.preview.replaces)
        for room in planned.preview.rooms:
            if not room.enough and mine is None:
                raise _no_room(room, scenario, options)
        said = {"notes": list(notes)} if notes else {}
        journal = mine or Journal.begin(installation, scenario, {**header, **said})
        work = Restore(installation, journal, scenario, entry, options, made)
        with damage_recorded(stored):
            return _carry_out(work, planned.preview, no_safety)


def _carry_out(work: Restore, preview: Preview, no_safety: str) -> RestoreReport:
    journal, made = work.journal, work.restoration
    state: State = journal.last("state", {})
    reads = _reads(work.entry, preview)
    try:
        if journal.last("safety") is None:
            with work.step("safety"):
                safety = _safety(work, preview, no_safety)
            journal.note("safety", safety=safety)
        state = state or made.begin(journal.stamp)
        journal.note("beside", state=state)
        with (
            work.step("beside", moved=reads),
            work.installation.watch(f"restoring {work.entry.asset}", reads) as progress,
        ):
            made.beside(state, progress)
        journal.note("compare", state=state)
        with work.step("compare"):
            compared = made.compare(state)
        work.outcomes.append(compared)
        if not compared.passed:
            raise DamagedError(
                f"what was restored beside is not what was captured: {compared.message}",
                hint=_ANOTHER_SET,
            )
        swap(work, state)
    except BaseException as error:
        if isinstance(error, DamagedError) and not error.hint and not journal.has("swap"):
            error.hint = f"it is {work.entry.name}, or what lies beside it; {_ANOTHER_SET}"
        clear_away(work, state, error)
        raise
    return journal.end(work.report(RESTORED))


def _safety(work: Restore, preview: Preview, no_safety: str) -> str:
    """Keep the present state, and say how."""
    if work.options.into is not None:
        return ELSEWHERE
    if work.restoration.displaces:
        return DISPLACED
    if not preview.present:
        return ABSENT
    if no_safety:
        return f"{WAIVED}: {no_safety}"
    now = work.installation.now().astimezone(work.installation.zone)
    set_id = f"{now:%Y-%m-%d_%H-%M-%S}_{SAFETY}"
    component = work.installation.component(work.entry.asset)
    try:
        return capture(work.installation, component, set_id, label=SAFETY)[0].name
    except BackupError as error:
        raise RefusedError(
            f"the present state cannot be kept: {error.message}",
            hint=f"{error.hint + '; ' if error.hint else ''}or go on without it: --no-safety REASON",
        ) from error


def _plan(
    installation: Installation,
    scenario: str,
    from_set: str,
    entry: Entry,
    made: Restoration,
    *,
    into: str | None,
) -> RestorePlan:
    catalog = installation.source_catalog()
    preview = made.preview()
    safety = f"a capture labelled {SAFETY}"
    if into is not None:
        safety = "none: nothing is replaced"
    elif made.displaces or not preview.present:
        safety = "what is there is kept beside it" if preview.present else "none: there is nothing to keep"
    elif (free := installation.vault.free()) is not None:
        last = Catalog(installation.vault).newest(entry.asset)
        vault = Room("the vault, for the safety capture", int((last or entry).size * ROOM), free)
        preview = replace(preview, rooms=(*preview.rooms, vault))
    if wanted(installation, scenario, entry) and (kept := room(installation, entry)) is not None:
        preview = replace(preview, rooms=(*preview.rooms, kept))
    return RestorePlan(
        scenario=scenario,
        set=from_set if from_set != LATEST else entry.set,
        target=made.target,
        artifact=entry.name,
        standing=str(catalog.standing(entry)),
        captured_at=entry.captured_at,
        reads={entry.name: _reads(entry, preview), **{c.name: c.size for c in entry.companions}},
        stops=installation.services.running() if made.quiet else (),
        safety=safety,
        preview=preview,
    )


def _catalog(installation: Installation) -> Catalog:
    return installation.source_catalog().at(installation.now())


def _entry(installation: Installation, scenario: str, from_set: str) -> Entry:
    if scenario not in SCENARIOS:
        raise RefusedError(
            f"there is nothing called {scenario!r} to restore", hint=f"there are: {', '.join(SCENARIOS)}"
        )
    return choose(_catalog(installation), SCENARIOS[scenario], from_set)


def _passed_over(installation: Installation, scenario: str, from_set: str) -> tuple[str, ...]:
    """Return what an operator should know where what is taken is not the newest there is."""
    said = passed_over(_catalog(installation), SCENARIOS[scenario], from_set)
    return (said,) if said else ()


def _reads(entry: Entry, preview: Preview) -> int:
    return entry.size if preview.reads is None else preview.reads


def _same(journal: Journal, scenario: str, header: Mapping[str, object]) -> bool:
    """Whether a killed restore is the one that is asked for."""
    asked = {"scenario": scenario, **header}
    return all(journal.header.get(name) == asked[name] for name in asked)


def _jsonable(options: Options) -> dict[str, object]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(options).items()}


def _no_room(room: Room, scenario: str, options: Options) -> SpaceError:
    other = "; or --in-place, which writes only what differs" if scenario == "storage" else ""
    return SpaceError(
        f"{room.where} has {room.free} bytes free, and the restore wants {room.needed}",
        hint=f"free space there{other if not options.in_place else ''}; nothing was touched",
    )
