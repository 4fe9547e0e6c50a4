"""Whether the deployed commit is anywhere else: on a branch or tag of a remote of the code's repository.

The repository is somebody else's, and is only read: remotes are asked from a repository of our own, which
borrows the objects of theirs. What their configuration says besides a remote's address counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components.code import CodeBundle
from bookreader_backup_assets.components.code_git import HEAD, Git
from bookreader_backup_assets.core.check import Outcome, Verdict, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import BackupError, CommandError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.git_remote import NAME, Clone, Remote

CODE = "code/bundle"
ON_REMOTE = "on_remote"
_ASKING, _FETCHING = 60.0, 120.0  # seconds for a remote to say what it has, and to send it
_THEIRS = "refs/theirs/"
_SPACES = ("heads", "tags")


def deployed_on_remote(installation: Installation, commit: str = "") -> Outcome:
    """Return whether a commit, or else the deployed one, is on a remote of the code that is captured."""
    component = installation.components.get(CODE)
    if not isinstance(component, CodeBundle):
        return inconclusive(ON_REMOTE, "no code is captured here")
    return on_remote(component.path, component.scratch, commit)


def on_remote(path: Path, scratch: Path, commit: str = "") -> Outcome:
    """Return whether a commit, or else the deployed one, is on a remote of the repository in `path`.

    `scratch` is the folder that works in between. Inconclusive without a repository or a remote, and where a
    remote that may have it cannot be asked.
    """
    git = Git(path.absolute() / ".git")
    try:
        commit = git.ask("rev-parse", "--verify", "--quiet", f"{commit or HEAD}^{{commit}}")
        remotes = _remotes(git, path.absolute())
        objects = git.ask("rev-parse", "--git-path", "objects")
    except CommandError as error:
        said = error.message if not commit else f"commit {commit[:12]} is not in it any more"
        return inconclusive(ON_REMOTE, f"the repository in {path} cannot be asked: {said}")
    except BackupError as error:
        return inconclusive(ON_REMOTE, error.message)
    if not remotes:
        return inconclusive(ON_REMOTE, f"the repository in {path} has no remote", commit=commit)
    outcomes = [_asked(name, remote, scratch, objects, commit) for name, remote in remotes.items()]
    for verdict in (Verdict.PASSED, Verdict.INCONCLUSIVE):
        if found := [outcome for outcome in outcomes if outcome.verdict is verdict]:
            return found[0]
    names = ", ".join(remotes)
    return failed(
        ON_REMOTE,
        f"commit {commit[:12]} is on no branch and no tag of {names}: it exists only on this host; push it",
        commit=commit,
    )


def _remotes(git: Git, work_tree: Path) -> dict[str, Remote]:
    """Return the remotes by name: the address from which each is fetched."""
    try:
        said = git.ask("config", "--null", "--get-regexp", r"^remote\..*\.url$")
    except CommandError as error:
        if error.status != 1:
            raise
        return {}
    found: dict[str, Remote] = {}
    for line in filter(None, said.split("\0")):
        key, _, address = line.partition("\n")
        local = ":" not in address.partition("/")[0]
        text = os.path.join(work_tree, address) if local else address
        found.setdefault(key.removeprefix("remote.").removesuffix(".url"), Remote(Secret(text)))
    return found


def _asked(name: str, remote: Remote, scratch: Path, objects: str, commit: str) -> Outcome:
    try:
        clone = Clone(remote, scratch)
        refs = clone.refs(*(f"refs/{space}/*" for space in _SPACES), seconds=_ASKING)
        ref = _containing(clone, objects, commit, refs)
    except BackupError as error:
        return inconclusive(ON_REMOTE, f"{name} cannot be asked: {error.message}", commit=commit)
    except OSError as error:
        return inconclusive(ON_REMOTE, f"{scratch} cannot be written: {error.strerror}", commit=commit)
    if not ref:
        return failed(ON_REMOTE, f"{name} does not have it")
    said = f"commit {commit[:12]} is on {ref} of {name}"
    return passed(ON_REMOTE, said, commit=commit, remote=name, ref=ref)


def _containing(clone: Clone, objects: str, commit: str, refs: Mapping[str, str]) -> str:
    """Return the branch or tag that has the commit, "" if none has. What is known here is not fetched."""
    (clone.folder / "objects" / "info").mkdir(exist_ok=True)
    (clone.folder / "objects" / "info" / "alternates").write_bytes(os.fsencode(f"{objects}\n"))
    asked = "".join(f"{identity}\n" for identity in refs.values()).encode()
    said = clone.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=[asked]).splitlines()
    known = {line.split()[0] for line in said if not line.endswith(" missing")}
    named = {ref: identity for ref, identity in refs.items() if not ref.endswith("^{}")}
    ours = (f"create {_theirs(ref)} {identity}\n" for ref, identity in named.items() if identity in known)
    clone.run("update-ref", "--stdin", stdin=["".join(ours).encode()])
    if found := _first(clone, commit):
        return found
    if named.keys() and not known.issuperset(named.values()):
        clone.run("update-ref", "refs/ours", commit)  # and its history: none of it needs to be sent
        wanted = (f"+refs/{space}/*:{_THEIRS}{space}/*" for space in _SPACES)
        clone.run("fetch", "--quiet", "--no-tags", NAME, *wanted, seconds=_FETCHING)
    return _first(clone, commit)


def _first(clone: Clone, commit: str) -> str:
    said = clone.run("for-each-ref", "--count=1", f"--contains={commit}", "--format=%(refname)", _THEIRS)
    return said.removeprefix(_THEIRS).partition("/")[2]


def _theirs(ref: str) -> str:
    return _THEIRS + ref.removeprefix("refs/")
