"""Replicate what a set has of an asset; of a weekly or labelled set its members, and then the manifest.

The manifest comes last, so that what it names is there when it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.held import proven
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import Replica, compare, replicate, short
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST, WEEKLY
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX, Entry, load_document
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import BackupError, DamagedError, NotFoundError, RefusedError
from bookreader_backup_assets.core.manifest import SAME_BYTES
from bookreader_backup_assets.core.set_id import label_of

_ROWS = {"weekly": WEEKLY, "labels": LABELLED}
"""The manifests of the rows that want whole sets."""


@dataclass(frozen=True)
class SetReplica:
    """The copy of an artifact, and of the members that a manifest brought with it.

    `left` names members that are not proven here, or are here no more and were never there. `here` says
    whether the artifact itself still lies in the local vault.
    """

    replica: Replica
    members: tuple[Replica, ...] = ()
    left: tuple[str, ...] = ()
    here: bool = True

    @property
    def all(self) -> tuple[Replica, ...]:
        """Every copy, the manifest's last."""
        return (*self.members, self.replica)

    @property
    def outcome(self) -> Outcome:
        """What was found of all of them."""
        return together([(one.entry, one.outcome) for one in self.all])


def replicated_assets(installation: Installation, name: str) -> tuple[str, ...]:
    """Return the assets that the plan wants in a vault by rows of their own, and the manifests of sets there.

    What is wanted only as a member of a set comes with that set's manifest. None is wanted in `local`.
    """
    if name not in installation.outside:
        return ()
    rows = installation.outside[name].terms
    own = [asset for asset in installation.components if asset.split("/")[0] in rows]
    sets = [asset for row, asset in _ROWS.items() if row in rows]
    return (*own, *([MANIFEST] if own else []), *sets)


def place_of(installation: Installation, name: str, asset: str, set_id: str) -> tuple[str, str]:
    """Return the asset and set under which an artifact stands in a vault: its own, or its set's manifest."""
    if label_of(set_id) and not asset.startswith("assurance/"):
        return LABELLED, set_id
    if name == LOCAL or asset in replicated_assets(installation, name):
        return asset, set_id
    return WEEKLY, set_id


def chosen(catalog: Catalog, asset: str, set_id: str) -> Entry | None:
    """Return what a set has of an asset, as its manifest has it: what is verified before what is newer.

    Of manifests it is the newest: an incomplete one says so.
    """
    newest = catalog.of_day(asset, set_id)
    if newest is None or asset.startswith("backup_set/") or proven(catalog, newest):
        return newest
    labelled = label_of(set_id) is not None
    held = catalog.entries(asset=asset, set_id=set_id)
    fit = [entry for entry in held if (entry.regular or labelled) and proven(catalog, entry)]
    return max(fit, key=lambda entry: (not entry.late, entry.captured_at), default=newest)


def replicate_set(
    installation: Installation, asset: str, set_id: str, name: str, *, read_back: bool = False
) -> SetReplica:
    """Bring what a set has of `asset` into the vault `name`; of a whole set's manifest the members first.

    What is there already is not sent again, also where it is here no more. One member that is damaged does
    not keep the others; the manifest waits for it. Raises `RefusedError` where neither vault has anything of
    it, and what `replicate` raises.
    """
    catalog = Catalog(installation.vault)
    entry = chosen(catalog, asset, set_id)
    if entry is None:
        return _there_already(installation, asset, set_id, name)
    members, left = _members(installation, catalog, entry, name)
    copies: list[Replica] = []
    wrong: list[BackupError] = []
    for member in members:
        try:
            copies.append(replicate(installation, member, name, read_back=read_back))
        except (DamagedError, RefusedError) as error:
            wrong.append(error)
    if wrong:
        raise wrong[0]
    replica = replicate(installation, entry, name, read_back=read_back)
    return SetReplica(replica, tuple(copies), tuple(left))


def compare_set(
    installation: Installation, asset: str, set_id: str, name: str
) -> tuple[Entry | None, Outcome]:
    """Read back what the vault `name` is to have of a set's asset, and return its entry, and what was found.

    Of a whole set its members are read, too. Where there is nothing, that is a failure.
    """
    catalog = Catalog(installation.vault)
    entry = chosen(catalog, asset, set_id)
    if entry is None:
        there = Catalog(installation.vault_outside(name).vault(installation.id))
        entry = there.of_day(asset, set_id)
        if entry is None:
            return None, failed(SAME_BYTES, f"{name} has no artifact of {asset} of {set_id}")
        members: list[Entry] = []
    else:
        members, _ = _members(installation, catalog, entry, name)
    found = [(one, compare(installation, one, name)) for one in (*members, entry)]
    return entry, together(found)


def together(found: list[tuple[Entry, Outcome]]) -> Outcome:
    """Return one outcome for several copies."""
    if len(found) == 1:
        return found[0][1]
    wrong = [f"{entry.name}: {outcome.message}" for entry, outcome in found if not outcome.passed]
    size = sum(entry.size for entry, _ in found)
    if wrong:
        return failed(SAME_BYTES, "; ".join(wrong), artifacts=len(found), failed=len(wrong))
    hows = sorted({str(outcome.measured.get("how")) for _, outcome in found})
    said = f"{len(found)} artifacts, {size} bytes, as captured"
    return passed(SAME_BYTES, said, artifacts=len(found), bytes=size, how=" or ".join(hows))


def lacking(installation: Installation, catalog: Catalog, name: str) -> dict[tuple[str, str], Entry]:
    """Return what could be replicated into the vault `name` now, by asset and set; see `place_of`.

    Of several of one set only what the set has counts, and of later proofs nothing. Raises `VaultError`
    where the vault cannot be asked.
    """
    vault = installation.vault_outside(name).vault(installation.id)
    there = {stored.name: stored.size for stored in vault.list()}
    named: dict[tuple[str, str], set[str]] = {}
    found: dict[tuple[str, str], Entry] = {}
    for entry in waiting(installation, catalog, name):
        if entry.entry_name in there and not short(entry, there):
            continue
        place = place_of(installation, name, entry.asset, entry.set)
        if place not in named:
            named[place] = set(_named(installation, catalog, *place))
        if entry.name in named[place]:
            found.setdefault(place, entry)
    return found


def _named(installation: Installation, catalog: Catalog, asset: str, set_id: str) -> Iterator[str]:
    """Yield the names of what `replicate_set` would bring."""
    entry = chosen(catalog, asset, set_id)
    if entry is not None:
        yield entry.name
        yield from (member["name"] for member in _said(installation, entry))


def _said(installation: Installation, entry: Entry) -> list[dict[str, str]]:
    """Return the members that the manifest of a whole set names."""
    if entry.asset not in {WEEKLY, LABELLED}:
        return []
    document = load_document(b"".join(installation.vault.open(entry.name)), entry.name)
    members: list[dict[str, str]] = document["members"]
    return members


def _members(
    installation: Installation, catalog: Catalog, manifest: Entry, name: str
) -> tuple[list[Entry], list[str]]:
    """Return the members to bring, and the names of those that cannot be."""
    outside = installation.vault_outside(name)
    held = {entry.name: entry for entry in catalog.entries()}
    fit, left = [], []
    for member in _said(installation, manifest):
        entry = held.get(member["name"])
        if entry is None:
            if not _is_there(installation, member["name"], name):
                left.append(member["name"])
        elif outside.wants(entry):
            if proven(catalog, entry):
                fit.append(entry)
            else:
                left.append(entry.name)
    return fit, left


def _is_there(installation: Installation, artifact: str, name: str) -> bool:
    try:
        installation.vault_outside(name).vault(installation.id).stat(artifact + ENTRY_SUFFIX)
    except NotFoundError:
        return False
    return True


def _there_already(installation: Installation, asset: str, set_id: str, name: str) -> SetReplica:
    there = Catalog(installation.vault_outside(name).vault(installation.id))
    entry = there.of_day(asset, set_id)
    if entry is None:
        raise RefusedError(
            f"{set_id} has no artifact of {asset}, neither here nor in {name}",
            hint="what was not captured then cannot be captured now; bookreader-backup list shows what there"
            f" is, and with --vault {name} what is there",
        )
    proofs = [o for proof in there.proofs(entry) for o in proof.checks if proof.sha256 == entry.sha256]
    bad = [o for o in proofs if o.check == "not_empty" and not o.passed]
    same = [o for o in proofs if o.check == SAME_BYTES]
    if bad and bad[-1] is proofs[-1]:  # a listing that tells of another size
        outcome = failed(SAME_BYTES, bad[-1].message)
    else:
        outcome = same[-1] if same else compare(installation, entry, name)
    return SetReplica(Replica(entry, name, outcome, new=False), here=False)
