"""Sending one file to S3: in one request, or in parts that an interrupted upload does not send twice."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from botocore.exceptions import ClientError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, VaultError
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.vaults.base import Stored
from bookreader_backup_assets.vaults.s3_errors import (
    ABSENT_UPLOAD,
    DAMAGED,
    REFUSED,
    TAKEN,
    answered,
    code_of,
    retries_of,
)
from bookreader_backup_assets.vaults.s3_key import Key
from bookreader_backup_assets.vaults.s3_parts import (
    MOST,
    b64,
    composite,
    composite_etag,
    cut,
    in_flight,
    is_same,
    md5,
    part_size,
)

_UNTIL = "ObjectLockRetainUntilDate"
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
    """A file on its way to `key`. `terms` are its storage class and lock, as boto3 names them."""

    key: Key
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
        stored = self._compared(said, sent, meter, length)
        if known and _UNTIL in self.terms:  # what was begun was to be locked from then, or not at all
            self.key.lock(self.terms[_UNTIL])
        self._discard_others(upload_id)
        return stored

    def _require_whole(self, meter: Meter, size: int | None) -> None:
        if size is not None and meter.size != size:
            raise DamagedError(
                f"{meter.size} bytes came for {self.key.name}, and {size} were announced: it was not kept",
                hint="something changed what was being copied; `bookreader-backup verify` reads it",
            )

    # in one request

    def _one(self, data: bytearray, sha256: str) -> Stored:
        digest = bytes.fromhex(sha256)
        try:
            answer = _AGAIN(
                self.key.client.put_object,
                **self.key.where,
                Body=data,
                **self._sums(data, digest),
                **self._only_if_absent,
                **self._manner,
            )
        except ClientError as error:
            answer = self._unless_ours(error, {b64(digest), md5(data).hex()}, len(data))
        said = answer.get("ChecksumSHA256")
        if said is None and self.key.access.checksums == "sha256":
            said = (self.key.look() or {}).get("ChecksumSHA256")
        if said is not None and said != b64(digest):
            self._remove(answer)
        return Stored(self.key.name, len(data), sha256=sha256 if said else None)

    # in parts

    def _begun(self) -> tuple[str, dict[int, dict[str, Any]]]:
        """Return the newest unfinished upload like this one and its parts, or a new one and none."""
        if found := [upload for upload in self.key.uploads() if self._is_like(upload)]:
            upload_id = found[-1]["UploadId"]
            return upload_id, {part["PartNumber"]: part for part in self.key.parts(upload_id)}
        sums = {"ChecksumAlgorithm": "SHA256"} if self.key.access.checksums == "sha256" else {}
        made = self.key.client.create_multipart_upload(**self.key.where, **sums, **self._manner)
        return made["UploadId"], {}

    def _is_like(self, upload: dict[str, Any]) -> bool:
        """Whether an upload was begun as this one would be, as far as the service says."""
        sums = "SHA256" if self.key.access.checksums == "sha256" else None
        kind = self.terms.get("StorageClass", "STANDARD")
        return upload.get("ChecksumAlgorithm", sums) == sums and upload.get("StorageClass", kind) == kind

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
                            f"{self.key.name} has more than {MOST:,} parts of {len(piece):,} bytes",
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
        answer = _AGAIN(
            self.key.client.upload_part,
            **self.key.where,
            UploadId=upload_id,
            PartNumber=number,
            Body=data,
            **self._sums(data, digest),
        )
        return _Sent(number, answer["ETag"], digest, len(data))

    def _complete(self, upload_id: str, sent: list[_Sent]) -> dict[str, Any]:
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in sent]
        if self.key.access.checksums == "sha256":
            listed = [
                {**one, "ChecksumSHA256": b64(part.digest)} for one, part in zip(listed, sent, strict=True)
            ]
        if not self.key.access.conditional and self.key.look() is not None:
            raise self._taken()
        sums = {*_sums_of(sent), composite_etag([part.etag for part in sent])}
        try:
            answer: dict[str, Any] = self.key.client.complete_multipart_upload(
                **self.key.where,
                UploadId=upload_id,
                MultipartUpload={"Parts": listed},
                **self._only_if_absent,
            )
        except ClientError as error:
            answer = self._unless_ours(error, sums, sum(part.size for part in sent))
        return answer

    def _compared(self, answer: dict[str, Any], sent: list[_Sent], meter: Meter, length: int) -> Stored:
        there = self.key.look()
        if there is None:
            raise VaultError(
                f"{self.key.name} was taken by {self.key.access.where}, and is not there",
                hint="somebody removed it at once, or the service lost it: run it again",
            )
        said = there.get("ChecksumSHA256") or answer.get("ChecksumSHA256")
        if there["ContentLength"] != meter.size or (said and said not in {*_sums_of(sent), _b64(meter)}):
            self._remove({**there, **answer})
        if not said:
            return Stored(self.key.name, meter.size, there["LastModified"].astimezone(UTC))
        digests = tuple(part.digest.hex() for part in sent)
        return Stored(
            self.key.name, meter.size, there["LastModified"].astimezone(UTC), meter.sha256, digests, length
        )

    def _discard_others(self, upload_id: str) -> None:
        """End what earlier attempts left. Where this account may not, `unfinished` tells of it."""
        try:
            for other in self.key.uploads():
                if other["UploadId"] != upload_id:
                    self.key.client.abort_multipart_upload(**self.key.where, UploadId=other["UploadId"])
        except ClientError as error:
            if code_of(error) not in (*REFUSED, ABSENT_UPLOAD):
                raise answered(error, self.key.access.where, self.key.name) from None

    # what both have

    @property
    def _manner(self) -> dict[str, Any]:
        encryption = self.key.access.encryption
        return self.terms | ({"ServerSideEncryption": encryption} if encryption else {})

    @property
    def _only_if_absent(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self.key.access.conditional else {}

    def _sums(self, data: bytearray, digest: bytes) -> dict[str, str]:
        if self.key.access.checksums == "sha256":
            return {"ChecksumSHA256": b64(digest)}
        return {"ContentMD5": b64(md5(data))}

    def _unless_ours(self, error: ClientError, sums: set[str], size: int) -> dict[str, Any]:
        """Return what is there, if a request whose answer was lost put it there; raise what else it means."""
        if code_of(error) not in (*TAKEN, ABSENT_UPLOAD):
            raise answered(error, self.key.access.where, self.key.name) from None
        there = self.key.look()
        if there is None:
            raise answered(error, self.key.access.where, self.key.name) from None
        said = {there.get("ChecksumSHA256"), there["ETag"].strip('"')}
        if retries_of(error) and said & sums and there["ContentLength"] == size:
            return there
        raise self._taken() from None

    def _taken(self) -> NameTakenError:
        return NameTakenError(f"{self.key.name} exists already in {self.key.access.where}")

    def _remove(self, there: dict[str, Any]) -> None:
        """Remove what was received as something else, and say so."""
        version = {"VersionId": there["VersionId"]} if "VersionId" in there else {}
        left = "it was removed there"
        try:
            self.key.client.delete_object(**self.key.where, **version)
        except ClientError as error:
            left = f"and it could not be removed ({code_of(error)}): no entry will name it"
        raise DamagedError(
            f"{self.key.access.where} says of {self.key.name} another SHA-256 or size than was sent; {left}",
            hint="run it again; if it comes back, suspect the service: nothing there is counted as a copy",
        )


def _sums_of(sent: list[_Sent]) -> set[str]:
    whole = composite([part.digest for part in sent])
    return {whole, whole.partition("-")[0]}


def _b64(meter: Meter) -> str:
    return b64(bytes.fromhex(meter.sha256))
