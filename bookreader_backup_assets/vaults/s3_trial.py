"""One manner of sending, tried with small files: whether the service takes it, and does what it is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from bookreader_backup_assets.vaults.s3_access import Checksums, Encryption
from bookreader_backup_assets.vaults.s3_bucket import Reached
from bookreader_backup_assets.vaults.s3_errors import ABSENT_UPLOAD, TAKEN, code_of, errors
from bookreader_backup_assets.vaults.s3_parts import b64, composite, md5

IGNORED = "ignored"
"""What is said of a condition that the service has not heard of, and does not refuse."""


@dataclass(frozen=True)
class Manner:
    """The settings in which services differ; see `Access`."""

    checksums: Checksums = "sha256"
    encryption: Encryption = "AES256"
    conditional: bool = True

    def others(self) -> Iterator[Manner]:
        """Yield every other manner, those that change least first, and the better ones before the worse."""
        encryptions: tuple[Encryption, ...] = ("AES256", "")
        sums: tuple[Checksums, ...] = ("sha256", "none")
        every = [Manner(s, e, c) for c in (True, False) for s in sums for e in encryptions]
        yield from sorted((one for one in every if one != self), key=lambda one: len(self.differs(one)))

    def differs(self, other: Manner) -> tuple[str, ...]:
        """Return the names of the settings in which another manner differs."""
        names = ("encryption", "checksums", "conditional")
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))

    def but(self, name: str, other: Manner) -> Manner:
        """Return this manner with one setting of another."""
        return replace(self, **{name: getattr(other, name)})


@dataclass(frozen=True)
class Sent:
    """What the service says of what it took: whether it has computed the SHA-256, and whether it encrypts."""

    sha256: bool
    sha256_of_parts: bool
    encryption: str


class RefusedManner(Exception):  # noqa: N818 - no error of this project: it ends in this folder
    """The service does not take files in a manner; `said` is its word for it, or ours where it said none."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@dataclass
class Trial:
    """Small files that are tried, under `folder`; `made` are those that are there, with their versions."""

    reached: Reached
    folder: str
    made: list[dict[str, str]] = field(default_factory=list)
    _count: int = 0

    def key(self) -> dict[str, str]:
        """Return a key that is not in use."""
        self._count += 1
        return {"Bucket": self.reached.access.bucket, "Key": f"{self.folder}{self._count:03}"}

    def put(self, where: dict[str, str], data: bytes, **how: Any) -> None:
        """Put a file. Raises `ClientError`."""
        answer = self.reached.client.put_object(**where, Body=data, **how)
        version = {"VersionId": answer["VersionId"]} if answer.get("VersionId") else {}
        self.made.append({**where, **version})

    def send(self, manner: Manner) -> Sent:
        """Send a file in one request and one in parts, and each again where a name is not to be taken twice.

        Raises `RefusedManner`, and `VaultError` where the service cannot be reached.
        """
        with errors(self.reached.access.where):
            try:
                first, data = self.key(), b"bookreader-backup doctor"
                more = in_manner(manner, data)
                self.put(first, data, **more)
                said = self._look(manner, first, {b64(hashlib.sha256(data).digest())})
                if manner.conditional:
                    self._refused(lambda: self.put(first, data, **more))
                second = self.key()
                self._in_parts(second, data, manner)
                whole = composite([hashlib.sha256(data).digest()])
                of_parts = self._look(manner, second, {whole, whole.partition("-")[0]})
                if manner.conditional:
                    self._refused(lambda: self._in_parts(first, data, manner))
            except ClientError as error:
                raise RefusedManner(code_of(error)) from None
        return Sent(said.sha256, of_parts.sha256, said.encryption)

    def _in_parts(self, where: dict[str, str], data: bytes, manner: Manner) -> None:
        client, sums = self.reached.client, _sums(manner, data)
        kind = {"ChecksumAlgorithm": "SHA256"} if manner.checksums == "sha256" else {}
        upload = {
            **where,
            "UploadId": client.create_multipart_upload(**where, **kind, **_asks(manner))["UploadId"],
        }
        try:
            part = {
                "PartNumber": 1,
                "ETag": client.upload_part(**upload, PartNumber=1, Body=data, **sums)["ETag"],
            }
            if manner.checksums == "sha256":
                part |= sums
            answer = client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": [part]}, **_absent(manner)
            )
        except ClientError:
            self._end(upload)
            raise
        version = {"VersionId": answer["VersionId"]} if answer.get("VersionId") else {}
        self.made.append({**where, **version})

    def _end(self, upload: dict[str, str]) -> None:
        try:
            self.reached.client.abort_multipart_upload(**upload)
        except ClientError as error:
            if code_of(error) != ABSENT_UPLOAD:
                raise

    def _look(self, manner: Manner, where: dict[str, str], right: set[str]) -> Sent:
        mode = {"ChecksumMode": "ENABLED"} if manner.checksums == "sha256" else {}
        there = self.reached.client.head_object(**where, **mode)
        said = there.get("ChecksumSHA256")
        if said is not None and said not in right:
            raise RefusedManner("another SHA-256 than was sent")
        return Sent(said is not None, said is not None, there.get("ServerSideEncryption", ""))

    def _refused(self, call: Any) -> None:
        """Have a request refused because the name is taken. Raises `RefusedManner` if it is not."""
        try:
            call()
        except ClientError as error:
            if code_of(error) not in TAKEN:
                raise
        else:
            raise RefusedManner(IGNORED)


def in_manner(manner: Manner, data: bytes) -> dict[str, str]:
    """Return what a request is told to put `data` in a manner."""
    return {**_sums(manner, data), **_asks(manner), **_absent(manner)}


def _sums(manner: Manner, data: bytes) -> dict[str, str]:
    if manner.checksums == "sha256":
        return {"ChecksumSHA256": b64(hashlib.sha256(data).digest())}
    return {"ContentMD5": b64(md5(data))}


def _asks(manner: Manner) -> dict[str, str]:
    return {"ServerSideEncryption": manner.encryption} if manner.encryption else {}


def _absent(manner: Manner) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if manner.conditional else {}
