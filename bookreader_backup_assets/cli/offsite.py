"""`offsite`: the bucket's rules, its locks, and what its accounts have to be allowed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.cli.doctor import say
from bookreader_backup_assets.settings import load_settings


@click.group("offsite")
def command() -> None:
    """See to the bucket offsite: what removes files there, what locks them, and who may do what.

    \b
    bookreader-backup offsite audit             what its rules would remove or put out of reach
    bookreader-backup offsite apply-lifecycle   set the few rules that this program wants
    bookreader-backup offsite renew-locks       lock what the plan keeps for longer
    bookreader-backup offsite policies          what its accounts have to be allowed
    """  # noqa: D301 - click's mark for a block that keeps its lines


@command.command("audit")
@output.json_option
def audit(as_json: bool) -> None:
    """Hold the bucket's lifecycle rules, and its object locks, against the plan. Changes nothing.

    Exit status 1 where a rule removes what the plan keeps, or moves it to where it cannot be read at once,
    or where what the plan wants locked is not.
    """
    from bookreader_backup_assets.actions.examine_offsite import audit_bucket
    from bookreader_backup_assets.actions.locks import bucket

    installation = assemble(load_settings())
    bucket(installation)  # or it is refused: there is nothing to audit
    findings = list(audit_bucket(installation))
    good = all(finding.good for finding in findings)
    if as_json:
        output.say_json({"ok": good, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(finding)
        if not findings:
            output.say("nothing in this bucket works against the plan")
    sys.exit(0 if good else 1)


@command.command("apply-lifecycle")
@click.option("--plan", "plan_only", is_flag=True, help="Print the rules, and set none.")
@output.json_option
def apply_lifecycle(plan_only: bool, as_json: bool) -> None:
    """Set the lifecycle rules that this program wants; those of others stay as they are.

    They end uploads that nobody goes on with, and remove what `doctor` tried and, where the bucket keeps
    versions, what was long ago overwritten or deleted. None of them removes or moves an artifact: prune does,
    and knows which copy is the last proven one. Asking for what is there already sets nothing.

    The account needs s3:PutLifecycleConfiguration, which neither of this program's own should have: with
    --plan --json, the rules are printed as `aws s3api put-bucket-lifecycle-configuration` takes them.
    """
    from bookreader_backup_assets.actions.offsite_rules import apply, planned_change

    installation = assemble(load_settings())
    change = planned_change(installation)
    if change is None:
        output.say_json({"Rules": []}) if as_json else output.say("this service has no lifecycle rules")
        return
    if not plan_only and not change.is_none:
        apply(installation, change)
    if as_json:
        output.say_json(change.document)
        return
    done = "there already" if change.is_none else "to be set" if plan_only else "set"
    stays = [[rule.get("ID", "-"), "of others, stays"] for rule in change.others]
    gone = {rule.id for rule in change.was} - {rule.id for rule in change.ours}
    output.table(
        ["rule", "", "prefix", "what it does"],
        [
            *([rule.id, done, rule.prefix, str(rule)] for rule in change.ours),
            *([name, "to be removed" if plan_only else "removed", "", ""] for name in sorted(gone)),
            *([*row, "", ""] for row in stays),
        ],
    )


@command.command("renew-locks")
@output.json_option
def renew_locks(as_json: bool) -> None:
    """Lock what the plan keeps offsite for as long as its rows say, from now on. Run it at least that often.

    A lock is set when a file is put there, and ends while the plan may still keep the file. What the plan
    lets go is not locked anew: it can be pruned when its lock has ended.
    """
    from bookreader_backup_assets.actions.locks import renew

    rows: list[dict[str, object]] = []
    for one in renew(assemble(load_settings())):
        if one.error is not None:
            output.complain(one.error)
        error = one.error.message if one.error else None
        rows.append({"artifact": one.entry.name, "files": one.files, "until": one.until, "error": error})
        if not as_json and error is None:
            output.say(f"{one.entry.name}: {one.files} files until {one.until:%Y-%m-%d %H:%M} UTC")
    if as_json:
        output.say_json({"renewed": rows})
    elif not rows:
        output.say("everything that the plan keeps is locked for as long as its rows say")
    sys.exit(1 if any(row["error"] for row in rows) else 0)


@command.command("policies")
@click.argument("account", type=click.Choice(["writer", "pruner"]), required=False)
def policies(account: str | None) -> None:
    """Print what the two accounts have to be allowed, as policies of IAM: of both, or of one ACCOUNT.

    The writer, which lies on the host that is backed up, can delete nothing. The pruner may; its key is
    better kept elsewhere, or left out, with prune run by hand.
    """
    from bookreader_backup_assets.vaults import s3_policies

    bucket = load_settings().offsite_bucket or "BUCKET"
    both = {"writer": s3_policies.writer(bucket), "pruner": s3_policies.pruner(bucket)}
    output.say(json.dumps(both[account] if account else both, indent=2))
