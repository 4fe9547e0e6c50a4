"""The images that a backup set was captured with: which are here, which to pull, which to build."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.docker_engine import Engine

PULLED = 3600.0
"""Seconds for one image to be pulled."""
_CARRY = "bring it from a host that has it: docker save IMAGE | docker load"


class Need(enum.StrEnum):
    """What an image needs before its container can be what it was.

    `pull`: it is not here under its name, and can be had. `other`: another version or build is here under
    its name. `build`: it is not here, and never was in a registry.
    """

    NOTHING = "present"
    PULL = "pull"
    OTHER = "other"
    BUILD = "build"


@dataclass(frozen=True)
class ServiceImage:
    """The image of a service as a manifest records it, and what it needs here.

    `image` is the name in the compose file, `id` the engine's own, `digest` the registry's if it has one;
    `held` says whether the recorded one is here, under whatever name.
    """

    service: str
    image: str
    id: str
    digest: str
    need: Need
    held: bool

    def __str__(self) -> str:
        """One line for a plan."""
        said = {
            Need.NOTHING: "is here",
            Need.PULL: "is here without its name" if self.held else f"is pulled as {self.digest}",
            Need.OTHER: f"is another version than the recorded {self.digest or self.id}",
            Need.BUILD: f"is not here and was built: docker compose build {self.service}",
        }
        return f"{self.service}: {self.image} {said[self.need]}"


def needed(engine: Engine, images: Mapping[str, Mapping[str, str]]) -> tuple[ServiceImage, ...]:
    """Return how each image of a manifest stands on `engine`. Raises like `Engine.guarded`."""
    with engine.guarded():
        engine.api.ping()
    return tuple(_stand(engine, service, recorded) for service, recorded in sorted(images.items()))


def provide(engine: Engine, image: ServiceImage, *, within: float = PULLED) -> None:
    """Have the recorded image here under its name, pulled by digest if it is not.

    Of `other`, the name is taken from what has it now. Raises `SourceError` naming the image and what to do
    if no registry gives it, `SourceAbsentError` if it has to be built.
    """
    if image.need is Need.NOTHING:
        return
    if not image.held:
        if not image.digest:
            raise SourceAbsentError(
                f"{image.image} of service {image.service} was built, and no registry has it",
                hint=f"build it from the code of that day: docker compose build {image.service}; or {_CARRY}",
            )
        _pull(engine, image, within)
    found = _inspect(engine, image.id) or _inspect(engine, image.digest)
    if found is None:
        raise SourceError(f"{image.digest} was pulled, and is not here", hint="docker images --digests")
    if "@" not in image.image:  # a name with a digest in it is not one to give
        repository, colon, tag = image.image.rpartition(":")
        if not colon or "/" in tag:  # the colon is that of a registry's port
            repository, tag = image.image, "latest"
        with engine.guarded():
            engine.api.tag(found["Id"], repository, tag, force=True)


def _stand(engine: Engine, service: str, recorded: Mapping[str, str]) -> ServiceImage:
    name, identity, digest = (recorded.get(key, "") for key in ("image", "id", "digest"))
    named = _inspect(engine, name)
    held = _inspect(engine, identity) or _inspect(engine, digest)
    if named is not None:
        need = Need.NOTHING if held is not None and held["Id"] == named["Id"] else Need.OTHER
    else:
        need = Need.PULL if digest or held is not None else Need.BUILD
    return ServiceImage(service, name, identity, digest, need, held is not None)


def _inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    with suppress(SourceAbsentError), engine.guarded():
        found: dict[str, Any] = engine.api.inspect_image(name) if name else {}
        return found or None
    return None


def _pull(engine: Engine, image: ServiceImage, within: float) -> None:
    deadline = time.monotonic() + within
    repository, _, digest = image.digest.partition("@")
    try:
        with engine.guarded():
            for event in engine.api.pull(repository, tag=digest, stream=True, decode=True):
                if "error" in event:
                    raise SourceError(event["error"])
                if time.monotonic() > deadline:
                    raise SourceError(f"not within {within:.0f} s")
    except BackupError as error:
        raise SourceError(
            f"{image.digest} of service {image.service} cannot be pulled: {error.message}",
            hint=f"is the registry reachable, and this host logged in to it (docker login)? Or {_CARRY}",
        ) from None
