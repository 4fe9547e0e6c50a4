"""Scratch servers from the programs of this machine, or from the wheels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.components.base import ScratchPostgresql, ScratchRedis
from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.servers import postgresql, redis
from bookreader_backup_assets.servers.programs import postgresql_programs, redis_programs


@dataclass(frozen=True)
class MachineScratch:
    """Implements `components.base.Scratch` in folders below `folder`; programs from the folders, if given."""

    folder: Path
    postgresql_folder: Path | None = None
    redis_folder: Path | None = None

    def postgresql(self, at_least: int = 0) -> AbstractContextManager[ScratchPostgresql]:
        """See `Scratch.postgresql`. The configured folder comes first, where it is new enough."""
        try:
            programs = postgresql_programs(self.postgresql_folder, at_least=at_least)
        except SourceAbsentError:
            programs = postgresql_programs()  # whatever there is: the caller says that it is too old
        return postgresql.scratch(programs, self.folder)

    def redis(self, rdb: Iterable[bytes]) -> AbstractContextManager[ScratchRedis]:
        """See `Scratch.redis`."""
        return redis.scratch(redis_programs(self.redis_folder), self.folder, rdb)

    def check_rdb(self, rdb: Iterable[bytes]) -> None:
        """See `Scratch.check_rdb`."""
        redis.check_rdb(redis_programs(self.redis_folder), self.folder, rdb)

    def redis_version(self) -> str:
        """Return the version of the Redis that it would start. Raises `SourceAbsentError` for none."""
        return redis.version_of(redis_programs(self.redis_folder))
