"""What settings may say of places: an endpoint without a secret in it, and a NAS apart from the vault."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from bookreader_backup_assets.core.errors import SettingsError


def require_plain_url(url: str, origin: str) -> None:
    """Raise `SettingsError`, without its value, of an endpoint that is no URL, or has a secret in it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if "@" in url:
        raise SettingsError(
            f"{origin} has a user or a password in it, and is shown in messages",
            hint="take it out: BACKUP_OFFSITE_ACCESS_KEY and BACKUP_OFFSITE_SECRET_KEY are for that",
        )
    if not good:
        raise SettingsError(
            f"{origin} is not a URL of a service", hint="write it as https://host or http://host:port"
        )


def require_apart(vault: Path, nas: Path, origin: str) -> None:
    """Raise `SettingsError` where one folder is in the other, by their names: a NAS may not answer."""
    here, there = (Path(os.path.abspath(path.expanduser())) for path in (vault, nas))
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise SettingsError(
            f"{origin} and BACKUP_VAULT are in one another: {there}, {here}",
            hint="the copy is to survive the folder of the vault: set BACKUP_NAS to where the NAS is mounted",
        )
