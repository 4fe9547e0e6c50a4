"""A Redis server's data replaced through replication, where nobody here can stop it or see its files.

A server of our own loads the dump and the live one is made its replica: it takes over the whole data set,
writes it to its own files, and refuses writes meanwhile. When its keys are equal it is made a master again.
Whatever goes wrong before it has received everything leaves it as it was.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.redis_talk import LOADED, Keys, Talk
from bookreader_backup_assets.components.redis_way import Dump, Live, judged, newest_read, numbers, told
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Room
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.local import LocalRunner

REACHED = 30.0
"""Seconds until the live server must have begun to receive the data."""
EQUAL = 30.0
"""Seconds until its keys must be equal: some may run out on the way."""
_POLL = 0.1
_HERE = "127.0.0.1"


class Master(Protocol):
    """A server of our own on a port of 127.0.0.1, that has loaded a dump."""

    @property
    def cli(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102


class Masters(Protocol):
    """Starts one, that asks for a password. Raises `DamagedError`, `SourceAbsentError` as `Scratch.redis`."""

    def __call__(self, rdb: Iterable[bytes], password: Secret) -> AbstractContextManager[Master]: ...  # noqa: D102


@dataclass(frozen=True)
class ReplicaWay:
    """Implements `Way` for the server at `host`, which must be this machine, and `port`."""

    talk: Talk
    host: str
    port: int
    masters: Masters

    displaces = False
    keeps_old = False

    @property
    def target(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    def look(self, needed: int) -> Live:
        """See `Way.look`. Refuses a server on another machine, a replica, and one that speaks TLS only."""
        if not _is_here(self.host):
            raise RefusedError(
                f"Redis at {self.target} is not on this machine, and could not reach what it is to take over",
                hint="run this program there; or with BACKUP_RUNNER=docker beside its container",
            )
        link = self.talk.info("replication")
        if link["role"] != "master":
            raise RefusedError(
                f"Redis at {self.target} is a replica of {link.get('master_host')}:{link.get('master_port')}",
                hint="restore its master; if a restore was killed: bookreader-backup restore finish",
            )
        if self.talk.config("tls-replication") == "yes":
            raise RefusedError(
                "its replication speaks TLS only", hint="CONFIG SET tls-replication no, meanwhile"
            )
        keys, folder = self.talk.keys(), self.talk.config("dir")
        rooms = (Room("Redis's data folder", 2 * needed, self.talk.free(folder)),) if folder else ()
        return Live(
            self.talk.info("server")["redis_version"],
            keys,
            present=any(count.all for count in keys.values()),
            rooms=rooms,
            how=(
                f"make {self.target} a replica of that data for a moment: it refuses writes meanwhile",
                "compare its keys, and make it a master again",
                "wait until it has written its own files",
            ),
            notes=("nothing is stopped here: stop what writes to Redis, or it writes on after the restore",),
        )

    def begin(self, stamp: str) -> State:  # noqa: ARG002 - it makes nothing that has a name
        """See `Restoration.begin`. Whether there is a `masterauth` is remembered, and never what it is."""
        return {
            "masterauth": bool(self.talk.config("masterauth")),
            "masteruser": self.talk.config("masteruser"),
            "replid": self.talk.info("replication")["master_replid"],
            "present": any(count.all for count in self.talk.keys().values()),
        }

    def require_fit(self, version: str) -> None:
        """See `Way.require_fit`: our own server writes the format of its own version."""
        live = self.talk.info("server")["redis_version"]
        if numbers(version) > numbers(live) and newest_read(version) > newest_read(live):
            raise RefusedError(
                f"the live server is Redis {live}, and cannot take over from this machine's Redis {version}",
                hint=f"set BACKUP_REDIS_PROGRAMS to a folder with Redis {live}; nothing was touched",
            )

    def replace(self, state: State, dump: Dump) -> None:
        """See `Restoration.swap`. Raises `SourceError` where the live server does not take it over."""
        state["found"] = self._take_over(state, dump, captured=True)

    def confirm(self, state: State, dump: Dump) -> Outcome:  # noqa: ARG002 - it was counted before anybody wrote
        """See `Restoration.confirm`: a master, of the data that was counted while nobody could write."""
        link = self.talk.info("replication")
        if link["role"] != "master" or state["taken"] not in _origins(link):
            return failed("swapped", f"{self.target} does not hold the data that it took over")
        return passed(
            "swapped", f"{state['found']}; {self.target} is a master again, and has written its files"
        )

    def undo(self, state: State, safety: Stored | None) -> None:
        """See `Restoration.undo`: the safety capture is taken over, or what was empty is emptied."""
        self.abandon(state)
        if state["replid"] in _origins(self.talk.info("replication")):
            return  # it never received anything
        if not state["present"]:
            self.talk.ask("FLUSHALL")
            self._await_files()
        elif safety is None:
            raise RefusedError(
                "there is no safety capture of the state before", hint="restore an older set: restore redis"
            )
        else:
            self._take_over(state, Dump.measured(safety), captured=False)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`: it is a replica of nobody, and its settings are those from before."""
        if self.talk.info("replication")["role"] != "master":
            self.talk.ask("REPLICAOF", "NO", "ONE")
        if not state["masterauth"] and self.talk.config("masterauth"):
            self.talk.ask("CONFIG", "SET", "masterauth", "")
        if state["masteruser"]:
            self.talk.ask("CONFIG", "SET", "masteruser", state["masteruser"])

    def accept(self, state: State) -> None:
        """See `Restoration.accept`: nothing is kept on the server."""

    def _take_over(self, state: State, dump: Dump, *, captured: bool) -> str:
        """Have the live server take over a dump, and return what that holds.

        Of the dump that was `captured`, the keys that there have to be are in `state`.
        """
        known = self.talk.config("masterauth") if state["masterauth"] else None
        password = Secret(known or secrets.token_hex(32))
        with self.masters(dump.chunks(), password) as master:
            own = Talk(LocalRunner(), master.cli, password)
            try:
                if not known:
                    self.talk.ask("CONFIG", "SET", "masterauth", last=password)
                if state["masteruser"]:
                    self.talk.ask("CONFIG", "SET", "masteruser", "")
                self.talk.ask("REPLICAOF", _HERE, str(master.port))
                state["taken"] = own.info("replication")["master_replid"]
                self._await_link(state["taken"])
                keys = self._await_equal(own)
                if captured and not (outcome := judged(keys, own, state, dump)).passed:
                    raise DamagedError(outcome.message)
            finally:
                self.abandon(state)
        self._await_files()
        return outcome.message if captured else told(keys)

    def _await_link(self, origin: str) -> None:
        """Return when the live server has received everything from the server of that id."""
        began = time.monotonic()
        while True:
            link = self.talk.info("replication")
            if link.get("master_link_status") == "up" and link["master_replid"] == origin:
                return
            busy = link.get("master_sync_in_progress") == "1" or (
                self.talk.info("persistence").get("loading") == "1"
            )
            if time.monotonic() - began > (LOADED if busy else REACHED):
                raise SourceError(
                    f"Redis at {self.target} did not take over the data: its link is"
                    f" {link.get('master_link_status')}",
                    hint=f"its log says why; if it is in a container, {_HERE} is another machine to it:"
                    " set BACKUP_RUNNER=docker",
                )
            time.sleep(_POLL)

    def _await_equal(self, own: Talk) -> Mapping[str, Keys]:
        deadline = time.monotonic() + EQUAL
        while (keys := own.keys()) != (found := self.talk.keys()):
            if time.monotonic() > deadline:
                raise DamagedError(f"the live server took over {told(found)}; there were {told(keys)}")
            time.sleep(_POLL)
        return keys

    def _await_files(self) -> None:
        """Return when the live server would come back with this data after a restart."""
        self.talk.await_loaded()
        if self.talk.info("persistence").get("aof_enabled") == "1":
            self.talk.await_written()
        elif self.talk.config("save"):
            self.talk.save()


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origins(link: Mapping[str, str]) -> tuple[str, str]:
    """The ids of the data that a server has: its own, and that of which it was a replica before."""
    return link["master_replid"], link.get("master_replid2", "")
