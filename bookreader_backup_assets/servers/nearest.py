"""Scratch servers as near to production as there are: of its images, or else of this machine's programs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bookreader_backup_assets.components.base import ScratchPostgresql, ScratchRedis
from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.runners.docker import DockerRunner
from bookreader_backup_assets.servers.containers import ContainerScratch
from bookreader_backup_assets.servers.machine import MachineScratch
from bookreader_backup_assets.servers.programs import postgresql_programs, redis_programs


@dataclass(frozen=True)
class NearestScratch:
    """Implements `Scratch` by containers of production's images; where production is gone, or its engine,
    by the programs of this machine, if it has them. Checks record the version, and refuse one that is older.
    """

    containers: ContainerScratch
    machine: MachineScratch

    def postgresql(self, at_least: int = 0) -> AbstractContextManager[ScratchPostgresql]:
        """See `Scratch.postgresql`."""
        return self._of(self.containers.production_postgresql).postgresql(at_least)

    def redis(self, rdb: Iterable[bytes]) -> AbstractContextManager[ScratchRedis]:
        """See `Scratch.redis`."""
        return self._of(self.containers.production_redis).redis(rdb)

    def check_rdb(self, rdb: Iterable[bytes]) -> None:
        """See `Scratch.check_rdb`."""
        self._of(self.containers.production_redis).check_rdb(rdb)

    def _of(self, production: DockerRunner) -> ContainerScratch | MachineScratch:
        """Return who is to make a server like production's. If nobody can, production is what is missed."""
        try:
            production.inspect()
        except SourceAbsentError:
            try:
                if production is self.containers.production_redis:
                    redis_programs(self.machine.redis_folder)
                else:
                    postgresql_programs(self.machine.postgresql_folder)
            except SourceAbsentError:
                return self.containers
            return self.machine
        return self.containers
