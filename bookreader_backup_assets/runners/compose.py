"""Docker Compose: what a compose file says, and a whole BookReader brought up from it.

Passwords reach compose by the `.env` file in the folder, never by us.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners import child
from bookreader_backup_assets.runners.base import Result
from bookreader_backup_assets.runners.docker import ONE_OFF
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_services import SETTLED, wait_until_up
from bookreader_backup_assets.runners.process import Process

QUICK = 60.0
"""Seconds for what contacts no registry, and starts nothing."""
UP = 1800.0
"""Seconds for images to be pulled or built, and containers to be healthy."""
_UNSET = re.compile(r'[Tt]he \\?"?(\w+)\\?"? variable is not set')
_UNREACHED = r"annot connect to the Docker daemon|n't connect to Docker daemon|fetching server API version"
_DEFAULTS = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_NOISE = re.compile(r"variable is not set|level=warning|^\s*$|attribute `?version`? is obsolete")


@dataclass(frozen=True)
class Compose:
    """The compose project in `folder`. `files` are its compose files, relative to it: compose's own choice
    if there are none. Without a `project` it is named as compose names it. A container without a healthcheck
    has to run for `settled` seconds. Making one contacts nothing.
    """

    folder: Path
    engine: Engine = field(default_factory=Engine)
    project: str | None = None
    files: tuple[str, ...] = ()
    settled: float = SETTLED

    @cached_property
    def command(self) -> tuple[str, ...]:
        """`docker compose`, or the older `docker-compose`. Raises `SourceAbsentError` if there is neither."""
        if shutil.which("docker"):
            try:
                self._run(("docker", "compose", "version"), QUICK)
            except CommandError:
                pass
            else:
                return ("docker", "compose")
        if shutil.which("docker-compose"):
            return ("docker-compose",)
        if not shutil.which("docker"):
            raise SourceAbsentError(
                "docker is not on this machine", hint="install Docker with its compose plugin: docker.com"
            )
        raise SourceAbsentError(
            "docker is here, and its compose plugin is not", hint="apt-get install docker-compose-plugin"
        )

    def config(self) -> dict[str, Any]:
        """Return the compose file as compose understands it: variables replaced, so with passwords in it.

        Raises `SourceAbsentError` for no file, `SourceError` for one that compose does not accept.
        """
        document = yaml.safe_load(self._compose(["config"], QUICK).stdout)
        if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
            raise SourceError(
                f"the compose file in {self.folder} has no services", hint="restore config first"
            )
        return document

    def services(self) -> tuple[str, ...]:
        """Return the names of its services, in order. Raises like `config`."""
        return tuple(self._compose(["config", "--services"], QUICK).stdout.decode().split())

    def unset(self) -> tuple[str, ...]:
        """Return the variables that nobody sets, so that they are empty. Raises like `config`."""
        return tuple(sorted(set(_UNSET.findall(self._compose(["config", "--quiet"], QUICK).stderr))))

    def images(self) -> dict[str, str]:
        """Return the image of each service; none for one that is built and has no name of its own."""
        return {name: str(one.get("image", "")) for name, one in self.config()["services"].items()}

    def create(self, *services: str, within: float = UP) -> None:
        """Make the containers of `services` (all), pulled or built, and start none. Raises like `up`."""
        self._compose(["up", "--no-start", *services], within)

    def up(self, *services: str, wait: bool = True, within: float = UP) -> None:
        """Make and start `services` (all) and what they depend on.

        Returns when they run and, where they say so, are healthy; `wait=False` when they were started.
        Raises `SourceError` for what compose refuses, or with the end of the log of what stays away.
        """
        deadline = time.monotonic() + within
        self._compose(["up", "--detach", *services], within)
        if wait:
            names = [name for name in self.containers(*services) if not self._has_done_its_work(name)]
            left = max(1.0, deadline - time.monotonic())
            wait_until_up(self.engine, *names, within=left, settled=self.settled)

    def down(self, *, volumes: bool = False, within: float = QUICK * 5) -> None:
        """Remove the containers and networks, and the volumes too if told so."""
        self._compose(["down", "--timeout", "10", *(["--volumes"] if volumes else [])], within)

    def containers(self, *services: str) -> tuple[str, ...]:
        """Return the names of the containers of `services` (all), running or not. Raises like `config`."""
        made = self._compose(["ps", "--all", "--quiet", *services], QUICK).stdout.decode().split()
        found = [self._inspect(identity) for identity in made]
        ours = (one for one in found if (one["Config"].get("Labels") or {}).get(ONE_OFF) != "True")
        return tuple(sorted(one["Name"].lstrip("/") for one in ours))

    def _inspect(self, name: str) -> dict[str, Any]:
        with self.engine.guarded():
            found: dict[str, Any] = self.engine.api.inspect_container(name)
            return found

    def _has_done_its_work(self, name: str) -> bool:
        """Whether it is one that ends by itself, such as one that migrates."""
        found = self._inspect(name)
        state, policy = found["State"], found["HostConfig"].get("RestartPolicy") or {}
        stays = policy.get("Name") not in {None, "", "no", "on-failure"}
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0 and not stays)

    def _compose(self, arguments: Sequence[str], within: float) -> Result:
        self._require_file()
        chosen = [word for name in self.files for word in ("--file", name)]
        named = ["--project-name", self.project] if self.project else []
        try:
            return self._run([*self.command, *chosen, *named, *arguments], within)
        except CommandError as error:
            raise _meaning(error, self.folder, arguments[0]) from None

    def _require_file(self) -> None:
        """Or compose would look for one in the folders above, and take what it finds there."""
        if not self.folder.is_dir():
            what = f"there is no folder {self.folder}"
        elif lost := [name for name in self.files if not (self.folder / name).is_file()]:
            what = f"{self.folder} has no {lost[0]}"
        elif self.files or any((self.folder / name).is_file() for name in _DEFAULTS) or self._names_files():
            return
        else:
            what = f"{self.folder} has no compose file"
        raise SourceAbsentError(
            what, hint="restore it: bookreader-backup restore config, or correct BACKUP_CONFIG_ROOT"
        )

    def _names_files(self) -> bool:
        env = self.folder / ".env"
        return "COMPOSE_FILE" in {**os.environ, **(dotenv_values(env) if env.is_file() else {})}

    def _run(self, argv: Sequence[str], within: float) -> Result:
        env = {"DOCKER_HOST": self.engine.address, "COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain"}
        cwd = self.folder if self.folder.is_dir() else None
        return child.gather(Process(argv, env=env, cwd=cwd), None, within)


def _meaning(error: CommandError, folder: Path, step: str) -> SourceError:
    said = [line.strip() for line in error.stderr.splitlines() if not _NOISE.search(line)]
    last = " / ".join(said[-3:]) or error.message
    if re.search(_UNREACHED, error.stderr):
        return SourceAbsentError(f"compose does not reach the Docker engine: {last}", hint="docker version")
    if step == "config":
        return SourceError(
            f"compose does not accept the file in {folder}: {last}", hint="correct it: docker compose config"
        )
    ended = "did not end in time" if error.status is None else "failed"
    return SourceError(
        f"docker compose {step} {ended}: {last}", hint="docker compose ps --all; docker compose logs"
    )
