"""What an S3 account has to be allowed, as policies of IAM: one that writes, and one that prunes."""

from __future__ import annotations

from typing import Any

from bookreader_backup_assets.vaults.s3_place import FOLDER

_WRITES = (
    "s3:PutObject",
    "s3:GetObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
    "s3:PutObjectRetention",
    "s3:GetObjectRetention",
)
_LOOKS = (
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetLifecycleConfiguration",
)
_PRUNES = ("s3:DeleteObject", "s3:DeleteObjectVersion")
_LOOKS_BACK = ("s3:ListBucketVersions",)


def writer(bucket: str) -> dict[str, Any]:
    """Return the policy of the account that replicates, compares and restores. It can delete nothing."""
    return _policy(bucket, _WRITES, _LOOKS)


def pruner(bucket: str) -> dict[str, Any]:
    """Return the policy of the account that prunes: it may delete, in this program's folder."""
    return _policy(bucket, (*_WRITES, *_PRUNES), (*_LOOKS, *_LOOKS_BACK))


def _policy(bucket: str, of_objects: tuple[str, ...], of_bucket: tuple[str, ...]) -> dict[str, Any]:
    arn = f"arn:aws:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(of_bucket), "Resource": arn},
            {"Effect": "Allow", "Action": list(of_objects), "Resource": f"{arn}/{FOLDER}*"},
        ],
    }
