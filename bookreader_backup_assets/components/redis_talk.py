"""A conversation with one Redis server through `redis-cli`, whose complaints are told as what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    SourceAbsentError,
    SourceError,
)
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.base import Runner

LOADED = 3600.0
"""Seconds that a server may take to load, or to write, all of its data."""
_ANSWERED = 60.0
_POLL = 0.1
_COMPLAINT = re.compile(r"(?:\(error\) )?[A-Z]{3,} ")
"""What redis-cli prints for an error reply, with status 0."""


@dataclass(frozen=True)
class Keys:
    """Keys of one logical database: all, and those of them that have a time to live."""

    all: int
    volatile: int

    @property
    def lasting(self) -> int:
        """Keys that no time runs out for."""
        return self.all - self.volatile


@dataclass(frozen=True)
class Talk:
    """Talks to one server. `cli` is redis-cli with where to connect, without a secret."""

    runner: Runner
    cli: tuple[str, ...] = ("redis-cli",)
    password: Secret | None = field(default=None, repr=False)

    @property
    def env(self) -> Mapping[str, str]:
        """What lets redis-cli in: `-a` would show it in the process list."""
        return {"REDISCLI_AUTH": self.password.reveal()} if self.password else {}

    def ask(self, *words: str, last: Secret | None = None, within: float = _ANSWERED) -> str:
        """Return what the server answers; `last` is the command's last word where that is a secret.

        Raises `SourceAbsentError` where there is none, `SourceError` for a wrong password and the like,
        `CommandError` for any other complaint.
        """
        stdin: Iterable[bytes] | None = None if last is None else [last.reveal().encode()]
        argv = [*self.cli, *(() if last is None else ("-x",)), *words]
        try:
            result = self.runner.run(argv, env=self.env, stdin=stdin, timeout=within)
        except CommandError as error:
            raise meaning(error) from None
        said = result.stdout.decode("utf-8", "replace")
        if "AUTH failed" in result.stderr or _COMPLAINT.match(said):  # it exits with 0 on an error
            complaint = f"{result.stderr}\n{said[:200]}".strip()
            raise meaning(CommandError(self.cli[0], 0, complaint, what=f"was refused {words[0]}"))
        return said

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO."""
        rows = (line.strip().partition(":") for line in self.ask("INFO", section).splitlines())
        return {name: value for name, found, value in rows if found}

    def config(self, name: str) -> str | None:
        """Return a directive as it is set now; None where the server has none of that name."""
        lines = self.ask("CONFIG", "GET", name).split("\n")
        return lines[1].rstrip("\r") if len(lines) > 1 and lines[0].strip() == name else None

    def keys(self) -> dict[str, Keys]:
        """Return the keys by logical database; those without any are not in it."""
        found = {}
        for name, value in self.info("keyspace").items():
            counts = dict(part.partition("=")[::2] for part in value.split(","))
            found[name.removeprefix("db")] = Keys(int(counts["keys"]), int(counts["expires"]))
        return found

    def free(self, folder: str) -> int | None:
        """Return the bytes free on the disk of a folder where the server is; None where nobody can tell."""
        with suppress(BackupError, IndexError, ValueError):
            said = self.runner.run(["df", "-Pk", folder], env={"LC_ALL": "C"}, timeout=_ANSWERED).stdout
            return int(said.decode("utf-8", "replace").splitlines()[-1].split()[3]) * 1024
        return None

    def await_loaded(self, ended: Callable[[], str] = lambda: "", within: float = LOADED) -> None:
        """Return when the server answers and has loaded its data.

        Raises `SourceError` after `within` seconds, or with what `ended` says once its program has.
        """
        deadline = time.monotonic() + within
        while True:
            try:
                if self.info("persistence").get("loading") == "0":
                    return
                state = "it is loading"
            except SourceAbsentError as error:
                state = error.message
            if (over := ended()) or time.monotonic() > deadline:
                what = over or f"Redis was not ready within {within:.0f} s: {state}"
                raise SourceError(what, hint="see its log")
            time.sleep(_POLL)

    def await_written(self, within: float = LOADED) -> None:
        """Return when no append-only file is being written anew. Raises `SourceError` if that went wrong."""
        deadline = time.monotonic() + within
        while True:
            said = self.info("persistence")
            if said.get("aof_rewrite_in_progress") == said.get("aof_rewrite_scheduled") == "0":
                break
            if time.monotonic() > deadline:
                raise SourceError(f"Redis has not written its append-only file within {within:.0f} s")
            time.sleep(_POLL)
        if said.get("aof_enabled") == "1" and said.get("aof_last_bgrewrite_status") != "ok":
            raise SourceError(
                "Redis could not write its append-only file anew, and would lose what was restored when it"
                " restarts",
                hint="its `dir` is full or not writable: see its log",
            )

    def save(self, within: float = LOADED) -> None:
        """Have the server write its dump file. Raises `SourceError` if that went wrong."""
        before = self.info("persistence")["rdb_last_save_time"]
        while self.ask("TIME").split()[0] <= before:  # it counts in seconds
            time.sleep(_POLL)
        self.ask("BGSAVE", "SCHEDULE")
        deadline = time.monotonic() + within
        while (said := self.info("persistence"))["rdb_bgsave_in_progress"] != "0" or (
            said["rdb_last_save_time"] == before and said["rdb_last_bgsave_status"] == "ok"
        ):
            if time.monotonic() > deadline:
                raise SourceError(f"Redis has not saved its data within {within:.0f} s")
            time.sleep(_POLL)
        if said["rdb_last_bgsave_status"] != "ok":
            raise SourceError("Redis could not save what was restored", hint=_SAVING)


def meaning(error: CommandError) -> BackupError:
    """Return what redis-cli complains about as what happened and what to do, where that is known."""
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
