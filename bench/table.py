"""The rows that were measured, the goals they are held against, and both as text."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

US = "this project"
GUIDE = "guide's script"
RESTIC = "restic"
BORG = "borg"
CAPTURE = "capture"
READ_BACK = "read back"
CHECKS = "checks"
RESTORABLE = "restorable"
DAGSTER = "Dagster: start, run, seal"
MANIFEST = "manifest"
TOTAL = "total"
EVERYTHING = "everything"
"""All parts by one command, where the other rows have one per part."""
TOGETHER = "one command, without restorable"
SHARE = 5
"""The script's wall time over ours, at least."""
MEMORY = 200_000_000
"""Bytes above an idle Dagster run, at most."""
TEMPORARY = 0.01
"""Share of the captured data that temporary files may have and still be no copy of it."""
_MB = 1_000_000


@dataclass(frozen=True)
class Row:
    """What one step of one competitor took; None is not measured, `note` says why or what of it."""

    part: str
    who: str
    step: str
    seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    output: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Goal:
    """A goal, what was found, and whether it was met; None is not measured in this run."""

    goal: str
    found: str
    met: bool | None


@dataclass(frozen=True)
class Rows:
    """All rows of a run; `idle` is the peak memory (bytes) of a Dagster run that captures nothing."""

    rows: tuple[Row, ...]
    idle: int
    sizes: dict[str, int]

    def of(self, *, part: str | None = None, who: str | None = None, step: str | None = None) -> list[Row]:
        """Return the rows that have all of these."""
        return [
            row
            for row in self.rows
            if part in (None, row.part) and who in (None, row.who) and step in (None, row.step)
        ]

    def seconds(self, *, part: str | None = None, who: str, step: str | None = None) -> float:
        """Return the seconds of such rows together."""
        return sum(row.seconds or 0 for row in self.of(part=part, who=who, step=step))

    def totals(self) -> Iterator[Row]:
        """Yield the sums over all parts: ours as a process per part, and as one command for everything."""
        script = self.seconds(who=GUIDE)
        together = self.seconds(part=EVERYTHING, who=US)
        if script and together:
            proving = self.seconds(part=EVERYTHING, who=US, step=RESTORABLE)
            apart = self.seconds(who=US) - together
            apart_proving = self.seconds(who=US, step=RESTORABLE) - proving
            yield Row(TOTAL, GUIDE, "", script)
            yield Row(TOTAL, US, TOGETHER, together - proving)
            yield Row(TOTAL, US, "one command, all of it", together)
            yield Row(TOTAL, US, "a process per part, without restorable", apart - apart_proving)

    def goals(self) -> Iterator[Goal]:
        """Yield the goals with what was found."""
        totals = {(row.who, row.step): row.seconds or 0.0 for row in self.totals()}
        script, mine = totals.get((GUIDE, "")), totals.get((US, TOGETHER))
        goal = "a fifth of the script's wall time or less, all but `restorable`"
        if script and mine:
            yield Goal(goal, f"{mine:.1f} s of {script:.1f} s: {script / mine:.1f} times faster",
                       mine * SHARE <= script)  # fmt: skip
        else:
            yield Goal(goal, "not all was run", None)
        yield self._level()
        peaks = [row.memory for row in self.of(who=US) if row.memory is not None and row.step != RESTORABLE]
        goal = f"under {MEMORY // _MB} MB above an idle Dagster run"
        above = max(peaks, default=0) - self.idle
        yield Goal(
            goal, f"{above / _MB:.0f} MB above {self.idle / _MB:.0f} MB", above < MEMORY if peaks else None
        )
        captures = [
            row for row in self.of(who=US, step=CAPTURE) if row.disk is not None and row.part in self.sizes
        ]
        most = max(captures, key=lambda row: row.disk or 0, default=None)
        goal = "no temporary copy of the data"
        if most is None:
            yield Goal(goal, "not run", None)
        else:
            held = all((row.disk or 0) <= TEMPORARY * self.sizes[row.part] for row in captures)
            yield Goal(goal, f"{(most.disk or 0) / _MB:.1f} MB at most, in {most.part}", held)

    def _level(self) -> Goal:
        goal = "storage level with or ahead of restic and borg"
        mine = self.seconds(part="storage", who=US, step=CAPTURE)
        others = {
            row.who: row.seconds
            for row in self.of(part="storage", step=CAPTURE)
            if row.who in (RESTIC, BORG) and row.seconds is not None
        }
        if not mine or not others:
            return Goal(goal, "not run, or neither is installed", None)
        back = self.seconds(part="storage", who=US, step=READ_BACK)
        found = ", ".join(f"{who} {seconds:.1f} s" for who, seconds in others.items())
        met = all(mine <= seconds for seconds in others.values())
        return Goal(
            goal,
            f"{mine:.1f} s (and {back:.1f} s to read back); {found}",
            met if len(others) == 2 or not met else None,
        )


def table(rows: Rows) -> str:
    """Return the rows as a table that is Markdown as well."""
    head = (
        "part",
        "who",
        "step",
        "seconds",
        "script ÷",
        "peak MB",
        "above idle",
        "temporary MB",
        "output MB",
        "",
    )
    lines = [head, *(_cells(rows, row) for row in (*rows.rows, *rows.totals()))]
    return _aligned(lines, right=range(3, 9))


def goals(rows: Rows) -> str:
    """Return the goals as a table that is Markdown as well."""
    said = {True: "met", False: "NOT MET", None: "not measured"}
    lines = [("goal", "found", ""), *((goal.goal, goal.found, said[goal.met]) for goal in rows.goals())]
    return _aligned(lines, right=())


def machine() -> dict[str, str]:
    """Return what the figures depend on: no names, no paths."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
        "load": Path("/proc/loadavg").read_text(encoding="ascii").split()[0],
    }


def _cells(rows: Rows, row: Row) -> tuple[str, ...]:
    script = rows.seconds(part=None if row.part == TOTAL else row.part, who=GUIDE)
    compared = row.seconds and script and (row.part == TOTAL or row.step == CAPTURE)
    return (
        row.part,
        row.who,
        row.step,
        "-" if row.seconds is None else f"{row.seconds:.1f}",
        f"{script / row.seconds:.1f}" if compared and row.seconds else "",
        "" if row.memory is None else f"{row.memory / _MB:.0f}",
        "" if row.memory is None or row.who != US else f"{(row.memory - rows.idle) / _MB:+.0f}",
        "" if row.disk is None else f"{row.disk / _MB:.1f}",
        "" if row.output is None else f"{row.output / _MB:.1f}",
        row.note,
    )


def _aligned(lines: Iterable[tuple[str, ...]], right: Iterable[int]) -> str:
    cells = list(lines)
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(cells[0]))]
    to_right = set(right)
    rule = tuple("-" * (w - 1) + ":" if c in to_right else "-" * w for c, w in enumerate(widths))
    return "\n".join(
        "| "
        + " | ".join(
            text.rjust(widths[column]) if column in to_right else text.ljust(widths[column])
            for column, text in enumerate(line)
        )
        + " |"
        for line in (cells[0], rule, *cells[1:])
    )
