"""Each part brought back into a scratch place and compared there, step by step: read, restore, compare.

Nothing here knows where production is: a part gets its artifact, and a scratch server or folder.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

from bookreader_backup_assets.components import postgresql_check
from bookreader_backup_assets.components.base import Scratch, ScratchPostgresql, ScratchRedis, Stored
from bookreader_backup_assets.components.redis import RedisRdb
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.core.restore_plan import StepTaken
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.core.streams import Meter

Server = TypeVar("Server", ScratchPostgresql, ScratchRedis)

CAME_BACK = "came_back"
"""The outcome of a part that could not be brought back at all."""
READ, RESTORE, COMPARE = "read", "restore", "compare"
"""The steps of every part. `read` fetches, decrypts and decompresses all of it, and compares its sha256."""


class Whole(Stored, Protocol):
    """An artifact whose stored bytes are hashed as they pass."""

    def measured(self) -> Meter:
        """Return a meter through which every stored byte has passed."""
        ...

    def sibling(self, asset: str) -> Whole | None:
        """See `Stored.sibling`."""
        ...


@dataclass
class Steps:
    """The steps of one part, as they are made; one that fails is in it, with the time until then."""

    taken: list[StepTaken] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, moved: int | None = None) -> Iterator[None]:
        """Time what is done inside; `moved` is the bytes that it moves."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started, moved)

    def add(self, name: str, seconds: float, moved: int | None = None, said: str = "") -> None:
        """Add a step that was timed by somebody else."""
        self.taken.append(StepTaken(name, round(max(0.0, seconds), 3), moved, said))


def read(stored: Whole, steps: Steps, *, also: str = "") -> None:
    """Read an artifact to its end through its codecs, and compare its bytes with its entry.

    `also` names an asset of the same set that the restore needs, read in the same way. Raises
    `DamagedError`, and `KeyMissingError` where the key does not open it.
    """
    with steps.step(READ, stored.entry.size):
        _read(stored)
        beside = stored.sibling(also) if also else None
        if beside is not None:
            _read(beside)


def database(stored: Whole, scratch: Scratch, steps: Steps) -> Outcome:
    """Restore a dump, roles first, into a scratch server, and compare it with its fingerprint."""
    read(stored, steps, also=postgresql_check.GLOBALS)
    timed = _Timed(scratch)
    names = frozenset({postgresql_check.RESTORABLE})
    (outcome,) = postgresql_check.verify(Nowhere(), stored, timed, names)
    restoring = float(outcome.measured.get("restore_seconds", timed.inside))
    steps.add(RESTORE, timed.entering + restoring)
    steps.add(COMPARE, timed.inside - restoring)
    return outcome


def keys(stored: Whole, scratch: Scratch, steps: Steps) -> Outcome:
    """Have a scratch server load a dump, and compare its keys with its fingerprint."""
    read(stored, steps)
    timed = _Timed(scratch)
    (outcome,) = RedisRdb(Nowhere()).verify(stored, timed, frozenset({"keys_equal"}))
    steps.add(RESTORE, timed.entering)
    steps.add(COMPARE, timed.inside)
    return outcome


def configuration(stored: Whole, keys: Sequence[Secret], steps: Steps) -> Outcome:
    """Decrypt and unpack a configuration, in memory, and compare it with its fingerprint.

    It is never in clear on a disk, not for a drill either. Without a passphrase, one of which keyed its hash,
    only names and sizes can be compared, and that tells nothing of the content.
    """
    expected = stored.entry.fingerprint
    read(stored, steps)
    with steps.step(RESTORE):
        try:
            held = list(_members(b"".join(stored.plain())))
        except tarfile.TarError as error:
            raise DamagedError(f"it does not unpack: {error}") from None
    with steps.step(COMPARE):
        sizes = {member.name: len(data) for member, data in held if not member.isdir()}
        contents = [_content(key, held) for key in keys]
    if sizes != expected["files"]:
        return failed("files_equal", "it unpacks to other files than were captured", files=len(sizes))
    if not contents:
        why = "names and sizes are equal; without the passphrase the hash of the content cannot be made"
        return inconclusive("files_equal", why, files=len(sizes))
    if expected["content"] not in contents:
        return failed("files_equal", "its content is not what was captured", files=len(sizes))
    return passed("files_equal", f"{len(sizes)} files equal what was captured", files=len(sizes))


def _read(stored: Whole) -> None:
    entry = stored.entry
    for _ in stored.plain():
        pass
    if (found := stored.measured().sha256) != entry.sha256:
        raise DamagedError(f"{entry.name} is not what was captured: its sha256 is {found}")


def _members(tar: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() else None
            yield member, content.read() if content else b""


def _content(key: Secret, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> str:
    """Return the hash of `components.config`, made again from what came back."""
    content = hmac.new(key.reveal().encode(), digestmod=hashlib.sha256)
    for member, data in members:
        digest = hashlib.sha256(data).hexdigest()
        said = f"{member.name}\0{member.mode:o}\0{member.linkname}\0{digest}\n"
        content.update(said.encode("utf-8", "surrogateescape"))
    return content.hexdigest()


@dataclass
class _Timed:
    """A `Scratch` that notes how long its server took to begin, and how long it was used.

    To remove it is no part of a recovery, and not counted.
    """

    scratch: Scratch
    entering: float = 0.0
    inside: float = 0.0

    def postgresql(self, at_least: int = 0) -> AbstractContextManager[ScratchPostgresql]:
        """See `Scratch.postgresql`."""
        return self._timed(self.scratch.postgresql(at_least))

    def redis(self, rdb: Iterable[bytes]) -> AbstractContextManager[ScratchRedis]:
        """See `Scratch.redis`."""
        return self._timed(self.scratch.redis(rdb))

    def check_rdb(self, rdb: Iterable[bytes]) -> None:
        """See `Scratch.check_rdb`."""
        self.scratch.check_rdb(rdb)

    @contextmanager
    def _timed(self, made: AbstractContextManager[Server]) -> Iterator[Server]:
        began = time.monotonic()
        with made as server:
            ready = time.monotonic()
            self.entering += ready - began
            try:
                yield server
            finally:
                self.inside += time.monotonic() - ready


class Nowhere:
    """A runner that reaches nothing: whatever would use production in a drill is refused."""

    def stream(self, *_: Any, **__: Any) -> NoReturn:
        """See `Runner.stream`."""
        raise RefusedError("a drill never reaches what BookReader runs on")

    run = session = read_tree = local_folder = describe = stream
