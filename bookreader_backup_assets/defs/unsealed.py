"""Whether a day's newest manifest still says all there is to say."""

import hashlib
import json
from typing import Any

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.seal import MANIFEST, fold_set


def newer_manifest(
    installation: Installation, catalog: Catalog, day: str, asset: str = MANIFEST
) -> str | None:
    """Return a key for what a manifest made now would say, or None where the newest one says the same.

    The key is another one whenever the set has changed, even back to what it was.
    """
    now = _said(json.loads(fold_set(installation, catalog, day, asset).to_json()))
    sealed = catalog.newest(asset, set_id=day)
    if sealed is not None and now == _said(json.loads(b"".join(installation.vault.open(sealed.name)))):
        return None
    since = sealed.name if sealed else ""
    return hashlib.sha256(json.dumps([since, now]).encode()).hexdigest()[:16]


def _said(document: dict[str, Any]) -> list[Any]:
    """Return what a manifest says of the set: not when it was sealed, nor by whom."""
    return [document["members"], document["missing"]]
