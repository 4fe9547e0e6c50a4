"""All of Redis: a dump loaded into a scratch server, compared, and put in the place of the live data.

How it gets there depends on what can be done to the server: `redis_files` stops its container and replaces
its files, `redis_replica` makes a server that nobody here can stop a replica of a scratch server.
"""

from __future__ import annotations

from dataclasses import dataclass

from bookreader_backup_assets.components.base import Scratch, Stored
from bookreader_backup_assets.components.redis import keys_equal
from bookreader_backup_assets.components.redis_way import Dump, Way, require_readable, told
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.core.check import Outcome, Verdict, passed
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options, Preview
from bookreader_backup_assets.core.streams import Progress

_EXPANDS = 4  # a dump over its stored size: a guess
_RATE = 20e6  # stored bytes restored per second: a guess, until a drill has measured it
_RUN_OUT = "keys whose time to live has run out since the capture go away as the server finds them"


@dataclass(frozen=True)
class RedisRestoration:
    """Implements `Restoration` for one Redis server, whose data is replaced by `way`."""

    way: Way
    scratch: Scratch
    stored: Stored
    options: Options

    quiet = True

    @property
    def target(self) -> str:
        """See `Way.target`."""
        return self.way.target

    @property
    def displaces(self) -> bool:
        """See `Way.displaces`."""
        return self.way.displaces

    @property
    def keeps_old(self) -> bool:
        """See `Way.keeps_old`."""
        return self.way.keeps_old

    def preview(self) -> Preview:
        """See `Restoration.preview`. Refuses a dump newer than the server reads."""
        entry = self.stored.entry
        if self.options.into is not None or self.options.in_place:
            raise RefusedError(
                "Redis is restored whole, in its own place", hint="leave out --into, --in-place"
            )
        live = self.way.look(entry.size * _EXPANDS)
        if live.version is not None:
            require_readable(entry.versions, live.version)
        now = "which does not run" if live.keys is None else told(live.keys)
        return Preview(
            replaces=f"the data of Redis {self.target} ({now})",
            present=live.present,
            steps=(
                f"load {entry.name} into a scratch server, and compare its keys per database",
                *live.how,
                "count its keys per database",
            ),
            rooms=live.rooms,
            seconds=round(2 * entry.size / _RATE + 10),
            notes=(_RUN_OUT, *live.notes),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        return self.way.begin(stamp)

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`. Only reads: what is beside is a scratch server, for `compare`."""
        dump = Dump.measured(self.stored, progress)
        state.update(bytes=dump.size, sha256=dump.sha256)

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: the keys per database that a scratch server has loaded.

        What it loaded is written down, for `confirm` to expect. A database that could not be counted at
        capture was loaded whole, too: the dump's own checksum says so.
        """
        outcome = keys_equal(self.stored, self.scratch)
        if outcome.verdict is Verdict.FAILED:
            return outcome
        found = outcome.measured
        self.way.require_fit(found["scratch_version"])
        state.update(keys=found["keys"], volatile=found["volatile"], version=found["scratch_version"])
        return outcome if outcome.passed else passed(outcome.check, f"loaded; {outcome.message}", **found)

    def swap(self, state: State) -> None:
        """See `Restoration.swap`."""
        self.way.replace(state, self._dump(state))

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`."""
        return self.way.confirm(state, self._dump(state))

    def undo(self, state: State, safety: Stored | None) -> None:
        """See `Restoration.undo`."""
        self.way.undo(state, safety)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        self.way.abandon(state)

    def accept(self, state: State) -> None:
        """See `Restoration.accept`."""
        self.way.accept(state)

    def _dump(self, state: State) -> Dump:
        return Dump(self.stored, state["bytes"], state["sha256"])
