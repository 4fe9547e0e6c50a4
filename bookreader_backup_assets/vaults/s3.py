"""The vault in a bucket of S3, or of a service that speaks as S3 does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from bookreader_backup_assets.core.errors import NameTakenError, NotFoundError, VaultError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.vaults import s3_access, s3_download
from bookreader_backup_assets.vaults.base import Stored
from bookreader_backup_assets.vaults.names import is_name, require_name
from bookreader_backup_assets.vaults.s3_access import Access
from bookreader_backup_assets.vaults.s3_errors import errors
from bookreader_backup_assets.vaults.s3_key import Key, uploads
from bookreader_backup_assets.vaults.s3_upload import Upload

FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)
"""Until when a legal hold lasts: far away, and still a date in every timezone."""

_writing: set[tuple[str, str, str]] = set()  # what this process writes now
_lock = threading.Lock()


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class S3Vault:
    """What begins with `prefix` (which ends in a slash) in a bucket.

    A file put there is of `storage_class`, and with `lock_days` the service refuses to remove it for so
    long. `connect` gives a client of boto3, if it is not made from `access`;
    `pruning` one of an account that may delete, if it is another. Each is asked once, and threads share it.
    """

    access: Access
    prefix: str
    storage_class: str = "STANDARD"
    lock_days: int = 0
    name: str = "offsite"
    connect: Callable[[], Any] | None = field(default=None, repr=False)
    pruning: Callable[[], Any] | None = field(default=None, repr=False)
    now: Callable[[], datetime] = field(default=_utc_now, repr=False)

    def put(self, name: str, chunks: Iterable[bytes], *, size: int | None = None) -> Stored:
        """See `Vault.put`. What an error leaves unfinished is gone on with by the next `put` of the name.

        Raises `DamagedError` as well: if other bytes arrive than were sent, or come than were announced.
        """
        require_name(name)
        with self._claimed(name), errors(self.access.where, name):
            key = self._key(name)
            if key.look() is not None:
                raise NameTakenError(f"{name} exists already in {self.access.where}")
            return Upload(key, self._terms()).send(chunks, size)

    def open(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Vault.open`. Raises `DamagedError` if the file is replaced while it is read."""
        require_name(name)
        if length is not None and length <= 0:
            self.stat(name)
            return
        yield from s3_download.read(self._key(name), offset, length)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `Vault.list`."""
        found = []
        with errors(self.access.where):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.access.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for one in page.get("Contents", []):
                    name = one["Key"].removeprefix(self.prefix)
                    if is_name(name) and name.startswith(prefix):
                        found.append(Stored(name, one["Size"], one["LastModified"].astimezone(UTC)))
        yield from sorted(found, key=lambda stored: stored.name)  # some services list folder by folder

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield what the bucket has between `prefix` and the next slash, each with both: whole keys."""
        with errors(self.access.where):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.access.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                yield from (one["Prefix"] for one in page.get("CommonPrefixes", []))

    def stat(self, name: str) -> Stored:
        """See `Vault.stat`."""
        there = self._found(name)
        return Stored(name, there["ContentLength"], there["LastModified"].astimezone(UTC))

    def digest(self, name: str) -> str:
        """See `Vault.digest`: all of it is read back."""
        meter = Meter(self.open(name))
        for _ in meter:
            pass
        return meter.sha256

    def delete(self, name: str) -> None:
        """See `Vault.delete`. Where the bucket keeps versions, all those of this name go.

        Raises `VaultError` while the service holds it.
        """
        there = self._found(name)
        if (until := self._held_until(there)) is not None:
            raise self._held(name, until)
        client, key = self._pruning_client, self.prefix + name
        with errors(self.access.where, name):
            if "VersionId" not in there:
                client.delete_object(Bucket=self.access.bucket, Key=key)
                return
            versions = []
            for page in client.get_paginator("list_object_versions").paginate(
                Bucket=self.access.bucket, Prefix=key
            ):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                versions += [version for version in found if version["Key"] == key]
            # the newest last: half-way through, nothing older has come up under the name
            for version in sorted(versions, key=lambda one: (one["IsLatest"], one["LastModified"])):
                client.delete_object(Bucket=self.access.bucket, Key=key, VersionId=version["VersionId"])

    def locked_until(self, name: str) -> datetime | None:
        """See `Vault.locked_until`; of a legal hold, `FOR_EVER`."""
        return self._held_until(self._found(name))

    def renew_lock(self, name: str, until: datetime) -> None:
        """Have the service hold `name` until then; it refuses to hold it shorter than it does."""
        require_name(name)
        with errors(self.access.where, name):
            self._key(name).lock(until)

    def unfinished(self) -> Iterator[Stored]:
        """See `Vault.unfinished`: the uploads in parts, and how much has arrived of each."""
        found = []
        with errors(self.access.where):
            for upload in uploads(self._client, self.access, self.prefix):
                name = upload["Key"].removeprefix(self.prefix)
                if is_name(name):
                    size = sum(part["Size"] for part in self._key(name).parts(upload["UploadId"]))
                    found.append(Stored(name, size, upload["Initiated"].astimezone(UTC)))
        yield from sorted(found, key=lambda stored: (stored.name, stored.modified))

    def discard(self, name: str) -> None:
        """See `Vault.discard`: every unfinished upload of `name`, unless this process is at it."""
        require_name(name)
        key = Key(self._pruning_client, self.access, self.prefix + name, name)
        with contextlib.suppress(NameTakenError), self._claimed(name), errors(self.access.where, name):
            found = key.uploads()
            if not found:
                raise NotFoundError(f"{self.access.where} has no unfinished {name}")
            for upload in found:
                key.client.abort_multipart_upload(**key.where, UploadId=upload["UploadId"])

    def free(self) -> int | None:
        """See `Vault.free`: nobody can tell. Raises `VaultError` if the bucket cannot be reached."""
        with errors(self.access.where):
            self._client.list_objects_v2(Bucket=self.access.bucket, Prefix=self.prefix, MaxKeys=1)
        return None

    def local_path(self, name: str) -> None:
        """See `Vault.local_path`: it is not on this machine."""
        require_name(name)

    @cached_property
    def _client(self) -> Any:
        return self.connect() if self.connect else s3_access.connect(self.access)

    @cached_property
    def _pruning_client(self) -> Any:
        return self.pruning() if self.pruning else self._client

    def _terms(self) -> dict[str, Any]:
        terms: dict[str, Any] = {}
        if self.storage_class != "STANDARD":  # what every service takes for granted, and not every one knows
            terms["StorageClass"] = self.storage_class
        if self.lock_days:
            terms["ObjectLockMode"] = self.access.lock_mode
            terms["ObjectLockRetainUntilDate"] = self.now() + timedelta(days=self.lock_days)
        return terms

    def _key(self, name: str) -> Key:
        return Key(self._client, self.access, self.prefix + name, name)

    def _found(self, name: str) -> dict[str, Any]:
        require_name(name)
        with errors(self.access.where, name):
            there = self._key(name).look()
            if there is None:
                self._client.head_bucket(Bucket=self.access.bucket)  # or it is the bucket that is not there
                raise NotFoundError(
                    f"the {self.name} vault has no {name}", hint=f"it is in {self.access.where}"
                )
        return there

    def _held_until(self, there: dict[str, Any]) -> datetime | None:
        if there.get("ObjectLockLegalHoldStatus") == "ON":
            return FOR_EVER
        until: datetime | None = there.get("ObjectLockRetainUntilDate")
        return until.astimezone(UTC) if until is not None and until > self.now() else None

    def _held(self, name: str, until: datetime) -> VaultError:
        how = "by a legal hold" if until == FOR_EVER else f"until {until:%Y-%m-%d %H:%M} UTC"
        return VaultError(
            f"{name} is locked in {self.access.where} {how}", hint="it can be deleted when the lock has ended"
        )

    @contextlib.contextmanager
    def _claimed(self, name: str) -> Iterator[None]:
        """Hold the name against other threads, which would go on with the same upload."""
        claim = (self.access.endpoint, self.access.bucket, self.prefix + name)
        with _lock:
            if claim in _writing:
                raise NameTakenError(f"{name} is being written already")
            _writing.add(claim)
        try:
            yield
        finally:
            with _lock:
                _writing.discard(claim)
