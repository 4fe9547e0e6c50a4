"""What an S3 service takes, found out with small files that are removed again, as far as that is allowed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bookreader_backup_assets.vaults.s3_bucket import Features, Reached, features
from bookreader_backup_assets.vaults.s3_errors import code_of, errors
from bookreader_backup_assets.vaults.s3_place import FOLDER
from bookreader_backup_assets.vaults.s3_trial import Manner, RefusedManner, Sent, Trial, in_manner

PROBES = f"{FOLDER}.probe/"
"""Under this, everything that is tried lies: no installation has such an id."""


@dataclass(frozen=True)
class Reach:
    """It answers: in which style of addresses, and how many seconds its clock is ahead of this one."""

    style: str
    ahead: float | None


@dataclass(frozen=True)
class Sending:
    """How files are sent: as `asked`, or in the manner that `works`; None if none does.

    `because` is, by setting, what the service said of the one that was asked for; `sent` what it says of
    files that it took.
    """

    asked: Manner
    works: Manner | None
    because: dict[str, str]
    sent: Sent | None


@dataclass(frozen=True)
class StorageClass:
    """A storage class of the plan: under which name the service keeps it, or why it refuses."""

    name: str
    kept_as: str
    refused: str = ""


@dataclass(frozen=True)
class Reading:
    """Whether parts of a file are read as they were asked for, and lists go on where a page has ended."""

    ranges: bool
    pages: bool


@dataclass(frozen=True)
class Deletion:
    """Whether the account that writes may delete, whether the pruning one may; what is left, and where."""

    writer: bool
    pruner: bool
    left: int
    folder: str


Found = Reach | Sending | StorageClass | Features | Reading | Deletion


def probe(
    reached: Reached, classes: Iterable[str], now: Callable[[], datetime], asked: Manner | None = None
) -> Iterator[Found]:
    """Yield what the service takes. `classes` are the storage classes that the plan asks for.

    `asked` is how the settings have files sent, those of the access if it is not given. Raises `VaultError`
    where the service cannot be reached, or does not let this account write.
    """
    access = reached.access
    asked = asked or Manner(access.checksums, access.encryption, access.conditional)
    yield _reach(reached, now)
    yield features(reached)
    trial = Trial(reached, f"{PROBES}{secrets.token_hex(8)}/")
    try:
        sending = _sending(trial, asked)
        yield sending
        if sending.works is not None:
            yield from (_storage_class(trial, sending.works, name) for name in classes)
            yield _reading(trial)
    finally:
        deletion = _remove(trial)
    yield deletion


def _reach(reached: Reached, now: Callable[[], datetime]) -> Reach:
    with errors(reached.access.where):
        before = now()
        answer = reached.client.list_objects_v2(Bucket=reached.access.bucket, Prefix=PROBES, MaxKeys=1)
        middle = before + (now() - before) / 2
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    style = (reached.client.meta.config.s3 or {}).get("addressing_style", "auto")
    try:
        ahead = (parsedate_to_datetime(said).astimezone(UTC) - middle).total_seconds()
    except ValueError:
        return Reach(style, None)
    return Reach(style, ahead)


def _sending(trial: Trial, asked: Manner) -> Sending:
    sent, said = _try(trial, asked)
    if sent is not None:
        return Sending(asked, asked, {}, sent)
    for works in asked.others():
        found, _ = _try(trial, works)
        if found is not None:
            alone = {name: _try(trial, works.but(name, asked))[1] or said for name in asked.differs(works)}
            return Sending(asked, works, alone, found)
    return Sending(asked, None, {"": said}, None)


def _try(trial: Trial, manner: Manner) -> tuple[Sent | None, str]:
    try:
        return trial.send(manner), ""
    except RefusedManner as error:
        return None, error.said


def _storage_class(trial: Trial, manner: Manner, name: str) -> StorageClass:
    where, data = trial.key(), b"a class"
    with errors(trial.reached.access.where):
        try:
            trial.put(where, data, StorageClass=name, **in_manner(manner, data))
            there = trial.reached.client.head_object(**where)
        except ClientError as error:
            return StorageClass(name, "", code_of(error))
    return StorageClass(name, there.get("StorageClass", "STANDARD"))


def _reading(trial: Trial) -> Reading:
    client, bucket = trial.reached.client, trial.reached.access.bucket
    with errors(trial.reached.access.where):
        where = trial.made[0]
        there = {name: where[name] for name in ("Bucket", "Key")}
        part = client.get_object(**there, Range="bytes=4-7")
        ranges = (part["Body"].read(), part.get("ContentLength")) == (b"read", 4)
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": trial.folder}
        pages = client.get_paginator("list_objects_v2").paginate(**asked, PaginationConfig={"PageSize": 1})
        listed = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return Reading(ranges, sorted(listed) == sorted({one["Key"] for one in trial.made}))


def _remove(trial: Trial) -> Deletion:
    """Remove what was made, by the account that writes if it may, and by the pruning one if not."""
    writer, pruner, left = False, False, 0
    for one in trial.made:
        if _delete(trial.reached.client, one):
            writer = True
        elif trial.reached.pruning is not trial.reached.client and _delete(trial.reached.pruning, one):
            pruner = True
        else:
            left += 1
    return Deletion(writer, pruner, left, trial.folder)


def _delete(client: Any, one: dict[str, str]) -> bool:
    try:
        client.delete_object(**one)
    except (ClientError, BotoCoreError):
        return False  # that it is left is what is reported
    return True
