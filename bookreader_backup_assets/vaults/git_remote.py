"""A git remote: how it is reached, from a bare repository of our own that is gone afterwards.

Its address may hold a token, and git hands an address on as an argument of its helper for HTTP. So the token
is cut out of it, and travels as a header that only git's environment names; nothing of it is on a disk.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError, SpaceError, VaultError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.base import NO_ENV
from bookreader_backup_assets.runners.local import LocalRunner

Tree = Mapping[str, tuple[str, int]]
"""The files of a commit: blob and size (bytes) by name."""
NAME = "vault"
"""What the remote is called in our repository."""
DEADLINE = 300.0
"""Seconds that one exchange with a remote may take."""
_SETTINGS = {
    "core.alternateRefsCommand": "true",
    "core.fsync": "none",  # what lasts is the remote's; this repository is gone soon
    "core.hooksPath": "/dev/null",
    "core.logAllRefUpdates": "false",
    "credential.helper": "",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1000",  # bytes a second, over the next line's seconds
    "http.lowSpeedTime": "60",
    "maintenance.auto": "false",
}
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15"
_ENV = {
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # others are programs that an address names
    "GIT_ASKPASS": "true",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    **{f"GIT_{who}_NAME": "bookreader-backup" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "bookreader-backup@localhost" for who in ("AUTHOR", "COMMITTER")},
}
_KEPT = ("GIT_SSH", "GIT_SSL_")  # how an operator says which key, and whose certificates
_IDLE = re.compile(r"To |error: failed to push|hint:|remote: *$|$")
_AUTHENTICATION = (
    r"authenticat|permission denied|could not read (username|password)|host key verification|\b40[13]\b"
    r"|access denied|not allowed to push|write access"
)
_WHY = {
    _AUTHENTICATION: "let this host in, with a deploy key (ssh) or a token (https://TOKEN@…) that may push",
    r"rejected|declined|protected|denied by": "a hook or a rule of the remote refuses it: let this account"
    " push to the branches bookreader-backups/*",
    r"not found|does not exist|not appear to be a git|no such file": "make an empty repository there, and"
    " look at BACKUP_GIT_REMOTE",
}
_ELSE = "is it reachable from this host? BACKUP_GIT_REMOTE says where it is"


@dataclass(frozen=True)
class Remote:
    """Where a remote is: an address as git takes it, with a token in it where HTTP needs one.

    `answers` is how many seconds it has to say what it has.
    """

    url: Secret
    answers: float = DEADLINE

    @cached_property
    def address(self) -> str:
        """The address without what is secret in it."""
        user, text = self._split
        return text if not user or not text.startswith("ssh:") else text.replace("//", f"//{user[0]}@", 1)

    @property
    def env(self) -> dict[str, str]:
        """What git's environment has to have for it to reach the remote under its `NAME`."""
        settings = {**_SETTINGS, f"remote.{NAME}.url": self.address}
        if self._header:
            settings["http.extraHeader"] = f"Authorization: Basic {self._header}"
        numbered: dict[str, str] = {}
        for number, (name, value) in enumerate(settings.items()):
            numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        ssh = {} if "GIT_SSH_COMMAND" in os.environ else {"GIT_SSH_COMMAND": _SSH}
        return {**_ENV, **ssh, "GIT_CONFIG_COUNT": str(len(settings)), **numbered}

    def error(self, error: CommandError) -> VaultError:
        """Return what git complained of as a vault's error, without anything secret, and what to do."""
        said = [line.strip() for line in error.stderr.splitlines() if not _IDLE.match(line.strip())]
        text = self._scrubbed(" / ".join(said[-3:]) or error.message)
        if "No space left" in error.stderr and "remote:" not in error.stderr:
            return SpaceError(f"git had no room to work: {text}", hint="set BACKUP_SCRATCH to a larger disk")
        hints = (hint for pattern, hint in _WHY.items() if re.search(pattern, error.stderr, re.IGNORECASE))
        return VaultError(f"the git remote {self.address} failed: {text}", hint=next(hints, _ELSE))

    @cached_property
    def _split(self) -> tuple[tuple[str, str] | None, str]:
        """Return user and password, and the address without them."""
        text = self.url.reveal().strip()
        scheme, mark, rest = text.partition("://")
        host, slash, path = rest.partition("/")
        known, at, host = host.rpartition("@")
        if not mark or not at or not urlsplit(text).scheme:
            return None, text
        name, _, password = known.partition(":")
        return (unquote(name), unquote(password)), f"{scheme}://{host}{slash}{path}"

    @property
    def _header(self) -> str:
        user, address = self._split
        if user is None or not address.startswith(("http:", "https:")):
            return ""
        return base64.b64encode(":".join(user).encode()).decode("ascii")

    def _scrubbed(self, text: str) -> str:
        user, _ = self._split
        name, password = user or ("", "")
        secrets = [self.url.reveal(), self._header, password]
        if not password and self._header:
            secrets.append(name)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


class Clone:
    """A bare repository of our own in the folder `scratch`, to talk to a remote from.

    Its folder is gone when nobody has this object any more. Every call raises `VaultError`.
    """

    def __init__(self, remote: Remote, scratch: Path) -> None:
        self.remote = remote
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="bookreader-git-", dir=scratch))
        except OSError as error:
            raise VaultError(
                f"git has no folder to work in: {scratch}: {error.strerror}",
                hint="set BACKUP_SCRATCH to a folder that takes files",
            ) from None
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._held: set[str] = set()
        self._trees: dict[str, Tree] = {}
        self.run("init", "--quiet", "--bare", "--template=")

    def run(
        self,
        *words: str,
        stdin: Iterable[bytes] | None = None,
        env: Mapping[str, str] = NO_ENV,
        seconds: float = DEADLINE,
    ) -> str:
        """Return what a command prints. What `stdin` raises is raised as it is."""
        try:
            return self.ask(*words, stdin=stdin, env=env, seconds=seconds)
        except CommandError as error:
            raise self.remote.error(error) from None

    def ask(
        self,
        *words: str,
        stdin: Iterable[bytes] | None = None,
        env: Mapping[str, str] = NO_ENV,
        seconds: float = DEADLINE,
    ) -> str:
        """Return what a command prints. Raises `CommandError` besides, which may have a secret in it."""
        try:
            done = self._runner.run(self._argv(words), stdin=stdin, env=env, timeout=seconds)
        except SourceAbsentError as error:
            raise VaultError(error.message, hint=error.hint) from None
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def refs(self, *patterns: str, seconds: float | None = None) -> dict[str, str]:
        """Return the refs that the remote has, and their objects."""
        said = self.run(
            "ls-remote", "--quiet", NAME, *patterns, seconds=seconds or self.remote.answers
        ).splitlines()
        return {name: identity for identity, _, name in (line.partition("\t") for line in said)}

    def fetch(self, ref: str) -> str | None:
        """Bring the newest commit of a ref here, without its history. Return it; None if there is none."""
        head = self.refs(ref).get(ref)
        if head is None or head in self._held:
            return head
        self.run("fetch", "--quiet", "--no-tags", "--depth=1", NAME, f"+{ref}:refs/seen")
        head = self.run("rev-parse", "--verify", "refs/seen")
        self._held.add(head)
        return head

    def having(self, name: str, refs: Sequence[str]) -> list[str]:
        """Return those of the remote's refs that have a file of this name. Where it can, it sends no file.

        This clone is of no use for anything else then: what it lacks is not fetched later.
        """
        if not refs:
            return []
        wanted = [f"+{ref}:refs/seen/{number}" for number, ref in enumerate(refs)]
        self.run("fetch", "--quiet", "--no-tags", "--depth=1", "--filter=blob:none", NAME, *wanted)
        return [
            ref
            for number, ref in enumerate(refs)
            if self.run("ls-tree", "--name-only", "--full-tree", f"refs/seen/{number}", name)
        ]

    def tree(self, commit: str | None) -> Tree:
        """Return the files of a commit that is here; none for no commit."""
        if not commit:
            return {}
        if commit in self._trees:
            return self._trees[commit]
        said = self.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        files = {}
        for line in filter(None, said.split("\0")):
            about, _, name = line.partition("\t")
            _, kind, blob, size = about.split()
            if kind == "blob":
                files[name] = (blob, int(size))
        self._trees = {commit: files}
        return files

    def read(self, blob: str) -> Iterator[bytes]:
        """Yield the bytes of a blob that is here."""
        try:
            yield from self._runner.stream(self._argv(("cat-file", "blob", blob)))
        except CommandError as error:
            raise self.remote.error(error) from None

    def write(self, chunks: Iterable[bytes]) -> str:
        """Return the blob of these bytes, which are here afterwards, and nowhere else."""
        return self.run("hash-object", "-w", "--stdin", "--no-filters", stdin=chunks)

    def commit(self, parent: str | None, change: Iterable[str], message: str) -> str:
        """Return a new commit: the files of `parent`, and `change` as arguments of `git update-index`."""
        # to remove a name git wants a work tree, and looks at nothing in it
        env = {"GIT_INDEX_FILE": str(self.folder / "index"), "GIT_WORK_TREE": str(self.folder)}
        self.run("read-tree", parent or "--empty", env=env)
        self.run("update-index", *change, env=env)
        tree = self.run("write-tree", env=env)
        parents = ("-p", parent) if parent else ()
        made = self.run("commit-tree", tree, *parents, "-m", message)
        self._held.add(made)
        return made

    def push(self, commit: str, ref: str) -> CommandError | None:
        """Bring a commit to a ref of the remote, never by force. Return what it complained of, if it did."""
        try:
            self.ask("push", "--quiet", NAME, f"{commit}:{ref}")
        except CommandError as error:
            return error
        return None

    @property
    def _runner(self) -> LocalRunner:
        forgotten = (name for name in os.environ if name.startswith("GIT_") and not name.startswith(_KEPT))
        return LocalRunner(self.remote.env, without=frozenset(forgotten))

    def _argv(self, words: Iterable[str]) -> list[str]:
        return ["git", f"--git-dir={self.folder}", *words]
