"""The folder that configuration or code is restored into: whether it may be, its room, and its errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bookreader_backup_assets.components.config import RESTORING
from bookreader_backup_assets.core.errors import RefusedError, SourceError

_NAMED = 5


def require_place(place: Path, *, new: bool) -> None:
    """Raise `RefusedError` unless `place` is a folder or not there; a `new` one has to be empty."""
    if place.exists() and not place.is_dir():
        raise RefusedError(f"{place} is no folder", hint="name a folder that is not there yet")
    if not new or not place.is_dir():
        return
    if there := sorted(path.name for path in place.iterdir() if not path.name.startswith(RESTORING)):
        raise RefusedError(
            f"{place} is not empty: it has {some(there)}", hint="name a folder that is not there yet"
        )


def free(place: Path) -> int | None:
    """Return the bytes that are free where `place` is, or will be."""
    nearest = next((path for path in (place, *place.parents) if path.is_dir()), None)
    return shutil.disk_usage(nearest).free if nearest is not None else None


def some(names: Sequence[str]) -> str:
    """Return the first few of many names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Say in this project's errors what the system says of a path in `place`."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{error.filename or place} cannot be restored: {error.strerror}",
            hint=f"run as a user who may write in {place}",
        ) from None
