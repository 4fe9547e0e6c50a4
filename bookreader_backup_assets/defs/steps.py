"""What an asset and its checks do, said in Dagster's terms: results, metadata, failures.

Keep out: what is done. That is `actions/`, which knows no Dagster.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import time, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.capture import OF_EVERY_ARTIFACT, capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.days import label_for
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.program_log import refusals
from bookreader_backup_assets.actions.seal import MANIFEST, ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.base import Component
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError
from bookreader_backup_assets.plan import Plan
from bookreader_backup_assets.settings import Settings

_SETS = MANIFEST.partition("/")[0]


class CaptureConfig(dg.Config):
    """Run config of a capture. `allow_late` files today's data under a day that is over, labelled late."""

    allow_late: bool = False


def captured(
    context: dg.AssetExecutionContext, config: CaptureConfig, installation: Installation
) -> dg.MaterializeResult[Any]:
    """Capture the asset of this step into the set of its partition, whose window has to be open."""
    asset = context.asset_key.to_user_string()
    day = context.partition_key
    with failures_shown():
        current = current_key(context, installation)
        with refusals(installation.log, f"capture {asset} {day}"):
            label = label_for(installation, day, allow_late=config.allow_late, current=current)
        entry, new = capture(
            installation, installation.component(asset), day, label=label, late=label is not None
        )
    for problem in entry.problems:
        context.log.warning(
            "%s: %s", problem.where.encode("utf-8", "backslashreplace").decode(), problem.what
        )
    return dg.MaterializeResult(
        metadata=entry_metadata(entry, new=new), data_version=dg.DataVersion(entry.sha256)
    )


def current_key(context: dg.AssetExecutionContext, installation: Installation) -> str:
    """Return the key of the partition whose window is open: today, or the day on which this week began."""
    partitions = context.assets_def.partitions_def
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    return partitions.get_partition_keys(current_time=installation.now())[-1]


def sealed(context: dg.AssetExecutionContext, installation: Installation) -> dg.MaterializeResult[Any]:
    """Fold the set of the partition into a new manifest."""
    with failures_shown():
        entry = seal(installation, context.partition_key, context.asset_key.to_user_string())
    text = b"".join(installation.vault.open(entry.companion("text").name)).decode()
    metadata = {**entry_metadata(entry, new=True), "manifest": dg.MetadataValue.md(f"```\n{text}```")}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(entry.sha256))


def checked(
    context: dg.AssetCheckExecutionContext, installation: Installation
) -> Iterator[dg.AssetCheckResult]:
    """Make this step's checks of the artifact that the partition's set has."""
    keys = sorted(context.selected_asset_check_keys)
    asset = keys[0].asset_key.to_user_string()
    day = context.partition_key
    component = _component(installation, asset)
    with failures_shown():
        entry = _checkable(context, Catalog(installation.vault), asset)
        if entry is None:
            outcomes: tuple[Outcome, ...] = ()
        else:
            names = [key.name for key in keys]
            outcomes = verify(installation, component, entry, names=names).checks
    made = {outcome.check: outcome for outcome in outcomes}
    for key in keys:
        missing = Outcome(key.name, Verdict.FAILED, f"{day} has no artifact of {asset}")
        yield check_result(key, made.get(key.name, missing), entry)


def _component(installation: Installation, asset: str) -> Component:
    if asset.startswith(f"{_SETS}/"):
        return ManifestComponent(asset=asset)
    return installation.component(asset)


def _checkable(context: dg.AssetCheckExecutionContext, catalog: Catalog, asset: str) -> Entry | None:
    """Return what this run captured, or else what the day's set has: two runs may capture at once."""
    logged = context.instance.get_records_for_run(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    for record in logged.records:
        materialization = record.asset_materialization
        if materialization and materialization.asset_key.to_user_string() == asset:
            name = materialization.metadata["artifact"].value
            return next(entry for entry in catalog.entries(asset=asset) if entry.name == name)
    return catalog.of_day(asset, context.partition_key)


def check_specs(
    asset: str,
    component: Component,
    partitions: dg.PartitionsDefinition[Any],
    *,
    names: Iterable[str] | None = None,
    after: Iterable[str] = (),
) -> list[dg.AssetCheckSpec]:
    """Return the checks of an asset as Dagster declares them: blocking, one result per partition.

    `names` chooses some of them; `after` are other assets that must be there first.
    """
    described = {**OF_EVERY_ARTIFACT, **component.checks}
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset.split("/"),
            description=described[name],
            additional_deps=[dg.AssetKey(other.split("/")) for other in after],
            blocking=True,
            partitions_def=partitions,
        )
        for name in names or described
    ]


def described(spec: dg.AssetSpec, *, plan: Plan, settings: Settings) -> dg.AssetSpec:
    """Return an asset with what somebody asks who looks at it: where its files are, and when it is due."""
    component = spec.key.path[0]
    row = plan.rows.get(component)
    at = plan.deadline if component == _SETS else row.at if row else None
    age = plan.objectives.get(component)
    return spec.merge_attributes(
        metadata={
            "folder": dg.MetadataValue.path(str(settings.vault / component)),
            "due": _due(component, at, plan),
            **({"too_old_after_hours": age / timedelta(hours=1)} if age else {}),
        },
        tags={"component": component},
    )


def _due(component: str, at: time | None, plan: Plan) -> str:
    if component == "logs" and plan.logs is not None:
        return f"minute {plan.logs.minute} of each hour, for the one before"
    if component == "code" and plan.code is not None:
        return f"{plan.code.weekday}, {plan.code.at:%H:%M} {plan.timezone.key}"
    return f"{at:%H:%M} {plan.timezone.key}" if at else "not planned"


def check_result(key: dg.AssetCheckKey, outcome: Outcome, entry: Entry | None) -> dg.AssetCheckResult:
    """Return an outcome as Dagster shows it."""
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=outcome.passed,
        severity=severity(outcome),
        description=outcome.message,
        metadata=check_metadata(outcome, entry),
    )


def severity(outcome: Outcome) -> dg.AssetCheckSeverity:
    """Return how bad an outcome is: "could not tell" is a warning, which blocks nothing, and no pass."""
    failed = outcome.verdict is Verdict.FAILED
    return dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN


def check_metadata(outcome: Outcome, entry: Entry | None) -> dict[str, Any]:
    """Return what a check measured, and of which artifact."""
    return {
        **outcome.measured,
        "verdict": str(outcome.verdict),
        "seconds": outcome.seconds,
        **({"artifact": entry.name} if entry else {}),
    }


def entry_metadata(entry: Entry, *, new: bool) -> dict[str, Any]:
    """Return an entry as the metadata of a materialization: numbers plot over time in the UI."""
    return {
        "artifact": entry.name,
        "set": entry.set,
        "captured_at": dg.MetadataValue.timestamp(entry.captured_at),
        "bytes": entry.size,
        "seconds": entry.seconds,
        "sha256": entry.sha256,
        "new": new,
        "late": entry.late,
        "problems": len(entry.problems),
        **({"label": entry.label} if entry.label else {}),
        **_counted(entry.fingerprint),
        "fingerprint": dg.MetadataValue.json(entry.fingerprint),
        "versions": dg.MetadataValue.json(entry.versions),
    }


def _counted(fingerprint: dict[str, Any]) -> dict[str, int]:
    tables = fingerprint.get("tables", {})
    counts: dict[str, int] = {}
    if tables:
        counts = {"tables": len(tables), "rows": sum(table["rows"] or 0 for table in tables.values())}
    if "databases" in fingerprint:
        counts["keys"] = sum(keys or 0 for keys in fingerprint["databases"].values())
    if "sources" in fingerprint:
        counts["lines"] = sum(source["lines"] for source in fingerprint["sources"].values())
    if isinstance(fingerprint.get("files"), int):
        counts["files"] = fingerprint["files"]
    return counts


@contextmanager
def failures_shown() -> Iterator[None]:
    """Turn an error of ours into a red step that says what happened and what to do."""
    try:
        yield
    except BackupError as error:
        raise dg.Failure(
            description=error.message + (f"\n{error.hint}" if error.hint else ""),
            metadata={"hint": error.hint} if error.hint else None,
            allow_retries=not isinstance(error, RefusedError | DamagedError),
        ) from error
