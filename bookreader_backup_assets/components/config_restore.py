"""The configuration, restored beside the live files, compared, and swapped file by file; or into a folder.

What is decrypted lies in a folder of 0700 inside the place that it is restored to, where such files are
in clear anyway, and nowhere else. Files that the artifact does not hold are not touched.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bookreader_backup_assets.codecs import gpg_packets
from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components import config_members, config_swap
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.components.config import RESTORING
from bookreader_backup_assets.components.config_members import Member
from bookreader_backup_assets.components.restoration import State
from bookreader_backup_assets.components.restore_place import free, require_place, some, told
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import (
    KeyMissingError,
    RefusedError,
)
from bookreader_backup_assets.core.restore_plan import Options, Preview, Room
from bookreader_backup_assets.core.streams import Progress

_BLOCK = 4096  # bytes of disk that the smallest file takes


@dataclass(frozen=True)
class ConfigRestoration:
    """Implements `Restoration` for the files below `root`, or with `options.into` into another folder.

    `paths` are those configured now: what the artifact has besides is restored too, and said.
    """

    root: Path
    paths: tuple[str, ...]
    gpg: Gpg = field(repr=False)
    stored: Stored
    options: Options

    quiet = False
    displaces = True
    keeps_old = True

    @property
    def target(self) -> str:
        """The folder whose files are replaced, or the new one."""
        return str(self._place)

    def preview(self) -> Preview:
        """See `Restoration.preview`: all of it is decrypted, in memory, and compared with what is there.

        Raises `KeyMissingError`, with what key it wants; `DamagedError`; and `RefusedError` where the new
        folder is not empty, or a folder or a link is in a file's way.
        """
        with told(self._place):
            require_place(self._place, new=self.options.into is not None)
            members = self._wanted(self._place)
            differing = config_members.differences(members, self._place)
            config_swap.plan(members, differing, self._place)
        files = [member for member in members if member.kind != "folder"]
        there = [member.name for member in files if differing.get(member.name) != "is not there"]
        to_swap = sum(member.name in differing for member in files)
        changed = [name for name in there if name in differing]
        said = f": {some(changed)}" if changed else ""
        replaces = f"{len(changed)} files in {self._place}{said}; {len(files) - len(there)} are not there"
        needed = sum(len(member.data) + _BLOCK for member in members)
        return Preview(
            replaces=replaces if there else f"nothing: {self._place} has none of its {len(files)} files",
            present=bool(there),
            steps=(
                f"decrypt {self.stored.entry.name} into a folder of this user's own inside {self._place}",
                "compare names, modes, links and contents with those captured",
                f"swap {to_swap} files that differ, one by one, by rename",
            ),
            rooms=(Room(str(self._place), needed, free(self._place)),),
            seconds=2,
            notes=self._notes(),
        )

    def begin(self, stamp: str) -> State:
        """See `Restoration.begin`."""
        place = self._place
        return {
            "place": str(place),
            "kept": str(place / f"{RESTORING}{stamp}"),
            "made": [],
            "present": place.is_dir(),
        }

    def beside(self, state: State, progress: Progress) -> None:
        """See `Restoration.beside`."""
        members, (place, kept) = self._members, _folders(state)
        config_swap.remove(kept)
        with told(place):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept.mkdir(mode=0o700)
            new = kept / config_swap.NEW
            new.mkdir(mode=0o700)
            config_members.put(members, new, outside_links=self.options.outside_links, inside=place)
        if self.options.into is not None:
            state["made"] = [str(path.relative_to(new)) for path in sorted(new.rglob("*"))]
        progress(self.stored.entry.size)

    def compare(self, state: State) -> Outcome:
        """See `Restoration.compare`: every name, mode, link and content."""
        _, kept = _folders(state)
        return self._compared("files_equal", kept / config_swap.NEW)

    def swap(self, state: State) -> None:
        """See `Restoration.swap`: only files that differ are replaced."""
        place, kept = _folders(state)
        if not kept.is_dir():  # moved, compared and cleared away
            return
        with told(place):
            members = self._wanted(place)
            differing = config_members.differences(members, place)
            config_swap.swap(place, kept, config_swap.plan(members, differing, place))

    def confirm(self, state: State) -> Outcome:
        """See `Restoration.confirm`. A new folder is left with nothing in it but the files."""
        place, kept = _folders(state)
        found = self._compared("swapped", place)
        if found.passed and self.options.into is not None:
            config_swap.remove(kept)
        return found

    def undo(self, state: State, safety: Stored | None) -> None:  # noqa: ARG002 - what was replaced is kept
        """See `Restoration.undo`: what was replaced is put back, and what was not there is taken away."""
        place, kept = _folders(state)
        with told(place):
            if kept.is_dir():
                config_swap.undo(place, kept)
            elif self.options.into is None:
                raise RefusedError(
                    f"what was replaced is not in {kept} any more",
                    hint="restore an older set: bookreader-backup list",
                )
            if self.options.into is not None:
                _take_away(place, state["made"])
        if self.options.into is not None:
            config_swap.remove(kept)
            _remove_if_ours(state)

    def abandon(self, state: State) -> None:
        """See `Restoration.abandon`."""
        place, kept = _folders(state)
        with told(place):
            config_swap.remove(kept)
            _remove_if_ours(state)

    def accept(self, state: State) -> None:
        """See `Restoration.accept`."""
        place, kept = _folders(state)
        with told(place):
            config_swap.remove(kept)

    @property
    def _place(self) -> Path:
        return Path(self.options.into).absolute() if self.options.into is not None else self.root.absolute()

    @cached_property
    def _members(self) -> tuple[Member, ...]:
        """What the artifact holds and can be put below a folder; see `_elsewhere` for the rest."""
        try:
            members = config_members.read(self.stored, self.gpg.held)
        except KeyMissingError as error:
            named = "key" in self.stored.entry.source
            hint = error.hint if named else self._what_opens() or error.hint
            raise KeyMissingError(error.message, hint=hint) from None
        return tuple(member for member in members if not self._is_elsewhere(member.name))

    def _what_opens(self) -> str:
        path, entry = self.stored.path, self.stored.entry
        return gpg_packets.what_opens(path, entry.captured_at) if path is not None else ""

    def _wanted(self, place: Path) -> tuple[Member, ...]:
        """Return the members but for links that lead out and are not to be made."""
        if self.options.outside_links:
            return self._members
        return tuple(m for m in self._members if not config_members.leads_out(m, place))

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a path was captured from outside of the configuration's folder."""
        return config_members.leaves(name) or any(
            (name + "/").startswith(path.strip("/") + "/") for path in self._elsewhere
        )

    @cached_property
    def _elsewhere(self) -> tuple[str, ...]:
        """The configured paths that lie outside of the folder; into a new folder they are put below it."""
        entry = self.stored.entry
        if self.options.into is not None:
            return ()
        captured_from = Path(entry.source.get("root", self.root))
        configured = [path for path in entry.fingerprint["configured"] if path.startswith("/")]
        return tuple(path for path in configured if not Path(path).is_relative_to(captured_from))

    def _compared(self, check: str, folder: Path) -> Outcome:
        members = self._wanted(self._place)
        left_out = len(self._members) - len(members)
        wrong = config_members.differences(members, folder)
        files = sum(member.kind != "folder" for member in members)
        if wrong:
            said = some([f"{name} {what}" for name, what in wrong.items()])
            return failed(check, f"not as captured in {folder}: {said}", files=files, different=len(wrong))
        but = f"; {left_out} links that lead out were left out" if left_out else ""
        return passed(check, f"{files} files and links, equal to those captured{but}", files=files)

    def _notes(self) -> tuple[str, ...]:
        entry, place = self.stored.entry, self._place
        configured = entry.fingerprint["configured"]
        notes = [f"{problem.where}: {problem.what}, when it was captured" for problem in entry.problems]
        if links := [m.name for m in self._members if m not in self._wanted(place)]:
            notes.append(f"links that lead out are left out: {some(links)}; --outside-links makes them")
        if away := [path for path in configured if self._is_elsewhere(posixpath.normpath(path).lstrip("/"))]:
            notes.append(f"not in {place}, and left alone: {some(away)}; --into brings back absolute paths")
        if unasked := sorted(set(configured) - set(self.paths)):
            notes.append(f"it was captured with paths that are not configured now: {some(unasked)}")
        return tuple(notes)


def _folders(state: State) -> tuple[Path, Path]:
    return Path(state["place"]), Path(state["kept"])


def _take_away(place: Path, made: list[str]) -> None:
    for name in reversed(made):
        path = place / name
        with suppress(OSError):  # gone already, or somebody has put something into it since
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove_if_ours(state: State) -> None:
    """Remove the place itself, if it was not there before and is empty."""
    if not state["present"]:
        with suppress(OSError):
            Path(state["place"]).rmdir()
