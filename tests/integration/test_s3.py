"""The vault in a bucket, over a real S3 server and a way to it that breaks, delays, and changes bytes."""

import hashlib
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import botocore.auth
import botocore.retries.standard
import pytest

from bookreader_backup_assets.core.errors import (
    DamagedError,
    NameTakenError,
    NotFoundError,
    SourceAbsentError,
    VaultError,
)
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers import s3 as servers
from bookreader_backup_assets.vaults import s3_access, s3_parts
from bookreader_backup_assets.vaults.base import Stored
from bookreader_backup_assets.vaults.s3 import FOR_EVER, S3Vault
from bookreader_backup_assets.vaults.s3_access import Access
from bookreader_backup_assets.vaults.s3_parts import composite
from tests.fixtures.faulty import Faulty
from tests.fixtures.missing import missing
from tests.fixtures.s3 import BrokeError, Source, changed, fresh_prefix, raw

NAME = "storage/storage_files_2025-10-24_03-00-00_full.tar.gz"
BLOCK = 320 << 10
BLOCKS = [random.Random(seed).randbytes(BLOCK) for seed in range(50)]
PART = 16 * BLOCK
"""Bytes of a part in these tests: there are three of sixteen blocks, and one of two."""
WHOLE = b"".join(BLOCKS)
SIZE = len(WHOLE)
SHA256 = hashlib.sha256(WHOLE).hexdigest()
SMALL = b"an entry, say" * 1000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of 5 MiB, the least that S3 takes: gigabytes need not be sent."""
    monkeypatch.setattr(s3_parts, "SMALLEST", PART)
    monkeypatch.setattr(s3_parts, "UNKNOWN", 4 * PART)


@pytest.fixture(params=["sha256", "none"])
def either(request, behind):
    """The vault by the faulty way, with each kind of checksum."""
    return changed(behind, checksums=request.param)


@pytest.fixture
def impatient(monkeypatch):
    """Tries again at once."""
    monkeypatch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0)


def _read(vault, name=NAME, *bounds):
    return hashlib.sha256(b"".join(vault.open(name, *bounds))).hexdigest()


# sending


def test_what_the_service_computed_is_what_was_sent(either, faulty):
    """With SHA-256, the whole hash and that of each part are reported as compared; without, none is."""
    stored = either.put(NAME, BLOCKS, size=SIZE)
    assert stored == Stored(NAME, SIZE)
    assert _read(either) == SHA256
    parts = [hashlib.sha256(WHOLE[at : at + PART]).digest() for at in range(0, SIZE, PART)]
    if either.access.checksums == "sha256":
        assert (stored.sha256, stored.parts) == (SHA256, tuple(part.hex() for part in parts))
        assert stored.part_size == PART
        head = raw(either).head_object(
            Bucket=either.access.bucket, Key=either.prefix + NAME, ChecksumMode="ENABLED"
        )
        assert head["ChecksumSHA256"] == composite(parts)
    else:
        assert (stored.sha256, stored.parts) == (None, ())
    assert faulty.sent["PUT part"] == SIZE
    small = either.put("small", [SMALL])
    assert small.sha256 == (
        hashlib.sha256(SMALL).hexdigest() if either.access.checksums == "sha256" else None
    )


@pytest.mark.parametrize("length", [PART - 1, PART, PART + 1, 2 * PART])
def test_at_the_edge_of_a_part(behind, faulty, length):
    """One part or less is one request; one byte more makes two parts; no part is empty."""
    stored = behind.put(NAME, [WHOLE[:length]], size=length)
    assert stored.sha256 == hashlib.sha256(WHOLE[:length]).hexdigest() == _read(behind)
    assert faulty.requests["PUT part"] == (0 if length <= PART else 2)
    assert faulty.requests["PUT object"] == (1 if length <= PART else 0)


def test_parts_travel_at_once(behind, faulty):
    """Four are on their way together, and arrive in their places however long each takes."""
    faulty.fail("PUT part", delay=0.5)
    faulty.fail("PUT part", delay=0.1, times=2)
    behind.put(NAME, BLOCKS, size=SIZE)
    assert 2 <= faulty.at_once["PUT part"] <= 4
    assert _read(behind) == SHA256


@pytest.mark.parametrize("announced", [SIZE - 1, SIZE + 1, 10])
def test_another_size_than_announced_is_not_kept(offsite, announced):
    """Fewer bytes or more: an error, and nothing is there."""
    with pytest.raises(DamagedError, match="were announced"):
        offsite.put(NAME, BLOCKS, size=announced)
    with pytest.raises(DamagedError, match="were announced"):
        offsite.put("small", [SMALL], size=len(SMALL) + 1)
    assert list(offsite.list()) == []


def test_encrypted_there_and_of_its_class(bucket):
    """What the plan asks for is asked of the service, in one request and in parts."""
    vault = S3Vault(bucket, fresh_prefix(), storage_class="STANDARD_IA")
    vault.put(NAME, BLOCKS, size=SIZE)
    vault.put("small", [SMALL])
    for name in (NAME, "small"):
        head = raw(vault).head_object(Bucket=bucket.bucket, Key=vault.prefix + name)
        assert (head["ServerSideEncryption"], head["StorageClass"]) == ("AES256", "STANDARD_IA")


# going on


def test_an_interrupted_upload_goes_on_at_the_missing_part(either, faulty):
    """What had arrived is hashed again and not sent again; the file is whole, and nothing else is left."""
    with pytest.raises(BrokeError):
        either.put(NAME, Source(BLOCKS, breaks_at=48), size=SIZE)
    assert list(either.list()) == []
    (left,) = either.unfinished()
    assert left == Stored(NAME, 48 * BLOCK)
    faulty.forget()
    stored = either.put(NAME, Source(BLOCKS), size=SIZE)
    assert faulty.sent["PUT part"] == 2 * BLOCK
    assert faulty.requests["PUT part"] == 1
    assert stored.sha256 in (SHA256, None)
    assert _read(either) == SHA256
    assert list(either.unfinished()) == []


def test_other_bytes_are_sent_again(either, faulty):
    """A part that is there and is of another file is replaced: only what is equal is kept."""
    other = [BLOCKS[0], *BLOCKS[:47]]
    other[20] = bytes(BLOCK)
    with pytest.raises(BrokeError):
        either.put(NAME, Source([*BLOCKS[:16], *other[16:], b"end"], breaks_at=48), size=SIZE)
    faulty.forget()
    either.put(NAME, BLOCKS, size=SIZE)
    assert faulty.sent["PUT part"] == 34 * BLOCK
    assert _read(either) == SHA256


def test_a_part_that_was_cut_is_sent_again_alone(behind, faulty):
    """The connection ends in the middle of a part: that part is sent once more, within the same `put`."""
    faulty.fail("PUT part", cut_upload=BLOCK, skip=1)  # whichever comes second, the short last one too
    stored = behind.put(NAME, BLOCKS, size=SIZE)
    assert stored.sha256 == _read(behind) == SHA256
    assert faulty.requests["PUT part"] == 5


def test_what_was_begun_in_other_parts_is_gone_on_with(offsite):
    """Begun without knowing the size, ended with it: nothing of the first is mixed in, nothing is left."""
    with pytest.raises(BrokeError):
        offsite.put(NAME, Source([*BLOCKS, *BLOCKS, *BLOCKS], breaks_at=140))
    assert sum(left.size for left in offsite.unfinished()) == 8 * PART
    offsite.put(NAME, BLOCKS, size=SIZE)
    assert offsite.stat(NAME).size == SIZE
    assert _read(offsite) == SHA256
    assert list(offsite.unfinished()) == []


def test_the_newest_is_gone_on_with_and_the_others_end(offsite):
    """Several unfinished uploads of one name: all are gone when it is there; those of others stay."""
    where = {"Bucket": offsite.access.bucket, "Key": offsite.prefix + NAME}
    for key in (where["Key"], where["Key"], f"{where['Key']}.log"):
        raw(offsite).create_multipart_upload(**where | {"Key": key})
    offsite.put(NAME, BLOCKS, size=SIZE)
    assert [left.name for left in offsite.unfinished()] == [f"{NAME}.log"]


@pytest.mark.parametrize("other", [{"StorageClass": "GLACIER"}, {"ChecksumAlgorithm": "CRC32"}])
def test_what_was_begun_in_another_way_is_not_gone_on_with(behind, faulty, other):
    """Of another class or with other checksums, where the service says so: it ends, and a new one is made."""
    with pytest.raises(BrokeError):
        behind.put(NAME, Source(BLOCKS, breaks_at=40), size=SIZE)
    faulty.forget()
    client = raw(behind)

    def say(parsed, **_):
        for upload in parsed.get("Uploads", []):
            upload.update(other)

    client.meta.events.register("after-call.s3.ListMultipartUploads", say)
    replace(behind, connect=lambda: client).put(NAME, BLOCKS, size=SIZE)
    assert faulty.sent["PUT part"] == SIZE
    assert list(behind.unfinished()) == []


SENDS = """
import random, sys
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults import s3_parts
from bookreader_backup_assets.vaults.s3 import S3Vault
from bookreader_backup_assets.vaults.s3_access import Access

s3_parts.SMALLEST = 5 << 20
endpoint, bucket, key, secret, prefix, name = sys.argv[1:]
vault = S3Vault(Access(bucket, endpoint, "us-east-1", Secret(key), Secret(secret)), prefix)
blocks = (random.Random(seed).randbytes(320 << 10) for seed in range(50))
vault.put(name, blocks, size=50 * (320 << 10))
"""


def test_a_killed_process_is_gone_on_with(behind, faulty):
    """Killed in the middle of an upload: the next process sends what is missing, and it is identical."""
    faulty.fail("PUT part", delay=60, skip=2, times=9)
    access = behind.access
    secrets = [access.key_id.reveal(), access.secret_key.reveal()]  # of a server that lives for this test
    process = subprocess.Popen(
        [sys.executable, "-c", SENDS, access.endpoint, access.bucket, *secrets, behind.prefix, NAME]
    )
    try:
        deadline = time.monotonic() + 60
        while sum(left.size for left in behind.unfinished()) == 0:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert list(behind.list()) == []
    faulty.forget()
    (left,) = behind.unfinished()
    assert 0 < left.size <= 2 * PART
    assert behind.put(NAME, BLOCKS, size=SIZE).sha256 == SHA256 == _read(behind)
    assert faulty.sent["PUT part"] == SIZE - left.size


# names are written once


@pytest.mark.parametrize("size", [len(SMALL), SIZE])
def test_whoever_is_first_keeps_the_name(either, size):
    """Another host writes the name between our look and our end: it stays as it is, and we are told."""
    other = b"of another host"

    def racing():
        yield from BLOCKS if size == SIZE else [SMALL]
        raw(either).put_object(Bucket=either.access.bucket, Key=either.prefix + NAME, Body=other)

    with pytest.raises(NameTakenError, match="exists already"):
        either.put(NAME, racing(), size=size)
    assert b"".join(either.open(NAME)) == other


def test_where_the_service_knows_no_conditions_we_look_again(behind):
    """Without conditional requests, a name that was taken while the parts travelled is still seen."""
    vault = changed(behind, conditional=False)

    def racing():
        yield from BLOCKS
        raw(vault).put_object(Bucket=vault.access.bucket, Key=vault.prefix + NAME, Body=b"other")

    with pytest.raises(NameTakenError):
        vault.put(NAME, racing(), size=SIZE)
    assert b"".join(vault.open(NAME)) == b"other"
    assert vault.put("free", [SMALL]).size == len(SMALL)


@pytest.mark.parametrize("kind", ["PUT object", "POST complete"])
def test_a_lost_answer_is_no_failure(either, faulty, kind):
    """The service took it and its answer was lost: what is there is ours, and that is seen."""
    faulty.fail(kind, after=True)
    data = BLOCKS if kind == "POST complete" else [SMALL]
    either.put(NAME, data) if kind == "PUT object" else either.put(NAME, data, size=SIZE)
    assert _read(either) == hashlib.sha256(b"".join(data)).hexdigest()
    assert faulty.requests[kind] == 2


def test_threads_share_a_vault(behind, faulty):
    """Many at once, over one client: each file is there as it was."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: behind.put(f"many/{number}", [BLOCKS[number]]), range(16)))
        read = list(pool.map(lambda number: _read(behind, f"many/{number}"), range(16)))
    assert read == [hashlib.sha256(BLOCKS[number]).hexdigest() for number in range(16)]


# reading


@pytest.mark.parametrize(
    "fault",
    [{"cut_download": 7 * BLOCK}, {"shorten": 1}, {"shorten": 40 * BLOCK}, {"understate": 9}],
    ids=str,
)
def test_a_broken_download_goes_on_where_it_broke(behind, faulty, fault):
    """Cut, shortened or said to be shorter, again and again: all bytes come, each once."""
    behind.put(NAME, BLOCKS, size=SIZE)
    faulty.forget()
    faulty.fail("GET object", **fault, times=3)
    assert _read(behind) == SHA256
    assert faulty.requests["GET object"] == 4
    faulty.forget()
    faulty.fail("GET object", cut_download=100)
    assert b"".join(behind.open(NAME, 5 * BLOCK + 1, 1000)) == WHOLE[5 * BLOCK + 1 :][:1000]


def test_a_download_that_always_breaks_is_an_error(behind, faulty):
    """Never a silent end: it says at which byte."""
    behind.put("small", [SMALL])
    faulty.fail("GET object", cut_download=0, times=99)
    with pytest.raises(VaultError, match="broke off at byte 0"):
        list(behind.open("small"))


def test_bytes_of_two_files_never_mix(behind, faulty):
    """What is replaced while it is read is an error, not half of each."""
    behind.put(NAME, BLOCKS, size=SIZE)
    where = {"Bucket": behind.access.bucket, "Key": behind.prefix + NAME}
    direct = raw(behind)
    faulty.fail("GET object", cut_download=7 * BLOCK)
    faulty.fail("GET object", call=lambda: direct.put_object(**where, Body=WHOLE[::-1]))
    with pytest.raises(DamagedError, match="replaced"):
        list(behind.open(NAME))


def test_a_changed_download_is_seen_by_its_digest(behind, faulty):
    """What arrives is hashed, not what is said of it: one bit, and the digest is another."""
    behind.put(NAME, BLOCKS, size=SIZE)
    faulty.fail("GET object", corrupt_download=30 * BLOCK)
    assert behind.digest(NAME) != SHA256
    assert behind.digest(NAME) == SHA256


# changed on the way


@pytest.mark.parametrize("kind", ["PUT object", "PUT part"])
def test_a_changed_upload_is_refused_and_sent_again(either, faulty, kind):
    """One bit changes on the way: the service refuses it, and the second time it arrives."""
    faulty.fail(kind, corrupt_upload=1000)
    data = BLOCKS if kind == "PUT part" else [SMALL]
    either.put(NAME, data, size=sum(map(len, data)))
    assert _read(either) == hashlib.sha256(b"".join(data)).hexdigest()
    assert faulty.requests[kind] == (5 if kind == "PUT part" else 2)


def test_what_always_changes_on_the_way_is_an_error(either, faulty):
    """Memory or network that is broken is named, and nothing is there."""
    faulty.fail("PUT object", corrupt_upload=1000, times=99)
    with pytest.raises(DamagedError, match="other bytes than were sent") as damaged:
        either.put(NAME, [SMALL])
    assert "memory" in damaged.value.hint
    assert list(either.list()) == []


@pytest.mark.parametrize("size", [len(SMALL), SIZE])
def test_what_the_service_says_otherwise_is_removed(offsite, monkeypatch, size):
    """It says another SHA-256 of what it has: that is removed there, and an error."""
    client = raw(offsite)
    other = composite([b"x" * 32])

    def lie(parsed, **_):
        parsed["ChecksumSHA256"] = other

    for operation in ("PutObject", "CompleteMultipartUpload", "HeadObject"):
        client.meta.events.register(f"after-call.s3.{operation}", lie)
    vault = replace(offsite, connect=lambda: client)
    with pytest.raises(DamagedError, match=r"another SHA-256.*it was removed there"):
        vault.put(NAME, [SMALL] if size == len(SMALL) else BLOCKS, size=size)
    assert list(offsite.list()) == []


# services that are slow, or fail


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (502, "")])
def test_what_passes_is_waited_for(behind, faulty, status, code):
    """Throttled or failing a few times, in every request that an upload has: it arrives."""
    for kind in ("HEAD object", "PUT part", "POST begin", "POST complete", "GET uploads"):
        faulty.fail(kind, answer=status, code=code, times=1)
    behind.put(NAME, BLOCKS, size=SIZE)
    faulty.fail("GET object", answer=status, code=code, times=2)
    assert _read(behind) == SHA256


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (503, "SlowDown", "slow down, after 5 more tries"),
        (500, "InternalError", "failed on PutObject .*after 5 more tries"),
        (507, "XMinioStorageFull", "has no room"),
        (400, "InvalidArgument", "refuses PutObject as it was sent"),
        (501, "NotImplemented", "does not know PutObject as it was sent"),
        (403, "AccessDenied", "does not allow s3:PutObject"),
        (418, "Teapot", "refused PutObject: Teapot: as told"),
        (301, "PermanentRedirect", "another region"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_does_not_pass_is_named(behind, faulty, status, code, says):
    """Each refusal says what was refused and what to do, and nothing is under the name."""
    faulty.fail("PUT object", answer=status, code=code, times=99)
    with pytest.raises(VaultError, match=says) as failed:
        behind.put(NAME, [SMALL])
    assert failed.value.hint
    assert failed.value.__cause__ is None
    assert list(behind.list()) == []


@pytest.mark.usefixtures("impatient")
def test_an_endpoint_where_nobody_is_is_named(offsite):
    """Nobody listens: it says where, and what to check."""
    vault = changed(offsite, endpoint="http://127.0.0.1:9")
    for ask in (vault.free, lambda: vault.put(NAME, [b"x"]), lambda: list(vault.list())):
        with pytest.raises(VaultError, match=r"at http://127.0.0.1:9 cannot be reached") as failed:
            ask()
        assert "BACKUP_OFFSITE_ENDPOINT" in failed.value.hint
    with pytest.raises(VaultError, match="Invalid endpoint"):
        changed(offsite, endpoint="nonsense").free()


def test_a_service_that_says_nothing_is_named(behind, faulty, monkeypatch):
    """It takes the question and never answers: an error in time, not a wait for ever."""
    monkeypatch.setitem(s3_access._PATIENT, "read_timeout", 0.2)
    monkeypatch.setitem(s3_access._PATIENT, "retries", {"mode": "standard", "total_max_attempts": 2})
    faulty.fail("GET list", delay=5, times=2)
    with pytest.raises(VaultError, match="stopped answering"):
        list(behind.list())


# who may


def test_wrong_keys_are_named(offsite):
    """An unknown key, a wrong secret, none at all: each says which, and none is printed."""
    for change, says in (
        ({"key_id": Secret("AKIAUNKNOWN")}, "does not know this access key"),
        ({"secret_key": Secret("wrong")}, "the secret key is not that of the access key"),
    ):
        vault = changed(offsite, **change)
        for ask in (
            vault.free,
            lambda vault=vault: vault.put(NAME, [b"x"]),
            lambda vault=vault: vault.stat(NAME),
        ):
            with pytest.raises(VaultError, match=says) as failed:
                ask()
            assert "BACKUP_OFFSITE_SECRET_KEY" in failed.value.hint


def test_without_credentials_it_says_so(offsite, monkeypatch, tmp_path):
    """No key was set, and boto3's own chain finds none."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(VaultError, match="no credentials for bucket shared"):
        changed(offsite, key_id=None, secret_key=None).free()


def test_keys_come_from_the_chain_if_none_is_set(offsite, monkeypatch):
    """As every tool of AWS finds them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", offsite.access.key_id.reveal())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", offsite.access.secret_key.reveal())
    assert changed(offsite, key_id=None, secret_key=None).put(NAME, [b"x"]).size == 1


def test_the_environments_proxy_is_not_asked(offsite, monkeypatch):
    """What is set for a browser does not stand between this host and its bucket."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert changed(offsite).put(NAME, [b"x"]).size == 1


def test_secrets_do_not_print(offsite):
    """Neither of a vault nor of its access."""
    secret = offsite.access.secret_key.reveal()
    assert secret not in f"{offsite!r} {offsite.access!r} {offsite} {offsite.access.__dict__}"


def test_a_bucket_that_is_not_there_is_named(offsite):
    """Whatever is asked, it is not taken for an empty one."""
    vault = changed(offsite, bucket="not-there")
    asks = (
        vault.free, lambda: vault.put(NAME, [SMALL]), lambda: vault.put(NAME, BLOCKS, size=SIZE),
        lambda: vault.stat(NAME), lambda: list(vault.open(NAME)), lambda: list(vault.list()),
        lambda: vault.delete(NAME), lambda: vault.locked_until(NAME), lambda: list(vault.unfinished()),
        lambda: vault.discard(NAME), lambda: vault.digest(NAME),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(VaultError, match="there is no bucket not-there"):
            ask()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_named(offsite, monkeypatch, hours):
    """Where it is off by hours, the error says both clocks, and how to set one."""
    wrong = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=hours)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: wrong)
    vault = changed(offsite)
    for ask in (vault.free, lambda: vault.put(NAME, [SMALL])):
        with pytest.raises(
            VaultError, match=r"refuses this machine's clock: it says .*, and this one"
        ) as failed:
            ask()
        assert "timedatectl" in failed.value.hint


# many


def test_more_than_a_page_is_listed(bucket):
    """Over a thousand names, in order; those of another installation and strangers are not among them."""
    vault = S3Vault(bucket, fresh_prefix())
    client = raw(vault)
    names = [f"many/{number:04d}/x" for number in range(1030)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda name: client.put_object(Bucket=bucket.bucket, Key=vault.prefix + name, Body=b"1"),
                names,
            )
        )
    for stranger in ("bookreader-backups/other/x", f"{vault.prefix}a b", f"{vault.prefix}.hidden", "x"):
        client.put_object(Bucket=bucket.bucket, Key=stranger, Body=b"1")
    assert [stored.name for stored in vault.list()] == names
    assert [stored.name for stored in vault.list("many/102")] == names[1020:1030]
    assert sorted(vault.folders("bookreader-backups/")) == [vault.prefix, "bookreader-backups/other/"]


# locks and versions


def test_a_lock_keeps_a_file(locking_bucket):
    """Locked for the days that were asked for, in one request and in parts: no delete, until it has ended."""
    now = datetime.now(UTC)
    vault = S3Vault(locking_bucket, fresh_prefix(), lock_days=3)
    vault.put("small", [SMALL])
    vault.put(NAME, BLOCKS, size=SIZE)
    for name in ("small", NAME):
        until = vault.locked_until(name)
        assert abs(until - now - timedelta(days=3)) < timedelta(minutes=1)
        with pytest.raises(VaultError, match=f"locked .* until {until:%Y-%m-%d %H:%M} UTC"):
            vault.delete(name)
        with pytest.raises(VaultError, match="does not allow s3:DeleteObject"):  # its clock, not ours
            replace(vault, now=lambda: now + timedelta(days=4)).delete(name)
        assert _read(vault, name)
    vault.renew_lock("small", now + timedelta(days=9))
    assert abs(vault.locked_until("small") - now - timedelta(days=9)) < timedelta(minutes=1)
    with pytest.raises(VaultError):
        changed(vault, lock_mode="COMPLIANCE").renew_lock("absent", now + timedelta(days=9))
    assert replace(vault, now=lambda: now + timedelta(days=10)).locked_until("small") is None


def test_a_legal_hold_keeps_a_file(locking_bucket):
    """However long: it says so."""
    vault = S3Vault(locking_bucket, fresh_prefix())
    vault.put(NAME, [SMALL])
    where = {"Bucket": locking_bucket.bucket, "Key": vault.prefix + NAME}
    raw(vault).put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    assert vault.locked_until(NAME) == FOR_EVER
    with pytest.raises(VaultError, match="legal hold"):
        vault.delete(NAME)


def test_what_is_gone_on_with_is_locked_in_full(locking_bucket):
    """Begun without a lock, ended with one: it has it."""
    vault = S3Vault(locking_bucket, fresh_prefix())
    with pytest.raises(BrokeError):
        vault.put(NAME, Source(BLOCKS, breaks_at=40), size=SIZE)
    locked = replace(vault, lock_days=3)
    locked.put(NAME, BLOCKS, size=SIZE)
    assert locked.locked_until(NAME) > datetime.now(UTC) + timedelta(days=2, hours=23)


def test_a_lock_in_a_bucket_that_has_none_is_refused(offsite):
    """Never kept without the lock that was asked for."""
    vault = replace(offsite, lock_days=3)
    for data in ([SMALL], BLOCKS):
        with pytest.raises(VaultError) as failed:
            vault.put(NAME, data, size=sum(map(len, data)))
        assert "object lock" in f"{failed.value.message} {failed.value.hint}"
    assert list(vault.list()) == []


def test_a_deleted_file_leaves_no_version(locking_bucket):
    """All versions of the name and its delete markers go, and no other name's."""
    vault = S3Vault(locking_bucket, fresh_prefix())
    client, where = raw(vault), {"Bucket": locking_bucket.bucket, "Key": vault.prefix + NAME}
    for name in (NAME, f"{NAME}.entry.json"):
        vault.put(name, [SMALL])
    client.put_object(**where, Body=b"second")
    client.delete_object(**where)
    client.put_object(**where, Body=b"third")
    vault.delete(NAME)
    left = client.list_object_versions(Bucket=where["Bucket"], Prefix=where["Key"])
    assert [version["Key"] for version in left["Versions"]] == [f"{where['Key']}.entry.json"]
    assert left.get("DeleteMarkers", []) == []
    with pytest.raises(NotFoundError):
        vault.delete(NAME)


def test_a_delete_that_fails_half_way_brings_nothing_old_back(locking_bucket, s3_server):
    """The newest version goes last: what is under the name is what was there, or nothing."""
    vault = S3Vault(locking_bucket, fresh_prefix())
    vault.put(NAME, [b"first"])
    where = {"Bucket": locking_bucket.bucket, "Key": vault.prefix + NAME}
    for content in (b"second", b"third"):
        raw(vault).put_object(**where, Body=content)
    with Faulty.before(s3_server.endpoint) as proxy:
        proxy.fail("DELETE object", answer=403, code="AccessDenied", skip=2)
        behind = changed(vault, endpoint=proxy.endpoint)
        with pytest.raises(VaultError, match="s3:DeleteObjectVersion"):
            behind.delete(NAME)
        assert b"".join(behind.open(NAME)) == b"third"
        behind.delete(NAME)
    assert list(vault.list()) == []


def test_an_archived_file_is_no_missing_one(behind, faulty):
    """In a class that has to be fetched first: it says so, and how."""
    behind.put(NAME, [SMALL])
    faulty.fail("GET object", answer=403, code="InvalidObjectState")
    with pytest.raises(VaultError, match="archive") as failed:
        list(behind.open(NAME))
    assert "restore-object" in failed.value.hint


def test_only_the_pruning_account_deletes(offsite):
    """`delete` and `discard` are asked of the client that may; nothing else is."""
    asked = []
    client = raw(offsite)
    client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    vault = replace(offsite, pruning=lambda: client)
    vault.put(NAME, [SMALL])
    with pytest.raises(BrokeError):
        vault.put("begun", Source(BLOCKS, breaks_at=40), size=SIZE)
    assert (len(list(vault.list())), len(list(vault.unfinished())), vault.digest(NAME) != "") == (1, 1, True)
    assert asked == []
    vault.delete(NAME)
    vault.discard("begun")
    assert asked == ["DeleteObject", "ListMultipartUploads", "AbortMultipartUpload"]
    assert [*vault.list(), *vault.unfinished()] == []


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("GET uploads", "s3:ListBucketMultipartUploads"),
        ("POST begin", "s3:PutObject"),
        ("POST complete", "s3:PutObject"),
        ("PUT object", "s3:PutObject"),
        ("GET list", "s3:ListBucket"),
        ("GET object", "s3:GetObject"),
        ("DELETE object", "s3:DeleteObject"),
        ("DELETE upload", "s3:AbortMultipartUpload"),
    ],
)
def test_what_a_policy_lacks_is_named(behind, faulty, kind, action):
    """The action, as the policy has to allow it."""
    behind.put("there", [SMALL])
    with pytest.raises(BrokeError):
        behind.put("begun", Source(BLOCKS, breaks_at=40), size=SIZE)
    faulty.fail(kind, answer=403, code="AccessDenied", times=99)
    asks = {
        "GET list": lambda: list(behind.list()),
        "GET object": lambda: list(behind.open("there")),
        "PUT object": lambda: behind.put("small", [SMALL]),
        "DELETE object": lambda: behind.delete("there"),
        "DELETE upload": lambda: behind.discard("begun"),
    }
    with pytest.raises(VaultError, match=f"does not allow {action}"):
        asks.get(kind, lambda: behind.put(NAME, BLOCKS, size=SIZE))()


def test_who_may_not_discard_may_still_write(behind, faulty):
    """An account that only adds: what earlier attempts left stays, is told of, and fails no upload."""
    where = {"Bucket": behind.access.bucket, "Key": behind.prefix + NAME}
    for _ in range(2):
        raw(behind).create_multipart_upload(**where, ChecksumAlgorithm="SHA256")
    faulty.fail("DELETE upload", answer=403, code="AccessDenied", times=99)
    assert behind.put(NAME, BLOCKS, size=SIZE).sha256 == SHA256
    assert [left.name for left in behind.unfinished()] == [NAME]


# what this server cannot do, and moto's can (which takes wrong checksums and secrets: no test of those)


@pytest.fixture
def motos():
    """A vault on moto's server."""
    try:
        moto = importlib.import_module("moto.server")
    except ImportError:
        missing("moto's S3 server is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        access = Access("bucket", f"http://{host}:{port}", "us-east-1", Secret("key"), Secret("secret"))
        s3_access.make_bucket(access)
        yield S3Vault(access, fresh_prefix())
    finally:
        server.stop()


def test_a_key_of_the_services_own_is_asked_for(motos):
    """`aws:kms` is sent with each upload, in one request and in parts."""
    vault = changed(motos, encryption="aws:kms")
    vault.put(NAME, BLOCKS, size=SIZE)
    vault.put("small", [SMALL])
    for name in (NAME, "small"):
        head = raw(vault).head_object(Bucket="bucket", Key=vault.prefix + name)
        assert head["ServerSideEncryption"] == "aws:kms"
        assert _read(vault, name)


def test_more_parts_than_a_page_are_known(motos):
    """S3 lists a thousand at a time: all are counted, and known when an upload goes on."""
    client, where = raw(motos), {"Bucket": "bucket", "Key": motos.prefix + NAME}
    upload = client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    with ThreadPoolExecutor(4) as pool:
        send = partial(client.upload_part, **where, UploadId=upload, Body=b"part")
        list(pool.map(lambda number: send(PartNumber=number), range(1, 1003)))
    (left,) = motos.unfinished()
    assert left == Stored(NAME, 4008)
    assert [part["PartNumber"] for part in motos._key(NAME).parts(upload)] == list(range(1, 1003))


# memory


MEASURES = """
import resource, sys
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.s3 import S3Vault
from bookreader_backup_assets.vaults.s3_access import Access

endpoint, bucket, key, secret, prefix, name = sys.argv[1:]
vault = S3Vault(Access(bucket, endpoint, "us-east-1", Secret(key), Secret(secret)), prefix)
vault.put("warm", [b"x"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vault.put(name, (bytes([number % 256]) * (1 << 20) for number in range(300)), size=300 << 20)
put = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vault.digest(name)
print((put - before) >> 10, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - put) >> 10)
"""


def test_memory_stays_flat(offsite):
    """300 MiB are sent with the buffers of five parts, and read with those of a few chunks."""
    access = offsite.access
    secrets = [access.key_id.reveal(), access.secret_key.reveal()]
    done = subprocess.run(
        [sys.executable, "-c", MEASURES, access.endpoint, access.bucket, *secrets, offsite.prefix, NAME],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    put, read = map(int, done.stdout.split())
    assert put < 150
    assert read < 30


# the server


def test_a_server_without_its_program_says_what_to_install(monkeypatch, tmp_path):
    """Neither on PATH nor in a wheel."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers.importlib.metadata, "files", lambda _: None)
    with pytest.raises(SourceAbsentError, match="no S3 server") as absent, servers.start(tmp_path / "s3"):
        pass
    assert "servers" in absent.value.hint


def test_a_server_keeps_what_it_had(s3_server, tmp_path):
    """Ended, and started again on the same folder: the files are there, though encrypted."""
    key = (Secret("key"), Secret("secret-of-the-key"))
    with servers.start(tmp_path / "s3", key=key) as first:
        vault = S3Vault(first.make_bucket("kept"), fresh_prefix())
        vault.put(NAME, BLOCKS, size=SIZE)
        os.kill(first.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    with servers.start(tmp_path / "s3", key=key) as second:
        assert _read(S3Vault(second.access("kept"), vault.prefix)) == SHA256


def test_a_server_tries_other_ports(monkeypatch, tmp_path):
    """A port that somebody took in the meantime costs a second try, not the start."""
    found = servers._free_ports
    with servers.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        tries = []

        def ports(count):
            tries.append(count)
            return [port, *found(count - 1)] if len(tries) == 1 else found(count)

        monkeypatch.setattr(servers, "_free_ports", ports)
        with servers.start(tmp_path / "s3") as server:
            assert server.make_bucket("bucket").where == f"bucket bucket at {server.endpoint}"
    assert len(tries) == 2
