"""Which copies have come into a vault away from this host since it was last looked at: few files are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, PROOF_INFIX, Entry, Proof
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.errors import DamagedError, NotFoundError
from bookreader_backup_assets.core.manifest import SAME_BYTES, unchanged_sets
from bookreader_backup_assets.vaults.base import Stored, Vault

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Arrival:
    """A copy: the sets that refer to it, and what was found when its bytes were last compared, if they were.

    `at` (UTC) is when the vault says that its entry, or its newest proof, was written; None where it does
    not tell.
    """

    entry: Entry
    sets: frozenset[str]
    outcome: Outcome | None
    at: datetime | None


def arrivals(installation: Installation, name: str, since: datetime | None, limit: int) -> list[Arrival]:
    """Return at most `limit` copies with something new since then, or of all time, by when it came.

    A vault that tells of no times has all of them each time. Raises `VaultError` where it cannot be asked.
    """
    if installation.known_id is None:
        return []
    vault = installation.vault_outside(name).vault(installation.known_id)
    moments, proofs = _listed(vault.list())
    moved = sorted(
        (at, artifact) for artifact, at in moments.items() if at >= (since or _LONG_AGO) or at == _LONG_AGO
    )
    untold = sum(at == _LONG_AGO for at, _ in moved)
    here = {entry.name: entry for entry in Catalog(installation.vault).entries()}
    found = []
    for at, artifact in moved[: untold + limit]:
        try:
            entry = here.get(artifact) or _entry(vault, artifact)
            read = [Proof.from_json(b"".join(vault.open(one)), name=one) for one in proofs[artifact]]
        except (DamagedError, NotFoundError):  # `doctor` names the first; the other was pruned meanwhile
            continue
        read = sorted((proof for proof in read if proof.sha256 == entry.sha256), key=lambda proof: proof.at)
        same = [one for proof in read for one in proof.checks if one.check == SAME_BYTES]
        sets = frozenset({entry.set, *unchanged_sets(read)})
        told = at if at > _LONG_AGO else None
        found.append(Arrival(entry, sets, same[-1] if same else None, told))
    return found


def _listed(files: Iterable[Stored]) -> tuple[dict[str, datetime], dict[str, list[str]]]:
    """Return, by artifact that has an entry, when its newest file came, and the names of its proofs."""
    latest: dict[str, datetime] = {}
    proofs: dict[str, list[str]] = {}
    whole = set()
    for stored in files:
        artifact, infix, _ = stored.name.partition(PROOF_INFIX)
        if stored.name.endswith(ENTRY_SUFFIX):
            artifact = stored.name.removesuffix(ENTRY_SUFFIX)
            whole.add(artifact)
        elif infix:
            proofs.setdefault(artifact, []).append(stored.name)
        else:
            continue
        latest[artifact] = max(stored.modified or _LONG_AGO, latest.get(artifact, _LONG_AGO))
    return ({one: latest[one] for one in whole}, {one: proofs.get(one, []) for one in whole})


def _entry(vault: Vault, artifact: str) -> Entry:
    name = artifact + ENTRY_SUFFIX
    return Entry.from_json(b"".join(vault.open(name)), name=name)
