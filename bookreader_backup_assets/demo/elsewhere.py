"""Where the demo's backups go besides its own vault: a bucket on an S3 server of ours, and a git remote.

Both are kept from one run to the next, so that their history grows as the vault's does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError, VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers import s3
from bookreader_backup_assets.vaults.s3 import S3Vault

BUCKET = "bookreader-backups"
_PATIENCE = 60.0


@dataclass(frozen=True)
class Elsewhere:
    """The places, and the settings that lead to them, without the keys: those are in files."""

    server: s3.S3Server = field(repr=False)
    environ: Mapping[str, str]


@contextmanager
def elsewhere(folder: Path, key: tuple[Path, Path]) -> Iterator[Elsewhere]:
    """Start the S3 server with its data in `folder`/s3, and make the bucket and `folder`/git.

    `key` are the files with the access key and its secret. Raises `SourceAbsentError` where there is no
    program for it, `VaultError` where the bucket cannot be made.
    """
    key_id, secret_key = (Secret(file.read_text(encoding="utf-8").strip()) for file in key)
    with s3.start(folder / "s3", key=(key_id, secret_key)) as server:
        _provide_bucket(server)
        yield Elsewhere(
            server,
            {
                "BACKUP_OFFSITE_BUCKET": BUCKET,
                "BACKUP_OFFSITE_ENDPOINT": server.endpoint,
                "BACKUP_OFFSITE_REGION": server.region,
                "BACKUP_OFFSITE_ACCESS_KEY_FILE": str(key[0]),
                "BACKUP_OFFSITE_SECRET_KEY_FILE": str(key[1]),
                "BACKUP_GIT_REMOTE": str(_provide_remote(folder / "git")),
            },
        )


def _provide_bucket(server: s3.S3Server) -> None:
    try:
        S3Vault(server.access(BUCKET), "").free()
    except VaultError:
        server.make_bucket(BUCKET)


def _provide_remote(folder: Path) -> Path:
    if (folder / "HEAD").exists():
        return folder
    argv = ["git", "init", "--quiet", "--bare", str(folder)]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PATIENCE, check=False)
    except OSError as error:
        raise SourceAbsentError(f"git cannot be run: {error.strerror}", hint="install git") from None
    if done.returncode:
        raise CommandError("git init", done.returncode, done.stderr.decode("utf-8", "replace"))
    return folder
