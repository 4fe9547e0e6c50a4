"""What `init` writes for a proposal, and where: planned, checked, and written with the settings last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bookreader_backup_assets.actions.init_writes import ignore, line, make_folder, write_new
from bookreader_backup_assets.actions.keys import new_passphrase, read_key
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.secret import Secret

IDENTITY = "installation.json"
_DEFAULT = Path("/var/backups/bookreader")
_BESIDE = "-vault"
_ZONES = "zoneinfo/"
_HERE = Path("/etc/localtime")
_NAMES = {"BACKUP_POSTGRESQL_PASSWORD": "postgresql", "BACKUP_REDIS_PASSWORD": "redis"}


@dataclass(frozen=True)
class Proposal:
    """Settings by variable: `values` go into the settings file, `secrets` into files of their own.

    `seen` is what they were made of, as subject and text; `problems` is what could not be found out.
    `storage` is the folder of this machine, or the volume, that the vault must not lie in.
    """

    values: Mapping[str, str]
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    seen: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    storage: str = ""


@dataclass(frozen=True)
class Writes:
    """The files that a proposal becomes. Paths are absolute; `folder` is that of the secrets.

    `passphrase` is the key's, where somebody has said it already.
    """

    proposal: Proposal
    settings: Path
    folder: Path
    key: Path
    vault: Path
    passphrase: Secret | None = None

    @property
    def secrets(self) -> dict[str, Path]:
        """The file of each secret, by its variable."""
        return {name: self.folder / _file_name(name) for name in self.proposal.secrets}

    @property
    def values(self) -> dict[str, str]:
        """The lines of the settings file."""
        files = {f"{name}_FILE": str(path) for name, path in self.secrets.items()}
        fixed = {"BACKUP_VAULT": str(self.vault), "BACKUP_KEY_FILE": str(self.key)}
        return {**fixed, **files, **self.proposal.values}


def default_vault() -> Path:
    """Return where the vault goes if nobody says: the guide's folder, or one beside it where others' backups
    lie in that; in the home folder of a user who may not write there.
    """
    above = next(folder for folder in _DEFAULT.parents if folder.exists())
    folder = _DEFAULT if os.access(above, os.W_OK) else Path.home() / "bookreader-backups"
    return folder if _is_ours_or_free(folder) else folder.with_name(folder.name + _BESIDE)


def host_zone(link: Path = _HERE) -> str:
    """Return this host's timezone, or nothing where that is UTC or cannot be told."""
    with suppress(OSError, ZoneInfoNotFoundError, ValueError):
        name = str(link.resolve()).partition(_ZONES)[2]
        if name.rpartition("/")[2] not in {"", "UTC", "UCT", "Universal", "Zulu"}:
            return ZoneInfo(name).key
    return ""


def check(writes: Writes) -> None:
    """Raise `RefusedError` for what would overwrite something, or put things where they must not be."""
    vault = writes.vault
    if vault.exists() and not vault.is_dir():
        raise RefusedError(f"{vault} is no folder", hint="name a folder: --vault")
    if not _is_ours_or_free(vault):
        raise RefusedError(
            f"{vault} has other files, and is not a vault",
            hint="name another folder, with --vault: it is made",
        )
    if writes.proposal.storage and _within(vault, Path(writes.proposal.storage)):
        raise RefusedError(
            f"{vault} lies in BookReader's storage, and would be in its own backups",
            hint="name a folder elsewhere: --vault",
        )
    for path in (vault, writes.key, writes.folder):
        if ".git" in path.absolute().parts:
            raise RefusedError(f"{path} lies in git's own folder", hint="name a folder elsewhere")
    for path in (writes.key, writes.folder):
        if _within(path, vault):
            raise RefusedError(
                f"{path} would lie in the vault, which it is to protect", hint="name another: --key-file"
            )
    if writes.key.exists():
        there = read_key(writes.key)
        if writes.passphrase and there.reveal() != writes.passphrase.reveal():
            raise RefusedError(
                f"{writes.key} has another key than BACKUP_KEY", hint="name another file: --key-file"
            )
    for name, path in writes.secrets.items():
        wanted = writes.proposal.secrets[name].reveal()
        if path.exists() and path.read_text(encoding="utf-8").rstrip("\n") != wanted:
            raise RefusedError(
                f"{path} is there, and is not the password that works", hint="move it away, and come back"
            )


def write_secrets(writes: Writes) -> dict[Path, bool]:
    """Write what the settings will refer to: what git is to ignore first, then key and passwords.

    Returns each file, and whether it was written: what is there stays as it is. Raises `SourceError`.
    """
    done = dict.fromkeys(ignore(_apart(writes)), True)
    make_folder(writes.vault)
    key = writes.passphrase or new_passphrase()
    done[writes.key] = write_new(writes.key, key.reveal() + "\n")
    for name, path in writes.secrets.items():
        done[path] = write_new(path, writes.proposal.secrets[name].reveal() + "\n")
    return done


def write_settings(writes: Writes, at: datetime) -> bool:
    """Write the settings file, which makes the rest count; return False if it is there already."""
    head = (
        f"# Settings of bookreader-backup, written by its init on {at:%Y-%m-%d}. Change them at will: init\n"
        "# does not touch this file again. What there is to set: docs/reference/settings.md\n"
    )
    tail = "# for deploy/compose.yml only\nCOMPOSE_PROJECT_NAME=bookreader-backup\n"
    return write_new(
        writes.settings, head + "".join(f"{line(*pair)}\n" for pair in writes.values.items()) + tail
    )


def differences(existing: Mapping[str, str], proposed: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what a proposal would have set otherwise, by variable: as it is, and as it was found."""
    return {
        name: (existing.get(name, ""), value)
        for name, value in proposed.items()
        if existing.get(name, "") != value
    }


def _apart(writes: Writes) -> list[Path]:
    places = [writes.vault, writes.settings, *([writes.folder] if writes.secrets else [])]
    return [*places, *([] if writes.secrets and writes.key.parent == writes.folder else [writes.key])]


def _file_name(variable: str) -> str:
    return _NAMES.get(variable) or variable.removeprefix("BACKUP_").lower().replace("_", "-")


def _is_ours_or_free(folder: Path) -> bool:
    if not folder.is_dir():
        return True
    return (folder / IDENTITY).exists() or not any(folder.iterdir())


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
