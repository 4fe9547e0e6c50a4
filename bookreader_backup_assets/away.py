"""The vaults away from this host: where settings say they are, and what the plan wants in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bookreader_backup_assets.actions.installation import VAULTS as VAULT_SETTINGS
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.policy import Keep, Policy
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.plan import VAULTS, Plan
from bookreader_backup_assets.settings import Settings
from bookreader_backup_assets.vaults.base import Place, Terms, Vault
from bookreader_backup_assets.vaults.git import GitPlace
from bookreader_backup_assets.vaults.nas import Nas

Connect = Callable[[], Any]
"""Gives a client of S3."""
PERSONAL = ("postgresql", "redis", "logs")
"""The components that hold personal data or sessions: encrypted where they leave the host."""


def policy_of(plan: Plan, vault: str = "local") -> Policy:
    """Return what the plan keeps in a vault."""
    kept: Mapping[str, Any] = plan.copies(vault)
    if vault == "local":
        kept = {name: row.keep for name, row in plan.kept.items()}
    rules: dict[str, Keep | None] = {name: keep.rule if keep else None for name, keep in kept.items()}
    weekly, labels = rules.pop("weekly", None), rules.pop("labels", None)
    has_weekly = "weekly" in kept
    return Policy(
        vault=vault,
        zone=plan.timezone,
        rows=rules,
        weekly=weekly,
        labels=labels,
        full_on=plan.full_on if has_weekly else lambda _day: False,
        objectives=plan.objectives,
        share=plan.prune.share,
    )


def outside(
    settings: Settings, plan: Plan, connect: Connect | None = None, *, quick: bool = False
) -> dict[str, Outside]:
    """Return the vaults that settings say the place of, by name. Contacts nothing.

    `connect` gives the client of S3, instead of one made from the settings. `quick` vaults are for whoever
    only looks: one that does not answer is named within half a minute.
    """
    found: dict[str, Outside] = {}
    for name, place in _places(settings, connect, quick=quick).items():
        terms = {row: Terms(copy.storage_class, copy.lock_days) for row, copy in plan.copies(name).items()}
        found[name] = Outside(place, policy_of(plan, name), terms, settings.offsite_installation)
    return found


def unset(settings: Settings, plan: Plan) -> tuple[str, ...]:
    """Return the vaults that the plan wants copies in, and no setting says where they are."""
    there = {"nas": settings.nas, "offsite": settings.offsite_bucket, "git": settings.git_remote}
    return tuple(name for name in VAULTS if plan.copies(name) and not there[name])


def unset_vaults(settings: Settings, plan: Plan) -> dict[str, Outside]:
    """Return what the plan wants in the vaults that no setting says the place of, by name."""
    terms = {name: dict.fromkeys(plan.copies(name), Terms()) for name in unset(settings, plan)}
    return {name: Outside(Unset(name), policy_of(plan, name), rows) for name, rows in terms.items()}


@dataclass(frozen=True)
class Unset:
    """Implements `Place` where no setting says where that is: all that is asked of it is refused."""

    name: str

    def vault(self, installation: str, terms: Terms | None = None) -> Vault:  # noqa: ARG002 - see `Place`
        """Raise `RefusedError`."""
        raise RefusedError(f"the vault {self.name!r} is not set up", hint=VAULT_SETTINGS[self.name])

    def installations(self) -> list[str]:
        """Raise `RefusedError`."""
        raise RefusedError(f"the vault {self.name!r} is not set up", hint=VAULT_SETTINGS[self.name])


def encrypted(settings: Settings, plan: Plan, component: str) -> bool:
    """Whether a component is encrypted at capture: the plan's word, or else what leaves the host decides."""
    row = plan.kept.get(component)
    said: bool | None = getattr(row, "encrypt", None)
    if said is not None:
        return said
    lacking = unset(settings, plan)
    leaves = [
        vault
        for vault in VAULTS
        if vault not in lacking and {component, "weekly", "labels"} & plan.copies(vault).keys()
    ]
    return component in PERSONAL and bool(leaves)


def _places(settings: Settings, connect: Connect | None, *, quick: bool) -> dict[str, Place]:
    places: list[Place] = []
    if settings.nas:
        places.append(Nas(Path(settings.nas).expanduser()))
    if settings.offsite_bucket:
        places.append(_bucket(settings, connect, quick=quick))
    if settings.git_remote:
        places.append(GitPlace(settings.git_remote, settings.scratch, quick=quick))
    return {place.name: place for place in places}


def _bucket(settings: Settings, connect: Connect | None, *, quick: bool) -> Place:
    from bookreader_backup_assets.vaults.s3_access import Access
    from bookreader_backup_assets.vaults.s3_place import Bucket

    def access(key: Secret | None, secret: Secret | None) -> Access:
        assert settings.offsite_bucket
        return Access(
            bucket=settings.offsite_bucket,
            endpoint=settings.offsite_endpoint,
            region=settings.offsite_region,
            key_id=key,
            secret_key=secret,
            checksums=settings.offsite_checksums,
            encryption="" if settings.offsite_encryption == "none" else settings.offsite_encryption,
            conditional=settings.offsite_conditional,
            lock_mode=settings.offsite_lock_mode,
        )

    prunes = settings.offsite_prune_access_key
    return Bucket(
        access(settings.offsite_access_key, settings.offsite_secret_key),
        access(prunes, settings.offsite_prune_secret_key) if prunes else None,
        connect,
        quick=quick,
    )
