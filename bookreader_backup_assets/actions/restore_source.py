"""What a restore is made from: the artifact that was asked for, and how each scenario uses it."""

from __future__ import annotations

from collections.abc import Sequence

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.fetched import Fetched
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.restoration import Restoration
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.set_id import label_of

LATEST = "latest"
SCENARIOS = {
    "postgresql": "postgresql/dump",
    "table": "postgresql/dump",
    "redis": "redis/rdb",
    "storage": "storage/archive",
    "file": "storage/archive",
    "config": "config/archive",
    "code": "code/bundle",
}
"""What can be restored on its own, and from which asset."""


def choose(catalog: Catalog, asset: str, from_set: str) -> Entry:
    """Return the artifact of `asset` in a set, as `pick` does. Raises `DamagedError` if its checks failed."""
    entry = pick(catalog, asset, from_set)
    if catalog.standing(entry).verdict is Verdict.FAILED:
        raise DamagedError(
            f"{entry.name} has failed its checks: {_failure(catalog, entry)}",
            hint="take another set: `bookreader-backup list` shows which are verified;"
            " if its source was mended, `bookreader-backup verify` looks again",
        )
    return entry


def pick(catalog: Catalog, asset: str, from_set: str) -> Entry:
    """Return the newest verified artifact of `asset` in a set, or of all there are, or else the newest.

    Safety captures and other labelled sets are taken only by their id. What a catalog `at` an instant knows
    to be ahead of it is taken where there is nothing else: it may be this clock that is wrong. Raises
    `RefusedError` if there is none.
    """
    if from_set == LATEST:
        readings = (catalog, catalog.at(None))
        found = (one.newest(asset, verified=True) or one.newest(asset) for one in readings)
        entry = next(filter(None, found), None)
    else:
        own = catalog.entries(asset=asset, set_id=from_set)
        entry = _best(catalog, asset, from_set) or (own[-1] if own else None)
    if entry is None:
        sets = catalog.sets(asset)
        there = f"there are: {', '.join(sets[-5:])}" if sets else "the vault has no artifact of it"
        raise RefusedError(f"the set {from_set!r} has no {asset}", hint=there)
    return entry


def passed_over(catalog: Catalog, asset: str, from_set: str = LATEST) -> str:
    """Return a sentence where what a set, or `latest`, gives is not the newest in it; "" where it is."""
    if from_set == LATEST:
        newest, taken = catalog.newest(asset), catalog.newest(asset, verified=True)
    else:
        newest, taken = catalog.of_day(asset, from_set), _best(catalog, asset, from_set)
    ahead = from_the_future(catalog, asset) if from_set == LATEST else ""
    if newest is None or taken is None or newest == taken:
        return ahead
    why = _failure(catalog, newest) or str(catalog.standing(newest))
    said = f"the newest, {newest.name}, is not proven whole ({why}): `{from_set}` is {taken.name}"
    return "; ".join(filter(None, (said, ahead)))


def from_the_future(catalog: Catalog, asset: str) -> str:
    """Return a sentence on what of an asset cannot be as young as it says, and is passed over; "" if none."""
    ahead = catalog.ahead(asset)
    if not ahead:
        return ""
    last = ahead[-1]
    more = f", and {len(ahead) - 1} more" if len(ahead) > 1 else ""
    return (
        f"{last.name}{more}: captured in the future ({last.captured_at:%Y-%m-%d %H:%M} UTC): the clock was"
        f" wrong, or is; `bookreader-backup list {last.set}`"
    )


def _best(catalog: Catalog, asset: str, set_id: str) -> Entry | None:
    """Return what a set's manifest would take of an asset: the newest verified one, or else the newest."""
    newest = catalog.of_day(asset, set_id)
    own = [] if newest is None else catalog.entries(asset=asset, set_id=set_id)
    own = [one for one in own if one.label == getattr(newest, "label", None)]
    return next((one for one in (newest, *reversed(own)) if _is_good(catalog, one)), newest)


def _failure(catalog: Catalog, entry: Entry) -> str:
    """Return what the last check that failed has found, "" if none did."""
    outcomes = [outcome for proof in catalog.proofs(entry) for outcome in proof.checks]
    bad = [f"{one.check}: {one.message}" for one in outcomes if one.verdict is Verdict.FAILED]
    failing = catalog.standing(entry).verdict is Verdict.FAILED
    return (bad[-1] if bad else "see its proofs") if failing else ""


def newest_set(catalog: Catalog, assets: Sequence[str]) -> str:
    """Return the newest day's set that has every asset verified, or else the newest there is; "" for none.

    Of a catalog `at` an instant, none that is ahead of it, unless all are.
    """
    held_in = set[str]().union(*(catalog.sets_of(asset) for asset in assets))
    every = {one for one in held_in or catalog.sets() if label_of(one) is None}
    days = sorted(every - catalog.sets_ahead() or every, reverse=True)
    for day in days:
        held = [_best(catalog, asset, day) for asset in assets]
        if all(_is_good(catalog, entry) for entry in held):
            return day
    return days[0] if days else ""


def weekly_only(installation: Installation, vault: str, scenarios: Sequence[str]) -> tuple[str, ...]:
    """Return those of `scenarios` that come into a vault with weekly fulls only, where others come daily."""
    outside = installation.outside.get(vault)
    if outside is None:
        return ()
    weekly = [one for one in scenarios if not outside.has_row(SCENARIOS[one].split("/")[0])]
    return tuple(weekly) if len(weekly) < len(scenarios) else ()


def set_passed_over(catalog: Catalog, assets: Sequence[str], taken: str) -> str:
    """Return a sentence where `newest_set` has taken a set that is not the newest; "" where it is."""
    held_in = {entry.set for entry in catalog.entries() if entry.regular and entry.asset in assets}
    ahead = "; ".join(said for asset in assets if (said := from_the_future(catalog, asset)))
    newest = max(held_in - catalog.sets_ahead(), default=taken)
    if newest == taken:
        return ahead
    bad = [asset for asset in assets if not _is_good(catalog, _best(catalog, asset, newest))]
    said = f"the newest set, {newest}, is not proven whole ({', '.join(bad)}): `latest` is {taken}"
    return "; ".join(filter(None, (said, ahead)))


def _is_good(catalog: Catalog, entry: Entry | None) -> bool:
    return entry is not None and catalog.standing(entry).verdict is Verdict.PASSED


def restoration(
    installation: Installation,
    scenario: str,
    entry: Entry,
    options: Options,
    fetched: Fetched | None = None,
) -> tuple[StoredArtifact, Restoration]:
    """Return the artifact, and the restoration of it. Raises `RefusedError` for an unknown scenario."""
    if scenario not in installation.restorations:
        raise RefusedError(
            f"there is nothing called {scenario!r} to restore",
            hint=f"there are: {', '.join(installation.restorations)}",
        )
    stored = StoredArtifact(installation.source, entry, fetched=fetched)
    return stored, installation.restorations[scenario](stored, options)
