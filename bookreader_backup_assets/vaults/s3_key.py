"""One key of a bucket, and what the service says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from bookreader_backup_assets.vaults.s3_access import Access
from bookreader_backup_assets.vaults.s3_errors import ABSENT, answered, code_of, errors


@dataclass(frozen=True)
class Key:
    """A key, the client that asks for it, and the name that the vault has for it."""

    client: Any
    access: Access
    key: str
    name: str

    @property
    def where(self) -> dict[str, str]:
        """What boto3 wants to be told each time."""
        return {"Bucket": self.access.bucket, "Key": self.key}

    def look(self) -> dict[str, Any] | None:
        """Return what the service says of what is there, None if nothing is. Raises `VaultError`."""
        sums = {"ChecksumMode": "ENABLED"} if self.access.checksums == "sha256" else {}
        try:
            found: dict[str, Any] = self.client.head_object(**self.where, **sums)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            with errors(self.access.where, self.name):  # HEAD has no body: ask in a way that says why
                self.client.list_objects_v2(Bucket=self.access.bucket, Prefix=self.key, MaxKeys=1)
            raise answered(error, self.access.where, self.name) from None
        return found

    def uploads(self) -> list[dict[str, Any]]:
        """Return its unfinished uploads, the newest last."""
        found = (one for one in uploads(self.client, self.access, self.key) if one["Key"] == self.key)
        return sorted(found, key=lambda upload: upload["Initiated"])

    def parts(self, upload_id: str) -> Iterator[dict[str, Any]]:
        """Yield the parts that an unfinished upload has."""
        for page in self.client.get_paginator("list_parts").paginate(**self.where, UploadId=upload_id):
            yield from page.get("Parts", [])

    def lock(self, until: datetime) -> None:
        """Have the service hold what is there until then."""
        kept = {"Mode": self.access.lock_mode, "RetainUntilDate": until}
        self.client.put_object_retention(**self.where, Retention=kept)


def uploads(client: Any, access: Access, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the unfinished uploads of all keys that begin with `prefix`."""
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=access.bucket, Prefix=prefix):
        yield from page.get("Uploads", [])
