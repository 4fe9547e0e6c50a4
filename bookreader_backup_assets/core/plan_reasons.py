"""Why the plan keeps an artifact: by its component's row, as part of a weekly full, or of a labelled set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from zoneinfo import ZoneInfo

from bookreader_backup_assets.core.policy import Held, Keep, Policy
from bookreader_backup_assets.core.set_day import is_day, local_day
from bookreader_backup_assets.core.set_id import label_of

MANIFESTS = "backup_set"
"""The component that has no row and no limit of its own: manifests live as long as their sets."""
_REPORTS = "assurance"  # of drills: labelled, and of no set

Reasons = Iterator[tuple[Held, str]]
Dated = tuple[Held, date]


def without_row(artifacts: Sequence[Held], policy: Policy) -> Reasons:
    """Yield what nobody gave a limit for in this vault: no row, and no set that has one."""
    for one in artifacts:
        component = one.entry.component
        if component in policy.rows:
            continue
        if component == _REPORTS:
            yield one, f"the plan sets no limit for {component}"
        elif not _labelled_sets(one) and _full(one, policy) is None:
            yield one, "the plan has no row for it here"


def by_row(artifacts: Sequence[Held], policy: Policy, today: date) -> Reasons:
    """Yield what the rows keep. `artifacts` are oldest first, here and below."""
    ruled: dict[str, list[Dated]] = {}
    for one in artifacts:
        component = one.entry.component
        if component in policy.rows and (one.entry.regular or component == _REPORTS):
            ruled.setdefault(component, []).append((one, _last_day(one, policy.zone)))
    for component, members in ruled.items():
        keep = policy.rows[component]
        versions = keep is not None and keep.days is None
        limit = keep.count if versions and keep else keep
        reason = f"of the last {limit}" if keep else f"the plan sets no limit for {component}"
        for one, _, version in _within(keep, members, today):
            if not versions:
                yield one, reason
            elif version:
                yield one, f"version {version} {reason}"
            else:
                yield one, f"not verified, among the last {keep}"


def by_weekly(artifacts: Sequence[Held], policy: Policy, today: date) -> Reasons:
    """Yield the members of weekly fulls that the plan keeps, whether or not they have a row here."""
    members = [(one, day) for one in artifacts if (day := _full(one, policy)) is not None]
    for one, day, _ in _within(policy.weekly, members, today):
        yield one, f"weekly full of {day}, {_kept(policy.weekly)}"


def by_label(artifacts: Sequence[Held], policy: Policy, today: date) -> Reasons:
    """Yield the members of labelled sets that the plan keeps, those that a restore made among them."""
    members, names = [], {}
    for one in artifacts:
        if named := _labelled_sets(one):
            days = {name: local_day(name, one.entry, policy.zone) for name in named}
            names[one.entry.name] = max(days, key=lambda name: (days[name], name))
            members.append((one, max(days.values())))
    for one, _, _ in _within(policy.labels, members, today):
        yield one, f"labelled set {names[one.entry.name]}, {_kept(policy.labels)}"


def keeps_day(policy: Policy, day: date, today: date) -> bool:
    """Whether the plan still keeps anything for the sake of that day; versions are kept for their own."""
    keeps = [*policy.rows.values(), *([policy.weekly] if policy.full_on(day) else [])]
    return any(
        keep is None or (today - day).days <= (-1 if keep.days is None else keep.days) for keep in keeps
    )


def _within(keep: Keep | None, members: Sequence[Dated], today: date) -> Iterator[tuple[Held, date, int]]:
    """Yield those of `members` that a limit keeps, with the number of the version where versions are counted.

    They are counted by asset, the verified ones, from the newest. What is not verified has the number 0, and
    is kept as long as fewer than all of them are newer: it has displaced nothing, and may be all there is.
    """
    if keep is None:
        yield from ((one, day, 0) for one, day in members)
        return
    if keep.days is not None:
        oldest = date.fromordinal(max(1, today.toordinal() - keep.days))  # a million days are for ever
        yield from ((one, day, 0) for one, day in members if day >= oldest)
        return
    versions: dict[str, int] = {}
    for one, day in reversed(members):
        newer = versions.get(one.entry.asset, 0)
        if newer < keep.count:
            versions[one.entry.asset] = newer + one.verified
            yield one, day, newer + 1 if one.verified else 0


def _kept(keep: Keep | None) -> str:
    return f"kept {keep}" if keep else "and the plan sets no limit"


def _last_day(one: Held, zone: ZoneInfo) -> date:
    return max(local_day(set_id, one.entry, zone) for set_id in one.all_sets)


def _full(one: Held, policy: Policy) -> date | None:
    """Return the day of the last weekly full that an artifact is in."""
    days = [local_day(name, one.entry, policy.zone) for name in one.all_sets if is_day(name)]
    return max(filter(policy.full_on, days), default=None) if days else None


def _labelled_sets(one: Held) -> list[str]:
    """Return the labelled sets that an artifact is in. A drill's report is labelled, and of none."""
    own = [] if one.entry.regular or one.entry.component == _REPORTS else [one.entry.set]
    return own + [name for name in one.later_sets if label_of(name)]
