"""What the ways of replacing a Redis server's data have in common: by its files, and by replication."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.rdb import Skim
from bookreader_backup_assets.components.redis import as_recorded
from bookreader_backup_assets.components.redis_talk import Keys, Talk
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.core.restore_plan import Room
from bookreader_backup_assets.core.streams import Meter, Progress, quiet

_NEWEST_READ = (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9), ((4, 0), 8), ((3, 2), 7), ((0, 0), 6))
"""The newest RDB version that Redis reads, from a version of its own on."""


@dataclass(frozen=True)
class Dump:
    """The plain bytes of a dump, whose `size` and `sha256` are known before they are read again."""

    stored: Stored
    size: int
    sha256: str

    @classmethod
    def measured(cls, stored: Stored, progress: Progress = quiet) -> Dump:
        """Read an artifact whole. Raises `DamagedError` unless its bytes are those captured."""
        entry = stored.entry
        kept = Meter(stored.open_range(0, entry.size), progress)
        for _ in kept:
            pass
        if (kept.size, kept.sha256) != (entry.size, entry.sha256):
            raise DamagedError(
                f"{entry.name} has changed since it was captured",
                hint="take another set: `bookreader-backup list` shows which are verified",
            )
        plain = Meter(as_recorded(stored))
        for _ in plain:
            pass
        return cls(stored, plain.size, plain.sha256)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes. Raises `DamagedError` after the last if they are not those measured."""
        meter = Meter(self.stored.plain())
        yield from meter
        if (meter.size, meter.sha256) != (self.size, self.sha256):
            raise DamagedError(f"{self.stored.entry.name} changed while it was restored")


@dataclass(frozen=True)
class Live:
    """A server as it is now. Its `version` and `keys` by database are None where it does not run.

    `present` says whether there is anything to lose, `how` in words how it will be replaced.
    """

    version: str | None
    keys: Mapping[str, Keys] | None
    present: bool
    rooms: tuple[Room, ...]
    how: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Way(Protocol):
    """Replaces the data of one live server. See `Restoration` for what its steps promise."""

    @property
    def target(self) -> str:
        """See `Restoration.target`."""
        ...

    @property
    def displaces(self) -> bool:
        """See `Restoration.displaces`."""
        ...

    @property
    def keeps_old(self) -> bool:
        """See `Restoration.keeps_old`."""
        ...

    def look(self, needed: int) -> Live:
        """Look at the server, into which `needed` bytes are to go. Raises `RefusedError`, `SourceError`."""
        ...

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        ...

    def require_fit(self, version: str) -> None:
        """Raise `RefusedError` if the server cannot take over from a scratch server of that version."""
        ...

    def replace(self, state: State, dump: Dump) -> None:
        """See `Restoration.swap`."""
        ...

    def confirm(self, state: State, dump: Dump) -> Outcome:
        """See `Restoration.confirm`."""
        ...

    def undo(self, state: State, safety: Stored | None) -> None:
        """See `Restoration.undo`."""
        ...

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        ...

    def accept(self, state: State) -> None:
        """See `Restoration.accept`."""
        ...


def numbers(version: str) -> tuple[int, int]:
    """Return major and minor of a version; what is no version is (0, 0)."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def newest_read(version: str) -> int:
    """Return the newest RDB version that a Redis of that version is known to read."""
    return next(rdb for since, rdb in _NEWEST_READ if numbers(version) >= since)


def require_readable(dump: Mapping[str, str], version: str) -> None:
    """Raise `RefusedError` for a dump, told by its entry's `versions`, that is too new for a server."""
    server, rdb = dump.get("server", ""), int(dump.get("rdb", 0))
    if numbers(server) > numbers(version) and rdb > newest_read(version):
        raise RefusedError(
            f"the dump is of Redis {server} (RDB version {rdb}), and the server is {version}, which reads"
            f" up to {newest_read(version)}: an older one cannot read a newer dump",
            hint=f"restore into Redis {server} or newer",
        )


def told(keys: Mapping[str, Keys]) -> str:
    """Return keys per database in words."""
    if not any(count.all for count in keys.values()):
        return "no keys"
    return ", ".join(f"database {name}: {count.all} keys" for name, count in sorted(keys.items()))


def judged(found: Mapping[str, Keys], talk: Talk, state: State, dump: Dump) -> Outcome:
    """Compare the keys found in a server with those of the dump, as `compare` counted them into `state`.

    Keys without a time to live must be all there. Of the others, those may be missing whose time has run
    out by the server's own clock, and no more.
    """
    expired: Mapping[str, int] | None = {}
    if any(state["volatile"].values()):
        expired = _expired(dump, _clock_ms(talk))
    wrong, gone = [], 0
    for name in sorted({*state["keys"], *found}):
        all_, volatile = state["keys"].get(name, 0), state["volatile"].get(name, 0)
        here = found.get(name, Keys(0, 0))
        run_out = volatile if expired is None else expired.get(name, 0)
        if here.lasting != all_ - volatile:
            wrong.append(
                f"database {name} has {here.lasting} keys without a time to live, not {all_ - volatile}"
            )
        elif not all_ - run_out <= here.all <= all_:
            wrong.append(f"database {name} has {here.all} keys, not {all_ - run_out} to {all_}")
        gone += all_ - here.all
    total = sum(count.all for count in found.values())
    if wrong:
        evicted = int(talk.info("stats").get("evicted_keys", 0))
        said = f"; it has evicted {evicted}: its maxmemory is too small for the dump" if evicted else ""
        return failed("swapped", f"it holds other keys than the dump: {'; '.join(wrong)}{said}")
    said = f"; {gone} more have run out since the capture" if gone else ""
    return passed("swapped", f"{total} keys in {len(found)} databases, those captured{said}", keys=total)


def _clock_ms(talk: Talk) -> int:
    seconds, micros = talk.ask("TIME").split()
    return int(seconds) * 1000 + int(micros) // 1000 + 1


def _expired(dump: Dump, at_ms: int) -> Mapping[str, int] | None:
    """Count a dump's keys whose time has run out by then; None if it has a type unknown here."""
    skim = Skim(dump.chunks(), at_ms)
    for _ in skim:
        pass
    return None if None in skim.databases.values() else skim.expired
