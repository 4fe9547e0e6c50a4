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

from bookreader_backup_assets.components.base import Capture, Facts, Scratch, ScratchRedis, Stored
from bookreader_backup_assets.components.rdb import MAGIC_BYTES, Skim, rdb_version
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    DamagedError,
    SourceAbsentError,
    SourceError,
)
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

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        try:
            result = self.runner.run((*self.cli, "INFO", "server"), env=self._env())
        except CommandError as error:
            raise _meaning(error) from None
        said = result.stdout.decode("utf-8", "replace")
        version = next((line for line in said.splitlines() if line.startswith("redis_version:")), None)
        if version is None or "AUTH failed" in result.stderr:  # it exits with 0 on an error
            raise _meaning(CommandError(self.cli[0], 0, f"{result.stderr}\n{said[:200]}", what="was refused"))
        return {"server": version.partition(":")[2]}

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
        for name, check in (("rdb_readable", _readable), ("keys_equal", _keys_equal)):
            if name in names:
                try:
                    yield check(stored, scratch)
                except SourceAbsentError as error:
                    yield inconclusive(name, "; ".join(filter(None, (error.message, error.hint))))
                except DamagedError as error:
                    yield failed(name, error.message)

    def _env(self) -> dict[str, str]:
        # `-a` would show it in the process list
        return {"REDISCLI_AUTH": self.password.reveal()} if self.password else {}

    def _dump(self, moments: list[datetime]) -> Generator[bytes, None, None]:
        """Yield what redis-cli prints; note when it was asked, and when the first byte came."""
        moments.append(datetime.now(UTC))
        for chunk in self.runner.stream((*self.cli, "--rdb", "-"), env=self._env()):
            if len(moments) == 1:
                moments.append(datetime.now(UTC))
            yield chunk


def _forked_at(ctime: str, asked: datetime, first_byte: datetime) -> datetime:
    try:
        return min(max(datetime.fromtimestamp(int(ctime), UTC), asked), first_byte)
    except (ValueError, OverflowError, OSError):  # before Redis 3.2, or nonsense
        return first_byte


def _readable(stored: Stored, scratch: Scratch) -> Outcome:
    scratch.check_rdb(_as_recorded(stored))
    return passed("rdb_readable", "redis-check-rdb read it to its end")


def _keys_equal(stored: Stored, scratch: Scratch) -> Outcome:
    expected = stored.entry.fingerprint
    with scratch.redis(_as_recorded(stored)) as server:
        databases = _keyspace(server)
    wanted: dict[str, int | None] = expected.get("databases", {})
    uncounted = [name for name, keys in wanted.items() if keys is None]
    if uncounted:  # what follows an unknown type was not seen at capture
        databases = {name: keys for name, keys in databases.items() if name in wanted}
    measured: dict[str, Any] = {"keys": databases, "scratch_version": server.version}
    differences = compare(expected, {"kind": "keys", "databases": databases})
    if differences:
        return failed("keys_equal", f"keys differ: {describe(differences)}", **measured)
    if uncounted:
        message = f"its server wrote a type unknown here: database {uncounted[0]} was not counted at capture"
        return inconclusive("keys_equal", message, **measured)
    total = sum(databases.values())
    return passed("keys_equal", f"{total} keys in {len(databases)} databases, as captured", **measured)


def _keyspace(server: ScratchRedis) -> dict[str, int]:
    said = server.runner.run((*server.cli, "INFO", "keyspace")).stdout.decode("utf-8", "replace")
    if "# Keyspace" not in said:  # redis-cli exits with 0 on an error
        raise CommandError(server.cli[0], 0, said, what="did not list the databases of the scratch server")
    rows = (line.strip().removeprefix("db").partition(":keys=") for line in said.splitlines())
    return {name: int(rest.partition(",")[0]) for name, found, rest in rows if found}


def _as_recorded(stored: Stored) -> Iterator[bytes]:
    """Yield the dump, refusing another format version than was captured.

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
        raise _meaning(error) from None


def _meaning(error: CommandError) -> BackupError:
    for said, kind, message, hint in _MEANINGS:
        if said in error.stderr:
            return kind(f"{message}: {error.message}", hint=hint)
    return error


_PASSWORD = "set BACKUP_REDIS_PASSWORD or BACKUP_REDIS_PASSWORD_FILE to the server's requirepass"  # noqa: S105
_SAVING = (
    "Redis's log says why, if it still runs: its `dir` is full or not writable, or it has no memory to fork."
    " With `repl-diskless-sync yes` it needs no disk for this"
)
_MEANINGS: tuple[tuple[str, type[BackupError], str, str], ...] = (
    ("WRONGPASS", SourceError, "Redis refused the password", _PASSWORD),
    ("NOAUTH", SourceError, "Redis wants a password", _PASSWORD),
    ("invalid password", SourceError, "Redis refused the password", _PASSWORD),  # before Redis 6
    ("without any password configured", SourceError, "Redis has no password", "unset BACKUP_REDIS_PASSWORD"),
    ("NOPERM", SourceError, "this user may not read everything", "allow it `+psync +sync +replconf`"),
    ("Could not connect", SourceAbsentError, "Redis is not there", "start it, or correct where it is"),
    ("LOADING", SourceError, "Redis is still loading its data", "capture again when it has"),
    ("NOMASTERLINK", SourceError, "this replica has lost its master", "capture from the master"),
    ("Error reading bulk length", SourceError, "Redis could not save in the background", _SAVING),
    ("background save", SourceError, "Redis could not save in the background", _SAVING),
    ("reading RDB payload", SourceError, "Redis went away in the middle of the dump", "see its log"),
)
