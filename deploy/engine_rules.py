"""What the engine's filter lets through: the calls of backups and restores, and the bodies they may have.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCRATCH = "bookreader-backup.scratch"
"""The label of a scratch server."""
_CONTAINER = r"/containers/(?P<container>[A-Za-z0-9][\w.-]*)"
_EXEC = r"/exec/[0-9a-f]{64}"
_STREAMS = dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce"), ...)
Shape = Mapping[str, Any]
"""The keys that a body may have, each with the one value it may have, or `...` for any."""
PROGRAM: Shape = {"Cmd": ..., "Env": ..., "Container": ..., **_STREAMS}
"""An exec: an ordinary program, as the container's own user."""
HOST: Shape = {
    "NetworkMode": "none",
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "LogConfig": {"Type": "json-file", "Config": {}},
    "ShmSize": ...,
}
SERVER: Shape = {
    "Image": ...,
    "Entrypoint": ...,
    "User": "65534:65534",
    "Labels": ...,
    "Healthcheck": ...,
    "HostConfig": ...,
    **_STREAMS,
}
"""A scratch server, as `servers/containers.py` makes them; what is no `...` has to be there."""


class RefusedError(Exception):
    """A request that is not let through; its text goes back to who made it."""


def program(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an exec as it may be sent on. Raises `RefusedError`."""
    return _shaped(body, PROGRAM)


def scratch(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that makes a scratch server as it may be sent on. Raises `RefusedError`."""
    server = _shaped(body, SERVER)
    if set(server.get("Labels") or ()) != {SCRATCH}:
        raise RefusedError("a new container is to have the label of a scratch server, and no other")
    return {**server, "HostConfig": _shaped(server.get("HostConfig") or {}, HOST)}


def _shaped(body: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Return what is set in `body`, if `shape` allows it and nothing that `shape` wants is missing."""
    given = {name: value for name, value in body.items() if value}
    wanted = {name for name, value in shape.items() if value is not ...}
    wrong = {name for name in given if shape.get(name, None) not in (..., given[name])} | (
        wanted - set(given)
    )
    if wrong:
        raise RefusedError(f"backups need no {', '.join(sorted(wrong))} such as this")
    return given


@dataclass(frozen=True)
class Rule:
    """A request that is let through: `METHOD /path`, without the API's version and the query.

    `raw` where the connection is taken over for raw bytes; `scratch` where only those may be meant.
    """

    request: re.Pattern[str]
    body: Any = None
    raw: bool = False
    scratch: bool = False


RULES = (
    Rule(re.compile(r"(GET|HEAD) /_ping|GET /version|GET /containers/json|GET /images/[\w.:/@-]+/json")),
    Rule(re.compile(rf"GET {_CONTAINER}/(json|logs)")),
    Rule(re.compile(rf"(GET|HEAD|PUT) {_CONTAINER}/archive")),
    Rule(re.compile(rf"POST {_CONTAINER}/(start|stop)")),
    Rule(re.compile(rf"POST {_CONTAINER}/exec"), body=program),
    Rule(re.compile(rf"POST {_EXEC}/start"), raw=True),
    Rule(re.compile(rf"GET {_EXEC}/json")),
    Rule(re.compile(r"POST /containers/create"), body=scratch),
    Rule(re.compile(rf"POST {_CONTAINER}/attach"), raw=True, scratch=True),
    Rule(
        re.compile(rf"POST {_CONTAINER}/wait|DELETE {_CONTAINER.replace('container>', 'removed>')}"),
        scratch=True,
    ),
)
"""The calls of `runners/docker*.py` and `servers/containers.py`."""
