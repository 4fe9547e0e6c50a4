"""What an S3 service or the way to it had to say, in this project's errors: what happened, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore import exceptions as boto

from bookreader_backup_assets.core.errors import DamagedError, NotFoundError, SpaceError, VaultError

DOCTOR = (
    "`bookreader-backup doctor` finds out what this service takes: BACKUP_OFFSITE_CHECKSUMS, "
    "BACKUP_OFFSITE_ENCRYPTION, BACKUP_OFFSITE_CONDITIONAL"
)
_KEYS = "check BACKUP_OFFSITE_ACCESS_KEY and BACKUP_OFFSITE_SECRET_KEY, and that they are of this service"
_LATER = "run it again later: an upload goes on where it stopped"

ABSENT = ("NoSuchKey", "NoSuchVersion", "404", "NotFound")
TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict")
DAMAGED = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
REFUSED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "UnauthorizedAccess")
ABSENT_UPLOAD = "NoSuchUpload"
BEYOND = ("InvalidRange", "416")

_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject or s3:DeleteObjectVersion",
}
"""The action that a policy has to allow, where it is not called as the operation is."""


class _Answer(NamedTuple):
    codes: tuple[str, ...]
    message: str
    hint: str
    kind: type[VaultError | DamagedError] = VaultError


_ANSWERS = (
    _Answer(("InvalidAccessKeyId",), "{where} does not know this access key", _KEYS),
    _Answer(
        ("SignatureDoesNotMatch", "AuthFailure", "Unauthorized", "401"),
        "{where} refuses the signature: the secret key is not that of the access key",
        f"{_KEYS}; some services say this of checksums they do not know: {DOCTOR}",
    ),
    _Answer(
        ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
        "{where} says that the credentials have expired",
        "renew them, or set BACKUP_OFFSITE_ACCESS_KEY and BACKUP_OFFSITE_SECRET_KEY",
    ),
    _Answer(
        REFUSED,
        "{where} does not allow {action}{of_name}",
        "allow it in the policy of this key; a lock needs s3:PutObjectRetention as well, and without "
        "s3:ListBucket what is absent is refused like what is forbidden",
    ),
    _Answer(
        ("NoSuchBucket",),
        "there is no {where}",
        "check BACKUP_OFFSITE_BUCKET, BACKUP_OFFSITE_ENDPOINT and BACKUP_OFFSITE_REGION, or make the bucket",
    ),
    _Answer(
        (
            "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "Redirect", "301",
            "307", "IllegalLocationConstraintException",
        ),
        "{where} lies in another region{region}",
        "set BACKUP_OFFSITE_REGION, and BACKUP_OFFSITE_ENDPOINT where one is set, to those of the bucket",
    ),
    _Answer(
        ("RequestTimeTooSkewed", "RequestExpired"),
        "{where} refuses this machine's clock{clocks}",
        "set the clock: timedatectl set-ntp true, and see `timedatectl`",
    ),
    _Answer(
        ("SlowDown", "503", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded",
         "TooManyRequests", "TooManyRequestsException", "429", "BandwidthLimitExceeded"),
        "{where} asks to slow down, after {retries} more tries too",
        _LATER,
    ),
    _Answer(
        ("InvalidObjectState",),
        "{name} is in an archive of {where}, from which it has to be fetched before it can be read",
        "`aws s3api restore-object`, or the service's console, takes hours; the other vaults may have it",
    ),
    _Answer(
        DAMAGED,
        "{where} received other bytes than were sent{of_name}",
        "run it again; if it comes back, suspect this machine's memory, or what changes bytes on the way",
        DamagedError,
    ),
    _Answer(
        (ABSENT_UPLOAD,),
        "the upload of {name} to {where} was ended by somebody else",
        "run it again: it begins anew",
    ),
    _Answer(ABSENT, "{where} has no {name}", "see what it holds: `bookreader-backup list`", NotFoundError),
    _Answer(
        ("ObjectLockConfigurationNotFoundError", "InvalidBucketState"),
        "{where} has no object lock, and locking was asked for",
        "object lock is turned on when a bucket is made: make one with it, or set the plan's lock to 0 days",
    ),
    _Answer(
        ("NotImplemented", "501", "XNotImplemented", "MethodNotAllowed", "405"),
        "{where} does not know {operation} as it was sent{of_name}: {said}",
        DOCTOR,
    ),
    _Answer(
        ("InvalidRequest", "InvalidArgument", "InvalidStorageClass", "InvalidEncryptionAlgorithmError",
         "KMS.NotFoundException", "KMS.DisabledException", "400", "BadRequest"),
        "{where} refuses {operation} as it was sent{of_name}: {said}",
        f"{DOCTOR}; a lock needs a bucket with object lock, and a storage class one that the service has",
    ),
    _Answer(
        ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507",
         "StorageLimitExceeded", "EntityTooLarge"),
        "{where} has no room{of_name}: {said}",
        "raise its quota, or let retention free some: `bookreader-backup prune`",
        SpaceError,
    ),
    _Answer(
        ("InternalError", "500", "502", "504", "OperationAborted", "RequestTimeout"),
        "{where} failed on {operation}{of_name}, after {retries} more tries too: {said}",
        _LATER,
    ),
)  # fmt: skip

_CLOSED = "check BACKUP_OFFSITE_ENDPOINT, the network, and that a firewall lets this machine out"
_WAYS = (
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
        "no credentials for {where}: {said}",
        "set BACKUP_OFFSITE_ACCESS_KEY and BACKUP_OFFSITE_SECRET_KEY",
    ),
    ((boto.SSLError,), "the certificate of {where} is not accepted: {said}", _CLOSED),
    ((boto.ConnectTimeoutError,), "{where} cannot be reached: nobody answered in time", _CLOSED),
    ((boto.ReadTimeoutError,), "{where} stopped answering", _LATER),
    ((boto.EndpointConnectionError, boto.ProxyConnectionError), "{where} cannot be reached: {said}", _CLOSED),
    (
        (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError),
        "the connection to {where} broke, after more tries too: {said}",
        _LATER,
    ),
    (
        (boto.BotoCoreError,),
        "{where} cannot be asked: {said}",
        "check BACKUP_OFFSITE_BUCKET, BACKUP_OFFSITE_ENDPOINT and BACKUP_OFFSITE_REGION",
    ),
)


@contextlib.contextmanager
def errors(where: str, name: str = "") -> Iterator[None]:
    """Raise, of what boto3 raises, the `VaultError` or `DamagedError` that it means for `name` in `where`."""
    try:
        yield
    except boto.ClientError as error:
        raise answered(error, where, name) from None
    except boto.BotoCoreError as error:
        raise _broken(error, where) from None


def code_of(error: boto.ClientError) -> str:
    """Return what the service calls the error, or its HTTP status where it says no more."""
    return str(error.response.get("Error", {}).get("Code", ""))


def retries_of(error: boto.ClientError) -> int:
    """Return how often the request was sent again before this answer."""
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def answered(error: boto.ClientError, where: str, name: str = "") -> VaultError | DamagedError:
    """Return what to raise of an error that the service answered."""
    code, told = code_of(error), error.response.get("Error", {})
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if code == "404" and error.operation_name == "HeadBucket":
        code = "NoSuchBucket"
    found = [answer for answer in _ANSWERS if code in answer.codes]
    found += [answer for answer in _ANSWERS if status in answer.codes]  # a code of a service's own
    if not found:
        return VaultError(f"{where} refused {error.operation_name}: {_said(told)}", hint=DOCTOR)
    region = told.get("Region") or _header(error, "x-amz-bucket-region")
    text = found[0].message.format(
        where=where,
        name=name or "such file",
        of_name=f" (for {name})" if name else "",
        action=_ACTIONS.get(error.operation_name, f"s3:{error.operation_name}"),
        operation=error.operation_name,
        said=_said(told),
        region=f": {region}" if region else "",
        clocks=_clocks(error),
        retries=retries_of(error),
    )
    return found[0].kind(text, hint=found[0].hint)


def _broken(error: boto.BotoCoreError, where: str) -> VaultError:
    for kinds, message, hint in _WAYS:
        if isinstance(error, kinds):
            said = " ".join(str(error).split())
            return VaultError(message.format(where=where, said=said), hint=hint)
    raise error  # the last of them is the kind that was caught


def _said(told: dict[str, Any]) -> str:
    return ": ".join(str(told[part]) for part in ("Code", "Message") if told.get(part)) or "nothing more"


def _header(error: boto.ClientError, name: str) -> str:
    return str(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def _clocks(error: boto.ClientError) -> str:
    told = error.response.get("Error", {})
    theirs = told.get("ServerTime") or _header(error, "date")
    ours = told.get("RequestTime") or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return f": it says {theirs}, and this one {ours}" if theirs else f", which says {ours}"
