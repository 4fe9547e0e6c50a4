"""The way to a bucket: who asks, where, and in which of the manners that S3 services differ in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import boto3
from botocore.config import Config

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.s3_errors import errors

Checksums = Literal["sha256", "none"]
Encryption = Literal["", "AES256", "aws:kms"]
LockMode = Literal["GOVERNANCE", "COMPLIANCE"]

_PATIENT: dict[str, Any] = {
    "connect_timeout": 10,  # seconds
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 6},  # about half a minute of waiting in all
}
_QUICK: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
_POOL = 32
_REGION = "us-east-1"  # what services that have no regions are called in a signature


@dataclass(frozen=True)
class Access:
    """A bucket, and how it is asked. Without an `endpoint` it is one of AWS; without a key, boto3's chain of
    credentials is asked.

    `checksums`: `sha256` has the service compare the SHA-256 of each part with what it received and keep
    it; `none` has it compare an MD5, for services that do not know the first. `encryption` is asked for
    with each upload, "" asks for none. `conditional` uploads are refused by the service itself where the
    name is taken meanwhile.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    key_id: Secret | None = None
    secret_key: Secret | None = None
    checksums: Checksums = "sha256"
    encryption: Encryption = "AES256"
    conditional: bool = True
    lock_mode: LockMode = "GOVERNANCE"

    @property
    def where(self) -> str:
        """The bucket in messages."""
        return f"bucket {self.bucket} at {self.endpoint or 'AWS'}"


def connect(access: Access, *, quick: bool = False) -> Any:
    """Return a client of boto3, which threads may share. Contacts nobody. Raises `VaultError`.

    A `quick` one is for whoever only looks: it gives up within 25 seconds on a service that does not answer.

    boto3's own checksums are off: we send and compare ours, and some services refuse its way of sending
    them as `Unauthorized`. So are the proxies of the environment: what is meant for a browser would see
    or break uploads, and an endpoint of one's own is not reachable through them.
    """
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **(_QUICK if quick else _PATIENT),
        max_pool_connections=_POOL,
        tcp_keepalive=True,
        proxies={},
        s3={"addressing_style": "path" if access.endpoint else "auto"},
    )
    try:
        with errors(access.where):
            session = boto3.session.Session(  # one of its own: the default one is not for threads
                aws_access_key_id=access.key_id.reveal() if access.key_id else None,
                aws_secret_access_key=access.secret_key.reveal() if access.secret_key else None,
                region_name=access.region or (_REGION if access.endpoint else None),
            )
            return session.client("s3", endpoint_url=access.endpoint or None, config=config)
    except ValueError as error:  # what boto3 raises of an endpoint that is none
        raise VaultError(
            f"{access.where} cannot be asked: {error}", hint="check BACKUP_OFFSITE_ENDPOINT"
        ) from None


def make_bucket(access: Access, *, locked: bool = False) -> None:
    """Make the bucket; `locked` with object lock, and so with versions. Raises `VaultError`."""
    place = {} if access.endpoint or access.region in ("", _REGION) else {"LocationConstraint": access.region}
    with errors(access.where):
        connect(access).create_bucket(
            Bucket=access.bucket,
            ObjectLockEnabledForBucket=locked,
            **({"CreateBucketConfiguration": place} if place else {}),
        )
