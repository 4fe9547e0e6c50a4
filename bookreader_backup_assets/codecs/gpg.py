"""`.gpg`: OpenPGP, AES256 with a passphrase, by the gpg of this machine, so that any gpg opens it.

gpg's own compression would cost four fifths of the speed on bytes that are compressed already.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
_SHORTEST = 40  # bytes: nothing encrypted is shorter, and gpg 2.2 finds no fault with one cut at 6 to 15
_FAILED = 2  # whatever the failure
_WRONG_KEY = ("decryption failed: Bad session key", "decryption failed: No secret key")
_HINT_KEY = "set BACKUP_KEY_FILE to a file that holds the passphrase, and keep a copy away from this host"


@dataclass(frozen=True)
class Gpg:
    """Encrypts and decrypts with one passphrase; None means there is no key here."""

    key: Secret | None

    def require(self) -> Secret:
        """Return the key. Raises `KeyMissingError` where gpg or the key is missing: ask before reading."""
        if shutil.which("gpg") is None:
            raise KeyMissingError("gpg is not on this machine", hint="install gnupg: apt-get install gpg")
        if not self.key:
            raise KeyMissingError("there is no encryption key", hint=_HINT_KEY)
        if any(end in self.key.reveal() for end in "\n\0"):
            raise KeyMissingError("the key has several lines, and gpg reads only one", hint=_HINT_KEY)
        return self.key

    def encode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks` encrypted. Raises `KeyMissingError` before the first of them is read."""
        return self._through(self.require(), _ENCRYPT, chunks)

    def decode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what was encrypted.

        Raises `DamagedError` *after the last chunk* if the bytes were tampered with or cut short: trust
        nothing before the end. Raises `KeyMissingError` if the key does not open them.
        """
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                yield chunk

        try:
            yield from self._through(self.require(), ("--decrypt",), counted())
        except CommandError as error:
            if error.program != _GPG[0] or error.status != _FAILED:
                raise  # killed, or not even started: that says nothing about the bytes
            if any(said in error.stderr for said in _WRONG_KEY):
                raise KeyMissingError(
                    "the key does not open this artifact",
                    hint="set BACKUP_KEY_FILE to the key it was made with; if it is that one, the artifact's "
                    "first bytes are damaged, and its sha256 tells",
                ) from None
            raise DamagedError(f"gpg cannot decrypt it: {error.message}") from None
        if size < _SHORTEST:
            raise DamagedError("gpg cannot decrypt it: it is cut short")

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
