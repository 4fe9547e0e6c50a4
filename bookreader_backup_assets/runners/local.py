"""The runner for what this machine reaches directly: programs on PATH, folders on its disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookreader_backup_assets.runners import child, process, tree
from bookreader_backup_assets.runners.base import NO_ENV, STALL, Result, Session, Tree


@dataclass(frozen=True)
class LocalRunner:
    """Runs programs on this machine.

    `env` is added to every call, on top of this process's own but for the variables in `without`;
    `programs` is the folder to look for programs in, before PATH.
    """

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    programs: Path | None = None
    without: frozenset[str] = frozenset()

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        stall: float = STALL,
    ) -> Iterator[bytes]:
        """See `Runner.stream`."""
        passed = {**self.env, **env}
        return process.stream(self._found(argv), env=passed, stdin=stdin, stall=stall, without=self.without)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENV,
        stdin: Iterable[bytes] | None = None,
        timeout: float = STALL,
    ) -> Result:
        """See `Runner.run`."""
        program = self._start(argv, env, stdin=stdin is not None)
        return child.gather(program, stdin, timeout)

    @contextmanager
    def session(self, argv: Sequence[str], *, env: Mapping[str, str] = NO_ENV) -> Iterator[Session]:
        """See `Runner.session`."""
        program = self._start(argv, env, stdin=True)
        try:
            yield child.Talk(program)
        finally:
            program.close()

    def read_tree(self, path: str) -> Tree:
        """See `Runner.read_tree`."""
        return tree.read_tree(path)

    def local_folder(self, path: str) -> Path | None:
        """See `Runner.local_folder`."""
        return Path(path)

    def describe(self) -> dict[str, str]:
        """See `Runner.describe`."""
        return {"runner": "local"}

    def _start(self, argv: Sequence[str], env: Mapping[str, str], *, stdin: bool) -> process.Process:
        passed = {**self.env, **env}
        return process.Process(self._found(argv), env=passed, stdin=stdin, without=self.without)

    def _found(self, argv: Sequence[str]) -> Sequence[str]:
        if self.programs is not None and (self.programs / argv[0]).exists():
            return [str(self.programs / argv[0]), *argv[1:]]
        return argv


@dataclass(frozen=True)
class NoServices:
    """Implements `Services` where nothing can be stopped from here: an operator has to see to that."""

    def running(self) -> tuple[str, ...]:
        """See `Services.running`: none that we know of."""
        return ()

    def stop(self, name: str) -> None:
        """See `Services.stop`."""

    def start(self, name: str) -> None:
        """See `Services.start`."""
