"""The code location, assembled explicitly: a table of contents."""

from __future__ import annotations

import warnings
from datetime import date
from functools import partial

import dagster as dg

from bookreader_backup_assets.actions.days import first_day
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.errors import BackupError, SettingsError
from bookreader_backup_assets.defs.assurance import (
    assurance,
    drill_job,
    drill_schedule,
    monthly,
    report_drills,
)
from bookreader_backup_assets.defs.backup_set import backup_set
from bookreader_backup_assets.defs.code import JOB as CAPTURE_CODE
from bookreader_backup_assets.defs.code import code, code_job
from bookreader_backup_assets.defs.config import config
from bookreader_backup_assets.defs.config_change import config_changed
from bookreader_backup_assets.defs.jobs import jobs
from bookreader_backup_assets.defs.labelled import labelled_job
from bookreader_backup_assets.defs.logs import BEFORE, logs, logs_job, logs_schedule, missed_hours
from bookreader_backup_assets.defs.partitions import daily, hourly, weekly
from bookreader_backup_assets.defs.postgresql import postgresql
from bookreader_backup_assets.defs.prune import prune_daily, prune_job
from bookreader_backup_assets.defs.reconcile import reconcile
from bookreader_backup_assets.defs.redis import redis
from bookreader_backup_assets.defs.replicas import replicas
from bookreader_backup_assets.defs.replication import replication
from bookreader_backup_assets.defs.resources import resources
from bookreader_backup_assets.defs.restores import restore_jobs
from bookreader_backup_assets.defs.schedules import schedules
from bookreader_backup_assets.defs.sensors import missed_captures, seal_after
from bookreader_backup_assets.defs.steps import described
from bookreader_backup_assets.defs.storage import storage
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.settings import Settings, load_settings

# partitioned checks are in preview; pyproject.toml pins the version they were tested with
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

COMPONENTS = ("postgresql", "redis", "storage", "config")


def build(settings: Settings) -> dg.Definitions:
    """Return the definitions of the installation that `settings` describe. Contacts nothing."""
    return define(assemble(settings), settings)


def define(installation: Installation, settings: Settings) -> dg.Definitions:
    """Return the definitions over an installation that is assembled already."""
    plan = load_plan(settings.plan, timezone=settings.timezone)
    installation, found = resources(installation)
    today = date.fromisoformat(installation.today())
    first = settings.first_day or first_day(installation)
    if first > today:
        raise SettingsError(
            f"BACKUP_FIRST_DAY is {first}, and today is {today}",
            hint="set it to a day that has begun, or leave it out",
        )
    days = daily(first, installation.zone)
    weeks = weekly(first, installation.zone, plan.weekly.weekday if plan.weekly else "sunday")
    code_weeks = weekly(first, installation.zone, plan.code.weekday if plan.code else "sunday")
    hours = hourly(first - BEFORE)
    made = {**jobs(COMPONENTS, days, weeks), CAPTURE_CODE: code_job(code_weeks)}
    archiving = logs_job(hours)
    parts = [
        *postgresql(installation, days),
        *redis(installation, days),
        *storage(installation, days),
        *config(installation, days),
        *code(installation, code_weeks),
        *backup_set(installation, days, weeks),
        *logs(installation, hours),
    ]
    months = monthly(first, installation)
    drills = assurance(installation, months, plan, settings)
    drilling = drill_job(months)
    assets = [part for part in parts if not isinstance(part, dg.AssetChecksDefinition)]
    partitions = {
        spec.key.to_user_string(): spec.partitions_def
        for part in assets
        for spec in ([part] if isinstance(part, dg.AssetSpec) else part.specs)
        if spec.partitions_def is not None
    }
    copies = replicas(installation, settings, partitions)
    pruning = prune_job()
    return dg.Definitions(
        assets=[
            *dg.map_asset_specs(partial(described, plan=plan, settings=settings), assets),
            drills[0],
            *(part for part in copies if not isinstance(part, dg.AssetChecksDefinition)),
        ],
        asset_checks=[
            *(part for part in (*parts, *copies) if isinstance(part, dg.AssetChecksDefinition)),
            drills[1],
        ],
        jobs=[*made.values(), labelled_job(), archiving, *restore_jobs(), drilling, pruning],
        schedules=[
            *schedules(installation, plan, made),
            drill_schedule(installation, plan, drilling),
            *([logs_schedule(installation, plan.logs, archiving)] if plan.logs else []),
        ],
        sensors=[
            *([missed_hours(installation, plan.logs, archiving)] if plan.logs else []),
            missed_captures(installation, plan, made),
            *([config_changed(installation, made["capture_config"])] if plan.config else []),
            seal_after(installation, plan, made),
            reconcile(installation, partitions),
            report_drills(installation),
            prune_daily(installation, plan, pruning),
            *(replication(installation, partitions) if copies else []),
        ],
        resources=found,
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the installation that the environment describes."""
    try:
        return build(load_settings())
    except BackupError as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        raise dg.DagsterInvalidDefinitionError(said) from None
