"""Replicate: an artifact that was proven here, into a vault away from this host, and proven there.

The order is that of a capture: the bytes, compared with what the vault received, the proofs, the entry last.
An artifact that stands there already costs a listing and a few small files; what later proofs say of it is
added. What is absent or damaged there is replaced by what is whole here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.damage import damage_recorded, record
from bookreader_backup_assets.actions.installation import IDENTITY, Installation
from bookreader_backup_assets.actions.program_log import noted
from bookreader_backup_assets.actions.replicate_file import READ_BACK, bring, remove
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.core.artifact import PROOF_INFIX, Companion, Entry, Proof
from bookreader_backup_assets.core.check import Outcome, Verdict, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, NameTakenError, NotFoundError, RefusedError
from bookreader_backup_assets.core.manifest import SAME_BYTES, is_whole, standing
from bookreader_backup_assets.core.set_id import label_of
from bookreader_backup_assets.core.streams import Meter, Progress
from bookreader_backup_assets.vaults.base import Stored, Vault

_PATIENCE, _PAUSE = 10.0, 0.2
"""Seconds that another process is given, and between two looks at what it has done."""


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

    What stands there whole is not sent again; what of it is absent or damaged there is replaced. With
    `read_back`, its bytes are read again there, also where the service computed their SHA-256. Raises
    `RefusedError` for what is not proven here, not wanted there, or has to be encrypted and is not;
    `DamagedError` where the bytes here or there are others than were captured, which is on record then, or
    where the entry there is another; `NameTakenError` while another process is at it; `VaultError`.
    """
    catalog = Catalog(installation.vault)
    _require_fit(installation, catalog, entry, name)
    target = installation.vault_outside(name).vault(installation.id, entry)
    with damage_recorded(StoredArtifact(installation, entry)):
        try:
            return _replicate(installation, catalog, entry, target, read_back=read_back)
        except (NameTakenError, NotFoundError) as error:  # somebody else has put it, or removed it, meanwhile
            if not _ended(target, entry):
                raise NameTakenError(
                    f"another replicate is at work on {entry.name} in {name}",
                    hint="`bookreader-backup replicate` when it has ended; it is right if nothing is missing",
                ) from error
            return _replicate(installation, catalog, entry, target, read_back=read_back)


def _replicate(
    installation: Installation, catalog: Catalog, entry: Entry, target: Vault, *, read_back: bool
) -> Replica:
    name, started = target.name, time.monotonic()
    there = {stored.name: stored for stored in target.list(entry.name)}
    committed = entry.entry_name in there
    ours = {proof.proof_name: proof for proof in catalog.stored_proofs(entry)}
    proofs = _proofs_there(target, entry, ours, there)
    if committed:
        _require_ours(target, entry)
        _add_proofs(target, ours, there)
        if (outcome := _recorded(entry, [*ours.values(), *proofs], there)) is not None:
            return Replica(entry, name, outcome, new=False)
    with noted(installation.log, "replicate", f"{entry.name} to {name}") as say:
        _introduce(installation, target, entry)
        sent = 0
        try:
            for companion in entry.companions:
                brought = bring(installation, target, companion, there.get(companion.name))
                sent += brought.sent
            with installation.watch(f"replicating {entry.asset} to {name}", entry.size) as progress:
                own, stored = Companion("", entry.name, entry.size, entry.sha256), there.get(entry.name)
                brought = bring(installation, target, own, stored, progress, read_back=read_back)
        except DamagedError as error:
            if committed:
                record(StoredArtifact(replace(installation, vault=target), entry), error)
            raise
        # the very bytes that were verified here: whatever was found of what was there before is over
        again = _passed_here(catalog, entry) if there else ()
        if not committed:
            _add_proofs(target, ours, there)
        seconds = round(time.monotonic() - started, 3)
        _keep(installation, target, entry, brought.outcome, seconds, *again)
        with suppress(NameTakenError):  # two runs at once: what is there was compared by both
            target.put(entry.entry_name, [entry.to_json()])
        sent += brought.sent
        say(f"{entry.size} bytes, sha256 {brought.how}")
    return Replica(entry, name, brought.outcome, new=not committed or sent > 0, sent=sent, seconds=seconds)


def short(entry: Entry, there: Mapping[str, int]) -> list[str]:
    """Return which files of an artifact a listing (sizes by name) does not have, or has with another size."""
    files = {entry.name: entry.size, **{one.name: one.size for one in entry.companions}}
    return [name for name, size in files.items() if there.get(name) != size]


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


def _require_ours(target: Vault, entry: Entry) -> None:
    """Raise `DamagedError` if the entry there is not the one here: nobody can tell which is right."""
    name = entry.entry_name
    try:
        if Entry.from_json(b"".join(target.open(name)), name=name) == entry:
            return
        said = f"{name} says other things in {target.name} than here"
    except DamagedError as error:
        said = f"{name} cannot be read in {target.name}: {error.message}"
    raise DamagedError(
        said,
        hint=f"remove {_place(target, name)} by hand, and that file only;"
        " then `bookreader-backup replicate` compares the artifact, and commits it there again",
    )


def _proofs_there(
    target: Vault, entry: Entry, ours: Mapping[str, Proof], there: Mapping[str, Stored]
) -> list[Proof]:
    """Return the proofs that lie beside the copy; those from here that are damaged there are put again.

    Raises `DamagedError` for one that was made there, and cannot be read.
    """
    found = []
    for name in there:
        if not name.startswith(entry.name + PROOF_INFIX):
            continue
        try:
            found.append(Proof.from_json(b"".join(target.open(name)), name=name))
        except DamagedError as error:
            if name not in ours:
                error.hint = f"remove {_place(target, name)} by hand, and that file only"
                raise
            remove(target, name)
            target.put(name, [ours[name].to_json()])
    return found


def _add_proofs(target: Vault, ours: Mapping[str, Proof], there: Mapping[str, Stored]) -> None:
    for name, proof in ours.items():
        if name not in there:
            with suppress(NameTakenError):
                target.put(name, [proof.to_json()])


def _place(target: Vault, name: str) -> str:
    return str(target.local_path(name) or f"{name} in {target.name}")


def _recorded(entry: Entry, proofs: Sequence[Proof], there: Mapping[str, Stored]) -> Outcome | None:
    """Return what the newest proof of a copy says of its bytes; None unless it stands whole there."""
    if short(entry, {name: stored.size for name, stored in there.items()}):
        return None
    if not is_whole(entry, standing(entry, proofs)):
        return None
    found = [(p.at, o) for p in proofs if p.sha256 == entry.sha256 for o in p.checks if o.check == SAME_BYTES]
    return max(found, key=lambda one: one[0])[1] if found else None


def _passed_here(catalog: Catalog, entry: Entry) -> tuple[Outcome, ...]:
    """Return the latest outcome of each check of an artifact, of those that stand as passed here."""
    passing = catalog.standing(entry).checks
    latest: dict[str, Outcome] = {}
    for proof in catalog.stored_proofs(entry):
        latest |= {o.check: o for o in proof.checks if o.passed and proof.sha256 == entry.sha256}
    return tuple(o for check, o in latest.items() if passing.get(check) is Verdict.PASSED)


def _ended(target: Vault, entry: Entry) -> bool:
    """Wait a moment for what somebody else is bringing, and return whether it is there."""
    end = time.monotonic() + _PATIENCE
    while True:
        there = {stored.name: stored.size for stored in target.list(entry.name)}
        if entry.entry_name in there and not short(entry, there):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE)


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
