"""Where a drill takes place, and with which key: the usual one, or one out of escrow and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bookreader_backup_assets.actions.drill_folder import drill_folder
from bookreader_backup_assets.codecs import gpg, gpg_key
from bookreader_backup_assets.codecs.chain import Codec, Codecs, Step
from bookreader_backup_assets.core.drill import Objective
from bookreader_backup_assets.core.errors import KeyMissingError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.base import Vault

SHORT = Path("/tmp")  # noqa: S108 - a folder of our own in it: the path of gpg's socket has 100 characters
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Ground:
    """Where a drill takes place, and with what.

    `folder` is where its scratch folder is made; `objectives` are by row of the guide's table. `vault` is
    read, named `source` in the report; what is found is kept there as proofs, unless it is a copy of a vault
    (`copy`), which stays as it is. `codecs` decode with the key that `key_name` describes; `keys` are that
    key and earlier ones, where they are passphrases.
    """

    folder: Path
    objectives: Mapping[str, Objective]
    vault: Vault
    codecs: Codecs
    source: str = "local"
    copy: bool = False
    keys: tuple[Secret, ...] = field(default=(), repr=False)
    key_name: str = "none"


@contextmanager
def ground(usual: Ground, key_file: Path | None) -> Iterator[Ground]:
    """Give `usual`, or with `key_file` the same with the key in that file, and without any other.

    The file holds a passphrase, or an armoured OpenPGP secret key; the passphrase of that one, if it has
    any, is the first of `usual.keys`. Its keyring is removed, and its agent ended, on leaving. Raises
    `KeyMissingError`.
    """
    if key_file is None:
        yield usual
        return
    held = _read(key_file)
    if not held.startswith(gpg_key.ARMOUR):
        key = gpg.Gpg(Secret(held.decode("utf-8", "surrogateescape").rstrip("\n")))
        name = f"the passphrase in {key_file}"
        yield replace(usual, codecs=_with(usual.codecs, key.decode), keys=(key.require(),), key_name=name)
        return
    with drill_folder(SHORT) as home, gpg_key.secret_key(held, home, next(iter(usual.keys), None)) as secret:
        name = f"OpenPGP {secret.fingerprint} in {key_file}"
        yield replace(usual, codecs=_with(usual.codecs, secret.decode), keys=(), key_name=name)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST)
    except OSError as error:
        raise KeyMissingError(
            f"{file} cannot be read: {error.strerror}", hint="name the file that the key is kept in"
        ) from None


def _with(codecs: Codecs, decode: Step) -> Codecs:
    return Codecs({**codecs.known, "gpg": Codec("gpg", gpg.SUFFIX, _nothing, decode)})


def _nothing(_chunks: Iterable[bytes]) -> Iterator[bytes]:
    raise KeyMissingError("a drill encrypts nothing")
