"""What a file in a vault may be called: plain characters that lead nowhere else and trip no shell."""

from __future__ import annotations

import re

from bookreader_backup_assets.core.errors import VaultError

IDENTITY = "installation.json"
"""The file in a vault that says whose it is. Without it, what lies there is no vault."""
PARTIAL = ".partial"
"""How a name ends while a vault in a folder writes it; in every vault such a name is refused."""
PLAIN = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def is_name(text: str) -> bool:
    """Whether a file of this name can be in a vault."""
    return PLAIN.fullmatch(text) is not None and not text.endswith(PARTIAL)


def require_name(name: str) -> None:
    """Raise `VaultError` if no file in a vault can have this name."""
    if not is_name(name):
        raise VaultError(f"{name!r} cannot be the name of a file in a vault")
