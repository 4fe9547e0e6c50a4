"""The file of settings: our own, or BookReader's `.env`, with what begins with `BACKUP_` in it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from bookreader_backup_assets.core.errors import SettingsError

PREFIX = "BACKUP_"
FILE = "bookreader-backup.env"
"""The file of this program's own settings, in the folder it is called in: `.env` is BookReader's."""
ENV_FILE = "BACKUP_ENV_FILE"


def settings_file(environ: Mapping[str, str]) -> Path:
    """Return the file that settings are read from, there or not: our own, or `.env` where there is none.

    Beside our own, `.env` is not read: what begins with BACKUP_ there may be somebody else's. Raises
    `SettingsError` if the environment names a file that is not there.
    """
    if not (named := environ.get(ENV_FILE)):
        return Path(FILE) if Path(FILE).exists() else Path(".env")
    if not Path(named).is_file():
        raise SettingsError(
            f"{ENV_FILE} names {named}, which is no file", hint=f"correct it, or unset {ENV_FILE}"
        )
    return Path(named)


def read_file(file: Path) -> dict[str, tuple[str, str]]:
    """Return our variables in an `.env` file: each value, and where it stands, for messages.

    None are in a file that is not there. Raises `SettingsError` for one that cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read: {getattr(error, 'strerror', error)}",
            hint="make it readable by this user, as UTF-8 text",
        ) from None
    read = dotenv_values(stream=io.StringIO(text), interpolate=False)
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        variable = re.match(rf"\s*(?:export\s+)?({PREFIX}\w+)", line)
        if variable is None:
            continue
        name, value = variable[1], read.get(variable[1])
        if value is None:
            raise SettingsError(f"{file}, line {number}: write it as {name}=value")
        if name == ENV_FILE:
            raise SettingsError(
                f"{name} ({file}, line {number}) can only be set in the environment", hint="remove that line"
            )
        found[name] = (value, f"{name} ({file}, line {number})")
    return found
