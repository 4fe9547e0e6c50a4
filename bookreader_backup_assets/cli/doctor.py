"""`doctor`: whether a backup would work here."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta
from itertools import chain

import click

from bookreader_backup_assets.actions.drill_folder import stray_findings
from bookreader_backup_assets.actions.drill_ground import SHORT
from bookreader_backup_assets.actions.examine import examine
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import load_settings


@click.command("doctor")
@output.json_option
def command(as_json: bool) -> None:
    """Look whether a backup would work: services, versions, key, room, and the age of the newest.

    Changes nothing. Exit status 1 if something is wrong; each finding says what to do.
    """
    settings = load_settings()
    plan = load_plan(settings.plan, timezone=settings.timezone)
    installation = assemble(settings)
    objectives = {
        asset: timedelta(hours=plan.rows[asset.split("/")[0]].rpo_hours) for asset in installation.planned
    }
    findings = []
    for finding in chain(examine(installation, objectives), stray_findings([settings.scratch, SHORT])):
        findings.append(finding)
        if not as_json:
            mark = click.style("ok     ", fg="green") if finding.good else click.style("problem", fg="red")
            output.say(f"{mark}  {finding.subject}: {finding.seen}")
            if not finding.good and finding.hint:
                output.say(f"         {click.style('hint:', fg='cyan')} {finding.hint}")
    good = all(finding.good for finding in findings)
    if as_json:
        output.say_json({"ok": good, "findings": [asdict(finding) for finding in findings]})
    sys.exit(0 if good else 1)
