"""Copies: which vaults have what the plan wants in them, and whether that makes 3-2-1."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.report import Age, ages
from bookreader_backup_assets.actions.restore_source import passed_over
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.vaults.base import Vault
from bookreader_backup_assets.vaults.local import LocalVault
from bookreader_backup_assets.vaults.nas import Nas

MEDIA = {"local": "host disk", "nas": "NAS", "offsite": "object storage", "git": "git remote"}
"""What each vault is on, for the 2 of 3-2-1: production itself is on the host's disk."""
RULE = (3, 2, 1)
"""Copies, media, and copies away, at least."""
AWAY = ("offsite", "git")
"""The vaults that are somewhere else, for its 1."""


@dataclass(frozen=True)
class Holding:
    """What a vault holds of what the plan wants there; or, in `error` and `hint`, why it cannot be asked.

    `notes` are by asset; `unreadable` names entries and proofs that cannot be read. One that is on the
    `same_disk` as the local vault is no copy of its own: what takes the one takes the other.
    """

    vault: str
    ages: tuple[Age, ...] = ()
    notes: Mapping[str, str] | None = None
    unreadable: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    same_disk: bool = False

    @property
    def short(self) -> tuple[str, ...]:
        """The assets of which it has no verified copy that is young enough."""
        return tuple(age.asset for age in self.ages if not age.good)

    def has(self, component: str) -> bool:
        """Whether it has of a component all that it should have."""
        own = [age for age in self.ages if age.asset.split("/")[0] == component]
        return bool(own) and all(age.good for age in own)


@dataclass(frozen=True)
class ThreeTwoOne:
    """How many copies there are of what the plan wants copied, production itself included; on how many
    media; how many of them away. Each is that of the component which has the fewest; `lacking` names those
    that have less than 3, 2 and 1.
    """

    copies: int
    media: int
    away: int
    lacking: tuple[str, ...]

    def __str__(self) -> str:
        """As the guide counts."""
        one = f"{self.copies} cop{'y' if self.copies == 1 else 'ies'}"
        return f"{one}, {self.media} {'medium' if self.media == 1 else 'media'}, {self.away} offsite"


def look(
    vault: str,
    opened: Callable[[], Catalog],
    objectives: dict[str, timedelta],
    now: datetime,
    *,
    begun: datetime | None = None,
    rare: Collection[str] = (),
    shares: Callable[[], bool] = lambda: False,
) -> Holding:
    """Return what a vault holds; `begun` and `rare` as `ages` has them. Raises nothing that a vault does.

    `shares` says whether it is on the disk of the local vault.
    """
    try:
        catalog = opened()
        found = ages(catalog, objectives, now, begun=begun, rare=rare)
        known = catalog.at(now)
        notes = {asset: said for asset in objectives if (said := passed_over(known, asset))}
        same_disk = shares()
    except BackupError as error:
        return Holding(vault, error=error.message, hint=error.hint)
    return Holding(vault, tuple(found), notes, tuple(catalog.unreadable), same_disk=same_disk)


def same_disk(outside: Outside, local: Vault) -> bool:
    """Whether a vault is on the disk of the local one: a NAS that is none. Raises `VaultError`."""
    place = outside.place
    return isinstance(place, Nas) and isinstance(local, LocalVault) and place.shares_disk(local.root)


def three_two_one(holdings: Sequence[Holding], components: Collection[str]) -> ThreeTwoOne:
    """Return how what is held in all vaults together stands against 3-2-1, over some components."""
    counted = {}
    for component in components:
        there = [one.vault for one in holdings if one.has(component) and not one.same_disk]
        media = {MEDIA["local"], *(MEDIA[vault] for vault in there)}
        counted[component] = (1 + len(there), len(media), sum(vault in AWAY for vault in there))
    copies, media, away = (min(column) for column in zip(*counted.values(), strict=True))
    lacking = tuple(
        one for one, found in counted.items() if any(x < y for x, y in zip(found, RULE, strict=True))
    )
    return ThreeTwoOne(copies, media, away, lacking)
