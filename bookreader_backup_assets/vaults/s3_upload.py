"""Sending one file to S3: in one request, or in parts that an interrupted upload does not send twice."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, VaultError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.vaults.base import Stored
from bookreader_backup_assets.vaults.s3_access import Access
from bookreader_backup_assets.vaults.s3_errors import (
    ABSENT,
    ABSENT_UPLOAD,
    DAMAGED,
    REFUSED,
    TAKEN,
    answered,
    code_of,
    errors,
    retries_of,
)
from bookreader_backup_assets.vaults.s3_parts import (
    MOST,
    b64,
    composite,
    cut,
    in_flight,
    is_same,
    md5,
    part_size,
)

_AGAIN = Retrying(  # what arrived damaged; all else is tried again by boto3
    retry=retry_if_exception(lambda error: isinstance(error, ClientError) and code_of(error) in DAMAGED),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.2, max=2),
    reraise=True,
)


@dataclass(frozen=True)
class _Sent:
    """A part at the service."""

    number: int
    etag: str
    digest: bytes
    size: int


@dataclass(frozen=True)
class Upload:
    """One file on its way to `key`. `terms` are its storage class and lock, as boto3 names them."""

    client: Any
    access: Access
    key: str
    name: str
    terms: dict[str, Any]

    def send(self, chunks: Iterable[bytes], size: int | None) -> Stored:
        """Send it all, and compare what the service says it received. Raises as `Vault.put` does."""
        meter, length = Meter(chunks), part_size(size)
        with closing(cut(meter, length)) as pieces:
            head = list(itertools.islice(pieces, 2))
            if len(head) < 2:
                self._require_whole(meter, size)
                return self._one(head[0] if head else bytearray(), meter.sha256)
            upload_id, known = self._begun()
            sent = self._parts(upload_id, known, head, pieces, in_flight(length))
        self._require_whole(meter, size)
        said = self._complete(upload_id, sent)
        self._discard_others(upload_id)
        return self._compared(said, sent, meter, length)

    def _require_whole(self, meter: Meter, size: int | None) -> None:
        if size is not None and meter.size != size:
            raise DamagedError(
                f"{meter.size} bytes came for {self.name}, and {size} were announced: it was not kept",
                hint="something changed what was being copied; `bookreader-backup verify` reads it",
            )

    # in one request

    def _one(self, data: bytearray, sha256: str) -> Stored:
        digest = bytes.fromhex(sha256)
        try:
            answer = _AGAIN(
                self.client.put_object,
                **self._where,
                Body=data,
                **self._sums(data, digest),
                **self._only_if_absent,
                **self._manner,
            )
        except ClientError as error:
            answer = self._unless_ours(error, {b64(digest)}, len(data))
        said = answer.get("ChecksumSHA256")
        if said is None and self.access.checksums == "sha256":
            said = (self.look() or {}).get("ChecksumSHA256")
        if said is not None and said != b64(digest):
            self._remove(answer)
        return Stored(self.name, len(data), answer.get("LastModified"), sha256 if said else None)

    # in parts

    def _begun(self) -> tuple[str, dict[int, dict[str, Any]]]:
        """Return the newest unfinished upload of this key and its parts, or a new one and none."""
        with errors(self.access.where, self.name):
            found = max(uploads(self.client, self.access, self.key), key=_initiated, default=None)
            if found is not None:
                return found["UploadId"], {
                    part["PartNumber"]: part
                    for part in parts_of(self.client, self.access, self.key, found["UploadId"])
                }
            sums = {"ChecksumAlgorithm": "SHA256"} if self.access.checksums == "sha256" else {}
            made = self.client.create_multipart_upload(**self._where, **sums, **self._manner)
            return made["UploadId"], {}

    def _parts(
        self,
        upload_id: str,
        known: dict[int, dict[str, Any]],
        head: list[bytearray],
        pieces: Iterator[bytearray],
        most: int,
    ) -> list[_Sent]:
        sent: list[_Sent] = []
        waiting: deque[Future[_Sent]] = deque()
        with ThreadPoolExecutor(most, thread_name_prefix="s3-part") as pool:
            try:
                for number in itertools.count(1):
                    piece = head.pop(0) if head else next(pieces, None)
                    if piece is None:
                        break
                    if number > MOST:
                        raise VaultError(
                            f"{self.name} has more than {MOST:,} parts of {len(piece):,} bytes",
                            hint="this source is too large to be sent without its size being known",
                        )
                    waiting.append(pool.submit(self._part, upload_id, number, piece, known.get(number)))
                    del piece  # or it would be held until the next one is read
                    while len(waiting) >= most:
                        sent.append(waiting.popleft().result())
                sent += [future.result() for future in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sent

    def _part(self, upload_id: str, number: int, data: bytearray, known: dict[str, Any] | None) -> _Sent:
        digest = hashlib.sha256(data).digest()
        if known is not None and is_same(known, data, digest):
            return _Sent(number, known["ETag"], digest, len(data))
        with errors(self.access.where, self.name):
            answer = _AGAIN(
                self.client.upload_part,
                **self._where,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,
                **self._sums(data, digest),
            )
        return _Sent(number, answer["ETag"], digest, len(data))

    def _complete(self, upload_id: str, sent: list[_Sent]) -> dict[str, Any]:
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in sent]
        if self.access.checksums == "sha256":
            listed = [
                {**one, "ChecksumSHA256": b64(part.digest)} for one, part in zip(listed, sent, strict=True)
            ]
        if not self.access.conditional and self.look() is not None:
            raise self._taken()
        sums, size = _sums_of(sent), sum(part.size for part in sent)
        try:
            answer: dict[str, Any] = self.client.complete_multipart_upload(
                **self._where, UploadId=upload_id, MultipartUpload={"Parts": listed}, **self._only_if_absent
            )
        except ClientError as error:
            answer = self._unless_ours(error, sums, size)
        return answer

    def _compared(self, answer: dict[str, Any], sent: list[_Sent], meter: Meter, length: int) -> Stored:
        there = self.look() or {}
        said = there.get("ChecksumSHA256") or answer.get("ChecksumSHA256")
        if there.get("ContentLength") != meter.size or (said and said not in {*_sums_of(sent), _b64(meter)}):
            self._remove({**there, **answer})
        if not said:
            return Stored(self.name, meter.size, there.get("LastModified"))
        digests = tuple(part.digest.hex() for part in sent)
        return Stored(self.name, meter.size, there.get("LastModified"), meter.sha256, digests, length)

    def _discard_others(self, upload_id: str) -> None:
        """End what earlier attempts left. Where this account may not, `unfinished` tells of it."""
        try:
            for other in uploads(self.client, self.access, self.key):
                if other["UploadId"] != upload_id:
                    self.client.abort_multipart_upload(**self._where, UploadId=other["UploadId"])
        except ClientError as error:
            if code_of(error) not in (*REFUSED, ABSENT_UPLOAD):
                raise answered(error, self.access.where, self.name) from None

    # what both have

    def look(self) -> dict[str, Any] | None:
        """Return what the service says of the key, None if it has none."""
        return look(self.client, self.access, self.key, self.name)

    @property
    def _where(self) -> dict[str, str]:
        return {"Bucket": self.access.bucket, "Key": self.key}

    @property
    def _manner(self) -> dict[str, Any]:
        encryption = self.access.encryption
        return self.terms | ({"ServerSideEncryption": encryption} if encryption else {})

    @property
    def _only_if_absent(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self.access.conditional else {}

    def _sums(self, data: bytearray, digest: bytes) -> dict[str, str]:
        if self.access.checksums == "sha256":
            return {"ChecksumSHA256": b64(digest)}
        return {"ContentMD5": b64(md5(data))}

    def _unless_ours(self, error: ClientError, sums: set[str], size: int) -> dict[str, Any]:
        """Return what is there, if a request whose answer was lost put it there; raise what else it means."""
        if code_of(error) not in (*TAKEN, ABSENT_UPLOAD):
            raise answered(error, self.access.where, self.name) from None
        there = self.look()
        if there is None:
            raise answered(error, self.access.where, self.name) from None
        if retries_of(error) and there.get("ChecksumSHA256") in sums and there["ContentLength"] == size:
            return there
        raise self._taken() from None

    def _taken(self) -> NameTakenError:
        return NameTakenError(f"{self.name} exists already in {self.access.where}")

    def _remove(self, there: dict[str, Any]) -> None:
        """Remove what was received as something else, and say so."""
        version = {"VersionId": there["VersionId"]} if "VersionId" in there else {}
        left = "it was removed there"
        try:
            self.client.delete_object(**self._where, **version)
        except ClientError as error:
            left = f"and it could not be removed ({code_of(error)}): no entry will name it"
        raise DamagedError(
            f"{self.access.where} says of {self.name} another SHA-256 or size than was sent; {left}",
            hint="run it again; if it comes back, suspect the service: nothing there is counted as a copy",
        )


def look(client: Any, access: Access, key: str, name: str) -> dict[str, Any] | None:
    """Return what the service says of a key, None if it has none. Raises `VaultError`."""
    try:
        found: dict[str, Any] = client.head_object(Bucket=access.bucket, Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        with errors(access.where, name):  # HEAD has no body that says why: ask in a way that has one
            client.list_objects_v2(Bucket=access.bucket, Prefix=key, MaxKeys=1)
        raise answered(error, access.where, name) from None
    return found


def uploads(client: Any, access: Access, prefix: str, *, exactly: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the unfinished uploads of the key `prefix`, or of all that begin with it."""
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=access.bucket, Prefix=prefix):
        for upload in page.get("Uploads", []):
            if upload["Key"] == prefix or (not exactly and upload["Key"].startswith(prefix)):
                yield upload


def parts_of(client: Any, access: Access, key: str, upload_id: str) -> Iterator[dict[str, Any]]:
    """Yield the parts that an unfinished upload has."""
    paging = client.get_paginator("list_parts")
    for page in paging.paginate(Bucket=access.bucket, Key=key, UploadId=upload_id):
        yield from page.get("Parts", [])


def _initiated(upload: dict[str, Any]) -> Any:
    return upload["Initiated"]


def _sums_of(sent: list[_Sent]) -> set[str]:
    whole = composite([part.digest for part in sent])
    return {whole, whole.partition("-")[0]}


def _b64(meter: Meter) -> str:
    return b64(bytes.fromhex(meter.sha256))
