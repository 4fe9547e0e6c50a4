"""A dump as a file in which `pg_restore` can seek: where it lies, or staged beside PostgreSQL for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bookreader_backup_assets.components import postgresql_restore as restore
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.restore_plan import Room
from bookreader_backup_assets.runners.base import Runner

FOLDER = "/tmp"  # noqa: S108 - a new name in it, which only its owner may read
_STAGE = 'set -C; umask 077 && cat >"$1"'  # noclobber: what somebody else has put there is not written to


@dataclass(frozen=True)
class StagedDump:
    """A dump that `runner`'s programs read. Only a file is restored in parallel."""

    runner: Runner
    stored: Stored

    @property
    def path(self) -> str | None:
        """Where it lies in clear for those programs; None where it has to be staged for them."""
        if self.stored.entry.codecs or self.runner.describe()["runner"] != "local":
            return None
        return str(self.stored.path) if self.stored.path is not None else None

    def rooms(self) -> Iterator[Room]:
        """Yield the room that staging it takes, if any."""
        if self.path is None:
            free = restore.room(self.runner, FOLDER)
            yield Room(f"{FOLDER} beside PostgreSQL, for the dump", self.stored.entry.size, free)

    @contextmanager
    def opened(self, staged: str) -> Iterator[str]:
        """Give the path of the dump: `staged`, if it has to be put somewhere, until it is left."""
        if self.path is not None:
            yield self.path
            return
        try:
            argv = ["sh", "-c", _STAGE, "sh", staged]
            self.runner.run(argv, stdin=self.stored.plain(), timeout=restore.RESTORED)
            yield staged
        finally:
            self.remove(staged)

    def remove(self, staged: str) -> None:
        """Remove what a restore that was killed has staged."""
        with suppress(BackupError):  # the container went, and took it along
            self.runner.run(["rm", "-f", staged])
