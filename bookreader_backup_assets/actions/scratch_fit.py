"""Whether this machine's Redis can load what the server writes: an older one makes checks inconclusive."""

from __future__ import annotations

from collections.abc import Iterator

from bookreader_backup_assets.actions.examine import Finding
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components.redis import RedisRdb
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.servers.machine import MachineScratch

SUBJECT = "scratch redis"
_HINT = (
    "set BACKUP_REDIS_PROGRAMS to the folder of a redis-server that is not older, such as the server's own"
)


def scratch_findings(installation: Installation) -> Iterator[Finding]:
    """Yield whether the Redis of this machine that dumps would be loaded into is as new as the server.

    Nothing where a scratch server is a container of production's own image. A server that does not answer
    is `examine`'s to name.
    """
    component = installation.components.get("redis/rdb")
    scratch = installation.scratch
    if not isinstance(scratch, MachineScratch) or not isinstance(component, RedisRdb):
        return
    try:
        server = component.probe()["server"]
    except BackupError:
        return
    try:
        mine = scratch.redis_version()
    except BackupError as error:
        yield Finding(SUBJECT, good=False, seen=f"{error.message}: no dump can be test-restored", hint=_HINT)
        return
    if _release(mine) < _release(server):
        seen = f"redis-server {mine} is older than the server, {server}: checks of its dumps are inconclusive"
        yield Finding(SUBJECT, good=False, seen=seen, hint=_HINT)
    else:
        yield Finding(SUBJECT, good=True, seen=f"redis-server {mine}")


def _release(version: str) -> tuple[int, ...]:
    """Return what the format of dumps changes with: 7.2 of 7.2.4."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
