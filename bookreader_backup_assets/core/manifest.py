"""A backup set folded into one document: what belongs together, what is missing, and why.

A set's id is its day, `2025-10-24`; of each asset it takes the newest unlabelled artifact of that day,
verified ones first, or the older one that was found unchanged on that day, or one filed late. A labelled
set, `2025-10-24_14-05-00_pre-deploy`, takes what was captured into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bookreader_backup_assets.core.artifact import (
    FORMAT_VERSION,
    Companion,
    Entry,
    Problem,
    Proof,
    dump_document,
)
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.set_id import label_of

UNCHANGED = "unchanged"
"""The check, recorded in a proof, by which a set refers to an older artifact; `set` is measured with it."""
SAME_BYTES = "same_bytes"
"""The check, recorded in a proof beside a copy: size and SHA-256 there equal the entry's."""

_OF_THE_SOURCE = {"backup_set": "complete", "logs": "no_gap"}
"""Checks that tell of what was there to be captured, and not of the stored bytes."""


@dataclass(frozen=True)
class Standing:
    """What an entry's proofs say of it, check by check, the latest of each."""

    checks: Mapping[str, Verdict]

    @property
    def verdict(self) -> Verdict | None:
        """Failed if any check failed, inconclusive if any could not tell, None if one was never made."""
        said = set(self.checks.values())
        if Verdict.FAILED in said:
            return Verdict.FAILED
        if None in said:
            return None
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in said else Verdict.PASSED

    def __str__(self) -> str:
        """One word for people."""
        words = {Verdict.PASSED: "verified", None: "unverified"}
        return words.get(self.verdict) or str(self.verdict)


def is_whole(entry: Entry, standing: Standing) -> bool:
    """Whether the bytes of an artifact are proven: enough for a copy to be made, and to count.

    That is `verified`, but for a manifest, whose set may be incomplete, and for logs, of which something was
    rotated away before: both say what they lack, and there is nothing better to be had.
    """
    made = {
        name: verdict
        for name, verdict in standing.checks.items()
        if name != _OF_THE_SOURCE.get(entry.component)
    }
    return "sha256" in made and all(verdict is Verdict.PASSED for verdict in made.values())


def standing(entry: Entry, proofs: Iterable[Proof]) -> Standing:
    """Return where `entry` stands. A proof about other bytes says nothing.

    Nor does a look that could not tell take away what an earlier one proved of the same bytes. Where a copy
    was last found to have other bytes, what was proven elsewhere since then says nothing of it.
    """
    latest: dict[str, Any] = dict.fromkeys(entry.checks)
    copied = None
    for proof in sorted(proofs, key=lambda proof: proof.at):
        for outcome in proof.checks if proof.sha256 == entry.sha256 else ():
            proven = latest.get(outcome.check) is Verdict.PASSED and outcome.verdict is Verdict.INCONCLUSIVE
            if outcome.check in latest and not proven:
                latest[outcome.check] = outcome.verdict
            copied = outcome.verdict if outcome.check == SAME_BYTES else copied
    if copied is Verdict.FAILED:
        latest["sha256"] = copied
    return Standing(latest)


@dataclass(frozen=True)
class Failure:
    """A capture that did not end in an artifact, kept so that the set can say why one is missing."""

    installation: str
    asset: str
    set: str
    at: datetime
    error: str
    hint: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """The name of the file it is kept in."""
        asset = self.asset.replace("/", "_")
        return f"{failures_folder(self.set)}{asset}_{self.at:%Y%m%dT%H%M%S.%f}Z.json"


def failures_folder(set_id: str) -> str:
    """Return where the failures of a set are kept: an hour's id has a colon, and no name in a vault has."""
    return f"failures/{set_id.replace(':', '-')}/"


@dataclass(frozen=True)
class Member:
    """One artifact of a set. `unchanged` says that it is older, and was found to hold still."""

    asset: str
    name: str
    size: int
    sha256: str
    captured_at: datetime
    standing: str
    checks: dict[str, str | None]
    late: bool = False
    unchanged: bool = False
    codecs: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Missing:
    """An asset that the set should have, or has only unproven, and why."""

    asset: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """The set in one document. `images` are the containers' images, `statistics` rows of the dump."""

    installation: str
    set: str
    sealed_at: datetime
    host: str
    members: tuple[Member, ...]
    missing: tuple[Missing, ...]
    versions: dict[str, str] = field(default_factory=dict)
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    statistics: dict[str, int | None] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def complete(self) -> bool:
        """Whether every planned artifact is there and verified."""
        return not self.missing

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return dump_document(self)

    def to_text(self) -> str:
        """The guide's text form; its last part is what `sha256sum -c` reads in the vault's folder."""
        rule = "=" * 29
        lines = ["BookReader AI Backup Manifest", rule, f"Set: {self.set}"]
        lines += [f"Sealed: {self.sealed_at:%Y-%m-%d %H:%M:%S} UTC", f"Hostname: {self.host}"]
        deployed = (m.fingerprint for m in self.members if m.asset == "code/bundle")
        lines += [f"Code: {one['commit']} {one['subject']}" for one in deployed]
        lines += [""]
        lines += ["Components:", "-----------"]
        lines += [
            f"{member.asset}: {member.size} bytes, {member.standing}"
            + (", unchanged" if member.unchanged else "")
            + (", late" if member.late else "")
            for member in self.members
        ]
        lines += [f"{missing.asset}: MISSING: {missing.why}" for missing in self.missing]
        problems = [(m.asset, problem) for m in self.members for problem in m.problems]
        if problems:
            lines += ["", "Met on the way:", "---------------"]
            lines += [f"{asset}: {problem.where!a} {problem.what}" for asset, problem in problems]
        lines += ["", "Database Statistics:", "--------------------"]
        lines += [
            f"{name.capitalize()}: {'unknown' if rows is None else rows}"
            for name, rows in self.statistics.items()
        ]
        lines += ["", "Checksums (SHA256):", "-------------------"]
        for member in self.members:
            lines += [f"{member.sha256}  {member.name}"]
            lines += [f"{companion.sha256}  {companion.name}" for companion in member.companions]
        return "\n".join(lines) + "\n"


_STATISTICS = {"users": "public.users", "books": "public.books", "images": "public.generated_images"}


def fold(
    *,
    installation: str,
    set_id: str,
    sealed_at: datetime,
    host: str,
    planned: Sequence[str],
    entries: Iterable[tuple[Entry, Sequence[Proof]]],
    failures: Iterable[Failure] = (),
    versions: Mapping[str, str] | None = None,
    images: Mapping[str, Mapping[str, str]] | None = None,
) -> Manifest:
    """Return the manifest of `set_id` over the `planned` assets, from everything that the vault holds."""
    held = list(entries)
    why = {failure.asset: failure for failure in sorted(failures, key=lambda failure: failure.at)}
    members: list[Member] = []
    missing: list[Missing] = []
    for asset in planned:
        member = _member(asset, set_id, [(e, p) for e, p in held if e.asset == asset])
        if member is not None:
            members.append(member)
        if member is None or member.standing != "verified":
            missing.append(Missing(asset, _why(member, why.get(asset))))
    rows: dict[str, Any] = next(
        (m.fingerprint.get("tables", {}) for m in members if m.asset == "postgresql/dump"), {}
    )
    return Manifest(
        installation=installation,
        set=set_id,
        sealed_at=sealed_at,
        host=host,
        members=tuple(members),
        missing=tuple(missing),
        versions=dict(versions or {}),
        images={name: dict(image) for name, image in (images or {}).items()},
        statistics={name: rows.get(table, {}).get("rows") for name, table in _STATISTICS.items()},
    )


def _member(asset: str, set_id: str, held: list[tuple[Entry, Sequence[Proof]]]) -> Member | None:
    def rank(candidate: tuple[Entry, Sequence[Proof]]) -> tuple[bool, bool, datetime]:
        entry, proofs = candidate
        return not entry.late, standing(entry, proofs).verdict is Verdict.PASSED, entry.captured_at

    labelled = label_of(set_id) is not None
    own = [(e, p) for e, p in held if e.set == set_id and (e.regular or labelled)]
    still = [(e, p) for e, p in held if e.label is None and unchanged_on(set_id, p)]
    for candidates, unchanged in ((own, False), (still, True)):
        if candidates:
            entry, proofs = max(candidates, key=rank)
            checks = standing(entry, proofs)
            return Member(
                asset=asset,
                name=entry.name,
                size=entry.size,
                sha256=entry.sha256,
                captured_at=entry.captured_at,
                standing=str(checks),
                checks={name: None if v is None else str(v) for name, v in checks.checks.items()},
                late=entry.late,
                unchanged=unchanged,
                codecs=entry.codecs,
                versions=entry.versions,
                fingerprint=entry.fingerprint,
                companions=entry.companions,
                problems=entry.problems,
            )
    return None


def unchanged_on(set_id: str, proofs: Iterable[Proof]) -> bool:
    """Whether an artifact was found, on the day of that set, to hold what its source still held."""
    return set_id in unchanged_sets(proofs)


def unchanged_sets(proofs: Iterable[Proof]) -> set[str]:
    """Return the ids of the sets that refer to an artifact which was found unchanged then."""
    outcomes = (outcome for proof in proofs for outcome in proof.checks)
    return {str(o.measured.get("set")) for o in outcomes if o.check == UNCHANGED and o.passed}


def _why(member: Member | None, failure: Failure | None) -> str:
    if member is not None:
        bad = [
            f"{name} {verdict or 'never made'}"
            for name, verdict in member.checks.items()
            if verdict != "passed"
        ]
        return f"captured, but not proven: {', '.join(bad)}"
    if failure is None:
        return "no capture was attempted"
    return failure.error + (f" ({failure.hint})" if failure.hint else "")
