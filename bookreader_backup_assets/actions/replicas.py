"""Which artifacts a vault away from this host still lacks."""

from __future__ import annotations

from dataclasses import replace

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import held_of
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.replicate import is_in_clear
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, Entry
from bookreader_backup_assets.core.manifest import unchanged_sets
from bookreader_backup_assets.core.retention import decide


def waiting(installation: Installation, catalog: Catalog, name: str, set_id: str = "") -> list[Entry]:
    """Return what is proven here and wanted in the vault `name`, and not there with all its proofs.

    Oldest first, manifests after what they name; of one set, if asked. What the plan would not keep there is
    not wanted, nor is what `in_clear` names. Raises `VaultError` where the vault cannot be asked.
    """
    outside = installation.vault_outside(name)
    clear = set(in_clear(installation, catalog, name))
    if not (wanted := [one for one in _of(catalog, set_id) if outside.wants(one) and one.name not in clear]):
        return []
    held = [held_of(installation, catalog, entry) for entry in wanted]
    policy = replace(outside.policy, share=1.0)
    verdict = decide(held, policy, installation.now(), installation=installation.id)
    kept = {one.entry.name for one in verdict.decisions if one.kept}
    there = {stored.name for stored in outside.vault(installation.id).list()}
    return sorted(
        (
            one.entry
            for one in held
            if one.entry.name in kept and one.verified and _lacking(catalog, one.entry, there)
        ),
        key=lambda entry: (entry.component == "backup_set", entry.captured_at, entry.name),
    )


def in_clear(installation: Installation, catalog: Catalog, name: str) -> list[str]:
    """Return what would be wanted in the vault `name`, and stays here: captured before it was encrypted."""
    outside = installation.vault_outside(name)
    return [one.name for one in catalog.entries() if outside.wants(one) and is_in_clear(installation, one)]


def _of(catalog: Catalog, set_id: str) -> list[Entry]:
    return [
        entry
        for entry in catalog.entries()
        if not set_id or entry.set == set_id or set_id in unchanged_sets(catalog.proofs(entry))
    ]


def _lacking(catalog: Catalog, entry: Entry, there: set[str]) -> bool:
    proofs = {proof.proof_name for proof in catalog.stored_proofs(entry)}
    return not {entry.name + ENTRY_SUFFIX, *proofs} <= there
