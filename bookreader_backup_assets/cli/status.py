"""`status`: is there a backup that is young enough, and room for the next? One line and an exit status."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bookreader_backup_assets.actions import keys
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.growth import LEAST, Growth, growth, history
from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.actions.report import Age, ages
from bookreader_backup_assets.actions.restore_source import passed_over
from bookreader_backup_assets.assembly import local_vault, objectives
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.cli.key import held_keys
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import load_settings

HISTORY = 14
"""How many days' sets `--history` shows."""
_LONG = 3650


@click.command("status")
@click.option("--history", "with_history", is_flag=True, help="Also show what each day's set has added.")
@output.json_option
def command(with_history: bool, as_json: bool) -> None:
    """Say how old the newest verified artifact of each asset is, against the plan's objective.

    And how the vault fills: the rate is what was added in the last 30 days, told from three days on.
    Exit status 1 if any is missing or too old, if the next set has no room, or if the vault is full within
    a week at that rate. Reads the vault only: works with Dagster down.
    """
    settings = load_settings()
    plan = load_plan(settings.plan, timezone=settings.timezone)
    catalog = Catalog(local_vault(settings))
    counted = objectives(plan)
    now = utc_now()
    report = ages(catalog, counted, now)
    fills = growth(catalog, tuple(counted), now)
    shut = keys.shut(catalog.entries(), held_keys(settings))
    notes = {asset: said for asset in counted if (said := passed_over(catalog, asset))}
    days = history(catalog, HISTORY) if with_history else []
    problems = _problems(report, catalog, fills)
    if as_json:
        output.say_json(
            {
                "ok": not problems,
                "unreadable": catalog.unreadable,
                "shut": [entry.name for entry in shut],
                "assets": [{**_document(line), "note": notes.get(line.asset, "")} for line in report],
                "growth": {**asdict(fills), "days_left": fills.days_left},
                **({"history": [{"set": day, "added": added} for day, added in days]} if days else {}),
            }
        )
    else:
        said = "; ".join(problems)
        later = ", ".join(line.asset for line in report if not line.due)
        fine = "every asset has a verified backup that is young enough" + (
            f"; not due yet: {later}" if later else ""
        )
        output.say(f"PROBLEM: {said}" if said else f"OK: {fine}")
        output.say()
        output.table(
            ["asset", "newest verified", "age", "objective", ""],
            [_cells(line) for line in report],
            right=(2, 3),
        )
        for asset, note in notes.items():
            output.say(f"{asset}: {note}")
        for name in catalog.unreadable:
            output.say(f"unreadable: {name}")
        if shut:
            output.say(f"{len(shut)} artifacts are of a key that is not here: bookreader-backup key list")
        _print_growth(fills)
        if with_history:
            _print_history(days, list(dict.fromkeys(asset.split("/")[0] for asset in counted)))
    sys.exit(1 if problems else 0)


def _problems(report: list[Age], catalog: Catalog, fills: Growth) -> list[str]:
    """Return what is wrong, in the words of the first line."""
    short = [line.asset for line in report if not line.good]
    problems = [f"no verified backup young enough of {', '.join(short)}"] if short else []
    if catalog.unreadable:
        problems.append(f"{len(catalog.unreadable)} entries or proofs cannot be read")
    if fills.short:
        free, needed = output.size(fills.free), output.size(fills.needed)
        problems.append(f"the vault has {free} free, and the next set wants {needed}")
    elif fills.soon:
        problems.append(f"the vault is full in {_until(fills)}")
    return problems


def _document(line: Age) -> dict[str, object]:
    return {
        "asset": line.asset,
        "ok": line.good,
        "due": line.due,
        "newest": line.newest.name if line.newest else None,
        "age_seconds": line.age,
        "objective_seconds": line.objective,
    }


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


def _print_growth(fills: Growth) -> None:
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
    elif fills.days_left is None:
        said = "when it is full is not known" if fills.per_day else "not full at this rate: nothing was added"
    else:
        said = f"full in {_until(fills)}"
    taken = f", took {_rate(fills.per_day)} a day over {fills.days} days" if fills.per_day else ""
    output.say(f"the vault {room}{taken}: {said}")


def _print_history(days: list[tuple[str, dict[str, int]]], planned: list[str]) -> None:
    others = sorted({component for _, added in days for component in added} - set(planned))
    output.say()
    output.table(
        ["added to", *planned, *others],
        [[day, *(output.size(added.get(one)) for one in (*planned, *others))] for day, added in days],
        right=range(1, 1 + len(planned) + len(others)),
    )


def _rate(per_day: float | None) -> str:
    return output.size(None if per_day is None else round(per_day))


def _until(fills: Growth) -> str:
    left = fills.days_left
    assert left is not None
    if left >= _LONG:
        return "more than ten years"
    return "less than a day" if left < 1 else f"about {left:.0f} days"
