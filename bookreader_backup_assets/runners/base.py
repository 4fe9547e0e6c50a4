"""The runner seam: run programs where a service lives, and read the files it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bookreader_backup_assets.core.artifact import Problem

NO_ENV: Mapping[str, str] = {}
STALL = 600.0
"""Seconds a stream may stay silent before its program is ended."""


@dataclass(frozen=True)
class Result:
    """What a program that exited with 0 said."""

    stdout: bytes
    stderr: str


class Session(Protocol):
    """A program kept open to talk to, one line at a time."""

    def send(self, data: bytes) -> None:
        """Write to its standard input. Raises `CommandError` if it has gone."""
        ...

    def readline(self, timeout: float) -> bytes:
        """Return its next line without the newline.

        Raises `CommandError`, with what it said on stderr, if it has ended or stays silent for
        `timeout` seconds.
        """
        ...


Kind = Literal["file", "folder", "symlink", "hardlink"]


@dataclass(frozen=True)
class TreeItem:
    """One path of a tree, relative to its root, as bytes: names hold anything but NUL and slash.

    `mode` is the permission bits, `mtime_ns` nanoseconds since the epoch, `size` bytes of a file;
    `target` is where a symlink points, or the earlier path a hardlink shares its content with.
    `chunks` reads a file's content, once, and before the next item is asked for; it raises `SourceError`,
    whose message says why, if that file is gone or unreadable: the rest of the tree is unharmed. Where it
    can, a hardlink has `size` and `chunks` too, for when the earlier path could not be read.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""
    chunks: Callable[[], Iterator[bytes]] = field(default=lambda: iter(()), repr=False, compare=False)


@dataclass
class Tree:
    """A tree being read. `problems` names what could not be read, and is complete after the last item."""

    items: Iterator[TreeItem]
    problems: list[Problem] = field(default_factory=list)


class Runner(Protocol):
    """Reaches one service. No secret ever goes into an argv: secrets travel in `env` or `stdin`.

    Every call raises `SourceAbsentError` if the service is not there or not running.
    """

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        stall: float = STALL,
    ) -> Iterator[bytes]:
        """Yield what the program prints, and raise `CommandError` *after the last chunk* if it failed.

        Whoever commits on exhaustion therefore keeps no half output. A program that neither prints
        nor takes input for `stall` seconds is ended. Closing the iterator ends the program.
        """
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        timeout: float = STALL,
    ) -> Result:
        """Run the program to its end, at most `timeout` seconds. Raises `CommandError` if it failed."""
        ...

    def session(
        self, argv: Sequence[str], *, env: Mapping[str, str] = NO_ENV
    ) -> AbstractContextManager[Session]:
        """Start a program to talk to. It is ended when the context is left."""
        ...

    def read_tree(self, path: str) -> Tree:
        """Read the folder `path` as the service sees it, folders before what is in them.

        Raises `SourceAbsentError` if it is not there. What vanishes or cannot be read on the way is
        named in `problems`.
        """
        ...

    def local_folder(self, path: str) -> Path | None:
        """Return the folder of this machine that the service sees at `path`, whether it is there or not.

        None if this machine cannot see it, or cannot tell.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Where this is: `runner`, and for a container its name, image and image digest."""
        ...


class Services(Protocol):
    """The programs of BookReader that use its data: the backend and its workers."""

    def running(self) -> tuple[str, ...]:
        """Return the names of those that run now. Raises `SourceAbsentError` if nobody can tell."""
        ...

    def stop(self, name: str) -> None:
        """Stop one, and return when it has ended. One that has ended already is fine."""
        ...

    def start(self, name: str) -> None:
        """Start one, and return when it runs and, where it says so itself, is healthy.

        Raises `SourceError`, with the end of its log, if it does not come back. One that runs is fine.
        """
        ...
