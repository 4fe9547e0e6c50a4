"""The containers that use BookReader's data, stopped while it is replaced, and started again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.core.errors import BackupError, RefusedError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.docker import ONE_OFF, PROJECT, SERVICE, name_of
from bookreader_backup_assets.runners.docker_engine import Engine

SERVICES = ("backend", "celery-worker", "celery-beat")
"""The compose services that write to BookReader's data, in the order in which they start."""
SETTLED = 5.0
"""Seconds that a container without a healthcheck has to run before it counts as come back."""
_KNOWN = {"celery-worker": "celery", "celery-beat": "beat"}  # container names that are not the service's
_POLL = 0.1
_SLACK = 15.0
_RESTARTS = 3  # fewer may be a server that waits for its database
_SAID = 10  # lines of a log in an error


@dataclass(frozen=True)
class DockerServices:
    """Implements `Services` by container: one service may be several, of which only some run.

    `names` are compose services, or names of containers that are not compose's. Without a `project` there
    must be one only that has any of them. A container has `grace` seconds to end, unless it says otherwise
    itself, and `within` seconds to come back.
    """

    engine: Engine
    project: str | None = None
    names: tuple[str, ...] = SERVICES
    grace: int = 30
    within: float = 300.0
    settled: float = SETTLED

    def running(self) -> tuple[str, ...]:
        """See `Services.running`: the names of containers, in the order of `names`.

        Raises `RefusedError` where two projects could be meant, or a container is paused.
        """
        with self.engine.guarded():
            listed = self.engine.api.containers(all=True)
        ranked = {
            name: (rank, container)
            for container in listed
            if (rank := self._rank(name := name_of(container), container["Labels"] or {})) is not None
        }
        projects = {(found["Labels"] or {}).get(PROJECT) for _, found in ranked.values()} - {None}
        if self.project is None and len(projects) > 1:
            raise RefusedError(
                f"several compose projects could be meant: {', '.join(sorted(map(str, projects)))}",
                hint="say which with BACKUP_COMPOSE_PROJECT",
            )
        paused = sorted(name for name, (_, found) in ranked.items() if found["State"] == "paused")
        if paused:
            raise RefusedError(
                f"container {paused[0]} is paused, and would go on with the data it had before",
                hint=f"docker unpause {paused[0]}, or docker kill {paused[0]}",
            )
        ours = [name for name, (_, found) in ranked.items() if found["State"] in {"running", "restarting"}]
        return tuple(sorted(ours, key=lambda name: (ranked[name][0], name)))

    def stop(self, name: str) -> None:
        """See `Services.stop`. It is killed if it does not end in time.

        Raises `SourceError` if it runs on.
        """
        with suppress(SourceAbsentError):  # what is not there does not run
            with self.engine.guarded():
                grace = self.engine.api.inspect_container(name)["Config"].get("StopTimeout") or self.grace
                self.engine.api.stop(name, timeout=grace)
            deadline = time.monotonic() + _SLACK
            while (state := _look(self.engine, name)["State"])["Running"] or state["Restarting"]:
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"container {name} does not stop, not even when it is killed",
                        hint=f"docker kill {name}; the Docker engine's log says more",
                    )
                time.sleep(_POLL)

    def start(self, name: str) -> None:
        """See `Services.start`. One without a healthcheck has to run for `settled` seconds."""
        try:
            with self.engine.guarded():
                self.engine.api.start(name)
        except SourceAbsentError as error:
            raise SourceAbsentError(
                f"container {name} cannot be started: {error.message}", hint="docker compose up --detach"
            ) from None
        except SourceError as error:
            raise SourceError(
                f"container {name} cannot be started: {error.message}", hint=f"docker start {name}"
            ) from None
        wait_until_up(self.engine, name, within=self.within, settled=self.settled)

    def _rank(self, name: str, labels: Mapping[str, str]) -> int | None:
        if labels.get(ONE_OFF) == "True":
            return None
        if PROJECT in labels and self.project is not None and labels[PROJECT] != self.project:
            return None
        for rank, wanted in enumerate(self.names):
            known = _KNOWN.get(wanted, wanted)
            if SERVICE in labels:
                if labels[SERVICE] == wanted:
                    return rank
            elif name in {wanted, f"bookreader_{known}", f"bookreader-{known}"}:
                return rank
        return None


def wait_until_up(engine: Engine, *names: str, within: float, settled: float = SETTLED) -> None:
    """Return when containers that were started run and, where they say so themselves, are healthy.

    One without a healthcheck has to run for `settled` seconds; all are waited for at the same time. Raises
    `SourceError` with the end of the log of one that ends, restarts in a loop, is unhealthy, or is not there
    within `within` seconds.
    """
    deadline = time.monotonic() + within
    waiting = [_Starting(engine, name, settled) for name in names]
    while waiting := [one for one in waiting if not one.is_up()]:
        if time.monotonic() > deadline:
            raise waiting[0].late(within)
        time.sleep(_POLL)


@dataclass
class _Starting:
    """A container that was started: `began` is its own word for when, `since` is when that was first seen."""

    engine: Engine
    name: str
    settled: float
    began: str = ""
    since: float = 0.0

    def is_up(self) -> bool:
        """Look at it. Raises `SourceError` where waiting is of no use."""
        found = _look(self.engine, self.name)
        state = found["State"]
        if state["StartedAt"] != self.began:
            self.began, self.since = state["StartedAt"], time.monotonic()
        health, up = _health(state), _runs(state)
        if up and (health == "healthy" or (health == "none" and self._has_settled())):
            return True
        if up and health == "unhealthy" and state["Health"]["FailingStreak"]:
            raise _failure(self.engine, self.name, f"is unhealthy{_probe(state)}")
        if found["RestartCount"] >= _RESTARTS:
            raise _failure(self.engine, self.name, f"ends and is restarted again and again{_status(state)}")
        if not state["Running"] and not state["Restarting"]:
            raise _failure(self.engine, self.name, f"has ended{_status(state)}")
        return False

    def late(self, within: float) -> SourceError:
        """Say what it still is."""
        state = _look(self.engine, self.name)["State"]
        said = f"is still {_health(state) if _runs(state) else state['Status']}{_probe(state)}"
        return _failure(self.engine, self.name, f"{said} after {within:.0f} s")

    def _has_settled(self) -> bool:
        return time.monotonic() - self.since >= self.settled


def _health(state: Mapping[str, Any]) -> str:
    return str((state.get("Health") or {}).get("Status", "none"))


def _runs(state: Mapping[str, Any]) -> bool:
    return bool(state["Running"] and not state["Restarting"])


def _look(engine: Engine, name: str) -> dict[str, Any]:
    with engine.guarded():
        found: dict[str, Any] = engine.api.inspect_container(name)
        return found


def _failure(engine: Engine, name: str, what: str) -> SourceError:
    log = b""
    with suppress(BackupError), engine.guarded():  # some log drivers cannot be read
        log = engine.api.logs(name, tail=_SAID)
    lines = [line.strip() for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    said = f"; its log ends with: {' / '.join(lines)[-1000:]}" if lines else ""
    return SourceError(f"container {name} {what}{said}", hint=f"docker logs {name}")


def _probe(state: Mapping[str, Any]) -> str:
    """What its healthcheck said last."""
    made = (state.get("Health") or {}).get("Log") or []
    said = str(made[-1].get("Output", "")).strip()[-300:] if made else ""
    return f" ({said})" if said else ""


def _status(state: Mapping[str, Any]) -> str:
    return ": out of memory" if state.get("OOMKilled") else f", with status {state['ExitCode']}"
