"""What was pruned, on record: written into the local vault before anything goes, read for ever after.

`prunes/<id>.json` says what is about to be removed and why it may be; `prunes/<id>.ended.json` how that
ended. Without the second one it was killed half-way, or is under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bookreader_backup_assets.core.artifact import FORMAT_VERSION, dump_document, load_document, parse_utc
from bookreader_backup_assets.core.errors import DamagedError, NameTakenError
from bookreader_backup_assets.vaults.base import Vault

FOLDER = "prunes/"
_ENDED = ".ended.json"


@dataclass(frozen=True)
class Removal:
    """An artifact that goes, or went: the sets that it was in, its bytes with its companions', and why."""

    artifact: str
    asset: str
    sets: tuple[str, ...]
    bytes: int
    captured_at: datetime
    why: str


@dataclass(frozen=True)
class Trouble:
    """What could not be removed, and what was in the way."""

    name: str
    error: str


@dataclass(frozen=True)
class Pruned:
    """A prune of one vault: `removed` artifacts, oldest first, `strays` by name, and what `failed`.

    `stray_bytes` are what the strays took, half-written ones too.

    With `refusals`, nothing was removed. `id` is empty where nothing was to be removed, and there is no
    record. One on record that has not `ended` was killed: what it names may be there still.
    """

    id: str
    installation: str
    vault: str
    at: datetime
    host: str = ""
    removed: tuple[Removal, ...] = ()
    strays: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    failed: tuple[Trouble, ...] = ()
    ended: bool = True
    stray_bytes: int = 0
    format_version: int = FORMAT_VERSION

    @property
    def bytes(self) -> int:
        """What the removed artifacts and strays took."""
        return self.stray_bytes + sum(one.bytes for one in self.removed)

    @property
    def good(self) -> bool:
        """Whether all went that was to go."""
        return not (self.refusals or self.failed)


def begin(vault: Vault, planned: Pruned) -> Pruned:
    """Write down in the local `vault` what is about to be removed, and return it with its id."""
    at = planned.at
    while True:
        begun = replace(planned, id=f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z_{planned.vault}", ended=False)
        try:
            vault.put(f"{FOLDER}{begun.id}.json", [dump_document(begun)])
        except NameTakenError:
            at += timedelta(microseconds=1)
        else:
            return begun


def end(
    vault: Vault,
    begun: Pruned,
    removed: Sequence[Removal],
    failed: Sequence[Trouble],
    stray_bytes: int = 0,
) -> Pruned:
    """Write down what became of it, and return that; `stray_bytes` are of the strays that went."""
    strays = {trouble.name for trouble in failed}
    ended = replace(
        begun,
        removed=tuple(removed),
        strays=tuple(name for name in begun.strays if name not in strays),
        failed=tuple(failed),
        ended=True,
        stray_bytes=stray_bytes,
    )
    vault.put(f"{FOLDER}{begun.id}{_ENDED}", [dump_document(ended)])
    return ended


def recorded(vault: Vault, since: datetime | None = None) -> list[Pruned]:
    """Return the prunes that a local vault has on record, oldest first; those `since` an instant, if asked.

    Raises `DamagedError`.
    """
    first = f"{FOLDER}{since.astimezone(UTC):%Y%m%dT%H%M%S}" if since else FOLDER
    names = {stored.name for stored in vault.list(FOLDER) if stored.name >= first}
    found = []
    for name in names:
        ended = name.removesuffix(".json") + _ENDED
        if not name.endswith(_ENDED):
            found.append(_read(vault, ended if ended in names else name))
    return sorted(found, key=lambda one: (one.at, one.id))


def _read(vault: Vault, name: str) -> Pruned:
    document: dict[str, Any] = load_document(b"".join(vault.open(name)), name)
    try:
        return Pruned(
            **{
                **document,
                "at": parse_utc(document["at"]),
                "removed": tuple(_removal(one) for one in document["removed"]),
                "strays": tuple(document["strays"]),
                "refusals": tuple(document["refusals"]),
                "failed": tuple(Trouble(**one) for one in document["failed"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{name} is no record of a prune: {error}") from None


def _removal(fields: dict[str, Any]) -> Removal:
    at = parse_utc(fields["captured_at"])
    return Removal(**{**fields, "sets": tuple(fields["sets"]), "captured_at": at})
