"""What `restore` and its commands print: plans, reports, and the list of reports."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from bookreader_backup_assets.actions.journal import Journal
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.restore_plan import RESTORED, UNDONE, RestorePlan, RestoreReport, Room


def plan(planned: RestorePlan, *, as_json: bool) -> None:
    """Print what a restore would do, and how to have it done."""
    if as_json:
        output.say_json(asdict(planned))
        return
    preview = planned.preview
    rows = [
        ["from", f"set {planned.set}, {planned.artifact} ({planned.standing})"],
        ["captured", f"{planned.captured_at:%Y-%m-%d %H:%M:%S} UTC"],
        ["reads", output.size(sum(planned.reads.values()))],
        ["replaces", preview.replaces],
        ["keeps", planned.safety],
        ["stops", ", ".join(planned.stops) or "nothing"],
        *(["room", room(one)] for one in preview.rooms),
        ["takes", f"about {output.span(preview.seconds)}" if preview.seconds is not None else "-"],
        *(["note", note] for note in preview.notes),
    ]
    output.say(f"\nrestore {planned.scenario}: nothing is done yet\n")
    for name, value in rows:
        output.say(f"  {name:<9} {value}")
    output.say()
    for number, step in enumerate(preview.steps, 1):
        output.say(f"  {number}. {step}")
    output.say(f"\nto do it, add: --confirm {planned.target}")


def reported(done: RestoreReport, *, as_json: bool) -> None:
    """Print a report, and exit with 0 only if all was well."""
    if as_json:
        output.say_json(document(done))
    else:
        report(done)
    sys.exit(0 if done.good or done.result == UNDONE else 1)


def report(done: RestoreReport) -> None:
    """Print what a restore did."""
    output.say(f"\n{done.id}: {done.target} {done.result} from {done.artifact}\n")
    output.table(
        ["step", "took", "moved", ""],
        [[s.step, output.span(s.seconds), output.size(s.bytes), s.said] for s in done.steps],
        right=(1, 2),
    )
    if done.outcomes:
        output.say()
        output.table(
            ["check", "verdict", "found"], [[o.check, str(o.verdict), o.message] for o in done.outcomes]
        )
    for note in done.notes:
        output.say(f"\nnote: {note}")
    if done.error:
        output.say(f"\nstopped at {done.stopped_at}: {done.error}")
    if done.result == RESTORED:
        output.say(f"\nto go back: {done.undo}")


def reports(known: list[Journal], *, as_json: bool) -> None:
    """Print the restores that were made, oldest first."""
    rows = [_row(journal) for journal in known]
    if as_json:
        output.say_json(rows)
    elif not rows:
        output.say("nothing was restored yet")
    else:
        headings = ["id", "target", "artifact", "result", "kept"]
        output.table(headings, [[str(row[heading]) for heading in headings] for row in rows])


def document(done: RestoreReport) -> dict[str, Any]:
    """Return a report for `--json`."""
    return {**asdict(done), "good": done.good}


def room(one: Room) -> str:
    """Return what room is wanted and free, in one line."""
    return f"{one.where}: {output.size(one.needed)} wanted, {output.size(one.free)} free"


def _row(journal: Journal) -> dict[str, Any]:
    made = journal.report()
    result = made["result"] if made else "killed"
    return {
        "id": journal.id,
        "target": journal.header["target"],
        "artifact": journal.header["artifact"],
        "result": UNDONE if journal.is_undone else result,
        "kept": "accepted" if journal.is_accepted else journal.last("safety", ""),
    }
