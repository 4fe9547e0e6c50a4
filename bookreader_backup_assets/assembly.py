"""Settings and plan in, an installation out: its runners, codecs, vault and components.

The only place that chooses. No Dagster here, so that the command line works without it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from bookreader_backup_assets import away, reach
from bookreader_backup_assets.actions.drill_ground import Ground, ground
from bookreader_backup_assets.actions.hours import archived_until
from bookreader_backup_assets.actions.installation import LOCAL, Installation, Restorations, utc_now
from bookreader_backup_assets.actions.program_log import open_log, silent
from bookreader_backup_assets.actions.references import file_columns
from bookreader_backup_assets.actions.system_check import System
from bookreader_backup_assets.codecs import gpg, gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components.base import Component, Stored
from bookreader_backup_assets.components.code import CodeBundle
from bookreader_backup_assets.components.code_restore import CodeRestoration
from bookreader_backup_assets.components.config import ConfigArchive
from bookreader_backup_assets.components.config_restore import ConfigRestoration
from bookreader_backup_assets.components.database_restore import DatabaseRestoration
from bookreader_backup_assets.components.file_restore import FileRestoration
from bookreader_backup_assets.components.logs import LOGS, LogsArchive
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.postgresql_globals import PostgresqlGlobals
from bookreader_backup_assets.components.postgresql_sql import PostgresqlSql
from bookreader_backup_assets.components.redis import RedisRdb
from bookreader_backup_assets.components.redis_restore import RedisRestoration
from bookreader_backup_assets.components.restoration import Restoration
from bookreader_backup_assets.components.storage import StorageArchive
from bookreader_backup_assets.components.storage_restore import StorageRestoration
from bookreader_backup_assets.components.table_restore import TableRestoration
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.plan import Plan, load_plan
from bookreader_backup_assets.reach import Reach
from bookreader_backup_assets.runners.log_file import LogFile
from bookreader_backup_assets.settings import Settings, old_keys
from bookreader_backup_assets.vaults.local import LocalVault

LOCK = ".restore.lock"
"""The file in the local vault's folder that lets one restore work at a time."""
ASSETS = {
    "postgresql": ("globals", "dump", "sql"),
    "redis": ("rdb",),
    "storage": ("archive",),
    "config": ("archive",),
    "code": ("bundle",),
    "logs": ("archive",),
}
"""What each component is captured as: roles before the dump whose restore needs them, SQL after it."""
_A_WEEK = timedelta(days=7, hours=2)


def assemble(
    settings: Settings,
    *,
    now: Callable[[], datetime] = utc_now,
    connect: away.Connect | None = None,
    quick: bool = False,
) -> Installation:
    """Return the installation that `settings` describe. Contacts nothing; raises `SettingsError`.

    `connect` gives the client of S3, instead of one made from the settings; `quick` is for whoever only
    looks at the vaults away from here, see `away.outside`.
    """
    plan = load_plan(settings.plan, timezone=settings.timezone)
    encryption = Gpg(settings.key, tuple(key for key in old_keys(settings).values() if key))
    reached = reach.in_docker(settings) if settings.runner == "docker" else reach.on_this_machine(settings)
    return Installation(
        vault=local_vault(settings),
        codecs=Codecs(
            {
                "gzip": Codec("gzip", gzip.SUFFIX, gzip.encode, gzip.decode),
                "gpg": Codec("gpg", gpg.SUFFIX, encryption.encode, encryption.decode),
            }
        ),
        components={
            **_components(settings, plan, reached, encryption),
            LOGS: _logs(settings, plan, reached, now),
        },
        planned=planned_assets(plan),
        due_on=plan.due_on,
        scratch=reached.scratch,
        zone=plan.timezone,
        images=reached.images,
        restorations=_restorations(settings, reached, encryption),
        services=reached.services,
        system=_system(settings, plan, reached),
        lock=settings.vault.expanduser() / LOCK,
        key=settings.key,
        log=open_log(settings.log.expanduser(), now) if settings.log else silent(),
        now=now,
        policy=away.policy_of(plan),
        outside=away.outside(settings, plan, connect, quick=quick),
        unset=away.unset_vaults(settings, plan),
    )


def local_vault(settings: Settings) -> LocalVault:
    """Return the vault on this machine: all that `list` and `status` need."""
    return LocalVault(settings.vault.expanduser())


def planned_assets(plan: Plan) -> tuple[str, ...]:
    """Return the assets that a day's set is to have."""
    return tuple(f"{component}/{artifact}" for component in plan.rows for artifact in ASSETS[component])


def objectives(plan: Plan, vault: str = LOCAL) -> dict[str, timedelta]:
    """Return how old the newest of each asset may get that the plan wants in a vault.

    What comes there with weekly fulls only may be a week old, and two hours.
    """
    ages = plan.objectives
    if vault != LOCAL:
        rows = plan.copies(vault)
        full = {*plan.rows} if plan.weekly and "weekly" in rows else set()
        if full and plan.code and plan.weekly and plan.code.weekday == plan.weekly.weekday:
            full.add("code")
        ages = {one: age if one in rows else _A_WEEK for one, age in ages.items() if one in {*rows, *full}}
    return {f"{one}/{asset}": age for one, age in ages.items() for asset in ASSETS[one]}


def drill_ground(
    settings: Settings,
    installation: Installation,
    *,
    read: str = LOCAL,
    vault: Path | None = None,
    key_file: Path | None = None,
) -> AbstractContextManager[Ground]:
    """Return where a drill takes place: over the vault `read`, or over a copy of one in the folder `vault`.

    A key in `key_file` is used instead of the usual one, and nothing else; see `ground`. Raises as
    `Installation.reading` does.
    """
    keys = (settings.key, *old_keys(settings).values())
    return ground(
        Ground(
            folder=settings.scratch,
            objectives=load_plan(settings.plan, timezone=settings.timezone).drill.objectives,
            vault=LocalVault(vault) if vault else installation.reading(read).vault,
            codecs=installation.codecs,
            source=str(vault) if vault else read,
            copy=vault is not None,
            keys=tuple(key for key in keys if key),
            key_name="the passphrase of this installation" if settings.key else "none",
        ),
        key_file,
    )


def _components(settings: Settings, plan: Plan, reach: Reach, encryption: Gpg) -> dict[str, Component]:
    digests = plan.postgresql.digests if plan.postgresql else False
    gpg = {one: ("gpg",) if away.encrypted(settings, plan, one) else () for one in ASSETS}
    dump = PostgresqlDump(
        reach.postgresql,
        reach.postgresql_env,
        reach.database,
        digests if isinstance(digests, bool) else tuple(digests),
        codecs=gpg["postgresql"],
    )
    made: list[Component] = [
        PostgresqlGlobals(reach.postgresql, reach.postgresql_env, reach.database, encryption),
        dump,
        PostgresqlSql(reach.postgresql, dump.stem, codecs=("gzip", *gpg["postgresql"])),
        RedisRdb(reach.redis, reach.redis_cli, reach.redis_password, codecs=("gzip", *gpg["redis"])),
        StorageArchive(reach.storage, settings.storage_path, codecs=gpg["storage"]),
        ConfigArchive(settings.config_root, settings.config_paths, encryption),
        CodeBundle(settings.code_path or settings.config_root, settings.scratch, codecs=gpg["code"]),
    ]
    return {f"{component.component}/{component.artifact}": component for component in made}


def _logs(settings: Settings, plan: Plan, reach: Reach, now: Callable[[], datetime]) -> LogsArchive:
    own = LogFile(settings.log.expanduser()) if settings.log else None
    logs = tuple(one for one in (reach.logs, own) if one is not None)
    codecs = ("gzip", *(("gpg",) if away.encrypted(settings, plan, "logs") else ()))
    return LogsArchive(logs, partial(archived_until, local_vault(settings)), now, codecs=codecs)


def _system(settings: Settings, plan: Plan, reach: Reach) -> System:
    return System(
        stack=reach.stack,
        postgresql=reach.postgresql,
        postgresql_env=reach.postgresql_env,
        database=reach.database,
        storage=reach.storage,
        storage_path=settings.storage_path,
        columns=file_columns(settings.file_columns),
        health_urls=settings.health_urls,
        rto=plan.drill.objectives["system"].rto,
    )


def _restorations(settings: Settings, reach: Reach, encryption: Gpg) -> Restorations:
    """Return how each scenario is restored."""

    def database(stored: Stored, options: Options) -> Restoration:
        return DatabaseRestoration(
            reach.postgresql, reach.postgresql_env, reach.database, stored, options, reach.code
        )

    def table(stored: Stored, options: Options) -> Restoration:
        return TableRestoration(reach.postgresql, reach.postgresql_env, reach.database, stored, options)

    def storage(stored: Stored, options: Options) -> Restoration:
        return StorageRestoration(reach.storage, settings.storage_path, stored, options)

    def config(stored: Stored, options: Options) -> Restoration:
        return ConfigRestoration(settings.config_root, settings.config_paths, encryption, stored, options)

    def code(stored: Stored, options: Options) -> Restoration:
        return CodeRestoration(settings.code_path or settings.config_root, stored, options)

    def redis(stored: Stored, options: Options) -> Restoration:
        return RedisRestoration(reach.redis_way, reach.scratch, stored, options)

    def file(stored: Stored, options: Options) -> Restoration:
        return FileRestoration(reach.storage, settings.storage_path, stored, options)

    return {
        "postgresql": database,
        "table": table,
        "redis": redis,
        "storage": storage,
        "file": file,
        "config": config,
        "code": code,
    }
