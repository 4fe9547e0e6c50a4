"""The component seam: capture one artifact of BookReader, and check one that is stored.

An implementation is a frozen dataclass that holds its runner and names. To add a component, write one
beside these, a module in `defs/`, a line in `assembly.py` and a plan row: the contract suite picks it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.runners.base import Runner


@dataclass(frozen=True)
class Facts:
    """What a capture learned, for the entry; see `Entry` for the meaning of each.

    `companions` are files kept beside the artifact, by role and suffix: `{("index", ".index.gz"): …}`.
    """

    captured_at: datetime
    fingerprint: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    companions: Mapping[tuple[str, str], Iterable[bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Capture:
    """A capture under way: `chunks` to store, and, once they are exhausted, the `facts` about them.

    `chunks` raises if anything went wrong, at the latest after the last chunk: exhausted means whole.
    `expected` guesses the bytes to come, for a progress bar and the room needed; None is no idea.
    """

    chunks: Iterator[bytes]
    facts: Callable[[], Facts]
    expected: int | None = None


class Stored(Protocol):
    """An artifact in a vault, as a component's `verify` reads it."""

    @property
    def entry(self) -> Entry:
        """What was recorded at capture."""
        ...

    @property
    def path(self) -> Path | None:
        """Where its bytes lie on this machine, undecoded, for programs that seek; None elsewhere."""
        ...

    def plain(self) -> Iterator[bytes]:
        """Yield its bytes with the entry's codecs undone. Raises `DamagedError`, `KeyMissingError`."""
        ...

    def open_range(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield `length` of its stored bytes from `offset` on, undecoded, for codecs that can seek."""
        ...

    def companion(self, role: str) -> Iterator[bytes]:
        """Yield the bytes of a companion, compared with its recorded hash at the end (`DamagedError`)."""
        ...

    def sibling(self, asset: str) -> Stored | None:
        """Return the newest artifact of another asset in the same set, or None."""
        ...

    def others(self) -> list[Entry]:
        """Return the entries of all other artifacts of its asset in its vault, oldest first."""
        ...


@dataclass(frozen=True)
class ScratchPostgresql:
    """A throw-away server. `env` is what libpq's programs need to be its superuser.

    `sees_files` says whether a path on this machine means the same to its runner.
    """

    runner: Runner
    env: Mapping[str, str]
    version: str
    sees_files: bool


@dataclass(frozen=True)
class ScratchRedis:
    """A throw-away server that has loaded a dump. `cli` is the argv that talks to it."""

    runner: Runner
    cli: tuple[str, ...]
    version: str


class Scratch(Protocol):
    """Gives throw-away servers, as like production's as this machine has, removed on leaving.

    Raises `SourceAbsentError` where there is no such server to be had: a check is then inconclusive.
    """

    def postgresql(self, at_least: int = 0) -> AbstractContextManager[ScratchPostgresql]:
        """Start an empty PostgreSQL server with no roles but its own superuser, `scratch`.

        Its major version is `at_least` or newer, if there is one to be had; the caller looks.
        """
        ...

    def redis(self, rdb: Iterable[bytes]) -> AbstractContextManager[ScratchRedis]:
        """Start a Redis server on a dump, keeping keys that have expired since.

        Raises `DamagedError` if the server refuses the dump.
        """
        ...

    def check_rdb(self, rdb: Iterable[bytes]) -> None:
        """Have `redis-check-rdb` read a dump. Raises `DamagedError` if it finds fault."""
        ...


class Component(Protocol):
    """Captures and checks one asset: `component`/`artifact`, as in `postgresql/dump`."""

    @property
    def component(self) -> str:
        """The part of BookReader this is: a folder in the vault, a group in the UI."""
        ...

    @property
    def artifact(self) -> str:
        """Which of the component's artifacts."""
        ...

    @property
    def stem(self) -> str:
        """What its files' names begin with."""
        ...

    @property
    def suffix(self) -> str:
        """The suffix of what `capture` yields, before the codecs add theirs."""
        ...

    @property
    def kind(self) -> str | None:
        """`full` or `incr` where names say so."""
        ...

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the codecs applied to what `capture` yields."""
        ...

    @property
    def checks(self) -> Mapping[str, str]:
        """The checks `verify` can make besides those of every artifact: name to what it proves."""
        ...

    def probe(self) -> dict[str, str]:
        """Reach the source as a capture would, and return the versions of what answers.

        Raises `SourceError`, `KeyMissingError` or `CommandError` as a capture would; writes nothing.
        """
        ...

    def capture(self) -> AbstractContextManager[Capture]:
        """Begin a capture. Leaving the context ends whatever it started."""
        ...

    def unchanged_since(self, newest: Entry) -> bool:
        """Whether `newest` still says it all, so that a new artifact would repeat it."""
        ...

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:
        """Make the checks in `names`, yielding an outcome for each.

        Whatever the bytes are, the answer is an outcome: only what is wrong with this machine raises.
        """
        ...


@runtime_checkable
class Derived(Protocol):
    """A component whose source is another artifact of the same set, and not a service."""

    @property
    def derived_from(self) -> str:
        """The asset it is made of."""
        ...

    def over(self, stored: Stored) -> Component:
        """Return the component that captures from this artifact."""
        ...
