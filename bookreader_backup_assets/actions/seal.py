"""Seal: fold the artifacts of a set into its manifest, which is an artifact itself, captured like any other.

There are three kinds: of a day, of a weekly full, and of a labelled set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.labels import opened
from bookreader_backup_assets.components.base import Capture, Facts, Scratch, Stored
from bookreader_backup_assets.core.artifact import Entry, load_document
from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.core.manifest import Manifest, fold
from bookreader_backup_assets.core.set_id import day_of, label_of

MANIFEST, WEEKLY, LABELLED = "backup_set/manifest", "backup_set/weekly", "backup_set/labelled"
"""The manifests, by kind of set."""
_STEMS = {MANIFEST: "backup_manifest", WEEKLY: "weekly_manifest", LABELLED: "backup_manifest"}


@dataclass(frozen=True)
class ManifestComponent:
    """The manifest of one set as a component, so that it is written, read back and checked like the rest."""

    manifest: Manifest | None = None
    asset: str = MANIFEST
    component: str = "backup_set"
    suffix: str = ".json"
    kind: str | None = None
    codecs: tuple[str, ...] = ()

    @property
    def artifact(self) -> str:
        """See `Component.artifact`."""
        return self.asset.partition("/")[2]

    @property
    def stem(self) -> str:
        """See `Component.stem`."""
        return _STEMS[self.asset]

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return {"complete": "every artifact that the plan asks for is in the set, and verified"}

    def probe(self) -> dict[str, str]:
        """See `Component.probe`."""
        return {}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`."""
        assert self.manifest is not None
        manifest = self.manifest
        facts = Facts(
            captured_at=manifest.sealed_at,
            fingerprint={
                "kind": "manifest",
                "complete": manifest.complete,
                "members": len(manifest.members),
                "missing": [missing.asset for missing in manifest.missing],
            },
            companions={("text", ".txt"): [manifest.to_text().encode()]},
        )
        data = manifest.to_json()
        yield Capture(iter([data]), lambda: facts, len(data))

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - each seal is a moment of its own
        """See `Component.unchanged_since`."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:  # noqa: ARG002
        """See `Component.verify`."""
        if "complete" not in names:
            return
        document = load_document(b"".join(stored.plain()), stored.entry.name)
        missing = document.get("missing")
        if not isinstance(missing, list):
            raise DamagedError(f"{stored.entry.name} is not a manifest")
        if missing:
            said = "; ".join(f"{one['asset']}: {one['why']}" for one in missing)
            yield failed("complete", said, missing=len(missing))
        else:
            yield passed("complete", "everything planned is there and verified", missing=0)


def seal(installation: Installation, set_id: str, asset: str = MANIFEST) -> Entry:
    """Write the manifest of a set, a new file each time, and return its entry.

    Raises `RefusedError` for a set into which nothing was captured, nor attempted, and which is not today's.
    """
    catalog = Catalog(installation.vault)
    manifest = fold_set(installation, catalog, set_id, asset, images=installation.images())
    if not manifest.members and not catalog.failures(set_id) and day_of(set_id) != _today(installation):
        raise RefusedError(
            f"nothing was captured on {set_id}, so there is nothing to seal",
            hint="a past day cannot be captured; seal a day that `bookreader-backup list` shows",
        )
    entry, _ = capture(installation, ManifestComponent(manifest, asset), set_id, label=label_of(set_id))
    return entry


def fold_set(
    installation: Installation,
    catalog: Catalog,
    set_id: str,
    asset: str = MANIFEST,
    *,
    images: Mapping[str, Mapping[str, str]] | None = None,
) -> Manifest:
    """Return the manifest that a set would have now. Writes nothing."""
    return fold(
        installation=installation.id,
        set_id=set_id,
        sealed_at=installation.now(),
        host=installation.host,
        planned=planned_of(installation, set_id, asset),
        entries=[(entry, catalog.proofs(entry)) for entry in catalog.entries()],
        failures=catalog.failures(set_id),
        versions={"bookreader-backup": installation.version},
        images=images,
    )


def planned_of(installation: Installation, set_id: str, asset: str) -> tuple[str, ...]:
    """Return the assets that a set is to have: a weekly one has the code, too; a labelled one says itself."""
    if asset == LABELLED:
        return opened(installation, set_id).assets
    day = day_of(set_id)
    weekly = ("code/bundle",) if asset == WEEKLY and installation.due_on("code", day) else ()
    return (*installation.planned_on(day), *weekly)


def _today(installation: Installation) -> date:
    return date.fromisoformat(installation.today())
