"""Hours of logs: archived one by one, also long after; what is missing is told from the vault."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.logs import LOGS, LogsArchive
from bookreader_backup_assets.components.logs_gap import NO_GAP
from bookreader_backup_assets.core.artifact import Entry, Proof
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.hour import HOUR, begin_of, is_hour, key_of
from bookreader_backup_assets.vaults.base import Vault

CATCH_UP = 48
"""How many hours are made up for by themselves, after a time without a daemon."""


def archive_hour(installation: Installation, hour: str) -> tuple[Entry, bool]:
    """Archive the logs of an hour, such as `2025-10-24-02:00` (UTC), and return the entry, and if it is new.

    One that is there is archived again only if its checks failed: later, the engine has less of it, never
    more. Raises `RefusedError` for an hour that is not over, and what a capture raises.
    """
    component = installation.component(LOGS)
    if not isinstance(component, LogsArchive):
        raise RefusedError(f"{LOGS} is not an archive of hours")
    begin = begin_of(hour)
    catalog = Catalog(installation.vault)
    held = catalog.newest(LOGS, set_id=hour)
    if held is not None and catalog.standing(held).verdict is not Verdict.FAILED:
        return held, False
    return capture(installation, replace(component, since=begin, until=begin + HOUR), hour)


def mend_next(installation: Installation, hour: str) -> tuple[Entry, Proof] | None:
    """Look again at the hour after one that was filled in, if that was missing it.

    Returns its entry and the new proof, or None where there is nothing to mend.
    """
    catalog = Catalog(installation.vault)
    after = catalog.newest(LOGS, set_id=key_of(begin_of(hour) + HOUR))
    if after is None or catalog.standing(after).checks.get(NO_GAP) in {None, Verdict.PASSED}:
        return None
    return after, verify(installation, installation.component(LOGS), after, names=[NO_GAP])


def missing_hours(installation: Installation, catalog: Catalog, minute: int) -> list[str]:
    """Return the hours since the first archived one, of the last `CATCH_UP`, that are due and not there.

    An hour is due `minute` minutes after its end. Without any yet, it is the last one that is due.
    """
    newest_due = _floor(installation.now() - timedelta(minutes=minute)) - HOUR
    held = {entry.set for entry in catalog.entries(asset=LOGS) if entry.label is None and is_hour(entry.set)}
    first = min((begin_of(hour) for hour in held), default=newest_due)
    begin = max(first, newest_due - (CATCH_UP - 1) * HOUR)
    due = [begin + number * HOUR for number in range((newest_due - begin) // HOUR + 1)]
    return [hour for hour in map(key_of, due) if hour not in held]


def archived_until(vault: Vault) -> datetime | None:
    """Return the instant at which the newest archived hour ends, or None."""
    hours = [e for e in Catalog(vault).entries(asset=LOGS) if e.label is None and is_hour(e.set)]
    return hours[-1].captured_at if hours else None


def _floor(instant: datetime) -> datetime:
    return begin_of(key_of(instant))
