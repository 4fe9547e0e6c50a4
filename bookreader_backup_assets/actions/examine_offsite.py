"""Examine the bucket: what its service takes, what its rules would remove, and whether its locks hold."""

from __future__ import annotations

from collections.abc import Iterator

from bookreader_backup_assets.actions.examine import Finding
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.locks import OFFSITE, bucket, lock_rows, locks
from bookreader_backup_assets.actions.offsite_rules import concerns
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.vaults.s3_bucket import Features, Reached
from bookreader_backup_assets.vaults.s3_probe import (
    Deletion,
    Found,
    Reach,
    Reading,
    Sending,
    StorageClass,
    probe,
)
from bookreader_backup_assets.vaults.s3_trial import IGNORED, Manner

_SKEW = 300.0  # seconds: S3 refuses 900, and locks are set by this clock
_ASKED = {
    "checksums": "SHA-256",
    "encryption": "encryption by the service ({})",
    "conditional": "If-None-Match",
}
_NAMED = 3


def examine_bucket(installation: Installation) -> Iterator[Finding]:
    """Yield what the service takes, tried with small files that are removed again as far as it may be."""
    outside = installation.vault_outside(OFFSITE)
    classes = sorted({terms.storage_class for terms in outside.terms.values()} - {"STANDARD"})
    try:
        for found in probe(Reached.of(bucket(installation)), classes, installation.now):
            yield from _findings(installation, found)
    except BackupError as error:
        yield Finding(OFFSITE, good=False, seen=error.message, hint=error.hint)


def audit_bucket(installation: Installation) -> Iterator[Finding]:
    """Yield what rules and storage classes do to what the plan keeps, and which locks have ended."""
    try:
        for concern in concerns(installation):
            yield Finding(f"{OFFSITE} {concern.subject}", not concern.harmful, concern.seen, concern.hint)
        if lock_rows(installation) and installation.known_id:
            yield from _lapsed(installation)
    except BackupError as error:
        yield Finding(OFFSITE, good=False, seen=error.message, hint=error.hint)


def _lapsed(installation: Installation) -> Iterator[Finding]:
    now, every = installation.now(), locks(installation)
    lapsed = [lock.entry.name for lock in every if lock.lapsed(now)]
    if not lapsed:
        yield Finding(f"{OFFSITE} locks", good=True, seen=f"{len(every)} artifacts are locked")
        return
    names = ", ".join([*lapsed[:_NAMED], *(["…"] if len(lapsed) > _NAMED else [])])
    yield Finding(
        f"{OFFSITE} locks",
        good=False,
        seen=f"{len(lapsed)} of {len(every)} artifacts that the plan keeps are not locked: {names}",
        hint="bookreader-backup offsite renew-locks",
    )


def _findings(installation: Installation, found: Found) -> Iterator[Finding]:
    if isinstance(found, Reach):
        yield from _clock(found)
    elif isinstance(found, Features):
        yield _features(found, lock_rows(installation))
    elif isinstance(found, Sending):
        yield from _sending(found)
    elif isinstance(found, StorageClass):
        yield _storage_class(installation, found)
    elif isinstance(found, Reading):
        yield from _reading(found)
    else:
        yield _deletion(found)


def _clock(found: Reach) -> Iterator[Finding]:
    style = {"path": "as paths", "virtual": "as host names"}.get(found.style, "as the service has it")
    if found.ahead is None or abs(found.ahead) < _SKEW:
        seen = "" if found.ahead is None else f"; its clock and ours differ by {abs(found.ahead):.0f} s"
        yield Finding(f"{OFFSITE} service", good=True, seen=f"answers, with buckets {style}{seen}")
        return
    how = "ahead of" if found.ahead > 0 else "behind"
    yield Finding(
        f"{OFFSITE} clock",
        good=False,
        seen=f"the service's clock is {abs(found.ahead):.0f} s {how} ours",
        hint="set this one: timedatectl set-ntp true",
    )


def _features(found: Features, rows: list[str]) -> Finding:
    has = {True: "", False: "no ", None: "maybe "}
    seen = f"{has[found.locks]}object lock, {has[found.versions]}versions"
    seen += f"; locks every file by itself: {found.default_lock}" if found.default_lock else ""
    if rows and found.lock_lacks:
        return Finding(
            f"{OFFSITE} bucket",
            good=False,
            seen=f"{seen}, and the plan asks for locks: {', '.join(rows)}",
            hint="object lock is turned on when a bucket is made: make one with it, or take lock_days out",
        )
    return Finding(f"{OFFSITE} bucket", good=True, seen=seen)


def _sending(found: Sending) -> Iterator[Finding]:
    if found.works is None:
        yield Finding(
            f"{OFFSITE} uploads",
            good=False,
            seen=f"no way of sending a file works; of the one that is set it says `{found.because['']}`",
            hint="allow what `bookreader-backup offsite policies` prints for this key",
        )
        return
    for name, said in found.because.items():
        asked = _ASKED[name].format(found.asked.encryption)
        how = "ignores" if said == IGNORED else "refuses"
        why = "" if said == IGNORED else f" with `{said}`"
        yield Finding(
            f"{OFFSITE} {name}",
            good=False,
            seen=f"the service {how} {asked}{why}",
            hint=f"set {_setting(name, found.works)}",
        )
    if found.because:
        every = " ".join(_setting(name, found.works) for name in _ASKED)
        yield Finding(f"{OFFSITE} uploads", good=True, seen=f"the first manner that works: {every}")
        return
    yield Finding(f"{OFFSITE} uploads", good=True, seen=_sent(found))


def _sent(found: Sending) -> str:
    asked, sent = found.asked, found.sent
    assert sent is not None
    said = ["an MD5 is compared by the service, and each upload is read back"]
    if asked.checksums == "sha256":
        computed = "the SHA-256 of what it received is computed by the service"
        said = [
            computed
            if sent.sha256 and sent.sha256_of_parts
            else "SHA-256 is taken, and uploads are read back"
        ]
    if asked.encryption:
        said.append(f"encrypted: {sent.encryption or 'asked for, and nothing is said of it'}")
    said.append(
        "a name that is taken is refused" if asked.conditional else "a name is looked for before it is taken"
    )
    return "; ".join(said)


def _setting(name: str, manner: Manner) -> str:
    value = {"": "none", True: "true", False: "false"}.get(getattr(manner, name), getattr(manner, name))
    return f"BACKUP_OFFSITE_{name.upper()}={value}"


def _storage_class(installation: Installation, found: StorageClass) -> Finding:
    terms = installation.vault_outside(OFFSITE).terms
    rows = ", ".join(row for row, one in terms.items() if one.storage_class == found.name)
    subject = f"{OFFSITE} class {found.name}"
    if found.refused:
        seen, hint = f"refused with `{found.refused}`", f"set another storage_class in the plan, in: {rows}"
        return Finding(subject, good=False, seen=seen, hint=hint)
    kept = "taken" if found.kept_as == found.name else f"taken, and kept as {found.kept_as}"
    return Finding(subject, good=True, seen=f"{kept} ({rows})")


def _reading(found: Reading) -> Iterator[Finding]:
    if not found.ranges:
        seen = "parts of a file are not read as they are asked for"
        hint = "restore from another vault: of this one, no single file comes back"
        yield Finding(f"{OFFSITE} reading", good=False, seen=seen, hint=hint)
    if not found.pages:
        seen = "lists are not complete: what is there is not seen"
        yield Finding(
            f"{OFFSITE} lists", good=False, seen=seen, hint="use another service: copies would be missed"
        )
    if found.ranges and found.pages:
        yield Finding(f"{OFFSITE} reading", good=True, seen="parts of files are read, and lists are complete")


def _deletion(found: Deletion) -> Finding:
    seen = "the account that writes may not delete, as it should be"
    if found.writer:
        seen = "the account that writes may delete, which it need not: bookreader-backup offsite policies"
    elif not found.pruner:
        seen += "; nor may another: prune removes nothing there (BACKUP_OFFSITE_PRUNE_ACCESS_KEY)"
    if found.left:
        seen += f"; {found.left} small files are left under {found.folder}"
    return Finding(f"{OFFSITE} deletion", good=True, seen=seen)
