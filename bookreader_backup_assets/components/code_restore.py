"""The code, restored: a new `.git` made beside the old one, compared, and swapped; and lost files with it.

The work tree is somebody's: files that differ from the deployed commit are named, and left. Only those
that are missing are brought back. Into a new folder, that is all of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.components import config_swap, staging
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.code import same_refs, written
from bookreader_backup_assets.components.code_beside import GIT, belong, check_out, settle, steps
from bookreader_backup_assets.components.code_git import Git, intact, unbundled
from bookreader_backup_assets.components.code_tree import (
    MISSING,
    differences,
    files_of,
    in_the_way,
)
from bookreader_backup_assets.components.config import RESTORING
from bookreader_backup_assets.components.config_swap import NEW
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.restore_place import free, require_place, some, told
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    DamagedError,
    RefusedError,
)
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Meter, Progress

_BLOCK = 4096  # bytes of disk that the smallest file takes


@dataclass(frozen=True)
class CodeRestoration:
    """Implements `Restoration` for the repository in `path`, or with `options.into` for a new folder."""

    path: Path
    stored: Stored
    options: Options

    quiet = False
    displaces = True
    keeps_old = True

    @property
    def target(self) -> str:
        """The folder whose repository is replaced, or the new one."""
        return str(self._place)

    def preview(self) -> Preview:
        """See `Restoration.preview`. Raises `RefusedError` where the new folder is not empty, or `.git` is
        a mount point.
        """
        Git(self._place).version()  # or this machine has no git
        place, said = self._place, self.stored.entry.fingerprint
        self._require_place()
        commit = f"{said['commit'][:12]} ({said['subject']})"
        needed = 3 * self.stored.entry.size + said["bytes"] + _BLOCK * (said["files"] + len(said["refs"]))
        return Preview(
            replaces=_there(place),
            present=os.path.lexists(place / GIT),
            steps=(
                f"make a repository of {self.stored.entry.name} beside, {len(said['refs'])} refs",
                "look whether all that they reach is there, and compare them with those captured",
                f"put it in the place of {place / GIT}, with {commit} checked out",
                "bring back the tracked files that are missing; those that differ are named, and left",
            ),
            rooms=(Room(str(place), needed, free(place)),),
            seconds=5,
            notes=self._notes(),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        place = self._place
        return {"place": str(place), "kept": str(place / f"{RESTORING}{stamp}"), "present": place.is_dir()}

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`."""
        place, kept = _folders(state)
        new, entry = kept / NEW, self.stored.entry
        with told(place):
            config_swap.remove(kept)
            place.mkdir(parents=True, exist_ok=True)
            kept.mkdir(mode=0o700)
            new.mkdir(mode=0o700)
            self._write(kept / "code.bundle", progress)
            git = unbundled(kept / "code.bundle", new / GIT, entry.fingerprint)
            (kept / "code.bundle").unlink()
            settle(git, place)
            check_out(git, place, entry.fingerprint["commit"])
            belong(new, place)

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: the refs, all that they reach, and the bytes of the files."""
        _, kept = _folders(state)
        new, said = kept / NEW, self.stored.entry.fingerprint
        git = Git(new / GIT)
        try:
            intact(git)
            different = same_refs(git, said)
            files = [file for file in files_of(git, said["commit"]).files if os.path.lexists(new / file.path)]
        except CommandError as error:
            return failed("refs_equal", f"what was restored is not whole: {error.message}")
        different = different or some([f"{f.path} {what}" for f, what in differences(files, new)])
        if different:
            return failed("refs_equal", f"not as captured: {different}")
        refs = len(said["refs"])
        return passed(
            "refs_equal", f"{refs} refs equal those captured, and all they reach is there", refs=refs
        )

    def swap(self, state: State) -> None:
        """See `Restoration.swap`: what is missing is put in its place, and then the repository."""
        place, kept = _folders(state)
        if not kept.is_dir():
            return
        with told(place):
            config_swap.swap(place, kept, steps(place, kept / NEW))

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`: what differs in the work tree is named; nothing may be missing."""
        place, _ = _folders(state)
        git, said = Git(place / GIT), self.stored.entry.fingerprint
        try:
            different = same_refs(git, said)
            files = files_of(git, said["commit"]).files
        except CommandError as error:
            return failed("swapped", f"the repository in {place} cannot be read: {error.message}")
        wrong = [(file.path, what) for file, what in differences(files, place)]
        absent = [path for path, what in wrong if what == MISSING and not in_the_way(path, place)]
        if different or absent or (wrong and self.options.into is not None):
            said_so = different or some(absent or [f"{path} {what}" for path, what in wrong])
            return failed("swapped", f"not as captured in {place}: {said_so}", different=len(wrong))
        left = f"; left as they are: {some([f'{path} {what}' for path, what in wrong])}" if wrong else ""
        on = said["branch"] or "no branch"
        return passed(
            "swapped",
            f"{said['commit'][:12]} on {on}, {len(files)} tracked files are there{left}",
            files=len(files),
            different=len(wrong),
        )

    def undo(self, state: State, safety: Stored | None) -> None:  # noqa: ARG002 - what was replaced is kept
        """See `Restoration.undo`: the old repository is put back; what was brought is moved aside."""
        place, kept = _folders(state)
        if not kept.is_dir():
            raise RefusedError(
                f"what was replaced is not in {kept} any more",
                hint="restore an older set: bookreader-backup list",
            )
        with told(place):
            config_swap.undo(place, kept)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        place, kept = _folders(state)
        with told(place):
            config_swap.remove(kept)
            if not state["present"]:
                with suppress(OSError):  # somebody has put something into it since
                    place.rmdir()

    def accept(self, state: State) -> None:
        """See `Restoration.accept`."""
        place, kept = _folders(state)
        with told(place):
            config_swap.remove(kept)

    @property
    def _place(self) -> Path:
        return Path(self.options.into or self.path).expanduser().absolute()

    def _write(self, bundle: Path, progress: Progress) -> None:
        """Write the artifact to a file, and compare all of its bytes with the entry's hash.

        Encrypted, its bytes were seen to by gpg, and git looks at what comes out.
        """
        written(self.stored, bundle)
        with bundle.open("rb") as file:
            meter = Meter(iter(lambda: file.read(1 << 20), b""), progress)
            for _ in meter:
                pass
        if not self.stored.entry.codecs and meter.sha256 != self.stored.entry.sha256:
            raise DamagedError(
                f"{self.stored.entry.name} is not what was captured: its sha256 differs",
                hint="nothing was touched; take another set: `bookreader-backup list`",
            )

    def _require_place(self) -> None:
        place = self._place
        require_place(place, new=self.options.into is not None)
        if os.fsencode(place / GIT) in staging.mounts():
            raise RefusedError(
                f"{place / GIT} is a mount point, and cannot be replaced",
                hint="unmount it, or restore into a new folder: --into FOLDER",
            )

    def _notes(self) -> tuple[str, ...]:
        entry, git = self.stored.entry, self._place / GIT
        notes = [f"{problem.where}: {problem.what}, when it was captured" for problem in entry.problems]
        if git.is_file():
            notes.append(f"{git} is a file that leads elsewhere: a repository of its own takes its place")
        if git.exists():
            notes.append(
                "of the old repository's settings, the URLs of remotes and the branches that follow them are"
                " kept; its hooks, stashed index and reflogs stay in the old one"
            )
        else:
            notes.append("a bundle knows no remote: then git remote add origin URL")
        if os.geteuid() != 0 and self._place.exists() and self._place.stat().st_uid != os.geteuid():
            notes.append("not run as root: the repository will belong to the user who restores it")
        return tuple(notes)


def _folders(state: State) -> tuple[Path, Path]:
    return Path(state["place"]), Path(state["kept"])


def _there(place: Path) -> str:
    """Say what would be replaced."""
    if not os.path.lexists(place / GIT):
        return f"nothing: {place} has no repository"
    git = Git(place / GIT)
    try:
        return f"the repository in {place}, {len(git.refs())} refs, at {git.commit()[:12]}"
    except BackupError:
        return f"the repository in {place}, which cannot be read"
