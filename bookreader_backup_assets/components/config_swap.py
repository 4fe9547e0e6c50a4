"""Files of a folder replaced one by one, each by a rename, and put back: a plan on disk, steps that repeat.

The folder `kept`, on the same disk, has `new/` with what is to come, `old/` with what was replaced, and
`plan.json`, written before the first rename. At no instant is a file that was there, and will be there,
absent: the old one gets a second name before the new one takes its place.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bookreader_backup_assets.components.config_members import Member
from bookreader_backup_assets.core.errors import RefusedError

_PLAN = "plan.json"
NEW = "new"
"""Where in the folder that is kept the new files wait."""
_OLD, _UNDONE = "old", "undone"


@dataclass(frozen=True)
class Step:
    """One path: `replace` or `create` a file or link, make a `folder`, or change a folder's `mode`.

    `mode` is what a folder's was before.
    """

    name: str
    do: Literal["replace", "create", "folder", "mode"]
    mode: int = 0


def plan(members: Iterable[Member], differing: Mapping[str, str], root: Path) -> tuple[Step, ...]:
    """Return the steps that make `root` hold the members, of which those `differing` do not yet.

    Raises `RefusedError` where a folder is in the way of a file, or the other way round, or a link is in
    the way of a folder.
    """
    steps: dict[str, Step] = {}
    for member in members:
        require_no_link(root, member)
        path = root / member.name
        for above in reversed(Path(member.name).parents[:-1]):
            if not (root / above).is_dir() and str(above) not in steps:
                steps[str(above)] = Step(str(above), "folder")
        if member.name not in differing or member.name in steps:
            continue
        there = os.path.lexists(path)
        if member.kind == "folder":
            mode = stat.S_IMODE(path.lstat().st_mode) if there else 0
            steps[member.name] = Step(member.name, "mode" if there else "folder", mode)
        else:
            steps[member.name] = Step(member.name, "replace" if there else "create")
    return tuple(steps.values())


def require_no_link(root: Path, member: Member) -> None:
    """Raise `RefusedError` where a member could not be put without leaving `root`, or losing more."""
    for above in reversed(Path(member.name).parents[:-1]):
        path = root / above
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise RefusedError(
                f"{path} is no folder, and {member.name} is to be in it",
                hint=f"move it away: mv {path} {path}.before; nothing was touched",
            )
    path = root / member.name
    is_folder = path.is_dir() and not path.is_symlink()
    if os.path.lexists(path) and is_folder != (member.kind == "folder"):
        raise RefusedError(
            f"{path} is {'a' if is_folder else 'no'} folder, and a {member.kind} is to be there",
            hint=f"move it away: mv {path} {path}.before; nothing was touched",
        )


def swap(root: Path, kept: Path, steps: Iterable[Step]) -> None:
    """Carry out the plan in `kept`, or write `steps` there as the plan if it has none."""
    if not (kept / _PLAN).exists():
        _write(kept / _PLAN, steps)
    planned = read_plan(kept)
    for step in planned:
        path, new, old = root / step.name, kept / NEW / step.name, kept / _OLD / step.name
        if step.do == "folder":
            path.mkdir(mode=0o700, exist_ok=True)
        elif step.do != "mode" and os.path.lexists(new):
            if step.do == "replace":
                _keep(path, old, move=new.is_dir() and not new.is_symlink())
            os.rename(new, path)
    for step in reversed(planned):
        if step.do in ("folder", "mode"):
            _as_is(kept / NEW / step.name, root / step.name)
    _sync_all(root, planned)


def undo(root: Path, kept: Path) -> None:
    """Put back what `swap` replaced, and take away what it made; what was restored is kept aside."""
    planned = read_plan(kept)
    for step in reversed(planned):
        path, new, old = root / step.name, kept / NEW / step.name, kept / _OLD / step.name
        if step.do == "mode":
            with suppress(FileNotFoundError):
                path.chmod(step.mode)
        elif step.do == "folder":
            with suppress(OSError):  # somebody has put something into it since
                path.rmdir()
        elif step.do == "create":
            if not os.path.lexists(new) and os.path.lexists(path):
                undone = kept / _UNDONE / step.name
                undone.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.rename(path, undone)
        elif os.path.lexists(old):
            if not os.path.lexists(new) and os.path.lexists(path):
                _keep(path, kept / _UNDONE / step.name)
            path.parent.mkdir(parents=True, exist_ok=True)  # somebody has removed it since
            os.rename(old, path)
            if os.path.lexists(old):  # two names of one file: a rename did nothing
                old.unlink()
    _sync_all(root, planned)


def read_plan(kept: Path) -> tuple[Step, ...]:
    """Return the plan that was begun, empty if none was."""
    try:
        document = json.loads((kept / _PLAN).read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(Step(**step) for step in document["steps"])


def _keep(path: Path, aside: Path, *, move: bool = False) -> None:
    """Give what is at `path` a second name, unless it has it; where links cannot be, move it.

    To `move` it is needed where a folder comes: that can take the place of no file.
    """
    if os.path.lexists(aside) or not os.path.lexists(path):
        return
    aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not move:
        with suppress(OSError):
            os.link(path, aside, follow_symlinks=False)
            return
    os.rename(path, aside)


def _as_is(model: Path, path: Path) -> None:
    """Give a folder the mode that another has; and its owner, where we may."""
    if not model.is_dir():
        return
    status = model.lstat()
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    path.chmod(stat.S_IMODE(status.st_mode))


def _write(path: Path, steps: Iterable[Step]) -> None:
    document = {"format_version": 1, "steps": [asdict(step) for step in steps]}
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
    _sync(path.parent)


def _sync_all(root: Path, steps: Iterable[Step]) -> None:
    for folder in {(root / step.name).parent for step in steps}:
        with suppress(FileNotFoundError):
            _sync(folder)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove(kept: Path) -> None:
    """Remove the folder that is kept, whatever modes are in it. Can be made again."""
    for folder, folders, _ in os.walk(kept):
        for name in folders:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o700)
    with suppress(FileNotFoundError):
        shutil.rmtree(kept)
