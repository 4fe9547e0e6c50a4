"""What differs between two states of the configuration: paths, sizes, modes, names of variables. No value.

A name is shown only where it can be nothing else: a wrapped key or certificate has lines that look like
assignments, and those are counted, not shown.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dotenv.parser import Binding, parse_stream

from bookreader_backup_assets.components.config_members import Member

ADDED, REMOVED, CHANGED, MODE = "added", "removed", "changed", "mode"
"""What can be said of a path. `mode`: nothing but its permissions differs."""
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*")  # base64 has both cases


@dataclass(frozen=True)
class Variables:
    """Names of variables that differ; `others` counts lines that differ and are no plain assignment."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    others: int = 0

    def __str__(self) -> str:
        """One line for people."""
        named = ((ADDED, self.added), (REMOVED, self.removed), (CHANGED, self.changed))
        said = [f"{what} {', '.join(names)}" for what, names in named if names]
        said += [f"{self.others} lines that are no plain variable"] if self.others else []
        return "; ".join(said) or "no variable: comments, blank lines or order"


@dataclass(frozen=True)
class Change:
    """One path that differs. Sizes are bytes of a file's content, None where it is no file, or not there.

    `said` is what else there is to say; `variables` is only for files of variables, such as `.env`.
    """

    path: str
    what: str
    older_size: int | None
    newer_size: int | None
    said: str = ""
    variables: Variables | None = None


def differences(older: Iterable[Member], newer: Iterable[Member]) -> list[Change]:
    """Return what differs, by path. Times and owners make no new version, and no difference."""
    before, after = ({one.name: one for one in members} for members in (older, newer))
    found = []
    for path in sorted({**before, **after}):
        one, other = before.get(path), after.get(path)
        if one is None or other is None:
            found.append(Change(path, ADDED if one is None else REMOVED, _size(one), _size(other)))
        elif (change := _change(one, other)) is not None:
            found.append(change)
    return found


def by_size(older: Mapping[str, int], newer: Mapping[str, int]) -> list[Change]:
    """Return what differs as far as names and sizes tell: all that is known without the key."""
    return [
        Change(
            path=path,
            what=CHANGED if path in older and path in newer else ADDED if path in newer else REMOVED,
            older_size=older.get(path),
            newer_size=newer.get(path),
        )
        for path in sorted({**older, **newer})
        if older.get(path) != newer.get(path)
    ]


def _change(older: Member, newer: Member) -> Change | None:
    said, variables = [], None
    if older.kind != newer.kind:
        said.append(f"is a {newer.kind}, was a {older.kind}")
    elif older.target != newer.target:
        said.append("leads elsewhere")
    elif older.data != newer.data and _has_variables(older.name):
        variables = _compared(older.data, newer.data)
    other = bool(said) or older.data != newer.data
    if older.mode != newer.mode and newer.kind != "symlink":
        said.append(f"mode {newer.mode:o}, was {older.mode:o}")
    elif not other:
        return None
    what = CHANGED if other else MODE
    return Change(older.name, what, _size(older), _size(newer), "; ".join(said), variables)


def _size(member: Member | None) -> int | None:
    return len(member.data) if member is not None and member.kind == "file" else None


def _has_variables(path: str) -> bool:
    name = posixpath.basename(path)
    return name.startswith(".env") or name.endswith(".env")


def _compared(older: bytes, newer: bytes) -> Variables:
    (before, other), (after, another) = _parsed(older), _parsed(newer)
    return Variables(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
        others=max((other - another).total(), (another - other).total()),
    )


def _parsed(data: bytes) -> tuple[dict[str, str], Counter[str]]:
    """Return the variables of a file, and its lines that are no plain assignment."""
    text = data.decode("utf-8-sig", "surrogateescape")
    named, others = dict[str, str](), Counter[str]()
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None and binding.value is not None and _is_plain(binding):
            named[binding.key] = binding.value
        elif binding.key is not None or binding.error:
            others[binding.original.string.strip()] += 1
    return named, others


def _is_plain(binding: Binding) -> bool:
    padding = binding.value and not binding.value.strip("=")  # base32 and base64 end in it
    return _NAME.fullmatch(binding.key or "") is not None and not padding
