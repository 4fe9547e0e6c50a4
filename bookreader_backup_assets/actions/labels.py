"""Labelled sets: one moment of its own, such as the state before a deployment.

A set is opened by a document in the vault, so that two of one second cannot become one, and so that its
manifest can name what is missing even after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bookreader_backup_assets.actions.days import LATE
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import FORMAT_VERSION, dump_document, load_document, parse_utc
from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, RefusedError
from bookreader_backup_assets.core.set_id import label_of, labelled_id

TAKEN = (LATE, "pre-restore", "adopted")
"""Labels that this program gives itself."""
_FOLDER = "sets/"
_TWINS = 100


@dataclass(frozen=True)
class LabelledSet:
    """What was asked for when a labelled set was opened: the assets that it is to have."""

    installation: str
    set: str
    opened_at: datetime
    assets: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """The name of the file it is kept in."""
        return f"{_FOLDER}{self.set}.json"


def open_set(installation: Installation, label: str, assets: tuple[str, ...]) -> str:
    """Open a labelled set of `assets` and return its id. Raises `RefusedError` for what can be no label."""
    if label in TAKEN:
        raise RefusedError(
            f"the label {label!r} is given by this program itself", hint="choose another, such as pre-deploy"
        )
    now = installation.now()
    wall = now.astimezone(installation.zone).replace(tzinfo=None)
    for twin in range(1, _TWINS + 1):
        opened = LabelledSet(installation.id, labelled_id(wall, label, twin), now, assets)
        try:
            installation.vault.put(opened.name, [dump_document(opened)])
        except NameTakenError:
            continue
        return opened.set
    raise NameTakenError(f"{_TWINS} sets {label} were opened in this second", hint="is the clock standing?")


def opened(installation: Installation, set_id: str) -> LabelledSet:
    """Return what a labelled set is to have. Raises `NotFoundError`, `DamagedError`."""
    name = f"{_FOLDER}{set_id}.json"
    document = load_document(b"".join(installation.vault.open(name)), name)
    try:
        return LabelledSet(
            **{
                **document,
                "opened_at": parse_utc(document["opened_at"]),
                "assets": tuple(document["assets"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{name} opens no set: {error}") from None


def labelled_sets(installation: Installation) -> list[str]:
    """Return the ids of the labelled sets in the vault, oldest first."""
    names = [stored.name.removeprefix(_FOLDER) for stored in installation.vault.list(_FOLDER)]
    ids = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(set_id for set_id in ids if label_of(set_id))
