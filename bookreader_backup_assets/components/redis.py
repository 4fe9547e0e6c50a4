"""Redis: the dump that a replica would be sent, streamed by `redis-cli --rdb -`.

No BGSAVE and no file of the server's own: a failed BGSAVE makes Redis refuse the application's writes,
and `--rdb` of a diskless server (the default from Redis 7.0) needs no room there at all. The server
waits `repl-diskless-sync-delay` (5 s) before it begins; changing that is not a backup's business.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.rdb import MAGIC_BYTES, Skim, rdb_version
from bookreader_backup_assets.components.redis_talk import Talk, meaning
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import CommandError, DamagedError, SourceAbsentError
from bookreader_backup_assets.core.fingerprint import compare, describe
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.base import Runner


@dataclass(frozen=True)
class RedisRdb:
    """All logical databases of one server. `cli` is redis-cli with where to connect, without a secret."""

    runner: Runner
    cli: tuple[str, ...] = ("redis-cli",)
    password: Secret | None = field(default=None, repr=False)
    component: str = "redis"
    artifact: str = "rdb"
    stem: str = "redis_dump"
    suffix: str = ".rdb"
    kind: str | None = None
    codecs: tuple[str, ...] = ("gzip",)

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            "rdb_readable": "redis-check-rdb reads it to its end",
            "keys_equal": "a scratch server has loaded it, and its keys per database are those captured",
        }

    @property
    def talk(self) -> Talk:
        """A conversation with the server."""
        return Talk(self.runner, self.cli, self.password)

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        return {"server": self.talk.info("server")["redis_version"]}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`.

        The instant captured is the server's own (`ctime` in the dump, whole seconds), held between the
        moment it was asked and the first byte: the fork lies between them, whatever its clock says.
        """
        moments: list[datetime] = []

        def facts() -> Facts:
            server = skim.aux.get("redis-ver") or skim.aux.get("valkey-ver")
            return Facts(
                captured_at=_forked_at(skim.aux.get("ctime", ""), moments[0], moments[1]),
                fingerprint={"kind": "keys", "databases": dict(skim.databases)},
                versions={**({"server": server} if server else {}), "rdb": str(skim.version)},
                source=self.runner.describe(),
            )

        with closing(self._dump(moments)) as dump:
            skim = Skim(dump)
            yield Capture(_explained(skim), facts)

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - a cache is never unchanged
        """See `Component.unchanged_since`."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:
        """See `Component.verify`."""
        for name, check in (("rdb_readable", _readable), ("keys_equal", keys_equal)):
            if name in names:
                try:
                    yield check(stored, scratch)
                except SourceAbsentError as error:
                    yield inconclusive(name, "; ".join(filter(None, (error.message, error.hint))))
                except DamagedError as error:
                    yield failed(name, error.message)

    def _dump(self, moments: list[datetime]) -> Generator[bytes, None, None]:
        """Yield what redis-cli prints; note when it was asked, and when the first byte came."""
        moments.append(datetime.now(UTC))
        for chunk in self.runner.stream((*self.cli, "--rdb", "-"), env=self.talk.env):
            if len(moments) == 1:
                moments.append(datetime.now(UTC))
            yield chunk


def _forked_at(ctime: str, asked: datetime, first_byte: datetime) -> datetime:
    try:
        return min(max(datetime.fromtimestamp(int(ctime), UTC), asked), first_byte)
    except (ValueError, OverflowError, OSError):  # before Redis 3.2, or nonsense
        return first_byte


def _readable(stored: Stored, scratch: Scratch) -> Outcome:
    scratch.check_rdb(as_recorded(stored))
    return passed("rdb_readable", "redis-check-rdb read it to its end")


def keys_equal(stored: Stored, scratch: Scratch) -> Outcome:
    """Have a scratch server load a dump, and compare its keys per database with the fingerprint.

    `measured` has `keys`, and of them `volatile`, those with a time to live, by database.
    """
    expected = stored.entry.fingerprint
    with scratch.redis(as_recorded(stored)) as server:
        found = Talk(server.runner, server.cli).keys()
    databases = {name: keys.all for name, keys in found.items()}
    measured: dict[str, Any] = {
        "keys": databases,
        "volatile": {name: keys.volatile for name, keys in found.items()},
        "scratch_version": server.version,
    }
    wanted: dict[str, int | None] = expected.get("databases", {})
    uncounted = [name for name, keys in wanted.items() if keys is None]
    if uncounted:  # what follows an unknown type was not seen at capture
        databases = {name: keys for name, keys in databases.items() if name in wanted}
    differences = compare(expected, {"kind": "keys", "databases": databases})
    if differences:
        return failed("keys_equal", f"keys differ: {describe(differences)}", **measured)
    if uncounted:
        message = f"its server wrote a type unknown here: database {uncounted[0]} was not counted at capture"
        return inconclusive("keys_equal", message, **measured)
    total = sum(databases.values())
    return passed("keys_equal", f"{total} keys in {len(databases)} databases, as captured", **measured)


def as_recorded(stored: Stored) -> Iterator[bytes]:
    """Yield the dump. Raises `DamagedError` for another format version than was captured.

    A server calls a damaged version "too new", which would be no more than inconclusive.
    """
    recorded = stored.entry.versions.get("rdb")
    head = b""
    for chunk in stored.plain():
        if len(head) < MAGIC_BYTES:
            head += chunk[:MAGIC_BYTES]
            if len(head) >= MAGIC_BYTES and recorded not in (None, str(found := rdb_version(head))):
                raise DamagedError(f"it says that it is RDB version {found}, and {recorded} was captured")
        yield chunk


def _explained(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks`, turning what redis-cli complains about into what happened and what to do."""
    try:
        yield from chunks
    except CommandError as error:
        raise meaning(error) from None
