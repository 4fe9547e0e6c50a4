"""Examine the vaults away from this host: whether each is there, and whose artifacts it has."""

from __future__ import annotations

from collections.abc import Iterator

from bookreader_backup_assets.actions.copies import same_disk
from bookreader_backup_assets.actions.examine import Finding
from bookreader_backup_assets.actions.installation import VAULTS, Installation
from bookreader_backup_assets.core.errors import BackupError

_OFFSITE = "offsite"
_WHOSE = "set BACKUP_OFFSITE_INSTALLATION to one that is there, or to none"
_SHARED = "it is on the disk of the local vault, and no copy: what takes the one takes the other"
_MOUNT = "mount a NAS there, or a disk of its own: `findmnt -T` says what the folders are on"


def examine_outside(installation: Installation) -> Iterator[Finding]:
    """Yield a finding for each vault that the plan wants or settings name, and for whoever else is there.

    One that nobody has set up is no fault of this host: `status` is what says that copies are missing.
    """
    for name in installation.unset:
        yield Finding(name, good=True, seen=f"not set up, and the plan wants copies there: {VAULTS[name]}")
    for name, outside in installation.outside.items():
        try:
            there = outside.place.installations()
            shared = same_disk(outside, installation.vault)
        except BackupError as error:
            yield Finding(name, good=False, seen=error.message, hint=error.hint)
            continue
        own = installation.known_id
        seen = (
            "there, with copies of this installation" if own in there else "there, with nothing of ours yet"
        )
        yield Finding(name, good=True, seen=seen)
        if shared:
            yield Finding(f"{name} disk", good=False, seen=_SHARED, hint=_MOUNT)
        if outside.reads in there or (outside.reads and name == _OFFSITE):
            found = "read from here" if outside.reads in there else "to be read from here, and not there"
            yield Finding(f"{name} of another", outside.reads in there, f"{outside.reads}: {found}", _WHOSE)
        if others := [one for one in there if one not in (own, outside.reads)]:
            yield Finding(
                f"{name} of others",
                good=True,
                seen=f"{', '.join(others)}: neither read nor touched from here"
                + (f", where {outside.reads} is read" if outside.reads in there else ""),
            )
