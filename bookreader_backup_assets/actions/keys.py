"""Keys: which passphrase opens which artifact, and a new one in the place of the old."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.actions import init_writes
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.errors import KeyMissingError, NotFoundError, RefusedError
from bookreader_backup_assets.core.secret import Secret, key_id

UNKNOWN = "unknown"
"""The id of whatever opens an artifact whose entry names no key, and that no key here opens."""
SHORTEST = 12
"""Characters of a passphrase that somebody may choose."""
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # nothing that looks like another on paper
_GROUPS, _GROUP = 6, 5
_OURS = re.compile(r"\s*(?:export\s+)?(BACKUP_KEY|BACKUP_KEY_FILE|BACKUP_OLD_KEY_FILES)\s*=")


@dataclass(frozen=True)
class Held:
    """A passphrase that this machine has: in a file, or, where there is none, in the settings themselves."""

    key: Secret = field(repr=False)
    file: Path | None = None


@dataclass(frozen=True)
class Opens:
    """What a key opens. `place` is where this machine has it, None where it has not; `current` encrypts."""

    id: str
    place: str | None
    current: bool
    entries: tuple[Entry, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is shut for good."""
        return self.place is not None or not self.entries


def new_passphrase() -> Secret:
    """Return a random passphrase of 148 bits, of letters and digits that can be typed off a page."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return Secret("-".join(groups))


def read_key(file: Path) -> Secret:
    """Return the passphrase in a file. Raises `KeyMissingError` for what gpg would not take as one."""
    try:
        text = file.read_bytes().decode("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyMissingError(
            f"{file} cannot be read: {getattr(error, 'strerror', error)}",
            hint="name a file with a passphrase",
        ) from None
    if not text or any(end in text for end in "\r\n\0"):
        raise KeyMissingError(
            f"{file} has no passphrase, or more than one line",
            hint="one line, with the passphrase and nothing else",
        )
    return Secret(text)


def who_opens(installation: Installation, held: Iterable[Held]) -> list[Opens]:
    """Return every key, held or not, and the artifacts that it opens: the current one first, then by age.

    An entry says which key it is; where it does not, each key is tried on the artifact's first bytes.
    """
    places = {key_id(one.key, installation.id): one for one in reversed(list(held))}
    catalog = Catalog(installation.vault)
    found: dict[str, list[Entry]] = {identity: [] for identity in reversed(places)}
    encrypted = [entry for entry in catalog.entries() if "gpg" in entry.codecs]
    gpg = Gpg(None, tuple(one.key for one in places.values()))
    with installation.watch("looking which key opens what", None):
        for entry in encrypted:
            identity = entry.source.get("key") or _tried(installation, gpg, entry)
            found.setdefault(identity, []).append(entry)
    return [
        Opens(identity, _place(places.get(identity)), identity == installation.key_id, tuple(entries))
        for identity, entries in sorted(
            found.items(), key=lambda item: (item[0] != installation.key_id, item[0] not in places)
        )
    ]


def shut(entries: Iterable[Entry], held: Iterable[Held]) -> list[Entry]:
    """Return the artifacts whose entries name a key that is not held. Nothing is read, and no key tried."""
    keys = [one.key for one in held]
    return [
        entry
        for entry in entries
        if (named := entry.source.get("key"))
        and named not in {key_id(key, entry.installation) for key in keys}
    ]


def rotated(text: str, new: Path, old: Iterable[Path]) -> str:
    """Return a settings file's text with the key in the file `new`, and `old` as the earlier ones."""
    lines = text.splitlines()
    ours = [number for number, line in enumerate(lines) if _OURS.match(line)]
    at = ours[0] if ours else len(lines)
    kept = [line for number, line in enumerate(lines) if number not in ours]
    made = [init_writes.line("BACKUP_KEY_FILE", str(new))]
    if names := ",".join(map(str, old)):
        made.append(init_writes.line("BACKUP_OLD_KEY_FILES", names))
    return "\n".join([*kept[:at], *made, *kept[at:]]) + "\n"


def rotate(
    installation: Installation,
    settings_file: Path,
    held: tuple[Held, ...],
    folder: Path,
    *,
    new_file: Path | None = None,
    lost: Iterable[Path] = (),
) -> Path:
    """Have a new passphrase encrypt from now on, and return its file; the others go on opening what they did.

    `held` are the passphrases there are, the one that encrypts first; `lost` are files of others that cannot
    be read now. The new one is made, or that in `new_file`; its own file is in `folder`. The settings file is
    replaced last, in one step: before it the old key encrypts, after it the new one, and no key's file is
    changed or moved. Raises `RefusedError` for a key that is in use already, and for one that could be
    guessed or read by others.
    """
    current = held[0]
    key = _chosen(new_file) if new_file is not None else new_passphrase()
    if key.reveal() == current.key.reveal():
        raise RefusedError(
            f"{new_file} has the key that is in use", hint="name another, or none: one is made"
        )
    _try(key)
    others = [_filed(installation, one, folder) for one in held if one.key.reveal() != key.reveal()]
    again = next((one for one in held if one.key.reveal() == key.reveal()), Held(key))
    target, _ = _filed(installation, again, folder)
    files = {} if again.file else {target: key}
    files |= {place: one.key for place, one in others if one.file is None}
    init_writes.ignore([*files, *(place for place, _ in others)])
    for place, secret in files.items():
        init_writes.write_new(place, secret.reveal() + "\n")
    with init_writes.told(settings_file):
        text = settings_file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    old = [place for place, _ in others] + [path for path in lost if path != target]
    init_writes.rewrite(settings_file, rotated(text, target, dict.fromkeys(old)))
    return target


def _chosen(file: Path) -> Secret:
    """Return somebody's own passphrase. Raises `RefusedError` for one that protects nothing."""
    key = read_key(file)
    if len(key.reveal()) < SHORTEST:
        raise RefusedError(
            f"the passphrase in {file} has fewer than {SHORTEST} characters",
            hint="take a longer one, or none: one is made",
        )
    if file.stat().st_mode & 0o044:
        raise RefusedError(
            f"{file} can be read by others",
            hint=f"chmod 600 {file}; or where that cannot be, install -m 600 {file} COPY, and name the copy",
        )
    return key


def _filed(installation: Installation, one: Held, folder: Path) -> tuple[Path, Held]:
    return one.file or folder / f"key-{key_id(one.key, installation.id)}", one


def _try(key: Secret) -> None:
    """Encrypt and decrypt with a key before anything depends on it."""
    gpg = Gpg(key)
    if b"".join(gpg.decode(gpg.encode([b"tried"]))) != b"tried":
        raise KeyMissingError("gpg does not open what it has encrypted with this key", hint="take another")


def _tried(installation: Installation, gpg: Gpg, entry: Entry) -> str:
    try:
        key = gpg.opener(installation.vault.open(entry.name)) if gpg.held else None
    except NotFoundError:
        key = None
    return key_id(key, installation.id) if key else UNKNOWN


def _place(one: Held | None) -> str | None:
    if one is None:
        return None
    return str(one.file) if one.file else "the settings themselves"


def as_held(key: Secret | None, file: Path | None, old: Mapping[Path, Secret | None]) -> tuple[Held, ...]:
    """Return the passphrases of settings, the one that encrypts first, without those that cannot be read."""
    current = (Held(key, file),) if key else ()
    return (*current, *(Held(secret, path) for path, secret in old.items() if secret))
