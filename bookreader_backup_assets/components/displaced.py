"""What restores of files have in common: where they work, what they keep beside it, and the way back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.matching import Pair
from bookreader_backup_assets.components import staging, swap
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.swap import Swap
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.runners.base import Runner, Tree
from bookreader_backup_assets.runners.tree import UNREADABLE, as_path, as_text

RATE = 150e6
"""Bytes written, read again and compared per second: a guess, until a drill has measured it."""
_SHOWN = 5


def live_folder(runner: Runner, path: str, options: Options) -> bytes:
    """Return the folder of this machine that is written to. Raises `RefusedError` if none can be."""
    if options.into is not None:
        folder = os.path.abspath(os.path.expanduser(options.into))
    else:
        here = runner.local_folder(path)
        if here is None:
            raise RefusedError(
                f"{path} is seen only by its container, not by this machine",
                hint="run this where the engine's disks are, as root or as the owner of the files; or restore"
                " into a folder (--into FOLDER), and copy it from there (docker cp)",
            )
        folder = str(here)
    real = os.path.realpath(os.fsencode(folder))
    if os.path.lexists(real) and not os.path.isdir(real):
        raise RefusedError(f"{folder} is not a folder", hint="correct BACKUP_STORAGE_PATH, or --into")
    return real


def require_movable(folder: bytes, paths: Iterable[bytes] | None = None) -> None:
    """Raise `RefusedError` unless renames can be made in `folder`, or of some `paths` of it, as far as can
    be told before.
    """
    at = folder
    while not os.path.isdir(at):
        at = os.path.dirname(at)
    if not os.access(at, os.W_OK | os.X_OK, effective_ids=True):
        raise RefusedError(
            f"{as_text(at)} may not be written to", hint="run as the owner of the files, or as root"
        )
    below = staging.mounted_below(folder)
    if paths is not None and below:
        places = [os.path.join(folder, path) + b"/" for path in paths]
        below = [mount for mount in below if any(place.startswith(mount + b"/") for place in places)]
    if below:
        raise RefusedError(
            f"something is mounted below {as_text(folder)}: {', '.join(map(as_text, below[:_SHOWN]))}",
            hint="unmount it, or restore into a folder (--into FOLDER) and copy from there",
        )


def notes(stored: Stored, options: Options) -> tuple[str, ...]:
    """Return what an operator should know about the files of an artifact before they are restored."""
    found = []
    if os.geteuid() != 0:
        found.append("not run as root: the files will belong to the user who restores them")
    lost = [problem for problem in stored.entry.problems if problem.what.startswith(UNREADABLE)]
    if lost:
        named = ", ".join(repr(problem.where) for problem in lost[:_SHOWN])
        found.append(f"{len(lost)} paths could not be read when this was captured: {named}")
    if not options.outside_links:
        found.append("links that lead out of the folder are left out (--outside-links makes them)")
    return tuple(found)


def names(folder: bytes) -> list[bytes]:
    """Return what is in a folder but for what is ours; nothing if it is not there."""
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if not staging.is_ours(name))


def without_ours(tree: Tree) -> Tree:
    """Leave what restores keep at the top of a folder out of its tree."""
    return Tree((item for item in tree.items if not staging.is_ours(item.path)), tree.problems)


def begun(folder: bytes, stamp: str) -> State:
    """Return the state of a restore in `folder`: paths as text, bytes that are no UTF-8 escaped."""
    return {"folder": as_text(folder), "beside": as_text(staging.place_for(folder, stamp))}


def swap_of(state: State) -> Swap:
    """Return the swap that a state speaks of."""
    return Swap(as_path(state["folder"]), as_path(state["beside"]))


def begun_ns(state: State) -> int:
    """Return when the moves of a state were written down, by the clock of its disk."""
    return os.stat(os.path.join(as_path(state["beside"]), swap.PLAN)).st_mtime_ns


def undo(state: State) -> None:
    """Put back what was displaced; see `Restoration.undo`. Raises `RefusedError` if it has been removed."""
    made = swap_of(state)
    if not os.path.isdir(made.beside):
        raise RefusedError(
            f"what was displaced, in {state['beside']}, is not there any more",
            hint="restore a set: bookreader-backup list",
        )
    if made.plan() is not None:
        made.back()


def abandon(state: State) -> None:
    """Remove what was made beside, having put back what was displaced; see `Restoration.abandon`."""
    made = swap_of(state)
    if os.path.isdir(made.beside):
        undo(state)
    accept(state)


def accept(state: State) -> None:
    """Remove what was displaced, but not what nobody expected; see `Restoration.accept`."""
    made = swap_of(state)
    if (plan := made.plan()) is not None:
        _spare(made, {move.path for move in plan.moves}, begun_ns(state))
    staging.remove(made.beside, but_for=swap.ASIDE)


def _spare(made: Swap, moved: set[bytes], since: int) -> None:
    """Put aside what was written, since the moves were, into folders that an undo took out again."""
    new, aside = (os.path.join(made.beside, name) for name in (swap.NEW, swap.ASIDE))
    for folder, _, names in os.walk(new):
        box = b""
        for name in names:
            status = os.lstat(path := os.path.join(folder, name))
            renamed = os.path.relpath(path, new) in moved or status.st_nlink > 1  # that sets its ctime too
            if not renamed and status.st_ctime_ns > since:
                box = box or tempfile.mkdtemp(dir=aside)
                os.rename(path, os.path.join(box, name))


def judged(check: str, pairs: Iterable[Pair], left_out: Iterable[Row], said: str = "") -> Outcome:
    """Return what pairs of index and folder amount to: all of those given are differences but equal ones."""
    files = total = count = 0
    shown: list[str] = []
    for pair in pairs:
        if pair.row is not None and pair.item is not None and not pair.differs:
            files += pair.row.kind == "file"
            total += pair.row.size
            continue
        count += 1
        if count <= _SHOWN:
            shown.append(str(pair))
    links = [repr(as_text(row.path)) for row in left_out]
    if links:
        more = f" and {len(links) - _SHOWN} more" if len(links) > _SHOWN else ""
        said += f"; links that lead out were left out: {', '.join(links[:_SHOWN])}{more}"
    measured = {"files": files, "bytes": total, "left_out": len(links)}
    if count:
        more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
        return failed(check, f"{'; '.join(shown)}{more}{said}", differences=count, **measured)
    return passed(check, f"{files} files, {total} bytes, equal to those captured{said}", **measured)


def is_news(pair: Pair, since: int) -> bool:
    """Whether a difference comes from what somebody wrote after that instant."""
    if pair.item is None or pair.item.mtime_ns <= since:
        return False
    return pair.row is None or (pair.row.kind == "folder" and pair.differs == ("time",))


def is_left_out(row: Row, options: Options, path: str) -> bool:
    """Whether a link is not to be made."""
    inside = b"" if options.into is not None else os.fsencode(path)
    return row.kind == "symlink" and not options.outside_links and extract.leads_out(row, inside)
