"""An OpenPGP secret key, alone in a keyring of its own: it opens what was encrypted to it, or nothing.

Nothing of this user's own keyring is seen. The agent that gpg needs for it is ended on leaving.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from bookreader_backup_assets.core.errors import CommandError, DamagedError, KeyMissingError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners import process

ARMOUR = b"-----BEGIN PGP PRIVATE KEY BLOCK-----"
"""What the file of such a key begins with."""
_STALL = 600.0
_PATIENCE = 60.0
_GPG = ("gpg", "--batch", "--yes", "--no-tty", "--pinentry-mode", "loopback", "--no-symkey-cache")
_TO_A_KEY = 1  # the tag of the packet that such a message begins with; a passphrase's is 3


@dataclass(frozen=True)
class SecretKey:
    """A key in the keyring `home`, which holds nothing else."""

    home: Path
    fingerprint: str
    passphrase: Secret | None = field(default=None, repr=False)

    def decode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what was encrypted to this key; see `Gpg.decode` for what it raises, and when."""
        source = iter(chunks)
        first = next((chunk for chunk in source if chunk), b"")
        if _tag(first) != _TO_A_KEY:  # the passphrase of the key must not open it instead
            raise KeyMissingError(
                "the artifact is encrypted with a passphrase, not to an OpenPGP key",
                hint="name a file that holds that passphrase",
            )
        try:
            yield from _run(self.home, ["--decrypt"], self.passphrase, chain([first], source))
        except CommandError as error:
            if "No secret key" in error.stderr:
                raise KeyMissingError(
                    f"the key {self.fingerprint} does not open this artifact",
                    hint="it was encrypted to another; `gpg --list-packets` tells to which",
                ) from None
            if "assphrase" in error.stderr or "batchmode" in error.stderr:  # it would have asked for one
                raise KeyMissingError(
                    f"the key {self.fingerprint} is locked", hint="set BACKUP_KEY_FILE to its passphrase"
                ) from None
            raise DamagedError(f"gpg cannot decrypt it: {error.message}") from None


@contextmanager
def secret_key(armoured: bytes, home: Path, passphrase: Secret | None = None) -> Iterator[SecretKey]:
    """Import a key into the folder `home`, which is empty, and this user's only, and of a short path.

    Raises `KeyMissingError` where gpg is missing, or cannot take it.
    """
    if shutil.which("gpg") is None:
        raise KeyMissingError("gpg is not on this machine", hint="install gnupg: apt-get install gnupg")
    try:
        try:
            list(_run(home, ["--import"], passphrase, [armoured]))
            said = b"".join(_run(home, ["--with-colons", "--list-secret-keys"], None, None)).decode()
        except CommandError as error:
            raise KeyMissingError(
                f"gpg does not take the key: {error.message}",
                hint="is it what `gpg --export-secret-keys` wrote?",
            ) from None
        found = [line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:")]
        if not found:
            raise KeyMissingError(
                "there is no secret key in the file", hint="gpg --armor --export-secret-keys"
            )
        yield SecretKey(home, found[0], passphrase)
    finally:
        _end_agent(home)


def _run(
    home: Path, options: Iterable[str], passphrase: Secret | None, chunks: Iterable[bytes] | None
) -> Iterator[bytes]:
    handed = ["--passphrase-fd", "{0}"] if passphrase else []
    yield from process.stream(
        [*_GPG, *handed, *options],
        env=_env(home),
        stdin=chunks,
        stall=_STALL,
        secrets=[passphrase.reveal().encode()] if passphrase else [],
    )


def _env(home: Path) -> dict[str, str]:
    return {"GNUPGHOME": str(home), "LC_ALL": "C"}


def _end_agent(home: Path) -> None:
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            ["gpgconf", "--kill", "all"],
            env={**os.environ, **_env(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )


def _tag(message: bytes) -> int:
    """Return the tag of the first packet of an OpenPGP message, 0 if it is none."""
    first = message[0] if message else 0
    if not first & 0x80:
        return 0
    return first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
