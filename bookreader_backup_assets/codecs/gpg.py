"""`.gpg`: OpenPGP, AES256 with a passphrase, by the gpg of this machine, so that any gpg opens it.

gpg's own compression would cost four fifths of the speed on bytes that are compressed already.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from bookreader_backup_assets.core.errors import CommandError, DamagedError, KeyMissingError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners import process

SUFFIX = ".gpg"
_STALL = 600.0
# without an agent: nothing is left running, and nothing is measured for a second before it begins
_GPG = (
    "gpg",
    "--batch",
    "--yes",
    "--no-tty",
    "--pinentry-mode",
    "loopback",
    "--no-symkey-cache",
    "--no-autostart",
)
_PASSPHRASE = ("--passphrase-fd", "{0}")
_ENCRYPT = (
    "--symmetric", "--cipher-algo", "AES256", "--s2k-digest-algo", "SHA512", "--s2k-count", "65011712",
    "--compress-algo", "none",
)  # fmt: skip
_HEAD = 1 << 16  # bytes that tell whether a key opens a message: gpg has decrypted some of them by then
_SHORTEST = 40  # bytes: nothing encrypted is shorter, and gpg 2.2 finds no fault with one cut at 6 to 15
_FAILED = 2  # whatever the failure
_WRONG_KEY = ("decryption failed: Bad session key", "decryption failed: No secret key")
_HINT_KEY = "set BACKUP_KEY_FILE to a file that holds the passphrase, and keep a copy away from this host"


@dataclass(frozen=True)
class Gpg:
    """Encrypts with one passphrase, decrypts with that or an earlier one; None means there is none here."""

    key: Secret | None
    old: tuple[Secret, ...] = ()

    @property
    def held(self) -> tuple[Secret, ...]:
        """Every passphrase that may open something, the one that encrypts first."""
        return tuple(key for key in (self.key, *self.old) if key)

    def require(self) -> Secret:
        """Return the key that encrypts. Raises `KeyMissingError` where gpg or it is missing: ask before
        reading.
        """
        return _usable(self.key)

    def encode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks` encrypted. Raises `KeyMissingError` before the first of them is read."""
        return self._through(self.require(), _ENCRYPT, chunks)

    def decode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what was encrypted.

        Raises `DamagedError` *after the last chunk* if the bytes were tampered with or cut short: trust
        nothing before the end. Raises `KeyMissingError` if no key here opens them.
        """
        held = self.held
        key = _usable(held[0] if held else None)
        if len(held) > 1:
            source = iter(chunks)
            head = _head(source)
            key, chunks = self._opener(head) or key, chain([head], source)
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                yield chunk

        try:
            yield from self._through(key, ("--decrypt",), counted())
        except CommandError as error:
            if error.program != _GPG[0] or error.status != _FAILED:
                raise  # killed, or not even started: that says nothing about the bytes
            if any(said in error.stderr for said in _WRONG_KEY):
                which = "the key does not open" if len(held) == 1 else f"none of the {len(held)} keys opens"
                raise KeyMissingError(
                    f"{which} this artifact",
                    hint="set BACKUP_KEY_FILE to the key it was made with, or name that file in "
                    "BACKUP_OLD_KEY_FILES; if it is there, the artifact's first bytes are damaged, and its "
                    "sha256 tells",
                ) from None
            raise DamagedError(f"gpg cannot decrypt it: {error.message}") from None
        if size < _SHORTEST:
            raise DamagedError("gpg cannot decrypt it: it is cut short")

    def opener(self, chunks: Iterable[bytes]) -> Secret | None:
        """Return the passphrase that opens what begins with `chunks`, of which 64 kB are read at most.

        None if there is none here. Raises `KeyMissingError` where gpg is missing.
        """
        return self._opener(_head(iter(chunks)))

    def _opener(self, head: bytes) -> Secret | None:
        """Try each key on the first bytes: only the right one makes gpg write something, or find no fault.

        What gpg complains of tells less: one wrong key in 65,536 looks like damage.
        """
        return next((key for key in self.held if self._opens(_usable(key), head[:_HEAD])), None)

    def _opens(self, key: Secret, head: bytes) -> bool:
        try:
            return any(self._through(key, ("--decrypt",), [head])) or len(head) < _HEAD
        except CommandError as error:
            if error.program != _GPG[0] or error.status != _FAILED:
                raise
            return False

    def _through(self, key: Secret, options: Iterable[str], chunks: Iterable[bytes]) -> Iterator[bytes]:
        # a long path would end as "No agent running": a socket's path has about 100 characters
        try:
            folder = tempfile.TemporaryDirectory(prefix="bb-", dir="/tmp", ignore_cleanup_errors=True)
        except OSError as error:
            raise CommandError(
                _GPG[0], None, str(error), what="could not be started", hint="make room in /tmp"
            ) from None
        with folder as home:
            yield from process.stream(
                [*_GPG, *_PASSPHRASE, *options],
                env={"GNUPGHOME": home, "LC_ALL": "C"},  # C: what it says is told apart above
                stdin=chunks,
                stall=_STALL,
                secrets=[key.reveal().encode()],
            )


def _usable(key: Secret | None) -> Secret:
    if shutil.which("gpg") is None:
        raise KeyMissingError("gpg is not on this machine", hint="install gnupg: apt-get install gpg")
    if not key:
        raise KeyMissingError("there is no encryption key", hint=_HINT_KEY)
    if any(end in key.reveal() for end in "\n\0"):
        raise KeyMissingError("the key has several lines, and gpg reads only one", hint=_HINT_KEY)
    return key


def _head(source: Iterator[bytes]) -> bytes:
    """Take at least `_HEAD` bytes, or all there are."""
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _HEAD:
            break
    return head
