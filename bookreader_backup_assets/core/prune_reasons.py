"""Why an artifact may go: for how long the plan keeps what is of its kind, in one line for the record."""

from __future__ import annotations

from collections.abc import Collection

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.plan_reasons import MANIFESTS
from bookreader_backup_assets.core.policy import Keep, Policy
from bookreader_backup_assets.core.set_day import is_day, local_day
from bookreader_backup_assets.core.set_id import label_of


def why_removed(entry: Entry, sets: Collection[str], policy: Policy) -> str:
    """Return why the plan does not keep an artifact of `sets` any more."""
    if entry.component == MANIFESTS:
        return f"nothing of the set {entry.set} is kept"
    rules: list[tuple[str, Keep | None]] = []
    if entry.component in policy.rows and entry.regular:
        rules.append((entry.component, policy.rows[entry.component]))
    days = {local_day(name, entry, policy.zone) for name in sets if is_day(name)}
    if any(map(policy.full_on, days)):
        rules.append(("weekly fulls", policy.weekly))
    if any(map(label_of, sets)):
        rules.append(("labelled sets", policy.labels))
    kept = " and ".join(f"{what} {keep}" for what, keep in rules if keep) or f"no {entry.component}"
    last = max((local_day(name, entry, policy.zone) for name in sets), default=entry.captured_at.date())
    return f"of {last}, and the plan keeps {kept}"
