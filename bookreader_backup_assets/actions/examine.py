"""Examine: would a backup work here, and is there one? Every finding says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.code_remote import CODE, deployed_on_remote
from bookreader_backup_assets.actions.growth import needed
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.journal import unfinished
from bookreader_backup_assets.actions.report import ages
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError

_COPY = (
    "copy that file from another vault, where `bookreader-backup list --vault offsite` shows it, and leave"
    " the artifact beside it alone"
)
_NAMED = 5
"""How many stray files are named."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is good, what was seen, and what to do if it is not."""

    subject: str
    good: bool
    seen: str
    hint: str = ""


def examine(installation: Installation, objectives: dict[str, timedelta]) -> Iterator[Finding]:
    """Yield what a backup needs, one finding each: services, key, vault, room, and the newest artifacts."""
    for asset, component in installation.components.items():
        if asset.startswith("code/") and installation.week_of("code") is None:
            continue  # no plan, no repository
        try:
            versions = component.probe()
            yield Finding(
                asset, good=True, seen=", ".join(f"{k} {v}" for k, v in versions.items()) or "ready"
            )
            if asset == CODE:
                yield _elsewhere(installation)
        except BackupError as error:
            yield Finding(asset, good=False, seen=error.message, hint=error.hint)
    catalog = Catalog(installation.vault)
    try:
        entries = catalog.entries()
        yield _room(installation, needed(catalog, installation.planned))
    except BackupError as error:
        yield Finding("vault", good=False, seen=error.message, hint=error.hint)
        return
    if strays := catalog.strays():
        seen = f"{len(strays)} files without an entry ({sum(strays.values()) / 1e6:.1f} MB) do not count"
        why = "a killed capture left them, or one is under way"
        names = [*list(strays)[:_NAMED], *(["…"] if len(strays) > _NAMED else [])]
        yield Finding("strays", good=True, seen=f"{seen}; {why}: {', '.join(names)}")
    for journal in unfinished(installation):
        seen = f"{journal.id} was killed, or is under way"
        hint = "bookreader-backup restore finish"
        yield Finding("restore", good=False, seen=seen, hint=hint)
    for name in catalog.unreadable:
        yield Finding("vault", good=False, seen=f"{name} cannot be read", hint=_COPY)
    if not entries:
        yield Finding("newest", good=False, seen="nothing was captured yet", hint="bookreader-backup backup")
        return
    for age in ages(catalog, objectives, installation.now()):
        seen = age.newest.name if age.newest else "no verified artifact" if age.due else "not due yet"
        hint = "" if age.good else f"bookreader-backup backup {age.asset.split('/')[0]}"
        yield Finding(f"newest {age.asset}", age.good, seen, hint)


def _elsewhere(installation: Installation) -> Finding:
    """Return whether the deployed commit is on a remote, too. Where nobody can tell, nothing is wrong yet."""
    found = deployed_on_remote(installation)
    hint = "push it, or merge it: the weekly bundle is its only other copy"
    return Finding("code on remote", found.verdict is not Verdict.FAILED, found.message, hint)


def _room(installation: Installation, wanted: int) -> Finding:
    free = installation.vault.free()
    if free is None:
        return Finding("vault", good=True, seen="room unknown")
    seen = f"{free / 1e9:.1f} GB free, the next set wants about {wanted / 1e9:.1f} GB"
    return Finding("vault", free > wanted, seen, "free space there, or move BACKUP_VAULT to a larger disk")
