"""Which artifacts a vault away from this host still lacks."""

from __future__ import annotations

from dataclasses import replace

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import held_of, proven
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.replicate import is_in_clear, short
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.manifest import unchanged_sets
from bookreader_backup_assets.core.retention import decide


def waiting(
    installation: Installation, catalog: Catalog, name: str, set_id: str = "", *, thorough: bool = False
) -> list[Entry]:
    """Return what is proven here and wanted in the vault `name`, and not there with all its files and proofs.

    That costs a listing there. A `thorough` look reads the entries and proofs there, too, and finds what
    does not stand there as it does here. Oldest first, manifests after what they name; of one set, if asked.
    What the plan would not keep there is not wanted, nor is what `in_clear` names. Raises `VaultError` where
    the vault cannot be asked.
    """
    outside = installation.vault_outside(name)
    clear = set(in_clear(installation, catalog, name))
    if not (
        wanted := [one for one in of_set(catalog, set_id) if outside.wants(one) and one.name not in clear]
    ):
        return []
    held = [held_of(installation, catalog, entry) for entry in wanted]
    fulls = [one for one in catalog.entries() if outside.wants(one)]
    policy = replace(outside.policy.with_fulls(fulls), share=1.0)
    verdict = decide(held, policy, installation.now(), installation=installation.id)
    kept = {one.entry.name for one in verdict.decisions if one.kept}
    vault = outside.vault(installation.id)
    there = {stored.name: stored.size for stored in vault.list()}
    copies = Catalog(vault) if thorough else None
    return sorted(
        (
            one.entry
            for one in held
            if one.entry.name in kept
            and one.verified
            and (_lacking(catalog, one.entry, there) or not _stands(copies, one.entry))
        ),
        key=lambda entry: (entry.component == "backup_set", entry.captured_at, entry.name),
    )


def in_clear(installation: Installation, catalog: Catalog, name: str) -> list[str]:
    """Return what would be wanted in the vault `name`, and stays here: captured before it was encrypted."""
    outside = installation.vault_outside(name)
    return [one.name for one in catalog.entries() if outside.wants(one) and is_in_clear(installation, one)]


def of_set(catalog: Catalog, set_id: str) -> list[Entry]:
    """Return what a set has, what was found unchanged then, too; of no set (""), all there is."""
    return [
        entry
        for entry in catalog.entries()
        if not set_id or entry.set == set_id or set_id in unchanged_sets(catalog.proofs(entry))
    ]


def _lacking(catalog: Catalog, entry: Entry, there: dict[str, int]) -> bool:
    proofs = {proof.proof_name for proof in catalog.stored_proofs(entry)}
    return bool(short(entry, there)) or not {entry.entry_name, *proofs} <= there.keys()


def _stands(copies: Catalog | None, entry: Entry) -> bool:
    """Whether a copy stands whole, under the entry that is here, as far as was looked."""
    return copies is None or (entry in copies.entries(asset=entry.asset) and proven(copies, entry))
