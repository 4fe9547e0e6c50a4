"""What is asked of a whole BookReader after it was restored: what the guide calls `verify_restore`.

Rows and keys are compared while the services are stopped, by the restore of each part. What is left to ask
of the system as it runs: its migration, the files that rows point to, and whether it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bookreader_backup_assets.actions.health import HEALTH, wait_healthy
from bookreader_backup_assets.actions.references import REFERENCES, FileColumn, files, references
from bookreader_backup_assets.components import displaced
from bookreader_backup_assets.components.psql import connect
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.runners.base import Runner
from bookreader_backup_assets.runners.stack import Stack

MIGRATION = "alembic_version"
ANSWERS = 120.0
"""Seconds for the health URLs to answer, after the services have started."""
_MIGRATION = (
    "SELECT coalesce(to_jsonb(string_agg(version_num, ', ' ORDER BY version_num)), 'null')"
    " FROM public.alembic_version"
)


@dataclass(frozen=True)
class System:
    """The whole of BookReader: what brings it up, and what is asked of it. `rto` is the guide's, in seconds.

    `columns` hold paths of files in `storage_path`, as `storage` sees it.
    """

    stack: Stack
    postgresql: Runner
    postgresql_env: Mapping[str, str] = field(repr=False)
    database: str
    storage: Runner
    storage_path: str
    columns: tuple[FileColumn, ...]
    health_urls: tuple[str, ...]
    rto: float
    answers: float = ANSWERS

    def check(self, dump: Entry | None) -> Iterator[Outcome]:
        """Yield what is found, one outcome each; what cannot be asked is a failure, and no error.

        `dump` is what the database was restored from, if it was.
        """
        then = dump.fingerprint.get(MIGRATION) if dump is not None else None
        if then is not None:
            yield _told(MIGRATION, lambda: self._migration(then))
        if self.columns:
            yield _told(REFERENCES, self._references)
        if self.health_urls:
            yield _told(HEALTH, lambda: wait_healthy(self.health_urls, self.answers))

    def _migration(self, then: str) -> Outcome:
        with connect(self.postgresql, self.postgresql_env, self.database) as psql:
            now = psql.ask(_MIGRATION)
        if now == then:
            return passed(MIGRATION, f"the database is at {now}, as captured")
        said = f"the database is at {now}, and was captured at {then}: has the backend migrated it?"
        return inconclusive(MIGRATION, said)

    def _references(self) -> Outcome:
        return references(
            self.postgresql,
            self.postgresql_env,
            self.database,
            self.columns,
            lambda: files(displaced.without_ours(self.storage.read_tree(self.storage_path))),
            roots=(self.storage_path,),
        )


def _told(check: str, make: Callable[[], Outcome]) -> Outcome:
    try:
        return make()
    except BackupError as error:
        return failed(check, f"could not be asked: {error.message}")
