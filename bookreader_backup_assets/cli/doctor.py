"""`doctor`: whether a backup would work here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from bookreader_backup_assets import away
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_folder import stray_findings
from bookreader_backup_assets.actions.drill_ground import SHORT
from bookreader_backup_assets.actions.examine import Finding, examine
from bookreader_backup_assets.actions.examine_outside import examine_outside
from bookreader_backup_assets.actions.keys import who_opens
from bookreader_backup_assets.actions.largest import Largest, largest
from bookreader_backup_assets.actions.scratch_fit import scratch_findings
from bookreader_backup_assets.assembly import assemble, objectives
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.cli.key import held_keys
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation


@click.command("doctor")
@output.json_option
def command(as_json: bool) -> None:
    """Look whether a backup would work: services, versions, key, room, and the age of the newest.

    Of a bucket, tries what its service takes, with small files that are removed again as far as that is
    allowed, and says which settings fit. Then names the largest folders and files of storage, as its newest
    archive has them. Changes nothing else. Exit status 1 if something is wrong; each finding says what to do.
    """
    settings = load_settings()
    installation = assemble(settings)
    findings = []
    for finding in look(settings, installation):
        findings.append(finding)
        if not as_json:
            say(finding)
    good = all(finding.good for finding in findings)
    held, why = _largest(installation)
    if as_json:
        found = [asdict(finding) for finding in findings]
        output.say_json({"ok": good, "findings": found, "storage": _document(held) if held else None})
    elif held is not None:
        _print(held)
    else:
        output.say(f"\nthe largest of storage: {why}")
    sys.exit(0 if good else 1)


def look(settings: Settings, installation: Installation) -> Iterator[Finding]:
    """Yield everything that is found, good or not."""
    plan = load_plan(settings.plan, timezone=settings.timezone)
    yield from examine(installation, objectives(plan))
    silent = set()
    looked_at = replace(installation, outside=away.outside(settings, plan, quick=True))
    for finding in examine_outside(looked_at):
        silent |= set() if finding.good else {finding.subject}
        yield finding
    if "offsite" in installation.outside and "offsite" not in silent:
        from bookreader_backup_assets.actions.examine_offsite import audit_bucket, examine_bucket

        yield from examine_bucket(installation)
        yield from audit_bucket(installation)
    yield from scratch_findings(installation)
    yield from stray_findings([settings.scratch, SHORT])
    yield from _shut(settings, installation)


def _shut(settings: Settings, installation: Installation) -> Iterator[Finding]:
    """Yield a finding if the vault holds what no key here opens."""
    try:
        if not any("gpg" in entry.codecs for entry in Catalog(installation.vault).entries()):
            return  # a vault that is not there is not made
        shut = [one for one in who_opens(installation, held_keys(settings)) if not one.good]
    except BackupError as error:
        yield Finding("key", good=False, seen=error.message, hint=error.hint)
        return
    if shut:
        seen = f"{sum(len(one.entries) for one in shut)} artifacts in the vault are of a key that is not here"
        hint = "name that key's file in BACKUP_OLD_KEY_FILES; which: bookreader-backup key list"
        yield Finding("key", good=False, seen=seen, hint=hint)


def say(finding: Finding) -> None:
    """Print a finding, and what to do where it is not good."""
    mark = click.style("ok     ", fg="green") if finding.good else click.style("problem", fg="red")
    output.say(f"{mark}  {finding.subject}: {finding.seen}")
    if not finding.good and finding.hint:
        output.say(f"         {click.style('hint:', fg='cyan')} {finding.hint}")


def _largest(installation: Installation) -> tuple[Largest | None, str]:
    """Return the largest of storage, or why it is not known: `verify` is what finds a damaged archive."""
    try:
        return largest(installation), "there is no archive of it yet"
    except BackupError as error:
        return None, error.message


def _document(held: Largest) -> dict[str, object]:
    return {
        "archive": held.archive.name,
        "bytes": held.bytes,
        "files": held.files,
        "largest_folders": [{"path": output.printable(p), "bytes": size} for p, size in held.folders],
        "largest_files": [{"path": output.printable(p), "bytes": size} for p, size in held.largest],
    }


def _print(held: Largest) -> None:
    output.say(f"\nstorage in {held.archive.name}: {output.size(held.bytes)} in {held.files} files\n")
    for heading, rows in (("largest folders", held.folders), ("largest files", held.largest)):
        shares = [(path, size, size / held.bytes if held.bytes else 0) for path, size in rows]
        cells = [[output.size(size), f"{share:.0%}", output.printable(path)] for path, size, share in shares]
        output.table(["size", "share", heading], cells, right=(0, 1))
