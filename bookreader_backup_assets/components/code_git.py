"""git, over a repository that is somebody else's: nothing that its configuration names is ever run.

A backup runs as root, and a repository belongs to whoever deploys. Its configuration may name programs:
hooks, a file system monitor, filters, pagers, what signs, what fetches. To pack objects is enough to run
one, where a promised object is absent and is fetched. So no protocol is allowed, what can be named
is overridden, no command here reads a work tree's files through filters, and `--git-dir` is always given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bookreader_backup_assets.core.errors import CommandError
from bookreader_backup_assets.runners.base import Runner
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.runners.tree import as_path, as_text

HEAD = "HEAD"
BRANCH = "refs/heads/"
# what `git rev-parse --local-env-vars` lists: a hook that runs a backup hands them down
_FORGOTTEN = frozenset(
    (
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT"),
        *("GIT_CONFIG_PARAMETERS", "GIT_DIR", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE"),
        *("GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE"),
    )
)
_ENV = {
    "GIT_ALLOW_PROTOCOL": "none",  # of no transport: an absent object is an error, and fetches nothing
    "GIT_ASKPASS": "true",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_GRAFT_FILE": "/dev/null",  # a history cut by hand is bundled whole
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_SSH_COMMAND": "false",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_SETTINGS = {
    "advice.graftFileDeprecated": "false",
    "core.alternateRefsCommand": "true",
    "core.fsmonitor": "false",
    "core.fsync": "all",
    "core.gitProxy": "false",
    "core.hooksPath": "/dev/null",
    "core.logAllRefUpdates": "false",
    "core.sshCommand": "false",
    "credential.helper": "",
    "diff.external": "",
    "gc.auto": "0",
    "gpg.program": "false",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "uploadpack.packObjectsHook": "",
}


@dataclass(frozen=True)
class Git:
    """Runs git over the repository whose `.git` is `folder`, a folder or the file that leads to one.

    Every call raises `SourceAbsentError` where this machine has no git, and `CommandError`.
    """

    folder: Path
    work_tree: Path | None = None
    runner: Runner = field(default=LocalRunner(_ENV, without=_FORGOTTEN), repr=False)

    def run(self, *words: str, stdin: Iterable[bytes] | None = None) -> bytes:
        """Return what a command prints."""
        return self.runner.run(self._argv(words), stdin=stdin).stdout

    def ask(self, *words: str) -> str:
        """Return what a command prints, as text without its last line's end."""
        return as_text(self.run(*words)).rstrip("\n")

    def stream(self, *words: str, stdin: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what a command prints that is fed; see `Runner.stream`."""
        return self.runner.stream(self._argv(words), stdin=stdin)

    def version(self) -> str:
        """Return git's own version."""
        return self.ask("version").removeprefix("git version ")

    def refs(self) -> dict[str, str]:
        """Return the object of every ref, and of HEAD. Raises `CommandError` if HEAD names no commit."""
        said = self.ask("for-each-ref", "--format=%(objectname) %(refname)")
        named = (line.split(" ", 1) for line in said.splitlines())
        return {HEAD: self.commit(), **{name: identity for identity, name in named}}

    def commit(self) -> str:
        """Return the commit that is checked out. Raises `CommandError` if there is none."""
        return self.ask("rev-parse", "--verify", "HEAD^{commit}")

    def branch(self) -> str:
        """Return the branch that is checked out, empty if HEAD is detached."""
        try:
            return self.ask("symbolic-ref", "--quiet", HEAD).removeprefix(BRANCH)
        except CommandError as error:
            if error.status != 1:
                raise
            return ""

    def _argv(self, words: Iterable[str]) -> list[str]:
        settings = (word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}"))
        work_tree = (f"--work-tree={self.work_tree}",) if self.work_tree else ()
        return ["git", f"--git-dir={self.folder}", *work_tree, *settings, *words]


def bundle(git: Git, refs: Mapping[str, str]) -> Iterator[bytes]:
    """Yield a bundle of these refs, and of all that they reach, as gitformat-bundle(5) has it.

    Not `git bundle create`: that leaves out, and says nothing, what it finds ambiguous, such as HEAD where
    there is a branch of that name too.
    """
    form = "# v2 git bundle\n" if _is_sha1(refs[HEAD]) else "# v3 git bundle\n@object-format=sha256\n"
    lines = (f"{identity} {name}\n" for name, identity in refs.items())
    yield as_path(f"{form}{''.join(lines)}\n")
    wanted = "".join(f"{identity}\n" for identity in sorted(set(refs.values())))
    words = ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet")
    yield from git.stream(*words, stdin=[wanted.encode("ascii")])


def empty(folder: Path, fingerprint: Mapping[str, Any]) -> Git:
    """Make an empty repository in a new folder, of the kind that was captured."""
    git = Git(folder)
    kind = "sha1" if _is_sha1(fingerprint["commit"]) else "sha256"
    git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
    return git


def unbundled(file: Path, folder: Path, fingerprint: Mapping[str, Any]) -> Git:
    """Make the repository `folder` of a bundle: its objects, its refs, and HEAD on the branch it was on.

    Raises `CommandError` where git cannot read it. What is absent from the history only `intact` finds.
    """
    git = empty(folder, fingerprint)
    found = (line.split(b" ", 1) for line in git.run("bundle", "unbundle", str(file)).splitlines())
    refs = {as_text(name): as_text(identity) for identity, name in found}
    updates = (f"update {name}\0{refs[name]}\0\0" for name in refs if name != HEAD)
    git.run("update-ref", "--stdin", "-z", stdin=[as_path("".join(updates))])
    if fingerprint["branch"]:
        git.run("symbolic-ref", HEAD, BRANCH + fingerprint["branch"])
    else:
        git.run("update-ref", "--no-deref", HEAD, fingerprint["commit"])
    return git


def intact(git: Git) -> None:
    """Raise `CommandError` unless all that the refs reach is there.

    Every object's bytes were hashed when they were unpacked. What old programs wrote in an odd form is
    the history's own, and no damage: so its form is not judged.
    """
    git.run("fsck", "--full", "--connectivity-only", "--no-dangling", "--no-progress")


def _is_sha1(identity: str) -> bool:
    return len(identity) == 40  # hex digits; names of the other kind have 64
