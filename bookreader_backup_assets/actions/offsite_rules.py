"""The lifecycle rules of the bucket: ours, and what those of others do to what the plan keeps there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.locks import OFFSITE, bucket
from bookreader_backup_assets.core import lifecycle
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.lifecycle import Concern
from bookreader_backup_assets.vaults import s3_lifecycle
from bookreader_backup_assets.vaults.s3_bucket import Reached, features
from bookreader_backup_assets.vaults.s3_lifecycle import Change
from bookreader_backup_assets.vaults.s3_place import FOLDER
from bookreader_backup_assets.vaults.s3_probe import PROBES

_APPLY = "bookreader-backup offsite apply-lifecycle"


def concerns(installation: Installation) -> Iterator[Concern]:
    """Yield what is to be said of the bucket's rules and of the plan's storage classes.

    Raises `VaultError`, and `RefusedError` where no bucket is set up.
    """
    place, outside = bucket(installation), installation.vault_outside(OFFSITE)
    yield from lifecycle.audit_terms({row: terms.storage_class for row, terms in outside.terms.items()})
    rules = s3_lifecycle.read(Reached.of(place).client, place.access)
    if rules is None:
        yield Concern(
            "rules",
            "this service has no lifecycle rules: nothing ends what was interrupted",
            "",
            harmful=False,
        )
        return
    kept = lifecycle.kept_in(_prefix(installation), outside.policy, outside.terms, _of_sets(installation))
    yield from lifecycle.audit(rules, kept)
    if not any(
        rule.unfinished and rule.enabled and _prefix(installation).startswith(rule.prefix) for rule in rules
    ):
        seen = f"no rule ends uploads that were interrupted, which are paid for: {_APPLY}"
        yield Concern("rules", seen, "", harmful=False)


def planned_change(installation: Installation) -> Change | None:
    """Return what `apply` would do to the bucket's rules; None where the service has none. Touches nothing.

    Raises `VaultError`, and `RefusedError` before the first capture.
    """
    place, outside = bucket(installation), installation.vault_outside(OFFSITE)
    if (own := installation.known_id) is None:
        raise RefusedError("nothing was captured here yet", hint="bookreader-backup backup")
    reached = Reached.of(place)
    ours = lifecycle.wanted(
        own,
        _prefix(installation),
        PROBES,
        outside.policy,
        outside.terms,
        versioned=features(reached).versions is not False,
    )
    return s3_lifecycle.change(
        reached.client, place.access, ours, own_ids=lifecycle.id_prefix(own), folder=FOLDER
    )


def apply(installation: Installation, wanted: Change) -> None:
    """Set the rules, and compare them with what the bucket has then. Raises `VaultError`."""
    place = bucket(installation)
    s3_lifecycle.apply(Reached.of(place).pruning, place.access, wanted)


def _prefix(installation: Installation) -> str:
    return f"{FOLDER}{installation.known_id or ''}/"


def _of_sets(installation: Installation) -> dict[str, list[str]]:
    return {"weekly": _components(installation.planned), "labels": _components(installation.components)}


def _components(assets: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(asset.split("/")[0] for asset in assets))
