"""What `restore system` prints: its plan, and its report with the time held against the guide's."""

from __future__ import annotations

import sys
from dataclasses import asdict

from bookreader_backup_assets.actions.system_plan import SystemPlan
from bookreader_backup_assets.cli import output, restore_output
from bookreader_backup_assets.core.restore_plan import RestoreReport


def plan(planned: SystemPlan, *, as_json: bool) -> None:
    """Print what a restore of the system would do, and how to have it done."""
    if as_json:
        output.say_json(asdict(planned))
        return
    output.say(f"\nrestore system from set {planned.set}: nothing is done yet\n")
    output.table(
        ["part", "from", "", "reads", "replaces"],
        [[p.part, p.artifact, p.standing, output.size(p.reads), p.replaces] for p in planned.parts],
        right=(3,),
    )
    output.say()
    rows = [
        ["without", ", ".join(planned.without) or "nothing is left out"],
        ["keeps", "what each part has now, for its undo"],
        ["stops", ", ".join(planned.stops) or "nothing"],
        *(["image", line] for line in planned.images),
        *(["room", restore_output.room(room)] for room in planned.rooms),
        ["takes", f"about {output.span(planned.seconds)}; the guide allows {output.span(planned.rto)}"],
        *(["note", note] for note in planned.notes),
    ]
    for name, value in rows:
        output.say(f"  {name:<9} {value}")
    output.say()
    for number, step in enumerate(planned.steps, 1):
        output.say(f"  {number}. {step}")
    output.say(f"\nto do it, add: --confirm {planned.target}")


def reported(done: RestoreReport, rto: float, *, as_json: bool) -> None:
    """Print a report, and exit with 0 only if all was well."""
    seconds = round(sum(step.seconds for step in done.steps), 3)
    if as_json:
        output.say_json({**restore_output.document(done), "seconds": seconds, "rto_seconds": rto})
    else:
        restore_output.report(done)
        late = "" if seconds <= rto else ": too late"
        output.say(f"it took {output.span(seconds)} of the {output.span(rto)} that the guide allows{late}")
    sys.exit(0 if done.good else 1)
