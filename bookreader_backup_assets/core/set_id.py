"""The id of a backup set: a day, `2025-10-24`, or a moment with its label, `2025-10-24_14-05-00_pre-deploy`.

A weekly set has the id of its day. Two labelled sets of one second are told apart by a number before the
label, as twins among artifacts are.
"""

from __future__ import annotations

import re
from datetime import date, datetime

from bookreader_backup_assets.core.artifact import check_label
from bookreader_backup_assets.core.errors import RefusedError

_LABELLED = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)_\d\d-\d\d-\d\d(?:_(?:[2-9]|[1-9]\d+))?"
    r"_(?P<label>[a-z][a-z0-9-]{0,39})",
    re.ASCII,
)


def labelled_id(at: datetime, label: str, twin: int = 1) -> str:
    """Return the id of a labelled set begun `at`, wall time of the plan's timezone. Raises `RefusedError`."""
    parts = [f"{at:%Y-%m-%d_%H-%M-%S}", *([str(twin)] if twin > 1 else []), check_label(label)]
    return "_".join(parts)


def label_of(set_id: str) -> str | None:
    """Return the label in the id of a labelled set, or None for a day, or anything else."""
    match = _LABELLED.fullmatch(set_id)
    return match["label"] if match else None


def is_set(text: str) -> bool:
    """Whether `text` is the id of a day's or a labelled set."""
    try:
        return bool(day_of(text))
    except RefusedError:
        return False


def day_of(set_id: str) -> date:
    """Return the day of a set. Raises `RefusedError` for what is no id of one."""
    match = _LABELLED.fullmatch(set_id)
    try:
        return date.fromisoformat(match["day"] if match else set_id)
    except ValueError:
        raise RefusedError(f"{set_id!r} is not the id of a set", hint="write it as 2025-10-24") from None
