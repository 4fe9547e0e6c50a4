"""Where a Redis server keeps its data, told by the server, or by its command line where it does not run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

_DIRECTIVES = {
    "dir": "folder",
    "appendonly": "appendonly",
    "appenddirname": "aof_name",
    "appendfilename": "aof",
    "dbfilename": "dump",
}


@dataclass(frozen=True)
class Place:
    """The folder of a server's data, and the names in it: Redis's own unless they are set."""

    folder: str
    appendonly: bool = False
    aof_name: str = "appendonlydir"
    aof: str = "appendonly.aof"
    dump: str = "dump.rdb"

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Place:
        """Return what `as_state` is of, whatever else there is."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})

    def as_state(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @property
    def aof_folder(self) -> str:
        """Where append-only files are from Redis 7 on."""
        return f"{self.folder}/{self.aof_name}"

    @property
    def manifest(self) -> str:
        """The file that names the append-only files from Redis 7 on."""
        return f"{self.aof_folder}/{self.aof}.manifest"

    def files(self) -> tuple[str, ...]:
        """The files of which there is at least one where there is data."""
        return (f"{self.folder}/{self.dump}", f"{self.folder}/{self.aof}", self.manifest)

    def told_by(self, config: Callable[[str], str | None]) -> Place:
        """Return it with what a server says of its directives."""
        return self.given({name: value for name in _DIRECTIVES if (value := config(name))})

    def given(self, directives: dict[str, str]) -> Place:
        """Return it with directives set; those of other matters are left out."""
        changed: dict[str, Any] = {
            _DIRECTIVES[name]: value for name, value in directives.items() if name in _DIRECTIVES
        }
        if "appendonly" in changed:
            changed["appendonly"] = changed["appendonly"].lower() == "yes"
        if "folder" in changed:
            changed["folder"] = os.path.normpath(os.path.join(self.folder, changed["folder"]))
        return Place(**{**asdict(self), **changed})


def of_command_line(argv: Sequence[str], working_folder: str, read: Callable[[str], bytes]) -> Place:
    """Return the place that a container's command gives: its configuration file, `read`, then its options.

    Words inside a shell's script count, too: an image may start its server by one.
    """
    words = [word for part in argv for word in (_split(part) if " " in part else [part])]
    place = Place(os.path.normpath(working_folder))
    for word in words:
        if word.endswith(".conf"):
            text = read(os.path.join(working_folder, word)).decode("utf-8", "replace")
            place = place.given(dict(_lines(text)))
    return place.given(dict(_options(words)))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = _split(line)
        if len(words) > 1 and not words[0].startswith("#"):
            yield words[0].lower(), words[1]


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in pairwise(words):
        if name.startswith("--"):
            yield name.removeprefix("--").lower(), value


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return text.split()
