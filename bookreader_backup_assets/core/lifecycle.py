"""Lifecycle rules of a bucket: those that we want there, and what others would do to what the plan keeps.

A rule knows an age and nothing else. Prune knows which copy is the last proven one: it removes, rules do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bookreader_backup_assets.core.policy import Keep, Policy

OUT_OF_REACH = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose files have to be asked for hours before they can be read."""
UNFINISHED_DAYS = 7
"""An upload that has lain for so long is not gone on with; `replicate` goes on with a younger one."""
UNDO_DAYS = 30
"""For how long, at least, what was overwritten or deleted can be had back, where a bucket has versions."""
_PROBE_DAYS = 1
_WEEKLY, _LABELS = "weekly", "labels"


@dataclass(frozen=True)
class Rule:
    """One rule, for keys that begin with `prefix`; with `tagged`, only of files with tags: ours have none.

    What it does is in days after a file was written, each None for never, and 0 where a fixed date is given:
    `expires` what is there, `noncurrent` what was overwritten or deleted, ends uploads that are `unfinished`,
    and `moves` into storage classes. `sizes` says which files it means, where it does not mean all.
    """

    id: str
    prefix: str = ""
    enabled: bool = True
    tagged: bool = False
    sizes: str = ""
    expires: int | None = None
    noncurrent: int | None = None
    unfinished: int | None = None
    moves: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """What it does, in a line."""
        said = [f"moves what is {_after(days)} old to {kind}" for kind, days in self.moves]
        if self.expires is not None:
            said.append(f"removes what is {_after(self.expires)} old")
        if self.noncurrent is not None:
            said.append(f"removes what was overwritten or deleted {_after(self.noncurrent)} ago")
        if self.unfinished is not None:
            said.append(f"ends uploads begun {_after(self.unfinished)} ago")
        return "; ".join(said) or "does nothing that is known here"


@dataclass(frozen=True)
class Kept:
    """What the plan keeps in a folder: by which row, and for how many days; None where age is no matter."""

    folder: str
    row: str
    days: int | None
    spoken: str


@dataclass(frozen=True)
class Concern:
    """What a rule, or a row of the plan, does to what is to be kept; harmless ones are worth a line."""

    subject: str
    seen: str
    hint: str
    harmful: bool = True


def id_prefix(installation: str) -> str:
    """Return what the ids of an installation's own rules begin with."""
    return f"bookreader-backup-{installation[:8]}-"


def wanted(
    installation: str, prefix: str, probes: str, policy: Policy, rows: Iterable[str], *, versioned: bool
) -> list[Rule]:
    """Return the rules that an installation wants for its `prefix`: none of them removes a live artifact.

    `probes` is the folder of what `doctor` tries, which an account without the right to delete leaves there.
    """
    own = id_prefix(installation)
    rules = [
        Rule(f"{own}unfinished", prefix, unfinished=UNFINISHED_DAYS),
        Rule(f"{own}probes", probes, expires=_PROBE_DAYS),
    ]
    if versioned:
        longest = max([UNDO_DAYS, *(keep.days or 0 for _, keep in _keeps(policy, rows) if keep is not None)])
        rules.append(Rule(f"{own}noncurrent", prefix, noncurrent=longest))
    return rules


def kept_in(
    prefix: str, policy: Policy, rows: Iterable[str], of_sets: Mapping[str, Sequence[str]]
) -> list[Kept]:
    """Return what the plan keeps under a prefix. `rows` are those that want copies there.

    `of_sets` says for `weekly` and `labels` which components such sets have.
    """
    found = [
        Kept(f"{prefix}installation.json", "installation.json", None, "for ever: it says whose all this is")
    ]
    for row, keep in _keeps(policy, rows):
        days, spoken = (keep.days, str(keep)) if keep else (None, "without a limit")
        folders = [*of_sets[row], "backup_set"] if row in of_sets else [row]
        found += [Kept(f"{prefix}{folder}/", row, days, spoken) for folder in folders]
    return found


def audit(rules: Iterable[Rule], kept: Sequence[Kept]) -> Iterator[Concern]:
    """Yield what is to be said of the rules of a bucket, one concern for each thing that a rule does."""
    for rule in rules:
        touched = [one for one in kept if _overlap(rule.prefix, one.folder)]
        if not rule.enabled or rule.tagged or not touched:
            continue
        which = f" ({rule.sizes})" if rule.sizes else ""
        if rule.expires is not None:
            yield _expiry(rule, rule.expires, touched, which)
        for kind, days in rule.moves:
            if kind in OUT_OF_REACH and (harmed := _longer(touched, days)):
                yield Concern(
                    f"rule {rule.id}",
                    f"it moves what is {_after(days)} old to {kind}{which}, where it cannot be read at once, "
                    f"and the plan still keeps {_named(harmed)}",
                    "remove it, or move to GLACIER_IR or STANDARD_IA, which are read like any other",
                )


def audit_terms(classes: Mapping[str, str]) -> Iterator[Concern]:
    """Yield the rows of the plan (row to storage class) whose copies cannot be read when they are needed."""
    for kind in OUT_OF_REACH:
        if rows := [row for row, asked in classes.items() if asked == kind]:
            yield Concern(
                f"class {kind} in the plan",
                f"nothing there is read at once, by no check, drill or restore: {', '.join(rows)}",
                'set storage_class = "GLACIER_IR" or "STANDARD_IA" in these rows',
            )


def _expiry(rule: Rule, days: int, touched: Sequence[Kept], which: str) -> Concern:
    if harmed := _longer(touched, days):
        return Concern(
            f"rule {rule.id}",
            f"it removes what is {_after(days)} old{which}, and the plan keeps {_named(harmed)}",
            "remove it, or give it another prefix: `bookreader-backup prune` removes what the plan lets go, "
            "and never the last proven copy",
        )
    return Concern(
        f"rule {rule.id}",
        f"it removes what is {_after(days)} old{which}, which prune has long done; "
        "but when nothing is captured for so long, it removes the last copy as well",
        "",
        harmful=False,
    )


def _keeps(policy: Policy, rows: Iterable[str]) -> Iterator[tuple[str, Keep | None]]:
    for row in rows:
        yield row, {_WEEKLY: policy.weekly, _LABELS: policy.labels}.get(row, policy.rows.get(row))


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _longer(touched: Iterable[Kept], days: int) -> list[Kept]:
    """Return what the plan keeps at an age of `days`: `days = 30` keeps through the thirtieth day after."""
    return [one for one in touched if one.days is None or one.days >= days]


def _named(harmed: Iterable[Kept]) -> str:
    return ", ".join(dict.fromkeys(f"{one.row} {one.spoken}" for one in harmed))


def _after(days: int) -> str:
    return f"{days} day{'s' if days != 1 else ''}" if days else "of any age (it names a date)"
