"""A bucket as a whole: the clients that reach it, and what it has that artifacts may be put on terms of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.vaults.s3_access import Access, connect
from bookreader_backup_assets.vaults.s3_errors import REFUSED, code_of, errors
from bookreader_backup_assets.vaults.s3_lifecycle import UNKNOWN
from bookreader_backup_assets.vaults.s3_place import Bucket

_NO_LOCKS = (
    "ObjectLockConfigurationNotFoundError",
    "InvalidRequest",
    "NoSuchObjectLockConfiguration",
    *UNKNOWN,
)


@dataclass(frozen=True)
class Reached:
    """A bucket and its clients: of the account that writes, and of that which may delete, maybe the same."""

    access: Access
    client: Any
    pruning: Any

    @classmethod
    def of(cls, bucket: Bucket) -> Reached:
        """Connect. Contacts nobody. Raises `VaultError`."""
        client = bucket.client() if bucket.client else connect(bucket.access)
        return cls(bucket.access, client, connect(bucket.pruning) if bucket.pruning else client)


@dataclass(frozen=True)
class Features:
    """What a bucket has; None where this account may not ask. `default_lock` is what it puts on each file."""

    versions: bool | None
    locks: bool | None
    default_lock: str = ""

    @property
    def lock_lacks(self) -> str:
        """What is missing for object locks; empty if nothing is known to be."""
        missing = [
            name for name, has in (("object lock", self.locks), ("versions", self.versions)) if has is False
        ]
        return " and no ".join(missing)


def features(reached: Reached) -> Features:
    """Return what the bucket has. Raises `VaultError`."""
    versions = _ask(reached, "get_bucket_versioning", UNKNOWN)
    lock = _ask(reached, "get_object_lock_configuration", _NO_LOCKS)
    held = None if lock is None else lock.get("ObjectLockConfiguration", {})
    default = (held or {}).get("Rule", {}).get("DefaultRetention", {})
    span = next((f"{default[unit]} {unit.lower()}" for unit in ("Days", "Years") if unit in default), "")
    return Features(
        versions=None if versions is None else versions.get("Status") == "Enabled",
        locks=None if held is None else held.get("ObjectLockEnabled") == "Enabled",
        default_lock=f"{default.get('Mode', '')} {span}".strip(),
    )


def require_locks(reached: Reached, rows: list[str]) -> None:
    """Raise `VaultError` if the plan's `rows` ask for locks in a bucket that can lock nothing."""
    if lacks := features(reached).lock_lacks:
        raise VaultError(
            f"{reached.access.where} has no {lacks}, and the plan asks for locks: {', '.join(rows)}",
            hint="object lock, which needs versions, is turned on when a bucket is made: make one with it, "
            "or take lock_days out of the plan",
        )


def _ask(reached: Reached, operation: str, absent: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the answer: an empty one if there is no such thing, None if this account may not ask."""
    with errors(reached.access.where):
        try:
            found: dict[str, Any] = getattr(reached.client, operation)(Bucket=reached.access.bucket)
        except ClientError as error:
            if code_of(error) in absent:
                return {}
            if code_of(error) in REFUSED:
                return None
            raise
    return found
