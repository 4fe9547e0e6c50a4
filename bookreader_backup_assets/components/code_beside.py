"""A repository made beside the one that it replaces: its settings, its index, lost files, and their owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bookreader_backup_assets.components.code_git import Git
from bookreader_backup_assets.components.code_tree import (
    MISSING,
    Tracked,
    differences,
    files_of,
    in_the_way,
)
from bookreader_backup_assets.components.config import RESTORING
from bookreader_backup_assets.components.config_swap import Step
from bookreader_backup_assets.core.errors import CommandError

GIT = ".git"
"""Where in a work tree its repository is."""
_KEPT = r"^(remote\..*\.(url|pushurl|fetch)|branch\..*\.(remote|merge))$"


def settle(git: Git, place: Path) -> None:
    """Give a new repository its settings, and from the old one, if it can be read, what its remotes are."""
    git.run("config", "core.bare", "false")
    (git.folder / "info").mkdir(exist_ok=True)
    (git.folder / "info" / "exclude").write_text(f"/{RESTORING}*\n", encoding="ascii")
    old = place / GIT
    where = ("--file", str(old / "config")) if old.is_dir() else ("--local",)
    try:
        said = Git(old).run("config", *where, "--null", "--get-regexp", _KEPT)
    except CommandError:
        return
    for row in said.split(b"\0")[:-1]:
        name, _, value = os.fsdecode(row).partition("\n")
        if not value.startswith("-"):  # an option, to git
            git.run("config", "--add", name, value)


def check_out(git: Git, place: Path, commit: str) -> None:
    """Write the index of a commit, and the files of it that are missing in `place`, beside `git`."""
    beside = Git(git.folder, work_tree=git.folder.parent)
    beside.run("read-tree", commit)
    files = files_of(git, commit).files
    lost = [f for f, what in differences(files, place) if what == MISSING and not in_the_way(f.path, place)]
    paths = (os.fsencode(file.path) + b"\0" for file in lost)
    beside.run("checkout-index", "-z", "--stdin", stdin=paths)
    for file in lost:
        _permit(git.folder.parent, file)


def belong(new: Path, place: Path) -> None:
    """Give all below `new` to the owner of the place, if we may, and have it on the disk."""
    status = place.stat()
    for folder, folders, names in os.walk(new):
        for path in (Path(folder), *(Path(folder, name) for name in (*names, *folders))):
            if os.geteuid() == 0 and path != new:
                os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
            if not path.is_symlink():
                opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fsync(opened)
                finally:
                    os.close(opened)


def steps(place: Path, new: Path) -> Iterator[Step]:
    """Yield what makes the place hold what lies in `new`; the repository is the last."""
    made: set[Path] = set()
    for folder, folders, names in os.walk(new):
        folders[:] = sorted(name for name in folders if Path(folder, name) != new / GIT)
        inside = Path(folder).relative_to(new)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted([*names, *links]):
            if in_the_way(str(inside / name), place):  # somebody was first
                continue
            for above in reversed((inside / name).parents[:-1]):
                if above not in made and not (place / above).is_dir():
                    yield Step(str(above), "folder")
                    made.add(above)
            yield Step(str(inside / name), "create")
    yield Step(GIT, "replace" if os.path.lexists(place / GIT) else "create")


def _permit(root: Path, file: Tracked) -> None:
    path = root / file.path
    if not path.is_symlink():
        path.chmod(file.permissions)
    for above in Path(file.path).parents[:-1]:
        (root / above).chmod(0o755)
