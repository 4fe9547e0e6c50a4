"""One file of an artifact brought into a vault away from this host, and compared with what was captured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import Companion
from bookreader_backup_assets.core.check import Outcome, passed
from bookreader_backup_assets.core.errors import DamagedError, NotFoundError, VaultError
from bookreader_backup_assets.core.manifest import SAME_BYTES
from bookreader_backup_assets.core.streams import Progress, quiet
from bookreader_backup_assets.vaults.base import Stored, Vault

COMPUTED, READ_BACK = "computed by the service from what it received", "read back"
"""How the SHA-256 of a copy was found out."""
MAY_DELETE = "an account that may delete there: in a bucket, that of BACKUP_OFFSITE_PRUNE_ACCESS_KEY"


@dataclass(frozen=True)
class Brought:
    """What was found there, `sent` bytes of it now, and how its SHA-256 was found out."""

    outcome: Outcome
    sent: int
    how: str


def bring(
    installation: Installation,
    target: Vault,
    file: Companion,
    stored: Stored | None,
    progress: Progress = quiet,
    *,
    read_back: bool = False,
) -> Brought:
    """Put a file there, and compare. What is `stored` there already is read back; other bytes are replaced.

    Raises `DamagedError` where the bytes here are others than were captured: what is there stays then; or
    where others have arrived there. Raises `VaultError` where what is to be replaced cannot be removed.
    """
    name, size, sha256 = file.name, file.size, file.sha256
    instead = ""
    if stored is not None:
        if stored.size == size and target.digest(name) == sha256:
            return Brought(_same(file, stored, READ_BACK), 0, READ_BACK)
        for _ in _exactly(installation.vault.open(name), name, size, sha256, quiet):
            pass  # before anything is removed there
        remove(target, name)
        instead = ", instead of other bytes that were there"
    stored = target.put(
        name, _exactly(installation.vault.open(name), name, size, sha256, progress), size=size
    )
    how = COMPUTED if stored.sha256 and not read_back else READ_BACK
    found = stored.sha256 if stored.sha256 and not read_back else target.digest(name)
    if found != sha256 or stored.size != size:
        raise DamagedError(
            f"{name} has other bytes in {target.name} than were captured: {stored.size} of {size},"
            f" sha256 {found}",
            hint="it counts for nothing there, and is replaced by the next `bookreader-backup replicate`",
        )
    return Brought(_same(file, stored, how, instead), size, how)


def _same(file: Companion, stored: Stored, how: str, instead: str = "") -> Outcome:
    parts = {"part_size": stored.part_size, "parts": list(stored.parts)} if stored.parts else {}
    said = f"{file.size} bytes, sha256 {how}, as captured{instead}"
    return passed(SAME_BYTES, said, bytes=file.size, sha256=file.sha256, how=how, **parts)


def remove(target: Vault, name: str) -> None:
    """Remove what is known to have other bytes. Raises `VaultError` with what to do where that is refused."""
    try:
        with suppress(NotFoundError):  # another replicate was first
            target.delete(name)
    except VaultError as error:
        raise VaultError(
            f"{name} is damaged in {target.name}, and could not be removed: {error.message}",
            hint=f"remove it by {MAY_DELETE}; then `bookreader-backup replicate` sends it again",
        ) from None


def _exactly(
    chunks: Iterator[bytes], name: str, size: int, sha256: str, progress: Progress
) -> Iterator[bytes]:
    """Yield the chunks, the last only if all together are what the entry says: else nothing is committed."""
    whole, count, held = hashlib.sha256(), 0, b""
    for chunk in chunks:
        if held:
            yield held
            progress(len(held))
        whole.update(chunk)
        count, held = count + len(chunk), chunk
    if count != size or whole.hexdigest() != sha256:
        raise DamagedError(
            f"{name} is not what was captured any more: {count} of {size} bytes, or its sha256 differs",
            hint="bookreader-backup verify; and check the disk of the vault (dmesg, smartctl)",
        )
    if held:
        yield held
        progress(len(held))
