"""Growth: what artifacts take over time, how fast the vault fills, and until when. From entries alone.

The rate is what was added in the last 30 days and is still there, less what was pruned in them and is older,
over that many days: a line through the total at both ends. It counts whole days back from now, so that each
has one night, and is not told of fewer than three. The day on which the most was pruned is left out of what
was pruned: the first prune after a long time, or by a shorter plan, is no rate. With a prune a day the rate
is too high by one night in thirty, which is the safe side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.capture import ROOM
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.prune_records import Removal, recorded
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import BackupError

WINDOW, LEAST = 30, 3
"""Days that the rate is taken over, at most and at least."""
SOON = 7
"""Days until the vault is full from which on that is a problem."""
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Sizes:
    """Bytes of an asset's newest artifact with its companions: now, and 7 and 30 days ago; None for none.

    `per_day` is by how much its artifacts grow per day: below zero where more went than came.
    """

    asset: str
    newest: int | None
    week_ago: int | None
    month_ago: int | None
    per_day: float | None


@dataclass(frozen=True)
class Growth:
    """How the vault fills. `per_day` bytes over the last `days`, None where they are too few to tell.

    `free` is None where it is not known, for the reason `why`; `needed` is what the next set wants.
    """

    assets: tuple[Sizes, ...]
    days: int
    per_day: float | None
    free: int | None
    needed: int
    why: str = ""

    @property
    def days_left(self) -> float | None:
        """Days until the vault is full at this rate; None where that is not known, or never."""
        grows = self.per_day is not None and self.per_day > 0
        return self.free / self.per_day if self.free is not None and self.per_day and grows else None

    @property
    def short(self) -> bool:
        """Whether the next set has no room."""
        return self.free is not None and self.free < self.needed

    @property
    def soon(self) -> bool:
        """Whether the vault is full within days."""
        return self.days_left is not None and self.days_left < SOON


def growth(catalog: Catalog, assets: Sequence[str], now: datetime) -> Growth:
    """Return how the vault of a catalog fills; `assets` are those that are told apart."""
    entries = [entry for entry in catalog.entries() if entry.captured_at <= now]
    days = min(WINDOW, (now - entries[0].captured_at) // _DAY) if entries else 0
    begin = now - days * _DAY
    added = [(entry.asset, bytes_of(entry)) for entry in entries if entry.captured_at > begin]
    went = [(one.asset, -one.bytes) for one in _pruned(catalog, begin, now)]

    def per_day(*assets: str) -> float | None:
        counted = (count for asset, count in (*added, *went) if not assets or asset in assets)
        return sum(counted) / days if days >= LEAST else None

    free, why = None, ""
    try:
        free = catalog.vault.free()
    except BackupError as error:
        why = error.message
    return Growth(
        assets=tuple(
            Sizes(
                asset=asset,
                newest=_size(entries, asset, now),
                week_ago=_size(entries, asset, now - 7 * _DAY),
                month_ago=_size(entries, asset, now - 30 * _DAY),
                per_day=per_day(asset),
            )
            for asset in assets
        ),
        days=days,
        per_day=per_day(),
        free=free,
        needed=needed(catalog, assets),
        why=why,
    )


def needed(catalog: Catalog, assets: Sequence[str]) -> int:
    """Return the bytes that must be free before the next set, as each capture will ask for its part."""
    last = [newest.size for asset in assets if (newest := catalog.newest(asset)) is not None]
    return int(sum(last) * ROOM)


def history(catalog: Catalog, last: int) -> list[tuple[str, dict[str, int]]]:
    """Return the newest days' sets, newest first, and the bytes that each component added to them."""
    added: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for entry in catalog.entries():
        if entry.regular:
            added[entry.set[: len("2025-10-24")]][entry.component] += bytes_of(entry)
    return [(day, dict(added[day])) for day in sorted(added, reverse=True)[:last]]


def bytes_of(entry: Entry) -> int:
    """Return what an artifact takes in a vault: its own bytes, and its companions'."""
    return entry.size + sum(companion.size for companion in entry.companions)


def _pruned(catalog: Catalog, since: datetime, now: datetime) -> list[Removal]:
    """Return what is older than an instant, and was pruned from this vault since, but for the largest day.

    By its own record, as far as it is gone.
    """
    there = {entry.name for entry in catalog.entries()}
    days: dict[int, list[Removal]] = defaultdict(list)
    for prune in recorded(catalog.vault):
        if prune.vault == catalog.vault.name and prune.at > since:
            gone = [one for one in prune.removed if one.artifact not in there and one.captured_at <= since]
            days[(now - prune.at) // _DAY] += gone
    smallest_first = sorted(days.values(), key=lambda gone: sum(one.bytes for one in gone))
    return [one for gone in smallest_first[:-1] for one in gone]


def _size(entries: Sequence[Entry], asset: str, at: datetime) -> int | None:
    """Return what the newest artifact of an asset took at an instant."""
    held = [entry for entry in entries if entry.asset == asset and entry.regular and entry.captured_at <= at]
    return bytes_of(held[-1]) if held else None
