"""A BookReader that Docker Compose runs, made out of nothing: images, containers, and all of it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.runners.compose import Compose
from bookreader_backup_assets.runners.docker import POSTGRESQL, REDIS, Sought
from bookreader_backup_assets.runners.docker_images import Need, needed, provide
from bookreader_backup_assets.runners.stack import Recorded


@dataclass(frozen=True)
class DockerStack:
    """Implements `Stack` with a compose project. `configured` names the containers of PostgreSQL and of
    Redis where they are not found by themselves.

    A compose file without services is that of containers which somebody else makes.
    """

    compose: Compose
    configured: tuple[str | None, str | None] = (None, None)

    makes = True

    def images(self, recorded: Recorded) -> tuple[str, ...]:
        """See `Stack.images`."""
        return tuple(map(str, needed(self.compose.engine, recorded)))

    def provide(self, recorded: Recorded) -> tuple[str, ...]:
        """See `Stack.provide`. What compose builds, and is not here as recorded, is left to compose."""
        differing = []
        for image in needed(self.compose.engine, recorded):
            wanting = image.need is not Need.NOTHING and not image.held
            if wanting and "build" in self._services.get(image.service, {}):
                differing.append(f"{image.service} is built by compose: it may differ from {image.id[:19]}")
            else:
                provide(self.compose.engine, image)
        return tuple(differing)

    def create(self) -> None:
        """See `Stack.create`. Raises `SourceError` too where a variable of the compose file has no value:
        a database made with an empty password would keep it.
        """
        if not self._services:
            return
        if unset := self.compose.unset():
            raise SourceError(
                f"nobody sets {', '.join(unset)}, which the compose file needs",
                hint="complete the .env file beside it",
            )
        self.compose.create()

    def start_data(self) -> None:
        """See `Stack.start_data`."""
        sought, services = zip((POSTGRESQL, REDIS), self.configured, strict=True), self._services
        chosen = [name for one, configured in sought if (name := _service_of(services, one, configured))]
        if chosen:  # without names it would be everything
            self.compose.up(*chosen)

    def up(self) -> None:
        """See `Stack.up`."""
        if self._services:
            self.compose.up()

    @property
    def _services(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.compose.config()["services"]
        return found


def _service_of(
    services: Mapping[str, Mapping[str, Any]], sought: Sought, configured: str | None
) -> str | None:
    """Return the service whose container is meant, as `find_container` would find it."""
    known = {configured} if configured else {*sought.services, *sought.names}
    for name, one in services.items():
        if name in known or one.get("container_name") in known:
            return name
    return None
