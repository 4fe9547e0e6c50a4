"""Pins: sets that stay, whatever the plan says, until a day. They lie in every vault; the newest counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import own_vault
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.core.artifact import FORMAT_VERSION, dump_document, load_document, parse_utc
from bookreader_backup_assets.core.errors import BackupError, DamagedError, NameTakenError, RefusedError
from bookreader_backup_assets.core.manifest import unchanged_sets
from bookreader_backup_assets.core.policy import Pin
from bookreader_backup_assets.vaults.base import Vault

FOLDER = "pins/"
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pinned:
    """What was said of a set: that it stays through the day `until`, and why. A day that is over ends it."""

    installation: str
    set: str
    until: date
    because: str
    at: datetime
    host: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """The name of the file it is kept in: an hour's id has a colon, and no name in a vault has."""
        return f"{FOLDER}{self.set.replace(':', '-')}_{self.at:%Y%m%dT%H%M%S.%f}Z.json"

    def to_json(self) -> bytes:
        """The pin as it is stored."""
        return dump_document(self)

    @property
    def pin(self) -> Pin:
        """As retention wants it."""
        return Pin(self.set, self.until, self.because)


def pin(
    installation: Installation, set_id: str, until: date, because: str
) -> tuple[Pinned, tuple[BackupError, ...]]:
    """Keep a set through the day `until` in every vault, and return that, and which vaults were not told.

    They learn of it when they are pruned from here. Raises `RefusedError` for a set that is in no vault, a
    day that is not to come, and without a reason.
    """
    if until <= date.fromisoformat(installation.today()):
        raise RefusedError(f"{until} is not to come", hint="give a later day: --until YYYY-MM-DD")
    if not because.strip():
        raise RefusedError("a pin needs a reason", hint="--because TEXT, for whoever wonders later")
    _require_known(installation, set_id)
    return _write(installation, set_id, until, because.strip())


def unpin(installation: Installation, set_id: str) -> tuple[Pinned, tuple[BackupError, ...]]:
    """End the pin of a set, and return as `pin` does. Raises `RefusedError` if it is not pinned."""
    pinned = sorted({one.set for one in standing_pins(installation)})
    if set_id not in pinned:
        there = f"there are: {', '.join(pinned)}" if pinned else "nothing is"
        raise RefusedError(f"{set_id!r} is not pinned", hint=there)
    yesterday = date.fromisoformat(installation.today()) - _DAY
    return _write(installation, set_id, yesterday, "taken back")


def pins(installation: Installation, vault: Vault | None = None) -> list[Pinned]:
    """Return the newest pin of each set, ended ones too, of the local vault and another, by set.

    Raises `DamagedError` for one that cannot be read: it may be of any set.
    """
    newest: dict[str, Pinned] = {}
    for where in (installation.vault, *([vault] if vault else [])):
        for one in _read_all(where):
            if one.set not in newest or newest[one.set].at < one.at:
                newest[one.set] = one
    return [newest[set_id] for set_id in sorted(newest)]


def standing_pins(installation: Installation) -> list[Pinned]:
    """Return the pins in the local vault that have not ended."""
    today = date.fromisoformat(installation.today())
    return [one for one in pins(installation) if today <= one.until]


def _write(
    installation: Installation, set_id: str, until: date, because: str
) -> tuple[Pinned, tuple[BackupError, ...]]:
    before = [one.at for one in pins(installation) if one.set == set_id]
    at = max([installation.now(), *(instant + timedelta(microseconds=1) for instant in before)])
    said = Pinned(installation.id, set_id, until, because, at, installation.host)
    while True:
        try:
            installation.vault.put(said.name, [said.to_json()])
        except NameTakenError:
            said = replace(said, at=said.at + timedelta(microseconds=1))
        else:
            break
    missed = []
    for name in installation.outside:
        try:
            own_vault(installation, name).put(said.name, [said.to_json()])
        except BackupError as error:
            missed.append(error)
    installation.log.info("pin %s until %s: %s", set_id, until, because)
    return said, tuple(missed)


def _require_known(installation: Installation, set_id: str) -> None:
    known: set[str] = set()
    for name in (LOCAL, *installation.outside):
        try:
            catalog = Catalog(own_vault(installation, name))
            for entry in catalog.entries():
                known |= {entry.set, *unchanged_sets(catalog.proofs(entry))}
        except BackupError:
            if name == LOCAL:
                raise
        if set_id in known:
            return
    raise RefusedError(
        f"there is no set {set_id!r} in any vault that can be read",
        hint=f"there are: {', '.join(sorted(known)[-5:]) or 'none yet'}",
    )


def _read_all(vault: Vault) -> Iterator[Pinned]:
    for stored in vault.list(FOLDER):
        document = load_document(b"".join(vault.open(stored.name)), stored.name)
        try:
            until, at = date.fromisoformat(document["until"]), parse_utc(document["at"])
            yield Pinned(**{**document, "until": until, "at": at})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{stored.name} is no pin: {error}") from None
