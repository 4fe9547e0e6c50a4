"""The lifecycle rules of a bucket: read, and ours replaced among those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.core.lifecycle import Rule
from bookreader_backup_assets.vaults.s3_access import Access
from bookreader_backup_assets.vaults.s3_errors import REFUSED, code_of, errors

UNKNOWN = ("NotImplemented", "XNotImplemented", "501", "MethodNotAllowed", "405")
"""What services say that do not have something at all."""
_NONE = "NoSuchLifecycleConfiguration"
_SIZE = "TransitionDefaultMinimumObjectSize"


@dataclass(frozen=True)
class Change:
    """What is to become of a bucket's rules: `others` stay as they are, `ours` replace `was`.

    `besides` is what the bucket says of all its rules, which has to be said again.
    """

    others: tuple[dict[str, Any], ...]
    was: tuple[Rule, ...]
    ours: tuple[Rule, ...]
    besides: dict[str, str]

    @property
    def is_none(self) -> bool:
        """Whether the bucket has these rules already."""
        return {rule.id: rule for rule in self.was} == {rule.id: rule for rule in self.ours}

    @property
    def document(self) -> dict[str, Any]:
        """The whole configuration, as `aws s3api put-bucket-lifecycle-configuration` takes it."""
        return {"Rules": [*self.others, *(_written(rule) for rule in self.ours)]}


def read(client: Any, access: Access) -> list[Rule] | None:
    """Return the rules of a bucket; None where the service has no such thing. Raises `VaultError`."""
    found = _read(client, access)
    return None if found is None else [_parsed(one) for one in found.get("Rules", ())]


def change(client: Any, access: Access, ours: Sequence[Rule], *, own_ids: str, folder: str) -> Change | None:
    """Return what has to be changed; None where the service has no such thing. Raises `VaultError`.

    A rule is ours if its id begins with `own_ids` and its prefix with `folder`.
    """
    found = _read(client, access)
    if found is None:
        return None
    parsed = [(one, _parsed(one)) for one in found.get("Rules", ())]
    own = [rule.id.startswith(own_ids) and rule.prefix.startswith(folder) for _, rule in parsed]
    return Change(
        tuple(raw for (raw, _), is_own in zip(parsed, own, strict=True) if not is_own),
        tuple(rule for (_, rule), is_own in zip(parsed, own, strict=True) if is_own),
        tuple(ours),
        {_SIZE: found[_SIZE]} if _SIZE in found else {},
    )


def apply(client: Any, access: Access, wanted: Change) -> None:
    """Set the rules, and read them back. Raises `VaultError`, also where the service has kept others."""
    with errors(access.where):
        try:
            client.put_bucket_lifecycle_configuration(
                Bucket=access.bucket, LifecycleConfiguration=wanted.document, **wanted.besides
            )
        except ClientError as error:
            if code_of(error) not in REFUSED:
                raise
            raise VaultError(
                f"{access.where} does not allow s3:PutLifecycleConfiguration",
                hint="no key of this program should: run it once with an administrator's, or set what "
                "`bookreader-backup offsite apply-lifecycle --plan --json` prints",
            ) from None
    there = {rule.id: rule for rule in read(client, access) or ()}
    if lacking := [rule.id for rule in wanted.ours if there.get(rule.id) != rule]:
        raise VaultError(
            f"{access.where} took the lifecycle rules, and has others: {', '.join(lacking)}",
            hint="see what it has: `bookreader-backup offsite audit`",
        )


def _read(client: Any, access: Access) -> dict[str, Any] | None:
    with errors(access.where):
        try:
            found: dict[str, Any] = client.get_bucket_lifecycle_configuration(Bucket=access.bucket)
        except ClientError as error:
            if code_of(error) == _NONE:
                return {}
            if code_of(error) in UNKNOWN:
                return None
            raise
    return found


def _parsed(raw: dict[str, Any]) -> Rule:
    filtered = raw.get("Filter") or {}
    narrowed = filtered.get("And") or filtered
    sizes = [
        f"{word} {narrowed[name]} bytes"
        for name, word in (("ObjectSizeGreaterThan", "over"), ("ObjectSizeLessThan", "under"))
        if name in narrowed
    ]
    expiration = raw.get("Expiration") or {}
    return Rule(
        id=raw.get("ID", "without an id"),
        prefix=raw.get("Prefix") or narrowed.get("Prefix") or "",
        enabled=raw.get("Status") == "Enabled",
        tagged=bool(narrowed.get("Tags") or narrowed.get("Tag")),
        sizes=" and ".join(sizes),
        expires=_days(expiration) if {"Days", "Date"} & expiration.keys() else None,
        noncurrent=(raw.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays"),
        unfinished=(raw.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
        moves=tuple((one["StorageClass"], _days(one)) for one in raw.get("Transitions", ())),
    )


def _days(when: dict[str, Any]) -> int:
    return int(when.get("Days", 0))


def _written(rule: Rule) -> dict[str, Any]:
    raw: dict[str, Any] = {"ID": rule.id, "Status": "Enabled", "Filter": {"Prefix": rule.prefix}}
    if rule.expires is not None:
        raw["Expiration"] = {"Days": rule.expires}
    if rule.noncurrent is not None:
        raw["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule.noncurrent}
    if rule.unfinished is not None:
        raw["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule.unfinished}
    return raw
