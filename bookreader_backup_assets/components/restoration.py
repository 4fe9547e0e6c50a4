"""The restoration seam: one live thing, replaced by what an artifact holds, and put back if asked.

`actions/restore.py` drives it: preview, begin, [safety capture], beside, compare, [services stop], swap,
confirm, [services start]. Before each step it writes to the journal, so every step must be one that can be
made again after this program was killed in the middle of it.
"""

from __future__ import annotations

from typing import Any, Protocol

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.restore_plan import Preview
from bookreader_backup_assets.core.streams import Progress

State = dict[str, Any]
"""JSON values that a restoration needs to go on, or back, after a crash: names of what it makes."""


class Restoration(Protocol):
    """Replaces one live thing. Made for one artifact and one target; making one touches nothing."""

    @property
    def target(self) -> str:
        """What is replaced, in the word that the operator types back: a database, a host, a folder."""
        ...

    @property
    def quiet(self) -> bool:
        """Whether BookReader's services must not run from `swap` until `confirm` has ended."""
        ...

    @property
    def displaces(self) -> bool:
        """Whether what is replaced is kept whole beside it, so that no safety capture is needed."""
        ...

    @property
    def keeps_old(self) -> bool:
        """Whether `undo` can do without a safety capture: true of all that `displaces`, and of databases."""
        ...

    def preview(self) -> Preview:
        """Look, and touch nothing. Raises `RefusedError` for what cannot work, such as a newer dump,
        `SourceError` where the target cannot be reached.
        """
        ...

    def begin(self, stamp: str) -> State:
        """Return the names that this restore will use, made unique by `stamp`. Touches nothing."""
        ...

    def beside(self, state: State, progress: Progress) -> None:
        """Restore next to the live data, from the artifact's bytes, all of which are compared with its
        entry's hashes before this returns. Begun again after a crash, it goes on or starts over.
        """
        ...

    def compare(self, state: State) -> Outcome:
        """Compare what lies beside with the fingerprint taken at capture."""
        ...

    def swap(self, state: State) -> None:
        """Put it in the place of the live data. Made again after a crash, it finishes."""
        ...

    def confirm(self, state: State) -> Outcome:
        """Look at the live place after the swap, whether it holds what was compared."""
        ...

    def undo(self, state: State, safety: Stored | None) -> None:
        """Bring the previous state back, from what the swap kept or from the safety capture.

        Made again after a crash, it finishes. Raises `RefusedError` where neither is there any more.
        """
        ...

    def abandon(self, state: State) -> None:
        """Remove what `beside` made; the live data was not touched. Can be made again."""
        ...

    def accept(self, state: State) -> None:
        """Remove what `undo` would need. Can be made again."""
        ...
