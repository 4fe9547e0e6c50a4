"""Diff: what changed in the configuration between two versions of it, or since one of them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.restore_source import LATEST, pick
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.config import ConfigArchive
from bookreader_backup_assets.components.config_diff import Change, by_size, differences
from bookreader_backup_assets.components.config_members import Member, unpack
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import DamagedError, KeyMissingError, RefusedError

ASSET = "config/archive"
LIVE = "live"
"""The word for what lies there now."""


@dataclass(frozen=True)
class Diff:
    """What differs between two versions; an entry is None for the live files in `root`.

    `why` says why only names and sizes could be compared, "" where all was. `same` is None where that is
    not enough to tell.
    """

    older: Entry | None
    newer: Entry | None
    root: str
    changes: tuple[Change, ...]
    same: bool | None
    why: str = ""


def diff(installation: Installation, older: str = LATEST, newer: str = LIVE) -> Diff:
    """Return what changed from one version to another: set ids, names of artifacts, `latest`, or `live`.

    The default is what a restore would change now, the other way round. Everything is compared in memory,
    and without the key by names and sizes. Raises `RefusedError` for a version there is not,
    `DamagedError`, and `SourceError` where the live files cannot be read.
    """
    component = installation.component(ASSET)
    if not isinstance(component, ConfigArchive):
        raise RefusedError(f"{ASSET} of this installation cannot be compared")
    catalog = Catalog(installation.vault).at(installation.now())
    one, other = (None if name == LIVE else version(catalog, name) for name in (older, newer))
    try:
        held = [_members(installation, component, entry) for entry in (one, other)]
    except KeyMissingError as error:
        sizes = [_sizes(component, entry) for entry in (one, other)]
        changes = tuple(by_size(*sizes))
        return Diff(one, other, str(component.root), changes, _same(one, other, changes), error.message)
    changes = tuple(differences(*held))
    return Diff(one, other, str(component.root), changes, not changes)


def version(catalog: Catalog, named: str) -> Entry:
    """Return a version by the name of its artifact, the id of its set, or `latest`. Raises `RefusedError`."""
    entries = catalog.entries(asset=ASSET)
    for entry in entries:
        if named in {entry.name, entry.name.partition("/")[2]}:
            return entry
    return pick(catalog, ASSET, named)


def _members(installation: Installation, component: ConfigArchive, entry: Entry | None) -> tuple[Member, ...]:
    if entry is None:
        return component.members()
    try:
        return unpack(b"".join(StoredArtifact(installation, entry).plain()))[0]
    except tarfile.TarError as error:
        raise DamagedError(f"{entry.name} does not unpack: {error}") from None


def _sizes(component: ConfigArchive, entry: Entry | None) -> Mapping[str, int]:
    if entry is None:
        return {one.name: len(one.data) for one in component.members() if one.kind != "folder"}
    sizes: Mapping[str, int] = entry.fingerprint["files"]
    return sizes


def _same(one: Entry | None, other: Entry | None, changes: tuple[Change, ...]) -> bool | None:
    """Whether two versions are the same, as far as their entries tell."""
    if changes:
        return False
    if one is not None and other is not None and one.fingerprint == other.fingerprint:
        return True
    return None if one is not other else True
