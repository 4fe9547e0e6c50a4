"""Every error this project raises on purpose.

    BackupError                  what happened, and a hint: what to do now
    ├── RefusedError             asked for what would do harm, or wrongly     exit 2
    │   ├── SettingsError        a setting or the plan is wrong
    │   └── KeyMissingError      no gpg, or no key: never stored in clear
    ├── SourceError              a service or path cannot be read
    │   └── SourceAbsentError    ... because it is not there, or not running
    ├── CommandError             a program ended badly, or not in time
    ├── DamagedError             bytes are not what was recorded or promised
    └── VaultError               a vault cannot take or give an artifact
        ├── NameTakenError       names are written once
        ├── NotFoundError        nothing of that name
        └── SpaceError           no room

Library exceptions never leave the adapter that met them.
"""

from __future__ import annotations


class BackupError(Exception):
    """What happened, in `message`; what the operator should do now, in `hint`."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RefusedError(BackupError):
    """The request was refused before anything was touched."""

    exit_code = 2


class SettingsError(RefusedError):
    """A setting or the plan is missing, unknown or malformed."""


class KeyMissingError(RefusedError):
    """gpg or its key is missing, so nothing is stored: an unencrypted file is never a fallback."""


class SourceError(BackupError):
    """A service or a path is there, and cannot be read."""


class SourceAbsentError(SourceError):
    """A container, server or path is not there, or is not running."""


class CommandError(BackupError):
    """A program exited with a non-zero status, was killed, or gave no sign of life in time.

    `program` is its name, `status` its exit status (None if it was ended by us), `stderr` the end
    of what it complained about, in text.
    """

    def __init__(
        self, program: str, status: int | None, stderr: str, *, hint: str = "", what: str = ""
    ) -> None:
        ended = what or f"ended with status {status}"
        said = stderr.strip().splitlines()[-3:]
        super().__init__(f"{program} {ended}" + (f": {' / '.join(said)}" if said else ""), hint=hint)
        self.program = program
        self.status = status
        self.stderr = stderr


class DamagedError(BackupError):
    """Stored bytes are not what the entry says, or cannot be decoded."""


class VaultError(BackupError):
    """A vault cannot take or give an artifact."""


class NameTakenError(VaultError):
    """The vault already has a file of this name. Names are written once."""


class NotFoundError(VaultError):
    """The vault has no file of this name."""


class SpaceError(VaultError):
    """The vault has no room for what was to be written."""
