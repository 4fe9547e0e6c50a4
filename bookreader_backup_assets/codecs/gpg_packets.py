"""Which key an encrypted file wants, as its first packets tell: for the hint of somebody who has another."""

from __future__ import annotations

import re
import tempfile
from datetime import datetime
from pathlib import Path

from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.runners import process

_STALL = 60.0
_RECIPIENT = re.compile(r"^:pubkey enc packet:.*keyid ([0-9A-F]{16})", re.MULTILINE)
_ESCROW = "the copy that is kept away from this host"


def what_opens(path: Path, captured_at: datetime) -> str:
    """Say which key opens the file, and what to do with it; nothing where its packets cannot be read."""
    argv = ["gpg", "--batch", "--no-tty", "--no-autostart", "--list-only", "--list-packets", str(path)]
    try:
        with tempfile.TemporaryDirectory(prefix="bb-", dir="/tmp", ignore_cleanup_errors=True) as home:
            env = {"GNUPGHOME": home, "LC_ALL": "C"}
            said = b"".join(process.stream(argv, env=env, stall=_STALL)).decode("utf-8", "replace")
    except (BackupError, OSError):
        return ""
    if keys := _RECIPIENT.findall(said):
        return (
            f"it was encrypted to the OpenPGP key {', '.join(keys)}: import {_ESCROW}, `gpg --import FILE`,"
            " and decrypt it by hand, as docs/runbooks/without-this-program.md says"
        )
    if ":symkey enc packet:" in said:
        return (
            f"it was encrypted with the passphrase of {captured_at:%Y-%m-%d}: set BACKUP_KEY_FILE to that,"
            f" or to {_ESCROW}"
        )
    return ""
