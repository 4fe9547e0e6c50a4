"""Replicate: an artifact that was proven here, into a vault away from this host, and proven there.

The order is that of a capture: the bytes, compared with what the vault received, the proofs, the entry last.
An artifact that is there already costs one listing; what later proofs say of it is added.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import IDENTITY, Installation
from bookreader_backup_assets.actions.program_log import noted
from bookreader_backup_assets.core import manifest
from bookreader_backup_assets.core.artifact import Companion, Entry, Proof
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, NotFoundError, RefusedError
from bookreader_backup_assets.core.manifest import is_whole
from bookreader_backup_assets.core.set_id import label_of
from bookreader_backup_assets.core.streams import Meter, Progress, quiet
from bookreader_backup_assets.vaults.base import Stored, Vault

SAME_BYTES = manifest.SAME_BYTES
"""The check, recorded in a proof beside the copy: size and SHA-256 there equal the entry's."""
COMPUTED, READ_BACK = "computed by the service from what it received", "read back"
"""How the SHA-256 of a copy was found out."""


@dataclass(frozen=True)
class Replica:
    """A copy: of which artifact, where, what was found there; `sent` bytes this time, in `seconds`.

    `new` says whether the artifact was not there before.
    """

    entry: Entry
    vault: str
    outcome: Outcome
    new: bool
    sent: int = 0
    seconds: float = 0.0


def replicate(installation: Installation, entry: Entry, name: str, *, read_back: bool = False) -> Replica:
    """Bring an artifact into the vault `name`, and return what was found there.

    With `read_back`, its bytes are read again there, also where the service computed their SHA-256. Raises
    `RefusedError` for what is not proven here, not wanted there, or has to be encrypted and is not;
    `DamagedError` where the bytes here or there are others than were captured; `VaultError`. Nothing is
    recorded there then.
    """
    catalog = Catalog(installation.vault)
    _require_fit(installation, catalog, entry, name)
    target = installation.vault_outside(name).vault(installation.id, entry)
    started = time.monotonic()
    there = {stored.name: stored for stored in target.list(entry.name)}
    if entry.entry_name in there:
        _add_proofs(catalog, entry, target, there)
        return Replica(entry, name, _recorded(entry, target, there), new=False)
    with noted(installation.log, "replicate", f"{entry.name} to {name}") as say:
        _introduce(installation, target, entry)
        sent = 0
        for companion in entry.companions:
            found = _bring(installation, target, companion, there.get(companion.name))
            sent += found.sent
        with installation.watch(f"replicating {entry.asset} to {name}", entry.size) as progress:
            own = Companion("", entry.name, entry.size, entry.sha256)
            found = _bring(installation, target, own, there.get(entry.name), progress, read_back=read_back)
        _add_proofs(catalog, entry, target, there)
        seconds = round(time.monotonic() - started, 3)
        _keep(installation, target, entry, found.outcome, seconds)
        with suppress(NameTakenError):  # two runs at once: what is there was compared by both
            target.put(entry.entry_name, [entry.to_json()])
        say(f"{entry.size} bytes, sha256 {found.how}")
    return Replica(entry, name, found.outcome, new=True, sent=sent + found.sent, seconds=seconds)


def compare(installation: Installation, entry: Entry, name: str) -> Outcome:
    """Read an artifact back in the vault `name`, and keep there, as a proof, whether it is the captured one.

    An artifact that is not there fails. Raises `VaultError` where the vault cannot be asked.
    """
    target = installation.vault_outside(name).vault(installation.id, entry)
    started = time.monotonic()
    with installation.watch(f"reading {entry.asset} back from {name}", entry.size) as progress:
        outcome = _compared(target, entry, progress)
    if outcome.measured:  # there is something that the proof is about
        same = replace(outcome, check="sha256")
        seconds = round(time.monotonic() - started, 3)
        _keep(installation, target, entry, outcome, seconds, same)
    return outcome


def is_in_clear(installation: Installation, entry: Entry) -> bool:
    """Whether an artifact was captured in clear, and what leaves this host of its kind is to be encrypted."""
    component = installation.components.get(entry.asset)
    return component is not None and "gpg" in component.codecs and "gpg" not in entry.codecs


@dataclass(frozen=True)
class _Found:
    outcome: Outcome
    sent: int
    how: str


def _require_fit(installation: Installation, catalog: Catalog, entry: Entry, name: str) -> None:
    standing = catalog.standing(entry)
    if not is_whole(entry, standing):
        raise RefusedError(
            f"{entry.name} is {standing}: only what is proven here is replicated",
            hint=f"bookreader-backup verify {entry.set}",
        )
    if not installation.vault_outside(name).wants(entry):
        raise RefusedError(
            f"the plan wants no copy of {entry.asset} of {entry.set} in {name}",
            hint="`bookreader-backup plan` shows what it wants where",
        )
    if is_in_clear(installation, entry):
        raise RefusedError(
            f"{entry.name} is not encrypted, and what leaves this host of {entry.component} is to be",
            hint="it was captured before that was so; the next capture is encrypted",
        )


def _introduce(installation: Installation, target: Vault, entry: Entry) -> None:
    """Say in the vault whose it is, and of a labelled set, what it is to have."""
    names = [IDENTITY, *([f"sets/{entry.set}.json"] if label_of(entry.set) else [])]
    for name in names:
        with suppress(NameTakenError, NotFoundError):
            target.put(name, installation.vault.open(name))


def _bring(
    installation: Installation,
    target: Vault,
    file: Companion,
    stored: Stored | None,
    progress: Progress = quiet,
    *,
    read_back: bool = False,
) -> _Found:
    """Put a file there, unless an attempt that ended before the entry has `stored` it, and compare."""
    sent, name, size, sha256 = 0, file.name, file.size, file.sha256
    if stored is None:
        chunks = _exactly(installation.vault.open(name), name, size, sha256, progress)
        stored = target.put(name, chunks, size=size)
        sent = size
    how = COMPUTED if stored.sha256 and not read_back else READ_BACK
    found = stored.sha256 if stored.sha256 and not read_back else target.digest(name)
    if found != sha256 or stored.size != size:
        raise DamagedError(
            f"{name} has other bytes in {target.name} than were captured: {stored.size} of {size},"
            f" sha256 {found}",
            hint=f"it counts for nothing there; remove it in {target.name} by hand, and replicate again",
        )
    parts = {"part_size": stored.part_size, "parts": list(stored.parts)} if stored.parts else {}
    outcome = passed(
        SAME_BYTES, f"{size} bytes, sha256 {how}, as captured", bytes=size, sha256=found, how=how, **parts
    )
    return _Found(outcome, sent, how)


def _exactly(
    chunks: Iterator[bytes], name: str, size: int, sha256: str, progress: Progress
) -> Iterator[bytes]:
    """Yield the chunks, the last only if all together are what the entry says: else nothing is committed."""
    whole, count, held = hashlib.sha256(), 0, b""
    for chunk in chunks:
        if held:
            yield held
            progress(len(held))
        whole.update(chunk)
        count, held = count + len(chunk), chunk
    if count != size or whole.hexdigest() != sha256:
        raise DamagedError(
            f"{name} is not what was captured any more: {count} of {size} bytes, or its sha256 differs",
            hint="bookreader-backup verify; and check the disk of the vault (dmesg, smartctl)",
        )
    if held:
        yield held
        progress(len(held))


def _add_proofs(catalog: Catalog, entry: Entry, target: Vault, there: dict[str, Stored]) -> None:
    for proof in catalog.stored_proofs(entry):
        if proof.proof_name not in there:
            with suppress(NameTakenError):
                target.put(proof.proof_name, [proof.to_json()])


def _recorded(entry: Entry, target: Vault, there: dict[str, Stored]) -> Outcome:
    """Return what the newest proof of the copy says of its bytes, if its size is still right."""
    stored = there.get(entry.name)
    if stored is None or stored.size != entry.size:
        size = stored.size if stored else 0
        return failed(SAME_BYTES, f"{size} bytes are there, {entry.size} were captured", bytes=size)
    found: list[tuple[datetime, Outcome]] = []
    for name in there:
        if name.startswith(f"{entry.name}.proof-"):
            proof = Proof.from_json(b"".join(target.open(name)), name=name)
            found += [(proof.at, outcome) for outcome in proof.checks if outcome.check == SAME_BYTES]
    if found:
        return max(found, key=lambda one: one[0])[1]
    return _compared(target, entry, quiet)


def _compared(target: Vault, entry: Entry, progress: Progress) -> Outcome:
    try:
        meter = Meter(target.open(entry.name), progress)
        for _ in meter:
            pass
    except NotFoundError as error:
        return failed(SAME_BYTES, error.message)
    measured = {"bytes": meter.size, "sha256": meter.sha256, "how": READ_BACK}
    if meter.size != entry.size or meter.sha256 != entry.sha256:
        said = f"{meter.size} bytes of {entry.size}" if meter.size != entry.size else "another sha256"
        return failed(SAME_BYTES, f"what {target.name} has is not what was captured: {said}", **measured)
    return passed(SAME_BYTES, f"{meter.size} bytes, sha256 {READ_BACK}, as captured", **measured)


def _keep(
    installation: Installation, target: Vault, entry: Entry, outcome: Outcome, seconds: float, *more: Outcome
) -> None:
    proof = Proof(
        installation=installation.id,
        artifact=entry.name,
        sha256=entry.sha256,
        at=installation.now(),
        checks=(outcome, *more),
        host=installation.host,
        seconds=seconds,
    )
    replace(installation, vault=target).keep(proof)
