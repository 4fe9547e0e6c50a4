"""`status`: is there a backup that is young enough? One line and an exit status, for cron and Nagios."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.actions.report import ages
from bookreader_backup_assets.assembly import local_vault, planned_assets
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import load_settings


@click.command("status")
@output.json_option
def command(as_json: bool) -> None:
    """Say how old the newest verified artifact of each asset is, against the plan's objective.

    Exit status 1 if any is missing or too old. Reads the vault only: works with Dagster down.
    """
    settings = load_settings()
    plan = load_plan(settings.plan, timezone=settings.timezone)
    objectives = {
        asset: timedelta(hours=plan.rows[asset.split("/")[0]].rpo_hours) for asset in planned_assets(plan)
    }
    catalog = Catalog(local_vault(settings))
    report = ages(catalog, objectives, utc_now())
    short = [line for line in report if not line.good]
    good = not short and not catalog.unreadable
    if as_json:
        output.say_json(
            {
                "ok": good,
                "unreadable": catalog.unreadable,
                "assets": [
                    {
                        "asset": line.asset,
                        "ok": line.good,
                        "newest": line.newest.name if line.newest else None,
                        "age_seconds": line.age,
                        "objective_seconds": line.objective,
                    }
                    for line in report
                ],
            }
        )
    else:
        missing = (
            [f"no verified backup young enough of {', '.join(line.asset for line in short)}"] if short else []
        )
        damaged = (
            [f"{len(catalog.unreadable)} entries or proofs cannot be read"] if catalog.unreadable else []
        )
        said = "; ".join(missing + damaged)
        output.say(
            f"PROBLEM: {said}" if said else "OK: every asset has a verified backup that is young enough"
        )
        output.say()
        output.table(
            ["asset", "newest verified", "age", "objective", ""],
            [
                [
                    line.asset,
                    line.newest.name if line.newest else "none",
                    output.span(line.age),
                    output.span(line.objective),
                    "ok" if line.good else "TOO OLD" if line.newest else "MISSING",
                ]
                for line in report
            ],
            right=(2, 3),
        )
        for name in catalog.unreadable:
            output.say(f"unreadable: {name}")
    sys.exit(0 if good else 1)
