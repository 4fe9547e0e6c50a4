"""`prune`: remove what the plan does not keep any more, vault by vault, and say what and why."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from bookreader_backup_assets.actions.growth import bytes_of
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.prune import PrunePlan, plan_prune, prune
from bookreader_backup_assets.actions.prune_records import Pruned
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.settings import load_settings


@click.command("prune")
@click.option("--vault", "vaults", multiple=True, metavar="VAULT", help="Only this one; repeatable.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would go and what stays; remove nothing.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="For once, let so large a part of a vault's artifacts go: 0.9, instead of the plan's.",
)
@output.json_option
def command(vaults: tuple[str, ...], plan_only: bool, share: float | None, as_json: bool) -> None:
    """Remove what the plan does not keep any more, from every vault that is set up.

    The newest verified artifact of each asset stays, whatever the plan says; and what is pinned, what an
    undo still needs, and what has no proven copy yet where the plan wants one. Nothing goes while the clock
    cannot be right, or too much would go at once. Exit status 1 if that is so, or if something could not be
    removed; 2 if it was refused everywhere, as while a restore or another prune is at work.

    \b
    bookreader-backup prune --plan                  what would go, what stays, and why
    bookreader-backup prune
    bookreader-backup prune --vault local --share 0.9
    """  # noqa: D301 - click's mark for a block that keeps its lines
    installation = assemble(load_settings())
    names = vaults or (LOCAL, *installation.outside)
    for name in vaults:
        if name != LOCAL:
            installation.vault_outside(name)
    if installation.known_id is None and not as_json:
        output.say("nothing was captured here yet: `bookreader-backup backup` makes the first backup")
    documents, good, refused = [], True, 0
    for name in names:
        try:
            document, fine = _one(installation, name, share, plan_only=plan_only, as_json=as_json)
        except BackupError as error:
            output.complain(error)
            refused += isinstance(error, RefusedError)
            document, fine = {"vault": name, "error": error.message, "hint": error.hint}, False
        documents.append(document)
        good = good and fine
    if as_json:
        output.say_json({"ok": good, "vaults": documents})
    sys.exit(0 if good else 2 if refused == len(documents) else 1)


def _one(
    installation: Installation, name: str, share: float | None, *, plan_only: bool, as_json: bool
) -> tuple[dict[str, Any], bool]:
    if plan_only:
        planned = plan_prune(installation, name, share=share)
        if not as_json:
            _print_plan(planned)
        return _document(planned), not planned.verdict.refusals
    pruned = prune(installation, name, share=share)
    if not as_json:
        _print_pruned(pruned)
    return {**asdict(pruned), "bytes": pruned.bytes}, pruned.good


def _print_plan(planned: PrunePlan) -> None:
    output.say(f"\n{planned.vault}\n")
    for refusal in planned.verdict.refusals:
        output.say(f"nothing is removed: {output.printable(refusal)}")
    why = {removal.artifact: removal.why for removal in planned.removals}
    output.table(
        ["artifact", "size", "", "because"],
        [
            [
                one.entry.name,
                output.size(bytes_of(one.entry)),
                "keep" if one.kept else "remove" if one.entry.name in why else "refused",
                output.printable("; ".join(one.because) or why.get(one.entry.name, "")),
            ]
            for one in planned.verdict.decisions
        ],
        right=(1,),
    )
    for stray in planned.strays:
        kind = "unfinished" if stray.unfinished else "without an entry"
        output.say(f"{stray.name} ({output.size(stray.bytes)}, {kind}): {stray.stays or 'remove'}")
    total = len(planned.verdict.decisions)
    going = sum(not stray.stays for stray in planned.strays)
    without = f" and {going} files without an entry" if going else ""
    freed = output.size(planned.bytes)
    output.say(f"\nremoves {len(planned.removals)} of {total} artifacts{without}, frees {freed}")


def _print_pruned(pruned: Pruned) -> None:
    for refusal in pruned.refusals:
        output.say(f"{pruned.vault}: nothing is removed: {output.printable(refusal)}")
    if pruned.removed:
        output.table(
            ["removed", "size", "because"],
            [[one.artifact, output.size(one.bytes), output.printable(one.why)] for one in pruned.removed],
            right=(1,),
        )
    for name in pruned.strays:
        output.say(f"{name}: removed, it has no entry")
    for trouble in pruned.failed:
        output.say(f"{trouble.name}: not removed: {output.printable(trouble.error)}")
    if not pruned.refusals:
        without = f" and {len(pruned.strays)} files without an entry" if pruned.strays else ""
        count = f"{len(pruned.removed)} artifacts{without}"
        output.say(f"{pruned.vault}: {count} removed, {output.size(pruned.bytes)}")


def _document(planned: PrunePlan) -> dict[str, Any]:
    why = {removal.artifact: [removal.why] for removal in planned.removals}
    return {
        "vault": planned.vault,
        "at": planned.at,
        "refusals": planned.verdict.refusals,
        "artifacts": [
            {
                "artifact": one.entry.name,
                "asset": one.entry.asset,
                "bytes": bytes_of(one.entry),
                "captured_at": one.entry.captured_at,
                "kept": one.kept,
                "removed": one.entry.name in why,
                "because": [*one.because, *why.get(one.entry.name, ())],
            }
            for one in planned.verdict.decisions
        ],
        "strays": [asdict(stray) for stray in planned.strays],
        "removes": len(planned.removals),
        "bytes": planned.bytes,
    }
