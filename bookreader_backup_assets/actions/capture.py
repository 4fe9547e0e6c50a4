"""Capture: from the service into the vault, read back, and only then an entry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.program_log import noted
from bookreader_backup_assets.actions.stored import StoredArtifact
from bookreader_backup_assets.components.base import Capture, Component, Derived, Facts
from bookreader_backup_assets.core.artifact import (
    ArtifactName,
    Companion,
    Entry,
    Proof,
    dump_document,
)
from bookreader_backup_assets.core.check import Verdict, passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    DamagedError,
    NameTakenError,
    SourceAbsentError,
    SpaceError,
)
from bookreader_backup_assets.core.manifest import UNCHANGED, Failure
from bookreader_backup_assets.core.streams import Meter

OF_EVERY_ARTIFACT = {
    "not_empty": "the artifact has bytes, as many as its entry says",
    "sha256": "its bytes, read again, are the bytes that were captured",
}
"""The checks that need no component: `actions.verify` makes them."""
ROOM = 1.5
"""Times the size of the last artifact that must be free before a capture begins."""
_TWINS = 100


def capture(
    installation: Installation,
    component: Component,
    set_id: str,
    *,
    label: str | None = None,
    late: bool = False,
) -> tuple[Entry, bool]:
    """Capture into the set `set_id` and return the entry, and whether it is new.

    It is not new where the component found its source unchanged since a verified artifact: a proof then
    says so for this set. Raises what the component, the codecs and the vault raise; nothing is left
    under a final name then, and the failure is recorded so that the set's manifest can say why.
    """
    asset = f"{component.component}/{component.artifact}"
    with noted(installation.log, "capture", f"{asset} {set_id}") as say:
        try:
            component = _over_its_source(installation, component, set_id, label)
            if label is None and (held := _unchanged(installation, component, asset, set_id)) is not None:
                say(f"unchanged since {held.name}")
                return held, False
            entry = take(installation, component, set_id, label, late=late)
        except BaseException as error:
            _record(installation, asset, set_id, error)
            raise
        say(f"{entry.name}, {entry.size} bytes")
    return entry, True


def _over_its_source(
    installation: Installation, component: Component, set_id: str, label: str | None
) -> Component:
    """Return the component over the set's own artifact that it is derived from, if it is derived."""
    if not isinstance(component, Derived):
        return component
    held = Catalog(installation.vault).entries(asset=component.derived_from, set_id=set_id)
    same = [entry for entry in held if entry.label == label]
    if not same:
        raise SourceAbsentError(
            f"the set {set_id} has no {component.derived_from} to derive it from",
            hint=f"capture {component.derived_from} first",
        )
    return component.over(StoredArtifact(installation, same[-1]))


def take(
    installation: Installation,
    component: Component,
    set_id: str,
    label: str | None,
    *,
    late: bool,
) -> Entry:
    """Capture whatever was captured before, and record no failure; see `capture`."""
    started = time.monotonic()
    begun = installation.now()
    asset = f"{component.component}/{component.artifact}"
    with _all_or_nothing(installation) as stored, component.capture() as source:
        expected = _require_room(installation, asset, source)
        with installation.watch(f"capturing {asset}", expected) as progress:
            meter = Meter(installation.codecs.encode(component.codecs, source.chunks), progress)
            name = _put(installation, _name(installation, component, begun, label), meter)
        stored.append(str(name))
        _read_back(installation, str(name), meter)
        facts = source.facts()
        companions = tuple(_companions(installation, component, str(name), facts, stored))
        entry = Entry(
            installation=installation.id,
            component=component.component,
            artifact=component.artifact,
            name=str(name),
            set=set_id,
            label=label,
            late=late,
            captured_at=facts.captured_at,
            host=installation.host,
            seconds=round(time.monotonic() - started, 3),
            size=meter.size,
            sha256=meter.sha256,
            codecs=component.codecs,
            versions={"bookreader-backup": installation.version, **facts.versions},
            source={**facts.source, **_key(installation, component)},
            fingerprint=facts.fingerprint,
            companions=companions,
            problems=facts.problems,
            checks=(*OF_EVERY_ARTIFACT, *component.checks),
            verified=("sha256",),
        )
        installation.vault.put(entry.entry_name, [entry.to_json()])
    return entry


def _key(installation: Installation, component: Component) -> dict[str, str]:
    """Say which passphrase opens what is encrypted."""
    wanted = "gpg" in component.codecs and installation.key_id
    return {"key": wanted} if wanted else {}


@contextmanager
def _all_or_nothing(installation: Installation) -> Iterator[list[str]]:
    """Take back the files named in the list if the entry, which would have committed them, is not reached.

    A crash leaves them as strays, which count for nothing; an error such as a full disk must not.
    """
    stored: list[str] = []
    try:
        yield stored
    except BaseException:
        for name in reversed(stored):
            with suppress(BackupError):
                installation.vault.delete(name)
        raise


def _unchanged(installation: Installation, component: Component, asset: str, set_id: str) -> Entry | None:
    catalog = Catalog(installation.vault)
    newest = next((e for e in reversed(catalog.entries(asset=asset)) if e.label is None), None)
    if newest is None or catalog.standing(newest).verdict is not Verdict.PASSED:
        return None
    if not component.unchanged_since(newest):
        return None
    outcome = passed(UNCHANGED, f"the source still equals {newest.name}", set=set_id)
    installation.keep(
        Proof(
            installation=installation.id,
            artifact=newest.name,
            sha256=newest.sha256,
            at=installation.now(),
            checks=(outcome,),
            host=installation.host,
        )
    )
    return newest


def _name(
    installation: Installation, component: Component, begun: datetime, label: str | None
) -> ArtifactName:
    return ArtifactName(
        component=component.component,
        stem=component.stem,
        taken=begun.astimezone(installation.zone).replace(microsecond=0, tzinfo=None),
        suffix=component.suffix + installation.codecs.suffix(component.codecs),
        kind=component.kind,
        label=label,
    )


def _put(installation: Installation, name: ArtifactName, chunks: Iterable[bytes]) -> ArtifactName:
    """Store under `name`, or its next free twin; the vault refuses a name before it reads a byte."""
    for _ in range(_TWINS):
        try:
            installation.vault.put(str(name), chunks)
        except NameTakenError:
            name = name.next_twin()
        else:
            return name
    raise NameTakenError(f"{name} and the {_TWINS} names before it are taken", hint="is the clock standing?")


def _read_back(installation: Installation, name: str, meter: Meter) -> None:
    if installation.vault.digest(name) != meter.sha256:
        raise DamagedError(
            f"{name} read back as other bytes than were written, and was removed",
            hint="check the disk of the vault (dmesg, smartctl), then capture again",
        )


def _companions(
    installation: Installation, component: Component, name: str, facts: Facts, stored: list[str]
) -> Iterator[Companion]:
    """Store what belongs to an artifact, encrypted where that is: an index names every file."""
    gpg = tuple(codec for codec in component.codecs if codec == "gpg")
    for (role, suffix), chunks in facts.companions.items():
        companion = name + suffix + installation.codecs.suffix(gpg)
        meter = Meter(installation.codecs.encode(gpg, chunks))
        installation.vault.put(companion, meter)
        stored.append(companion)
        _read_back(installation, companion, meter)
        yield Companion(role, companion, meter.size, meter.sha256)


def _require_room(installation: Installation, asset: str, source: Capture) -> int | None:
    """Return about how many bytes to expect, if anything tells. Raises `SpaceError` if they do not fit."""
    free = installation.vault.free()
    last = Catalog(installation.vault).newest(asset)
    needed = int(last.size * ROOM) if last else source.expected
    if free is not None and needed is not None and free < needed:
        raise SpaceError(
            f"the vault has {free} bytes free, and {asset} wants {needed}"
            + (f" ({ROOM} times its last, {last.name})" if last else ""),
            hint="free space there, or move BACKUP_VAULT to a larger disk; nothing was started",
        )
    return last.size if last else source.expected


def _record(installation: Installation, asset: str, set_id: str, error: BaseException) -> None:
    """Say in the vault why there is no artifact; a vault that cannot take that much says nothing."""
    message = error.message if isinstance(error, BackupError) else f"{type(error).__name__}: {error}"
    message = message if isinstance(error, Exception) else "it was stopped"
    hint = error.hint if isinstance(error, BackupError) else ""
    with suppress(BackupError):
        failure = Failure(installation.id, asset, set_id, installation.now(), message, hint)
        installation.vault.put(failure.name, [dump_document(failure)])
