"""Retention: what a vault holds, what the plan keeps in it, and now; out come keep *because …* or remove.

No clock, no vault, no deletion here. The rules are the guide's two tables (`plan_reasons`), and what must
never happen: here, and in `prune_refusals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.plan_reasons import (
    MANIFESTS,
    by_label,
    by_row,
    by_weekly,
    keeps_day,
    without_row,
)
from bookreader_backup_assets.core.policy import Held, Keep, Pin, Policy, Unit
from bookreader_backup_assets.core.prune_refusals import moment, refusals, spoken
from bookreader_backup_assets.core.set_day import is_day, local_day

__all__ = ["Decision", "Held", "Keep", "Pin", "Policy", "Unit", "Verdict", "decide", "still_wanted"]

_PLAN = (by_row, by_weekly, by_label)
_WEEK = timedelta(days=7)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Decision:
    """What becomes of one artifact: it is kept if there is a reason to."""

    entry: Entry
    because: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.because)


@dataclass(frozen=True)
class Verdict:
    """What is to become of everything in a vault, oldest first; and why nothing may be removed, if so."""

    decisions: tuple[Decision, ...]
    refusals: tuple[str, ...] = ()

    @property
    def removed(self) -> tuple[Entry, ...]:
        """What is to be removed: nothing where removing was refused."""
        return () if self.refusals else tuple(one.entry for one in self.decisions if not one.kept)


def decide(
    held: Sequence[Held],
    policy: Policy,
    now: datetime,
    *,
    installation: str,
    pins: Sequence[Pin] = (),
    strays: int = 0,
) -> Verdict:
    """Return what becomes of each artifact in `held`. Pure, and independent of the order of its arguments.

    `strays` are the artifacts without an entry that would go as well: they count in the share.
    """
    ordered = sorted(held, key=lambda one: (one.entry.captured_at, one.entry.name))
    own = [one for one in ordered if one.entry.installation == installation]
    artifacts, manifests = _divided(own)
    today = now.astimezone(policy.zone).date()
    because: dict[str, list[str]] = {one.entry.name: [] for one in own}

    def note(reasons: Iterable[tuple[Held, str]]) -> None:
        for one, reason in reasons:
            because[one.entry.name].append(reason)

    note(without_row(artifacts, policy))
    for rule in _PLAN:
        note(rule(artifacts, policy, today))
    note(_pinned(own, pins, today))
    note(_locked(own, policy, now))
    note((one, reason) for one in own for reason in one.held_by)
    note(_newest(own))
    signs = [(one, sign) for one in own for sign in _signs(one, policy)]
    outages = _outages(signs, policy, now)
    note(_spared(artifacts, because, outages))
    note(_needed(artifacts, because, policy))
    note(_of_living_sets(manifests, [one for one in artifacts if because[one.entry.name]], policy, today))
    note(_spared(manifests, because, outages))

    removed = sum(not reasons for reasons in because.values())
    return Verdict(
        tuple(
            Decision(one.entry, tuple(because[one.entry.name]))
            if one.entry.installation == installation
            else Decision(one.entry, ("of another installation",))
            for one in ordered
        ),
        refusals(
            [one.entry for one in own],
            [sign for _, sign in signs],
            removed=removed,
            strays=strays,
            share=policy.share,
            longest=max(policy.objectives.values(), default=timedelta(0)),
            now=now,
        ),
    )


def still_wanted(held: Sequence[Held], policy: Policy, now: datetime, *, installation: str) -> frozenset[str]:
    """Return the names of what the plan would keep in a vault if it held all this, with manifests and needs.

    It is what another vault may be said to lack: a copy whose time there is over is not waited for.
    """
    own = [one for one in held if one.entry.installation == installation]
    artifacts, manifests = _divided(sorted(own, key=lambda one: (one.entry.captured_at, one.entry.name)))
    today = now.astimezone(policy.zone).date()
    because: dict[str, list[str]] = {one.entry.name: [] for one in own}
    for rule in _PLAN:
        for one, reason in rule(artifacts, policy, today):
            because[one.entry.name].append(reason)
    needed = {one.entry.name for one, _ in _needed(artifacts, because, policy)}
    kept = [one for one in artifacts if because[one.entry.name] or one.entry.name in needed]
    living = [one for one, _ in _of_living_sets(manifests, kept, policy, today)]
    return frozenset(one.entry.name for one in (*kept, *living))


def _divided(own: Iterable[Held]) -> tuple[list[Held], list[Held]]:
    artifacts: list[Held] = []
    manifests: list[Held] = []
    for one in own:
        (manifests if one.entry.component == MANIFESTS else artifacts).append(one)
    return artifacts, manifests


def _pinned(own: Sequence[Held], pins: Sequence[Pin], today: date) -> Iterator[tuple[Held, str]]:
    for pin in sorted(pins, key=lambda pin: (pin.until, pin.because)):
        if today <= pin.until:
            reason = f"pinned until {pin.until}: {pin.because}"
            yield from ((one, reason) for one in own if pin.set in one.sets or pin.set == one.entry.set)


def _locked(own: Iterable[Held], policy: Policy, now: datetime) -> Iterator[tuple[Held, str]]:
    for one in own:
        if one.locked_until is not None and one.locked_until > now:
            yield one, f"locked by the vault until {moment(one.locked_until.astimezone(policy.zone))}"


def _newest(own: Iterable[Held]) -> Iterator[tuple[Held, str]]:
    """Of each asset the newest verified one, a labelled one if no other is; and the newest as it may be."""
    verified: dict[str, Held] = {}
    regular: dict[str, Held] = {}
    labelled: dict[str, Held] = {}
    for one in own:  # oldest first
        asset = one.entry.asset
        if one.entry.regular:
            regular[asset] = one
        if one.verified:
            (verified if one.entry.regular else labelled)[asset] = one
    for asset, one in {**labelled, **verified}.items():
        yield one, f"newest verified {asset}"
    for asset, one in regular.items():
        if not one.verified:
            yield one, f"newest {asset}"


def _outages(signs: Iterable[tuple[Held, datetime]], policy: Policy, now: datetime) -> Mapping[str, str]:
    """Return why nothing of a component is removed, by component, where there is nothing new enough."""
    seen: dict[str, datetime] = {}
    for one, sign in signs:
        component = one.entry.component
        if one.entry.regular and sign > seen.get(component, _NEVER):
            seen[component] = sign
    today = now.astimezone(policy.zone).date()
    fulls = any(policy.full_on(today - timedelta(days)) for days in range(7))
    reasons = {}
    for component, objective in policy.objectives.items():
        by_itself = component in policy.rows
        if not by_itself and not fulls:
            continue  # not wanted here: no newer one will come
        if component not in seen:
            reasons[component] = f"no {component} but labelled ones: an outage is no time to delete"
        elif (age := now - seen[component]) > objective + (timedelta(0) if by_itself else _WEEK):
            reasons[component] = (
                f"the newest {component} is {spoken(age)} old: an outage is no time to delete"
            )
    return reasons


def _signs(one: Held, policy: Policy) -> Iterator[datetime]:
    """Yield when an artifact was what its source holds: captured, and the days that found it unchanged."""
    yield one.entry.captured_at
    for set_id in one.later_sets:
        yield datetime.combine(local_day(set_id, one.entry, policy.zone), time(), policy.zone).astimezone(UTC)


def _spared(
    some: Iterable[Held], because: Mapping[str, Sequence[str]], outages: Mapping[str, str]
) -> Iterator[tuple[Held, str]]:
    """Yield what nothing else keeps, and must not be removed now all the same."""
    for one in [one for one in some if not because[one.entry.name]]:
        if one.lacks:
            yield one, f"no proven copy in {' and '.join(sorted(one.lacks))}"
        if one.entry.component in outages:
            yield one, outages[one.entry.component]


def _needed(
    artifacts: Sequence[Held], because: Mapping[str, Sequence[str]], policy: Policy
) -> Iterator[tuple[Held, str]]:
    """Yield the archives that what is kept points to, and those that they point to."""
    asking = [one for one in artifacts if one.needs and because[one.entry.name]]
    met = {one.entry.name for one in asking}
    there = {one.entry.name: one for one in artifacts} if asking else {}
    told: set[str] = set()
    while asking:
        one = asking.pop()
        day = local_day(one.entry.set, one.entry, policy.zone)
        for name in sorted(one.needs):
            if name not in there or name in told or name == one.entry.name:
                continue
            told.add(name)
            if name not in met:
                met.add(name)
                asking.append(there[name])
            yield there[name], f"{one.entry.asset} of {day} needs it"


def _of_living_sets(
    manifests: Iterable[Held], kept: Sequence[Held], policy: Policy, today: date
) -> Iterator[tuple[Held, str]]:
    """Yield the manifests of sets that something kept is in.

    One artifact may be found unchanged for years. It keeps the manifest of the set that captured it, and of
    the days that the plan still keeps; not those of all the nights that looked at it.
    """
    living = {one.entry.set for one in kept}
    for one in kept:
        for set_id in one.sets - living:
            if not is_day(set_id) or keeps_day(policy, local_day(set_id, one.entry, policy.zone), today):
                living.add(set_id)
    yield from ((one, f"of the set {one.entry.set}") for one in manifests if one.entry.set in living)
