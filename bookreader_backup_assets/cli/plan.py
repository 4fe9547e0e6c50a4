"""`plan`: what is captured when and kept for how long, as the guide's table has it, with the next runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

import click

from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.plan import Plan, due, load_plan
from bookreader_backup_assets.plan_rows import Keep, Row
from bookreader_backup_assets.settings import load_settings

_NAMES = {
    "postgresql": "Database",
    "redis": "Redis",
    "storage": "Storage files",
    "config": "Configuration",
}


@click.command("plan")
@click.argument("name", required=False, metavar="[PLAN]")
@output.json_option
def command(name: str | None, as_json: bool) -> None:
    """Print the plan in force, or PLAN: one that ships with this program, or a file of your own.

    \b
    bookreader-backup plan                  the one in force (BACKUP_PLAN)
    bookreader-backup plan development      the one that ships for development and staging
    bookreader-backup plan ./my-plan.toml   your own, checked
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    plan = load_plan(name or settings.plan, timezone=settings.timezone)
    rows = table(plan, utc_now())
    if as_json:
        output.say_json(
            {
                "plan": name or settings.plan,
                "timezone": plan.timezone.key,
                "rows": [dict(zip(("backup", "when", "keep", "next_run"), row, strict=True)) for row in rows],
            }
        )
        return
    output.say(f"plan {name or settings.plan}, times in {plan.timezone.key}\n")
    output.table(
        ["backup", "when", "keep at least", "next run"],
        [
            [what, when, keep, f"{run.astimezone(plan.timezone):%a %Y-%m-%d %H:%M}" if run else ""]
            for what, when, keep, run in rows
        ],
    )


def table(plan: Plan, now: datetime) -> list[tuple[str, str, str, datetime | None]]:
    """Return, row by row: what, when, for how long it is kept, and the next run (UTC) if a clock has it."""
    rows: list[tuple[str, str, str, datetime | None]] = []
    if plan.weekly is not None:
        weekly = plan.weekly
        when = f"weekly ({weekly.weekday.capitalize()} {weekly.at:%H:%M}), instead of that night's"
        rows.append(("Full system", when, _kept(weekly.keep), _next(plan, now, weekly.due_on, weekly.at)))
    for component, row in plan.rows.items():
        every = f"daily ({row.at:%H:%M})"
        if row.every == "week":
            every = f"weekly ({row.weekday.capitalize()} {row.at:%H:%M})"
        if component == "config":
            every = f"on change; a look {every}"
        own = _next(plan, now, partial(_own_night, plan, row), row.at)
        rows.append((_NAMES[component], every, _kept(row.keep), own))
    if plan.code is not None:
        code = plan.code
        when = f"weekly ({code.weekday.capitalize()} {code.at:%H:%M})"
        rows.append(("Code", when, _kept(code.keep), _next(plan, now, code.due_on, code.at)))
    if plan.logs is not None:
        at = now.astimezone(UTC).replace(minute=plan.logs.minute, second=0, microsecond=0)
        at += timedelta(hours=1) if at <= now else timedelta()
        when = f"hourly (minute {plan.logs.minute})"
        rows.append(("Logs", when, _kept(plan.logs.keep), at))
    rows.append(("Labelled sets", "backup --label …", _kept(plan.labels.keep), None))
    drill = plan.drill
    when = f"monthly (day {drill.day}, {drill.at:%H:%M})"
    rows.append(("Restore drill", when, "", _next(plan, now, lambda day: day.day == drill.day, drill.at)))
    return rows


def _own_night(plan: Plan, row: Row, day: date) -> bool:
    return row.due_on(day) and not plan.full_on(day)


def _kept(keep: Keep | None) -> str:
    return str(keep) if keep else ""


def _next(plan: Plan, now: datetime, on: Callable[[date], bool], at: time) -> datetime | None:
    today = now.astimezone(plan.timezone).date()
    for offset in range(62):
        day: date = today + timedelta(days=offset)
        if on(day) and (instant := due(day, at, plan.timezone)) > now:
            return instant
    return None
