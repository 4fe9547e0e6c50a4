"""What an S3 service takes is found out by trying: on a real server, and behind one that is particular."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

import pytest

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.s3_access import connect
from bookreader_backup_assets.vaults.s3_bucket import Features, Reached, features, require_locks
from bookreader_backup_assets.vaults.s3_place import FOLDER, Bucket
from bookreader_backup_assets.vaults.s3_probe import (
    Deletion,
    Reach,
    Reading,
    Sending,
    StorageClass,
    probe,
)
from bookreader_backup_assets.vaults.s3_trial import IGNORED, Manner
from tests.fixtures.particular import Quirk, particular

NO_SHA256 = Quirk(header="x-amz-checksum-sha256", status=401, code="Unauthorized")
NO_CONDITION = Quirk(header="if-none-match", status=501, code="NotImplemented")
NO_ENCRYPTION = Quirk(header="x-amz-server-side-encryption", status=400, code="InvalidRequest")


def found(access, kind, *classes, now=lambda: datetime.now(UTC)):
    """Return what a probe finds of a kind; the only one, unless storage classes are asked for."""
    every = [one for one in probe(Reached.of(Bucket(access)), classes, now) if isinstance(one, kind)]
    return every if kind is StorageClass else every[0]


def left(access):
    """Return the keys in a bucket."""
    return [one["Key"] for one in connect(access).list_objects_v2(Bucket=access.bucket).get("Contents", [])]


def ignoring(access):
    """Have a service ignore If-None-Match: what is there goes before the request comes."""

    def remove(path):
        key = unquote(urlsplit(path).path).split("/", 2)[2]
        connect(access).delete_object(Bucket=access.bucket, Key=key)

    return Quirk(header="if-none-match", before=remove)


def test_a_service_that_takes_everything(bucket):
    """SHA-256 in one request and in parts, encryption, and conditions: as set, and nothing is left there."""
    sending = found(bucket, Sending)
    assert (sending.works, sending.because) == (Manner("sha256", "AES256", True), {})
    assert (sending.sent.sha256, sending.sent.sha256_of_parts, sending.sent.encryption) == (
        True,
        True,
        "AES256",
    )
    assert left(bucket) == []


@pytest.mark.parametrize(
    ("quirks", "works", "because"),
    [
        ([NO_SHA256], Manner("none", "AES256", True), {"checksums": "Unauthorized"}),
        ([NO_CONDITION], Manner("sha256", "AES256", False), {"conditional": "NotImplemented"}),
        ([NO_ENCRYPTION], Manner("sha256", "", True), {"encryption": "InvalidRequest"}),
        (
            [NO_SHA256, NO_ENCRYPTION, NO_CONDITION],
            Manner("none", "", False),
            {"encryption": "InvalidRequest", "checksums": "Unauthorized", "conditional": "NotImplemented"},
        ),
    ],
    ids=["checksums", "conditions", "encryption", "all"],
)
def test_what_is_refused_is_named(bucket, quirks, works, because):
    """The first manner that works is found, and of each setting why it cannot be as asked."""
    with particular(bucket.endpoint, *quirks) as endpoint:
        sending = found(replace(bucket, endpoint=endpoint), Sending)
    assert (sending.works, sending.because) == (works, because)
    assert left(bucket) == []


def test_a_condition_that_is_ignored_is_noticed(bucket):
    """A service that overwrites in spite of If-None-Match says nothing: it is seen by trying twice."""
    with particular(bucket.endpoint, ignoring(bucket)) as endpoint:
        sending = found(replace(bucket, endpoint=endpoint), Sending)
    assert (sending.works.conditional, sending.because) == (False, {"conditional": IGNORED})


def test_a_condition_that_is_ignored_for_parts_is_noticed(bucket):
    """Some services refuse a second file of one request, and let one in parts through."""
    quirk = replace(ignoring(bucket), method="POST")
    with particular(bucket.endpoint, quirk) as endpoint:
        sending = found(replace(bucket, endpoint=endpoint), Sending)
    assert sending.because == {"conditional": IGNORED}


def test_nothing_is_written_without_the_right_to(bucket):
    """A service that lets nobody write is asked in every manner, and none works."""
    refusal = Quirk(method="PUT", status=403, code="AccessDenied")
    with particular(bucket.endpoint, refusal) as endpoint:
        sending = found(replace(bucket, endpoint=endpoint), Sending)
    assert (sending.works, sending.because) == (None, {"": "AccessDenied"})


def test_a_wrong_key_is_no_manner(bucket):
    """What concerns every request is an error, with its hint, and is not tried in twelve manners."""
    with pytest.raises(VaultError, match="secret key is not"):
        list(
            probe(
                Reached.of(Bucket(replace(bucket, secret_key=Secret("x" * 40)))),
                (),
                lambda: datetime.now(UTC),
            )
        )


def test_storage_classes(bucket):
    """A class that the service has not is refused with its word; one that it has is kept as asked."""
    classes = found(bucket, StorageClass, "STANDARD_IA", "COLDISH")
    assert classes == [
        StorageClass("STANDARD_IA", "STANDARD_IA"),
        StorageClass("COLDISH", "", "InvalidStorageClass"),
    ]


def test_what_a_bucket_has(bucket, locking_bucket):
    """Object lock and versions are seen where they are, and where they are not."""
    assert found(bucket, Features) == Features(versions=False, locks=False)
    assert found(locking_bucket, Features) == Features(versions=True, locks=True)
    assert found(bucket, Features).lock_lacks == "object lock and no versions"


def test_what_may_not_be_asked_is_unknown(locking_bucket):
    """An account without the right to ask knows nothing of locks, and nothing is said to be missing."""
    quirks = [Quirk(query=name, status=403, code="AccessDenied") for name in ("versioning", "object-lock")]
    with particular(locking_bucket.endpoint, *quirks) as endpoint:
        has = features(Reached.of(Bucket(replace(locking_bucket, endpoint=endpoint))))
    assert (has, has.lock_lacks) == (Features(None, None), "")


def test_a_lock_needs_a_bucket_that_locks(bucket, locking_bucket):
    """Where a lock is asked for and cannot be, that is refused with what to do."""
    require_locks(Reached.of(Bucket(locking_bucket)), ["postgresql"])
    with pytest.raises(VaultError, match=r"no object lock and no versions.*postgresql") as refused:
        require_locks(Reached.of(Bucket(bucket)), ["postgresql"])
    assert "when a bucket is made" in refused.value.hint


def test_versions_are_removed_too(locking_bucket):
    """In a bucket with versions nothing is left of what was tried, nor a marker."""
    deletion = found(locking_bucket, Deletion)
    assert (deletion.writer, deletion.left) == (True, 0)
    there = connect(locking_bucket).list_object_versions(Bucket=locking_bucket.bucket)
    assert not {"Versions", "DeleteMarkers"} & there.keys()


def test_what_a_bucket_locks_by_itself_is_left_and_said(locking_bucket):
    """A default lock holds what was tried as well: it is named, and no error."""
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    connect(locking_bucket).put_object_lock_configuration(
        Bucket=locking_bucket.bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )
    assert found(locking_bucket, Features).default_lock == "GOVERNANCE 1 days"
    assert found(locking_bucket, Sending).because == {}
    assert found(locking_bucket, Deletion).left > 0


def test_an_account_that_may_not_delete_says_what_it_leaves(bucket):
    """It needs not: what was tried stays, in a folder that is named, and is no installation."""
    with particular(bucket.endpoint, Quirk(method="DELETE", status=403, code="AccessDenied")) as endpoint:
        deletion = found(replace(bucket, endpoint=endpoint), Deletion)
    assert (deletion.writer, deletion.pruner) == (False, False)
    assert deletion.left == len(left(bucket)) > 0
    assert all(key.startswith(deletion.folder) for key in left(bucket))
    connect(bucket).put_object(Bucket=bucket.bucket, Key=f"{FOLDER}abc/installation.json", Body=b"{}")
    connect(bucket).put_object(Bucket=bucket.bucket, Key=f"{FOLDER}other-thing/readme", Body=b"of others")
    assert Bucket(bucket).installations() == ["abc"]


def test_another_account_removes_what_the_first_may_not(bucket):
    """Where one is set up to prune, it clears up after the probe as well."""
    with particular(bucket.endpoint, Quirk(method="DELETE", status=403, code="AccessDenied")) as endpoint:
        reached = Reached.of(Bucket(replace(bucket, endpoint=endpoint), pruning=bucket))
        deletion = [one for one in probe(reached, (), lambda: datetime.now(UTC)) if isinstance(one, Deletion)]
    assert (deletion[0].writer, deletion[0].pruner, deletion[0].left) == (False, True, 0)
    assert left(bucket) == []


def test_clocks_are_compared(bucket):
    """A clock that goes wrong here is seen before locks are set by it."""
    reach = found(bucket, Reach)
    assert (reach.style, abs(reach.ahead) < 5) == ("path", True)
    wrong = found(bucket, Reach, now=lambda: datetime.now(UTC) - timedelta(minutes=10))
    assert wrong.ahead == pytest.approx(600, abs=5)


def test_reading_is_compared(bucket):
    """Parts of a file and pages of lists come as asked, and services where they do not are found out."""
    assert found(bucket, Reading) == Reading(ranges=True, pages=True)
    shifted = Quirk(header="range", method="GET", edit=lambda _: b"book")
    ended = Quirk(
        query="list-type", edit=lambda body: body.replace(b"<IsTruncated>true", b"<IsTruncated>false")
    )
    for quirk, reading in ((shifted, Reading(False, True)), (ended, Reading(True, False))):
        with particular(bucket.endpoint, quirk) as endpoint:
            assert found(replace(bucket, endpoint=endpoint), Reading) == reading
