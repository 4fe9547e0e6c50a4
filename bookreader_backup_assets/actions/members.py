"""What a set's manifest names, and a vault has not: lost there, or let go since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import held_of
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.pins import pins
from bookreader_backup_assets.actions.prune_records import recorded
from bookreader_backup_assets.actions.replicate import is_in_clear
from bookreader_backup_assets.core.artifact import Entry, load_document, parse_utc
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import BackupError, DamagedError
from bookreader_backup_assets.core.plan_reasons import MANIFESTS
from bookreader_backup_assets.core.policy import Held
from bookreader_backup_assets.core.retention import still_wanted

THERE = "there"
"""The check that a vault has what the manifest of a set names."""


@dataclass(frozen=True)
class Absent:
    """What was found of a member that is not there, or of a manifest that cannot be read."""

    asset: str
    artifact: str
    outcome: Outcome


def absent_members(
    installation: Installation, catalog: Catalog, set_id: str, vault: str, asset: str = ""
) -> list[Absent]:
    """Return what the newest manifests of a set name, in the vault `vault`, and its `catalog` has not.

    What a prune has removed, or the plan keeps there no longer, passes, and says so. What was never wanted
    in a vault away from this host, or was not proven, is not looked for there. Raises `VaultError`.
    """
    newest = {one.asset: one for one in catalog.entries(component=MANIFESTS, set_id=set_id)}
    held = {entry.name for entry in catalog.entries()}
    found: dict[str, Absent] = {}
    for manifest in newest.values():
        try:
            members = _members(catalog, manifest, set_id)
        except BackupError as error:
            said = f"what is in the set cannot be told: {error.message}"
            found[manifest.name] = Absent(manifest.asset, manifest.name, failed(THERE, said))
            continue
        for entry, proven in members:
            if entry.name in held or (asset and entry.asset != asset):
                continue
            if vault != LOCAL and not (proven and _is_wanted(installation, entry, vault)):
                continue
            outcome = failed(THERE, f"the manifest names it, and it is not there: {entry.name}")
            if why := _why_gone(installation, catalog, entry, set_id, vault):
                outcome = passed(THERE, f"removed by retention: {why}")
            found[entry.name] = Absent(entry.asset, entry.name, outcome)
    return list(found.values())


def _members(catalog: Catalog, manifest: Entry, set_id: str) -> list[tuple[Entry, bool]]:
    """Return what a manifest names, each as far as it tells of its entry, and whether it was proven."""
    document: dict[str, Any] = load_document(b"".join(catalog.vault.open(manifest.name)), manifest.name)
    found = []
    try:
        for member in document["members"]:
            component, _, artifact = member["asset"].partition("/")
            at: datetime = parse_utc(member["captured_at"])
            entry = Entry(
                installation=manifest.installation,
                component=component,
                artifact=artifact,
                name=member["name"],
                set=f"{at:%Y-%m-%d}" if member["unchanged"] else set_id,
                captured_at=at,
                size=member["size"],
                sha256=member["sha256"],
                codecs=tuple(member["codecs"]),
                label=manifest.label,
                late=member["late"],
            )
            found.append((entry, member["standing"] == "verified"))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{manifest.name} is no manifest: {error}") from None
    return found


def _is_wanted(installation: Installation, entry: Entry, vault: str) -> bool:
    return installation.vault_outside(vault).wants(entry) and not is_in_clear(installation, entry)


def _why_gone(installation: Installation, catalog: Catalog, entry: Entry, set_id: str, vault: str) -> str:
    """Return why a member may be gone, "" if nothing says that."""
    for pruned in _prunes(installation, vault):
        if any(one.artifact == entry.name for one in pruned):
            return "a prune has it on record"
    policy = installation.policy if vault == LOCAL else installation.vault_outside(vault).policy
    if policy is None:
        return ""
    if not any(one.captured_at > entry.captured_at for one in catalog.entries(asset=entry.asset)):
        return ""  # the newest there was: no plan lets that go
    sets = frozenset({entry.set, set_id})
    if any(
        one.set in sets and one.until >= _today(installation) for one in pins(installation, catalog.vault)
    ):
        return ""
    held = [held_of(installation, catalog, one) for one in catalog.entries()]
    held.append(Held(entry, verified=True, sets=sets))
    kept = still_wanted(held, policy, installation.now(), installation=entry.installation)
    return "" if entry.name in kept else "the plan keeps it no longer"


def _today(installation: Installation) -> date:
    return date.fromisoformat(installation.today())


def _prunes(installation: Installation, vault: str) -> Iterator[tuple[Any, ...]]:
    """Yield what each prune of a vault has removed, as far as this host has it on record."""
    try:
        yield from (one.removed for one in recorded(installation.vault) if one.vault == vault and one.ended)
    except DamagedError:
        return
