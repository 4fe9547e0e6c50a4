"""The vault on a git remote: a branch for each installation, a file in its tree for each file.

Nothing is ever pushed by force: whoever comes second is refused, looks again whether the name is taken, and
commits on top. What is read was sent by the remote to the one who reads, and is never what was left here.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bookreader_backup_assets.core.errors import NameTakenError, NotFoundError, VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.core.streams import Meter
from bookreader_backup_assets.vaults.base import Stored, Terms
from bookreader_backup_assets.vaults.git_remote import Clone, Remote, Tree
from bookreader_backup_assets.vaults.names import IDENTITY, is_name, require_name

BRANCHES = "refs/heads/bookreader-backups/"
LARGEST = 50_000_000
"""Bytes of a file at most: services refuse more, GitHub from 100 MB on, and a history never shrinks."""
_FRESH = 10.0  # seconds for which what was seen is taken for what is there
_QUICK = 20.0  # seconds
_ATTEMPTS = 20  # of a push, while others push
_BUSY = re.compile(r"cannot lock ref|failed to update ref|already exists|incorrect old value")


@dataclass(frozen=True)
class GitPlace:
    """Implements `Place` on a git remote. `scratch` is the folder where repositories of our own are made.

    One that is `quick` is not waited for long: for whoever only looks.
    """

    url: Secret
    scratch: Path
    name: str = "git"
    quick: bool = False

    def vault(self, installation: str, terms: Terms | None = None) -> GitVault:  # noqa: ARG002 - it has none
        """See `Place.vault`."""
        return GitVault(self._remote, BRANCHES + installation, self.scratch, self.name)

    def installations(self) -> list[str]:
        """See `Place.installations`."""
        clone = Clone(self._remote, self.scratch)
        refs = sorted(clone.refs(f"{BRANCHES}*"))
        return [ref.removeprefix(BRANCHES) for ref in clone.having(IDENTITY, refs)]

    @property
    def _remote(self) -> Remote:
        return Remote(self.url, _QUICK) if self.quick else Remote(self.url)


@dataclass
class _Seen:
    clone: Clone
    head: str | None
    tree: Tree
    at: float


@dataclass
class _State:
    """What a vault knows: what it has seen last, where it writes, and the names it is writing now."""

    seen: _Seen | None = None
    writing: Clone | None = None
    names: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class GitVault:
    """A branch of a remote. What is deleted is out of its tree, and stays in its history."""

    remote: Remote
    ref: str
    scratch: Path
    name: str = "git"
    _state: _State = field(default_factory=_State, repr=False, compare=False)

    def put(self, name: str, chunks: Iterable[bytes], *, size: int | None = None) -> Stored:
        """See `Vault.put`. Raises `VaultError` for what is larger than `LARGEST`."""
        require_name(name)
        _require_small(name, size or 0)
        with self._alone(name):
            with self._state.lock:
                clone = self._state.writing = self._state.writing or Clone(self.remote, self.scratch)
                head = clone.fetch(self.ref)
                self._require_free(name, clone.tree(head))
            meter = Meter(chunks)
            blob = clone.write(_small(name, meter))

            def added(tree: Tree) -> list[str]:
                self._require_free(name, tree)
                return ["--add", "--cacheinfo", f"100644,{blob},{name}"]

            with self._state.lock:
                there = self._commit(clone, head, f"Add {name}", added)
        if there.get(name) != (blob, meter.size):
            raise VaultError(f"the {self.name} vault took {name}, and does not have it: somebody removed it")
        return Stored(name, meter.size)

    def open(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Vault.open`."""
        seen, (blob, size) = self._find(name)
        end = size if length is None else min(size, offset + length)
        at = 0
        for chunk in seen.clone.read(blob) if offset < end else ():
            if wanted := chunk[max(0, offset - at) : end - at]:
                yield wanted
            at += len(chunk)
            if at >= end and end < size:
                return

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `Vault.list`."""
        files = sorted(self._look().tree.items())
        named = (Stored(name, size) for name, (_, size) in files if is_name(name))
        yield from (stored for stored in named if stored.name.startswith(prefix))

    def stat(self, name: str) -> Stored:
        """See `Vault.stat`."""
        _, (_, size) = self._find(name)
        return Stored(name, size)

    def digest(self, name: str) -> str:
        """See `Vault.digest`: everything is asked of the remote anew."""
        require_name(name)
        with self._state.lock:
            self._state.seen = None
        meter = Meter(self.open(name))
        for _ in meter:
            pass
        return meter.sha256

    def delete(self, name: str) -> None:
        """See `Vault.delete`. The branch's history keeps the bytes, which are encrypted."""
        require_name(name)

        def removed(tree: Tree) -> list[str]:
            self._require_there(name, tree)
            return ["--force-remove", "--", name]

        with self._state.lock:
            clone = self._state.writing = self._state.writing or Clone(self.remote, self.scratch)
            self._commit(clone, clone.fetch(self.ref), f"Remove {name}", removed)

    def locked_until(self, name: str) -> datetime | None:
        """See `Vault.locked_until`: a branch locks nothing."""
        self.stat(name)
        return None

    def unfinished(self) -> Iterator[Stored]:
        """See `Vault.unfinished`: a push is whole, or nothing."""
        yield from ()

    def discard(self, name: str) -> None:
        """See `Vault.discard`."""
        require_name(name)
        raise NotFoundError(f"the {self.name} vault has nothing unfinished called {name}")

    def free(self) -> int | None:
        """See `Vault.free`: nobody can tell."""
        self._look()
        return None

    def local_path(self, name: str) -> Path | None:
        """See `Vault.local_path`."""
        require_name(name)
        return None

    def _look(self) -> _Seen:
        """Return what is there, as the remote has it now, or had it seconds ago."""
        with self._state.lock:
            seen = self._state.seen
            if seen and time.monotonic() - seen.at > _FRESH:
                unchanged = seen.clone.refs(self.ref).get(self.ref) == seen.head
                seen.at, seen = time.monotonic(), seen if unchanged else None
            if seen is None:
                clone = Clone(self.remote, self.scratch)
                head = clone.fetch(self.ref)
                seen = self._state.seen = _Seen(clone, head, clone.tree(head), time.monotonic())
            return seen

    def _find(self, name: str) -> tuple[_Seen, tuple[str, int]]:
        require_name(name)
        seen = self._look()
        return seen, self._require_there(name, seen.tree)

    def _commit(
        self, clone: Clone, head: str | None, message: str, change: Callable[[Tree], Iterable[str]]
    ) -> Tree:
        """Bring a change onto `head`, or what the branch has by then; return the files there after it."""
        for attempt in range(_ATTEMPTS):
            commit = clone.commit(head, change(clone.tree(head)), message)
            refused = clone.push(commit, self.ref)
            self._state.seen = None
            now = clone.fetch(self.ref)
            if refused is None or now == commit:  # it may have taken what it did not live to confirm
                return clone.tree(now)
            if (now == head and not _BUSY.search(refused.stderr)) or attempt == _ATTEMPTS - 1:
                raise self.remote.error(refused)
            head = now
            time.sleep(random.uniform(0, 0.1 * min(attempt + 1, 10)))  # noqa: S311 - out of step with others
        raise AssertionError

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._state.lock:
            if name in self._state.names:
                raise NameTakenError(f"{name} is being written already")
            self._state.names.add(name)
        try:
            yield
        finally:
            with self._state.lock:
                self._state.names.discard(name)

    def _require_free(self, name: str, tree: Tree) -> None:
        if name in tree:
            raise NameTakenError(f"{name} exists already in the {self.name} vault")

    def _require_there(self, name: str, tree: Tree) -> tuple[str, int]:
        if name not in tree:
            raise NotFoundError(f"the {self.name} vault has no {name}", hint=f"it is {self.remote.address}")
        return tree[name]


def _require_small(name: str, size: int) -> None:
    if size > LARGEST:
        raise VaultError(
            f"{name} is too large for a git remote: more than {LARGEST / 1e6:.0f} MB",
            hint="take `git` out of [config] of the plan, or name fewer paths in BACKUP_CONFIG_PATHS",
        )


def _small(name: str, meter: Meter) -> Iterator[bytes]:
    for chunk in meter:
        _require_small(name, meter.size)
        yield chunk
