"""`plan`: what is captured when and kept for how long, as the guide's table has it, with the next runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

import click

from bookreader_backup_assets import away
from bookreader_backup_assets.actions.installation import LOCAL, utc_now
from bookreader_backup_assets.actions.installation import VAULTS as VAULT_SETTINGS
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.plan import VAULTS, Plan, due, load_plan
from bookreader_backup_assets.plan_rows import Copy, Row
from bookreader_backup_assets.settings import Settings, load_settings

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
    vaults = [vault for vault in VAULTS if plan.copies(vault)]
    notes = _notes(settings, plan)
    if as_json:
        kept = [{"keep": row.keep.get(LOCAL, ""), **row.keep} for row in rows]
        output.say_json(
            {
                "plan": name or settings.plan,
                "timezone": plan.timezone.key,
                "rows": [
                    {"backup": row.backup, "when": row.when, **one, "next_run": row.next_run}
                    for row, one in zip(rows, kept, strict=True)
                ],
                "encrypted": _encrypted(settings, plan),
                "notes": notes,
            }
        )
        return
    output.say(f"plan {name or settings.plan}, times in {plan.timezone.key}\n")
    output.table(
        ["backup", "when", "next run"],
        [
            [row.backup, row.when, f"{row.next_run.astimezone(plan.timezone):%a %Y-%m-%d %H:%M}"]
            if row.next_run
            else [row.backup, row.when, ""]
            for row in rows
        ],
    )
    output.say()
    output.table(
        ["kept for", LOCAL, *vaults],
        [[row.backup, *(row.keep.get(vault, "") for vault in (LOCAL, *vaults))] for row in rows if row.keep],
    )
    output.say()
    for note in notes:
        output.say(note)


@dataclass(frozen=True)
class Line:
    """A row of the table: what, when, for how long it is kept in each vault that has it, and the next run
    (UTC) if a clock has it.
    """

    backup: str
    when: str
    keep: Mapping[str, str]
    next_run: datetime | None


def table(plan: Plan, now: datetime) -> list[Line]:
    """Return the table, row by row."""
    rows: list[Line] = []
    if plan.weekly is not None:
        weekly = plan.weekly
        when = f"weekly ({weekly.weekday.capitalize()} {weekly.at:%H:%M}), instead of that night's"
        rows.append(Line("Full system", when, _kept(weekly), _next(plan, now, weekly.due_on, weekly.at)))
    for component, row in plan.rows.items():
        every = f"daily ({row.at:%H:%M})"
        if row.every == "week":
            every = f"weekly ({row.weekday.capitalize()} {row.at:%H:%M})"
        if component == "config":
            every = f"on change; a look {every}"
        own = _next(plan, now, partial(_own_night, plan, row), row.at)
        rows.append(Line(_NAMES[component], every, _kept(row), own))
    if plan.code is not None:
        code = plan.code
        when = f"weekly ({code.weekday.capitalize()} {code.at:%H:%M})"
        rows.append(Line("Code", when, _kept(code), _next(plan, now, code.due_on, code.at)))
    if plan.logs is not None:
        at = now.astimezone(UTC).replace(minute=plan.logs.minute, second=0, microsecond=0)
        at += timedelta(hours=1) if at <= now else timedelta()
        rows.append(Line("Logs", f"hourly (minute {plan.logs.minute})", _kept(plan.logs), at))
    rows.append(Line("Labelled sets", "backup --label …", _kept(plan.labels), None))
    drill = plan.drill
    when = f"monthly (day {drill.day}, {drill.at:%H:%M})"
    monthly = _next(plan, now, lambda day: day.day == drill.day, drill.at)
    return [*rows, Line("Restore drill", when, {}, monthly)]


def _encrypted(settings: Settings, plan: Plan) -> list[str]:
    planned = (*plan.rows, *(one for one in ("code", "logs") if getattr(plan, one) is not None))
    return [one for one in planned if one == "config" or away.encrypted(settings, plan, one)]


def _notes(settings: Settings, plan: Plan) -> list[str]:
    """Return what the tables do not say: what is encrypted, what that costs, and what is not set up."""
    encrypted = _encrypted(settings, plan)
    roles = " and roles" if plan.postgresql and "postgresql" not in encrypted else ""
    notes = [f"encrypted at capture: {', '.join(encrypted)}{roles}"] if encrypted or roles else []
    if "storage" in encrypted:
        notes.append(
            "one file is restored by reading storage's archive from its start up to it: it is encrypted"
        )
    elif plan.storage:
        notes.append(
            "one file is restored by reading its part of storage's archive; with `encrypt = true` in the row,"
            " all of it up to there"
        )
    unset = away.unset(settings, plan)
    notes += [f"{vault} is not set up: {VAULT_SETTINGS[vault]}" for vault in unset]
    return notes


def _own_night(plan: Plan, row: Row, day: date) -> bool:
    return row.due_on(day) and not plan.full_on(day)


def _kept(row: object) -> dict[str, str]:
    """Return for how long a row is kept in each vault, in which class if not the usual one, and its lock."""
    kept = {LOCAL: str(getattr(row, "keep", None) or "no limit")}
    for vault in VAULTS:
        copy: Copy | None = getattr(row, vault, None)
        if copy is not None:
            terms = (
                [copy.storage_class]
                if copy.storage_class != Copy.model_fields["storage_class"].default
                else []
            )
            terms += [f"locked {copy.lock_days} days"] if copy.lock_days else []
            kept[vault] = f"{copy} ({', '.join(terms)})" if terms else str(copy)
    return kept


def _next(plan: Plan, now: datetime, on: Callable[[date], bool], at: time) -> datetime | None:
    today = now.astimezone(plan.timezone).date()
    for offset in range(62):
        day: date = today + timedelta(days=offset)
        if on(day) and (instant := due(day, at, plan.timezone)) > now:
            return instant
    return None
