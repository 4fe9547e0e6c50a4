"""Config on change: a sensor that captures the configuration when its content is another than the newest's.

It looks at what lies there and at the newest version, and not at events: A, B, and A again are two changes.
What has only just changed is looked at twice, so that a half-saved `.env`, or the instant in which an
editor has put the old one aside, is no version.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.diff import ASSET
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components.base import Component
from bookreader_backup_assets.core.artifact import Entry, parse_utc
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.defs.jobs import CAPTURE_FULL, job_name
from bookreader_backup_assets.defs.sensors import UNFINISHED

JOB = job_name("config")
SETTLED = timedelta(seconds=10)
"""How long a content must have been the same before it is a version; at least two looks."""
AGAIN = timedelta(minutes=10)
"""When a capture that made no version is asked for again; then after twice that, and so on."""
_LOOK = 30  # seconds between looks
_DOUBLED = 7  # times at most: from then on, once in 21 hours


@dataclass(frozen=True)
class Memory:
    """What the sensor remembers: the change it sees, since when, and how often it asked for its capture.

    `change` names the newest version and what lies there instead, "" where there is no change.
    """

    change: str = ""
    since: str = ""
    asked: int = 0
    asked_at: str = ""

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Memory":
        """Return what `to_cursor` wrote, or nothing: then a change is seen for the first time."""
        try:
            return cls(**json.loads(cursor or "{}"))
        except (TypeError, ValueError):
            return cls()

    def to_cursor(self) -> str:
        """As Dagster keeps it."""
        return json.dumps(asdict(self))


def config_changed(installation: Installation, job: Any) -> dg.SensorDefinition:
    """Return the sensor that captures the configuration on change, by its capture `job`."""

    @dg.sensor(
        name="config_changed",
        job=job,
        minimum_interval_seconds=_LOOK,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Captures the configuration when its content, or a mode, is not that of its newest"
        " version, and has stayed the same for two looks.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        memory, said = look(installation, Memory.from_cursor(context.cursor), context.instance)
        context.update_cursor(memory.to_cursor())
        return said

    return sensor


def look(
    installation: Installation, memory: Memory, instance: dg.DagsterInstance
) -> tuple[Memory, dg.RunRequest | dg.SkipReason]:
    """Return what to remember, and the request of a capture, or why there is none."""
    try:
        change, why = _change(installation)
    except BackupError as error:  # the night's capture is what turns red
        return memory, dg.SkipReason("; ".join(filter(None, (error.message, error.hint))))
    if not change:
        return Memory(), dg.SkipReason(why)
    now = installation.now()
    if change != memory.change:
        memory = Memory(change, now.isoformat())
    if why := _to_wait(memory, now, instance):
        return memory, dg.SkipReason(why)
    memory = replace(memory, asked=memory.asked + 1, asked_at=now.isoformat())
    key = f"config_changed:{change}:{memory.since}:{memory.asked}"  # a key launches once, for ever
    return memory, dg.RunRequest(run_key=key, partition_key=installation.today())


def _change(installation: Installation) -> tuple[str, str]:
    """Return the name of the change that there is, or "" and why there is none."""
    newest = _newest(Catalog(installation.vault))
    if newest is None:
        return "", "no version is there yet: the clock, or `backup`, makes the first"
    component = installation.component(ASSET)
    if component.unchanged_since(newest):
        return "", f"the content is that of {newest.name}"
    return f"{newest.name}:{_digest(component)}", ""


def _to_wait(memory: Memory, now: datetime, instance: dg.DagsterInstance) -> str:
    """Return why the capture of a change is not asked for now, "" if it is."""
    if _since(memory.since, now) < SETTLED:
        return "it has just changed: it is captured when it stays as it is"
    if _under_way(instance):
        return "a capture of it is under way"
    pause = AGAIN * 2 ** min(memory.asked - 1, _DOUBLED)
    if memory.asked and _since(memory.asked_at, now) < pause:
        return f"its capture was asked for; it is again {pause} after that, if need be"
    return ""


def _newest(catalog: Catalog) -> Entry | None:
    """Return the version that a capture would compare with: labelled ones are not in that line."""
    return next((e for e in reversed(catalog.entries(asset=ASSET)) if e.label is None), None)


def _digest(component: Component) -> str:
    """Return a short name of what a capture would hold now; its content's hash is keyed with the key."""
    with component.capture() as source:
        for _ in source.chunks:
            pass
    held = json.dumps(source.facts().fingerprint, sort_keys=True)
    return hashlib.sha256(held.encode()).hexdigest()[:16]


def _since(moment: str, now: datetime) -> timedelta:
    """Return the time between, whichever is first: a clock that was set back must not stop all captures."""
    return abs(now - parse_utc(moment))


def _under_way(instance: dg.DagsterInstance) -> bool:
    """Whether any run that has not ended captures the configuration, too."""
    key = dg.AssetKey(ASSET.split("/"))
    runs = (record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)))
    return any(run.job_name in {JOB, CAPTURE_FULL} or key in (run.asset_selection or ()) for run in runs)
