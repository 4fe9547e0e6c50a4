"""What `status` prints: one line, then a table for each vault, 3-2-1, the last drill, and how it fills."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bookreader_backup_assets.actions.copies import AWAY, Holding
from bookreader_backup_assets.actions.growth import LEAST, Growth
from bookreader_backup_assets.actions.installation import LOCAL, VAULTS
from bookreader_backup_assets.actions.report import Age
from bookreader_backup_assets.cli import output

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.drilled import Drilled
    from bookreader_backup_assets.cli.status import Status

_LONG = 3650


def say(seen: Status, problems: list[str]) -> None:
    """Print all of it."""
    output.say(_first(seen, problems))
    for held in seen.holdings:
        output.say()
        if held.error:
            output.say(f"{held.vault}: {held.error}" + (f" ({held.hint})" if held.hint else ""))
            continue
        rows = [_cells(line) for line in held.ages]
        output.table([held.vault, "newest verified", "age", "objective", ""], rows, right=(2, 3))
        for asset, note in (held.notes or {}).items():
            output.say(f"{asset}: {note}")
        if held.same_disk:
            output.say(f"{held.vault} is on the disk of the local vault, and counts as no copy of its own")
        for name in held.unreadable:
            output.say(f"unreadable: {name}")
        if held.vault == LOCAL and seen.shut:
            output.say(f"{seen.shut} artifacts are of a key that is not here: bookreader-backup key list")
    output.say()
    for line in (_copies(seen), *_spared(seen), seen.drill and _drill(seen.drill)):
        if line:
            output.say(line)
    if seen.fills:
        _growth(seen.fills)
    if seen.days and seen.fills:
        _history(seen, list(dict.fromkeys(one.asset.split("/")[0] for one in seen.fills.assets)))


def document(seen: Status, problems: list[str]) -> dict[str, object]:
    """Return all of it as one JSON document."""
    said = seen.counted
    drill = seen.drill
    report = drill.report if drill else None
    local = next((held for held in seen.holdings if held.vault == LOCAL), Holding(LOCAL))
    return {
        "ok": not problems,
        "problems": problems,
        "unreadable": local.unreadable,
        "shut": seen.shut,
        "assets": _documents(local),
        "vaults": [
            {
                "vault": held.vault,
                "ok": not (held.error or held.short or held.unreadable),
                "error": held.error,
                "same_disk": held.same_disk,
                "unreadable": held.unreadable,
                "assets": _documents(held),
            }
            for held in seen.holdings
        ],
        "not_set_up": seen.unset,
        "three_two_one": {**asdict(said), "ok": not said.lacking} if said else None,
        "drill": {
            "ok": not drill.problem,
            "due": drill.due,
            "scenario": report.scenario if report else None,
            "set": report.set if report else None,
            "ended_at": report.ended_at if report else None,
            "slowest": asdict(drill.slowest) if drill.slowest else None,
        }
        if drill
        else None,
        "growth": {**asdict(seen.fills), "days_left": seen.fills.days_left} if seen.fills else None,
        **({"history": [{"set": day, "added": added} for day, added in seen.days]} if seen.days else {}),
    }


def counted(seen: Status) -> str:
    """Return the line of 3-2-1: what there is, or of what there is less, and how to get it."""
    assert seen.counted is not None
    if not seen.counted.lacking:
        return f"3-2-1: {seen.counted}"
    there = [held.vault for held in seen.holdings if not held.error]
    if seen.counted.away == 0:
        lacking = [one for one in AWAY if one in seen.unset]
        how = f"`{AWAY[0]}` in its row of the plan brings one away"
        if any(one in there for one in AWAY):
            how = "bookreader-backup replicate"
        elif lacking:
            how = VAULTS[lacking[0]]
    else:
        how = "bookreader-backup replicate" if len(there) > 1 else "another vault in its row of the plan"
    return f"3-2-1 is short: {seen.counted} of {', '.join(seen.counted.lacking)}: {how}"


def until(fills: Growth) -> str:
    """Return for how long the vault has room."""
    left = fills.days_left
    assert left is not None
    if left >= _LONG:
        return "more than ten years"
    return "less than a day" if left < 1 else f"about {left:.0f} days"


def _first(seen: Status, problems: list[str]) -> str:
    if problems:
        return "PROBLEM: " + " ".join("; ".join(problems).split())  # one line, whatever a service says
    vaults = [held.vault for held in seen.holdings]
    later = [
        line.asset for held in seen.holdings if held.vault == LOCAL for line in held.ages if not line.due
    ]
    fine = "every asset has a verified backup that is young enough"
    if others := [vault for vault in vaults if vault != LOCAL]:
        fine += f", in {', '.join(others)}, too" if LOCAL in vaults else f" in {', '.join(others)}"
    return f"OK: {fine}" + (f"; not due yet: {', '.join(later)}" if later else "")


def _documents(held: Holding) -> list[dict[str, object]]:
    return [
        {
            "asset": line.asset,
            "ok": line.good,
            "due": line.due,
            "newest": line.newest.name if line.newest else None,
            "age_seconds": line.age,
            "objective_seconds": line.objective,
            "note": (held.notes or {}).get(line.asset, ""),
        }
        for line in held.ages
    ]


def _cells(line: Age) -> list[str]:
    return [
        line.asset,
        line.newest.name if line.newest else "none",
        output.span(line.age),
        output.span(line.objective),
        _standing(line),
    ]


def _standing(line: Age) -> str:
    if not line.due:
        return "not due yet"
    return "ok" if line.good else "TOO OLD" if line.newest else "MISSING"


def _copies(seen: Status) -> str:
    if seen.counted:
        return counted(seen)
    return "3-2-1: the plan keeps local copies only" if seen.here else ""


def _spared(seen: Status) -> list[str]:
    return [
        f"{one} is not set up, and another vault has what it would have: {VAULTS[one]}" for one in seen.spared
    ]


def _drill(drill: Drilled) -> str:
    if drill.problem:
        return f"drill: {drill.problem}"
    if drill.report is None:
        return f"drill: none yet; not due before {drill.due:%Y-%m-%d}"
    slow = drill.slowest
    took = f"; slowest: {slow.scenario}, {slow.seconds:.1f} s of {output.span(slow.rto)}" if slow else ""
    report = drill.report
    return f"drill: {report.scenario} of the set {report.set}, {report.ended_at:%Y-%m-%d}: passed{took}"


def _growth(fills: Growth) -> None:
    output.say()
    output.table(
        ["size", "newest", "7 days ago", "30 days ago", "added per day"],
        [
            [one.asset, *map(output.size, (one.newest, one.week_ago, one.month_ago)), _rate(one.per_day)]
            for one in fills.assets
        ],
        right=(1, 2, 3, 4),
    )
    room = f"has {output.size(fills.free)} free" if fills.free is not None else f"({fills.why})"
    if fills.per_day is None:
        said = f"how fast it fills is told after {LEAST} days of backups"
    elif fills.days_left is not None:
        said = f"full in {until(fills)}"
    elif fills.per_day > 0:
        said = "when it is full is not known"
    else:
        said = f"not full at this rate: {'more goes than comes' if fills.per_day else 'nothing was added'}"
    taken = f", took {_rate(fills.per_day)} a day over {fills.days} days" if fills.per_day else ""
    output.say(f"the vault {room}{taken}: {said}")


def _history(seen: Status, planned: list[str]) -> None:
    others = sorted({component for _, added in seen.days for component in added} - set(planned))
    output.say()
    output.table(
        ["added to", *planned, *others],
        [[day, *(output.size(added.get(one)) for one in (*planned, *others))] for day, added in seen.days],
        right=range(1, 1 + len(planned) + len(others)),
    )


def _rate(per_day: float | None) -> str:
    if per_day is None:
        return output.size(None)
    return f"{'-' if per_day < 0 else ''}{output.size(abs(round(per_day)))}"
