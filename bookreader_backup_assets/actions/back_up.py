"""Back up: capture into a set, check what was captured, and seal the set. Without Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.hours import archive_hour
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.labels import open_set
from bookreader_backup_assets.actions.seal import LABELLED, MANIFEST, ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.logs_gap import NO_GAP
from bookreader_backup_assets.core.check import Outcome
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.hour import is_hour
from bookreader_backup_assets.core.set_id import label_of

Complain = Callable[[BackupError], None]


def back_up_today(installation: Installation, assets: Sequence[str], complain: Complain) -> bool:
    """Capture `assets` into today's set, and say whether all was well. One that fails stops no other.

    Code goes into the week's set, and logs are those of the last hour that is over.
    """
    return _back_up(installation, installation.today(), assets, MANIFEST, complain)


def back_up_labelled(
    installation: Installation, label: str, assets: Sequence[str], complain: Complain
) -> tuple[str, bool]:
    """Capture `assets` into a labelled set of its own. Return its id, and whether all was well."""
    set_id = open_set(installation, label, tuple(assets))
    try:
        return set_id, _back_up(installation, set_id, assets, LABELLED, complain)
    except BaseException:
        with suppress(BackupError):  # stopped half-way: its manifest names what it lacks
            seal(installation, set_id, LABELLED)
        raise


def labelled_assets(installation: Installation) -> tuple[str, ...]:
    """Return what a labelled set takes: all that is planned, the logs, and code where the plan has it."""
    components = {asset.split("/")[0] for asset in installation.planned}
    components |= {"logs", *(["code"] if installation.week_of("code") else [])}
    return tuple(asset for asset in installation.components if asset.split("/")[0] in components)


def unproven(outcomes: Iterable[Outcome], label: str | None) -> list[Outcome]:
    """Return the outcomes that did not pass, but for a gap in the logs of a labelled set.

    What was rotated away before cannot be had by capturing again: it is named, and must not hold up a
    deployment for ever.
    """
    return [one for one in outcomes if not one.passed and not (label and one.check == NO_GAP)]


def _back_up(
    installation: Installation, set_id: str, assets: Sequence[str], manifest: str, complain: Complain
) -> bool:
    fine = True
    captured = []
    for asset in assets:
        component = installation.component(asset)
        try:
            into = set_id if manifest == LABELLED else installation.set_of(asset)
            if is_hour(into):
                entry, _ = archive_hour(installation, into)
            else:
                entry, _ = capture(installation, component, into, label=label_of(into))
            captured.append((component, entry))
        except BackupError as error:
            complain(error)
            fine = False
    for component, entry in captured:
        proof = verify(installation, component, entry)
        fine = fine and not unproven(proof.checks, label_of(set_id))
    sealed = seal(installation, set_id, manifest)
    verify(installation, ManifestComponent(asset=manifest), sealed)
    return fine
