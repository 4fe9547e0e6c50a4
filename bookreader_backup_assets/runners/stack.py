"""The stack seam: all that BookReader runs as, made and brought up on a host that may have none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Recorded = Mapping[str, Mapping[str, str]]
"""The images of a manifest: by service, `image`, `id`, and `digest` if a registry has it."""


class Stack(Protocol):
    """Makes and starts what the configuration describes. Each call can be made again."""

    @property
    def makes(self) -> bool:
        """Whether services that are not there can be made at all."""
        ...

    def images(self, recorded: Recorded) -> tuple[str, ...]:
        """Return a line for each recorded image, as it stands here. Raises `SourceAbsentError` where
        nobody can tell.
        """
        ...

    def provide(self, recorded: Recorded) -> tuple[str, ...]:
        """Have every recorded image here, and return what is not exactly as recorded.

        Raises `SourceError` for one that cannot be had, and that the configuration does not build.
        """
        ...

    def create(self) -> None:
        """Make every service, and start none. Raises `SourceError`."""
        ...

    def start_data(self) -> None:
        """Start PostgreSQL and Redis, and wait until they run. Raises `SourceError`."""
        ...

    def up(self) -> None:
        """Start everything, and wait until it runs and, where it says so, is healthy.

        Raises `SourceError` with the end of the log of what stays away.
        """
        ...


class NoStack:
    """Implements `Stack` where services are started by somebody else, and have to be there."""

    makes = False

    def images(self, recorded: Recorded) -> tuple[str, ...]:  # noqa: ARG002
        """See `Stack.images`."""
        return ()

    def provide(self, recorded: Recorded) -> tuple[str, ...]:  # noqa: ARG002
        """See `Stack.provide`."""
        return ()

    def create(self) -> None:
        """See `Stack.create`."""

    def start_data(self) -> None:
        """See `Stack.start_data`."""

    def up(self) -> None:
        """See `Stack.up`."""
