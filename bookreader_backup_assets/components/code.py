"""The code: a bundle of all refs of BookReader's repository, and which commit is deployed.

What is not committed is in no bundle: tracked files that differ from the deployed commit are named. A
shallow repository is refused, since nothing can be cloned from its bundle, though git calls that complete.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.components.code_git import BRANCH, HEAD, Git, bundle, empty, intact, unbundled
from bookreader_backup_assets.components.code_tree import MISSING, differences, files_of
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    SourceAbsentError,
    SourceError,
    SpaceError,
)
from bookreader_backup_assets.core.fingerprint import compare, describe

_NAMED = 20
_UNSAVED = {MISSING: "is not there, and is in the deployed commit"}
_ELSE = ", other than in the deployed commit: a bundle has none of that"
_PLAN = "or take [code] out of the plan"


@dataclass(frozen=True)
class CodeBundle:
    """A git bundle of the repository whose work tree is `path`. `scratch` is where checks unpack it."""

    path: Path
    scratch: Path = Path(tempfile.gettempdir())
    component: str = "code"
    artifact: str = "bundle"
    stem: str = "code"
    suffix: str = ".bundle"
    kind: str | None = None
    codecs: tuple[str, ...] = ()

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {
            "complete": "`git bundle verify` in an empty repository: it needs nothing that is elsewhere",
            "restorable": "a repository is made of it, all that its refs reach is there, and the refs are"
            " those captured",
        }

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        return {"git": self._opened().version()}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`."""
        captured_at = datetime.now(UTC)
        git = self._opened()
        with self._told():
            branch, refs = git.branch(), git.refs()
        commit = refs[HEAD]
        on = branch if refs.get(BRANCH + branch) == commit else ""  # it moved meanwhile

        def facts() -> Facts:
            with self._told():
                about, problems = self._deployed(git, commit)
            return Facts(
                captured_at=captured_at,
                fingerprint={"kind": "refs", "commit": commit, "branch": on, **about, "refs": refs},
                versions={"git": git.version()},
                source={"runner": "local", "path": str(self.path.absolute())},
                problems=problems,
            )

        def chunks() -> Iterator[bytes]:
            with self._told():
                yield from bundle(git, refs)

        yield Capture(chunks(), facts, _size(git))

    def unchanged_since(self, newest: Entry) -> bool:
        """See `Component.unchanged_since`: the refs, HEAD, and what is not committed are the same."""
        git, said = self._opened(), newest.fingerprint
        with self._told():
            refs = git.refs()
            if (refs, git.branch()) != (said["refs"], said["branch"]):
                return False
            return self._deployed(git, refs[HEAD])[1] == newest.problems

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`."""
        with _scratch_folder(self.scratch) as folder:
            written(stored, folder / "code.bundle")
            for name, check in (("complete", _complete), ("restorable", _restorable)):
                if name not in names:
                    continue
                try:
                    yield check(folder, stored.entry.fingerprint)
                except CommandError as error:
                    yield failed(name, error.message)
                except SourceAbsentError as error:
                    yield inconclusive(name, f"{error.message}; {error.hint}")

    def _opened(self) -> Git:
        """Return the repository. Raises `SourceError` for one of which no whole bundle can be made."""
        place, git = self.path.absolute(), Git(self.path.absolute() / ".git")
        if not os.path.exists(git.folder):
            above = next((one for one in place.parents if os.path.exists(one / ".git")), None)
            raise SourceAbsentError(
                f"{place} is no git repository, or not for this user",
                hint=f"set BACKUP_CODE_PATH to {above or 'the folder that has .git in it'}, {_PLAN}",
            )
        try:
            shallow = git.ask("rev-parse", "--is-shallow-repository") == "true"
        except CommandError as error:
            raise SourceError(
                f"the repository in {place} cannot be read: {error.message}",
                hint="run as a user that may read it, and look at it: git status; if it is damaged, `restore"
                " code` brings it back",
            ) from None
        if shallow:
            raise SourceError(
                f"the repository in {place} is shallow: its history is cut off, and nothing can be cloned"
                " from a bundle of it",
                hint=f"fetch the rest once: git -C {place} fetch --unshallow",
            )
        try:
            git.ask("rev-parse", "--verify", "--quiet", HEAD)
        except CommandError:
            raise SourceError(
                f"the repository in {place} has no commit checked out",
                hint=f"commit, or check out what is deployed; look: git -C {place} status",
            ) from None
        with self._told():
            git.commit()
        return git

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what to do about a repository that git cannot read to its end."""
        try:
            yield
        except CommandError as error:
            raise SourceError(
                f"no bundle can be made of the repository in {self.path.absolute()}: {error.message}",
                hint=f"an object may be damaged or absent: git -C {self.path.absolute()} fsck --full says"
                " which; if the repository was cloned with --filter: git fetch --refetch --no-filter",
            ) from None

    def _deployed(self, git: Git, commit: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
        """Return what is to be known of a commit, and in what the work tree differs from it."""
        said = git.run("rev-list", "--max-count=1", "--encoding=UTF-8", "--format=%ct%n%s", commit)
        _, seconds, subject = said.decode("utf-8", "replace").rstrip("\n").split("\n", 2)
        tree = files_of(git, commit)
        differing = differences(tree.files, self.path)
        dirty = [Problem(_UNSAVED.get(said, said + _ELSE), file.path) for file, said in differing]
        named = dirty[:_NAMED]
        if len(dirty) > _NAMED:
            named.append(Problem(f"{len(dirty) - _NAMED} more files differ from the deployed commit"))
        about = {
            "subject": subject,
            "committed_at": datetime.fromtimestamp(int(seconds), UTC).isoformat(),
            "files": len(tree.files),
            "bytes": sum(file.size for file in tree.files),
            "dirty": len(dirty),
        }
        submodules = (Problem("a submodule: a repository of its own", path) for path in tree.submodules)
        return about, (*named, *submodules)


@contextmanager
def _scratch_folder(scratch: Path) -> Iterator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix="bookreader-code-", dir=scratch)
    except OSError as error:
        raise SpaceError(
            f"{scratch} takes no folder: {error.strerror}", hint="set BACKUP_SCRATCH to one with room"
        ) from None
    with made as folder:
        yield Path(folder)


def written(stored: Stored, path: Path) -> None:
    """Write an artifact's bytes to a new file, on a local disk. Raises `SpaceError`."""
    try:
        with path.open("xb") as file:
            for chunk in stored.plain():
                file.write(chunk)
    except OSError as error:
        raise SpaceError(
            f"{path} cannot be written: {error.strerror}", hint="free space there, or set BACKUP_SCRATCH"
        ) from None


def same_refs(git: Git, fingerprint: Mapping[str, Any]) -> str:
    """Return how a repository's refs differ from those captured, in one sentence; empty if they do not."""
    found = compare({"refs": fingerprint["refs"]}, {"refs": git.refs()})
    return describe(found) if found else ""


def _complete(folder: Path, fingerprint: Mapping[str, Any]) -> Outcome:
    git = empty(folder / "empty.git", fingerprint)
    git.run("bundle", "verify", "--quiet", str(folder / "code.bundle"))
    return passed("complete", "it needs nothing that is elsewhere")


def _restorable(folder: Path, fingerprint: Mapping[str, Any]) -> Outcome:
    git = unbundled(folder / "code.bundle", folder / "code.git", fingerprint)
    intact(git)
    if different := same_refs(git, fingerprint):
        return failed("restorable", f"its refs are not those captured: {different}")
    commit, refs = fingerprint["commit"], len(fingerprint["refs"])
    return passed("restorable", f"{refs} refs, all that they reach, and {commit[:12]} checked out", refs=refs)


def _size(git: Git) -> int | None:
    """Return about how many bytes the bundle will have."""
    try:
        said = git.ask("count-objects", "-v").splitlines()
    except BackupError:
        return None
    kilobytes = {name: int(count) for name, _, count in (line.partition(": ") for line in said)}
    return 1024 * (kilobytes["size"] + kilobytes["size-pack"])
