"""Verify: read an artifact again, have its checks made, and keep what they found as a proof."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bookreader_backup_assets.actions.capture import OF_EVERY_ARTIFACT
from bookreader_backup_assets.actions.installation import LOCAL, Installation
from bookreader_backup_assets.actions.program_log import note_checks
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.base import Component
from bookreader_backup_assets.core.artifact import Entry, Proof
from bookreader_backup_assets.core.check import Outcome, failed, inconclusive, passed
from bookreader_backup_assets.core.errors import DamagedError, KeyMissingError, NotFoundError
from bookreader_backup_assets.core.manifest import SAME_BYTES
from bookreader_backup_assets.core.streams import Progress


def verify(
    installation: Installation,
    component: Component,
    entry: Entry,
    *,
    names: Iterable[str] | None = None,
) -> Proof:
    """Make the checks in `names` (default: all that the entry asks for) and return the proof, stored.

    Damage is an outcome. Raises only what is wrong with this machine, such as a full vault.
    """
    return installation.keep(prove(installation, component, entry, names=names))


def prove(
    installation: Installation,
    component: Component,
    entry: Entry,
    *,
    names: Iterable[str] | None = None,
) -> Proof:
    """Make the checks as `verify` does, and return the proof, which is not stored yet.

    Of a copy in a vault away from this host it says, too, that it has the captured bytes, or others.
    """
    wanted = list(names) if names is not None else list(entry.checks)
    started = time.monotonic()
    with installation.watch(f"verifying {entry.asset}", entry.size) as progress:
        outcomes = tuple(_timed(_outcomes(installation, component, entry, wanted, progress)))
    note_checks(installation.log, entry.name, outcomes)
    return Proof(
        installation=installation.id,
        artifact=entry.name,
        sha256=entry.sha256,
        at=installation.now(),
        checks=outcomes,
        host=installation.host,
        seconds=round(time.monotonic() - started, 3),
    )


def _outcomes(
    installation: Installation, component: Component, entry: Entry, wanted: list[str], progress: Progress
) -> Iterator[Outcome]:
    stored = StoredArtifact(installation, entry, progress)
    own = frozenset(wanted) - OF_EVERY_ARTIFACT.keys()
    made: set[str] = set()
    try:
        for outcome in component.verify(stored, installation.scratch, own) if own else ():
            made.add(outcome.check)
            yield outcome
    except KeyMissingError as error:
        yield from (inconclusive(n, f"{error.message}; {error.hint}") for n in wanted if n in own - made)
    except (DamagedError, NotFoundError) as error:
        yield from (failed(name, error.message) for name in wanted if name in own - made)
    else:
        yield from (failed(n, "the check gave no answer") for n in wanted if n in own - made)
    if "not_empty" in wanted:
        yield _not_empty(installation, entry)
    if "sha256" in wanted:
        outcome = _sha256(stored)
        yield outcome
        if installation.vault.name != LOCAL:
            yield replace(outcome, check=SAME_BYTES)


def _not_empty(installation: Installation, entry: Entry) -> Outcome:
    try:
        size = installation.vault.stat(entry.name).size
    except NotFoundError as error:
        return failed("not_empty", error.message)
    if size == 0 or size != entry.size:
        return failed("not_empty", f"{size} bytes are stored, {entry.size} were captured", bytes=size)
    return passed("not_empty", f"{size} bytes, as captured", bytes=size)


def _sha256(stored: StoredArtifact) -> Outcome:
    try:
        found = stored.measured().sha256
    except NotFoundError as error:
        return failed("sha256", error.message)
    if found != stored.entry.sha256:
        return failed("sha256", "the stored bytes have changed since the capture", sha256=found)
    return passed("sha256", "the stored bytes are the captured ones", sha256=found)


def _timed(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    started = time.monotonic()
    for outcome in outcomes:
        yield replace(outcome, seconds=round(time.monotonic() - started, 3))
        started = time.monotonic()
