"""Damage that was met while an artifact was read: on record beside it, so that it counts as no copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bookreader_backup_assets.actions.installation import LOCAL
from bookreader_backup_assets.actions.program_log import note_checks
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.core.artifact import PROOF_INFIX, Proof
from bookreader_backup_assets.core.check import Outcome, Verdict, failed
from bookreader_backup_assets.core.errors import BackupError, CommandError, DamagedError, VaultError
from bookreader_backup_assets.core.manifest import SAME_BYTES, standing
from bookreader_backup_assets.core.streams import Meter


@contextmanager
def damage_recorded(stored: StoredArtifact) -> Iterator[None]:
    """Have damage on record that ends what is done meanwhile: of the artifact, and of what was read with it.

    What ended it is raised all the same; its hint says what was found.
    """
    try:
        yield
    except (DamagedError, CommandError) as error:
        for one in (stored, *stored.beside):
            record(one, error)
        raise


def record(stored: StoredArtifact, error: BackupError) -> None:
    """Keep a failed proof beside an artifact whose stored bytes have changed, once; else do nothing.

    They are read again: not every error in reading is of the bytes. The hint of `error` is told how it
    stands, and where the vault takes no proof, why.
    """
    entry, vault = stored.entry, stored.installation.vault
    try:
        outcome = _changed(stored)
        if outcome is None or _is_on_record(stored):
            return
    except BackupError:  # it cannot be read any more, or is gone: a listing tells that
        return
    same = () if vault.name == LOCAL else (replace(outcome, check=SAME_BYTES),)
    checks = (outcome, *same)
    note_checks(stored.installation.log, entry.name, checks)
    proof = Proof(
        installation=entry.installation,
        artifact=entry.name,
        sha256=entry.sha256,
        at=stored.installation.now(),
        checks=checks,
        host=stored.installation.host,
    )
    try:
        stored.installation.keep(proof)
        said = f"{entry.name} stands as failed in {vault.name} from now on"
    except VaultError as refused:
        said = f"that {entry.name} is damaged in {vault.name} is not on record there: {refused.message}"
    error.hint = "; ".join(filter(None, (error.hint, said)))


def _changed(stored: StoredArtifact) -> Outcome | None:
    """Return what is wrong with the stored bytes of an artifact, or of a companion; None if nothing is."""
    entry, vault = stored.entry, stored.installation.vault
    found = StoredArtifact(stored.installation, entry).measured().sha256
    if found != entry.sha256:
        return failed("sha256", "the stored bytes have changed since the capture", sha256=found)
    for companion in entry.companions:
        meter = Meter(vault.open(companion.name))
        for _ in meter:
            pass
        if meter.sha256 != companion.sha256:
            said = f"the stored bytes of {companion.name} have changed since the capture"
            return failed("sha256", said, sha256=meter.sha256)
    return None


def _is_on_record(stored: StoredArtifact) -> bool:
    entry, vault = stored.entry, stored.installation.vault
    proofs = []
    for one in vault.list(entry.name + PROOF_INFIX):
        try:
            proofs.append(Proof.from_json(b"".join(vault.open(one.name)), name=one.name))
        except DamagedError:
            continue
    return standing(entry, proofs).checks.get("sha256") is Verdict.FAILED
