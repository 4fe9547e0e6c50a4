"""One job per restore scenario, with typed run config: it shows its plan, until it is told to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.restore_source import LATEST
from bookreader_backup_assets.actions.system import restore_system
from bookreader_backup_assets.actions.system_plan import SystemPlan, plan_system
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.restore_plan import UNDONE, Options, RestorePlan, RestoreReport
from bookreader_backup_assets.defs.steps import failures_shown


class RestoreConfig(dg.Config):
    """What every restore asks for."""

    from_set: str = Field(LATEST, description="A backup set, such as 2025-10-24, or `latest` verified.")
    plan_only: bool = Field(True, description="Say what would be done, and do nothing.")
    confirm: str = Field("", description="The name of what is replaced, typed back: the plan says it.")
    no_safety: str = Field("", description="Why to go on although the present state cannot be kept.")


class DatabaseConfig(RestoreConfig):
    """The whole database."""

    migrate: bool = Field(False, description="Then run `alembic upgrade head` in the backend.")


class TableConfig(RestoreConfig):
    """Tables, or a schema."""

    tables: list[str] = Field([], description="Such as `books` or `public.books`.")
    schema_name: str = Field("", description="All tables of this schema.")
    into: str = Field("", description="Put it into a new table of this name, and replace nothing.")


class FolderConfig(RestoreConfig):
    """The storage folder."""

    in_place: bool = Field(False, description="Write only the files that differ: where room is short.")
    into: str = Field("", description="Put it into this folder, and replace nothing.")
    outside_links: bool = Field(False, description="Also make symlinks that lead out of the folder.")


class FileConfig(RestoreConfig):
    """Files of storage."""

    paths: list[str] = Field([], description="Paths or globs below the storage folder.")
    into: str = Field("", description="Put them into this folder, and replace nothing.")
    outside_links: bool = Field(False, description="Also make symlinks that lead out of the folder.")


class ConfigurationConfig(RestoreConfig):
    """The configuration."""

    into: str = Field("", description="Put it into this folder, and replace nothing.")


class CodeConfig(RestoreConfig):
    """The git repository."""

    into: str = Field("", description="Put it into this new folder, and replace nothing.")


class SystemConfig(RestoreConfig):
    """All of it."""

    without: list[str] = Field([], description="Parts that are left as they are.")


class UndoConfig(dg.Config):
    """Which restore to undo."""

    report: str = Field(description="The id of its report, as `bookreader-backup restore reports` lists it.")
    confirm: str = Field("", description="The name of what it replaced, typed back.")


def restore_jobs() -> list[dg.JobDefinition]:
    """Return `restore_<scenario>` for each, and `restore_undo`."""

    @dg.op(name="postgresql_restore")
    def database(
        context: dg.OpExecutionContext, config: DatabaseConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """The whole database, restored into a new one, compared, and swapped by rename."""
        _restored(context, config, installation, "postgresql")

    @dg.op(name="table_restore")
    def table(
        context: dg.OpExecutionContext, config: TableConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """Tables replaced in one transaction; those that refer to them are left whole."""
        _restored(context, config, installation, "table")

    @dg.op(name="redis_restore")
    def redis(
        context: dg.OpExecutionContext, config: RestoreConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """All keys of Redis; the services that use it are stopped meanwhile."""
        _restored(context, config, installation, "redis")

    @dg.op(name="storage_restore")
    def storage(
        context: dg.OpExecutionContext, config: FolderConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """The whole storage folder; the services that use it are stopped meanwhile."""
        _restored(context, config, installation, "storage")

    @dg.op(name="file_restore")
    def file(
        context: dg.OpExecutionContext, config: FileConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """Files of storage, reading only the parts of the archive that hold them."""
        _restored(context, config, installation, "file")

    @dg.op(name="config_restore")
    def configuration(
        context: dg.OpExecutionContext,
        config: ConfigurationConfig,
        installation: dg.ResourceParam[Installation],
    ) -> None:
        """The compose file, .env, nginx and certificates, decrypted and compared."""
        _restored(context, config, installation, "config")

    @dg.op(name="code_restore")
    def code(
        context: dg.OpExecutionContext, config: CodeConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """BookReader's git repository, made anew beside the old one, compared, and swapped."""
        _restored(context, config, installation, "code")

    @dg.op(name="system_restore")
    def system(
        context: dg.OpExecutionContext, config: SystemConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """All parts of one set, on an empty host or over a damaged system; then everything is started."""
        with failures_shown():
            planned = plan_system(installation, config.from_set, config.without)
            context.add_output_metadata({"plan": dg.MetadataValue.md(_system_text(planned))})
            if _only_planned(context, config, planned.target):
                return
            with _never_again():
                report = restore_system(
                    installation,
                    config.from_set,
                    config.without,
                    confirm=config.confirm,
                    no_safety=config.no_safety,
                )
        _show(context, report)

    @dg.op(name="undo_restore")
    def back(
        context: dg.OpExecutionContext, config: UndoConfig, installation: dg.ResourceParam[Installation]
    ) -> None:
        """The state from before a restore, brought back."""
        with failures_shown():
            _show(context, undo(installation, config.report, confirm=config.confirm))

    return [_job(op) for op in (database, table, redis, storage, file, configuration, code, system, back)]


def _job(op: dg.OpDefinition) -> dg.JobDefinition:
    @dg.job(
        name=f"restore_{op.name.removesuffix('_restore')}",
        description=op.description,
        tags={"dagster/max_retries": "0"},
    )
    def made() -> None:
        op()

    return made


def _restored(
    context: dg.OpExecutionContext, config: RestoreConfig, installation: Installation, scenario: str
) -> None:
    given = config.model_dump(exclude=set(RestoreConfig.model_fields))
    given = {"schema" if name == "schema_name" else name: value or None for name, value in given.items()}
    options = Options.from_dict({name: value for name, value in given.items() if value is not None})
    with failures_shown():
        planned = plan(installation, scenario, config.from_set, options)
        context.add_output_metadata({"plan": dg.MetadataValue.md(_plan_text(planned))})
        if _only_planned(context, config, planned.target):
            return
        with _never_again():
            report = restore(
                installation,
                scenario,
                config.from_set,
                options,
                confirm=config.confirm,
                no_safety=config.no_safety,
            )
    _show(context, report)


def _only_planned(context: dg.OpExecutionContext, config: RestoreConfig, target: str) -> bool:
    if config.plan_only:
        context.log.info("nothing was done: to restore, set plan_only to false and confirm to %s", target)
    return config.plan_only


@contextmanager
def _never_again() -> Iterator[None]:
    """No run may be retried by itself: somebody has to look."""
    try:
        yield
    except BackupError as error:
        said = f"{error.message}\n{error.hint}" if error.hint else error.message
        raise dg.Failure(description=said, allow_retries=False) from error


def _show(context: dg.OpExecutionContext, report: RestoreReport) -> None:
    for step in report.steps:
        context.log.info("%s: %.1f s %s", step.step, step.seconds, step.said)
    for outcome in report.outcomes:
        context.log.info("%s %s: %s", outcome.check, outcome.verdict, outcome.message)
    context.add_output_metadata(_metadata(report))
    if not report.good and report.result != UNDONE:
        bad = "; ".join(outcome.message for outcome in report.outcomes if not outcome.passed)
        raise dg.Failure(description=f"{report.result}: {bad}", allow_retries=False)


def _metadata(report: RestoreReport) -> dict[str, Any]:
    return {
        "report": report.id,
        "result": report.result,
        "artifact": report.artifact,
        "target": report.target,
        "safety": report.safety,
        "undo": report.undo,
        "seconds": sum(step.seconds for step in report.steps),
        **{f"seconds_{step.step}": step.seconds for step in report.steps},
    }


def _system_text(planned: SystemPlan) -> str:
    facts = {
        "from": f"set {planned.set}",
        **{f"{one.part} replaces": f"{one.replaces}, from `{one.artifact}`" for one in planned.parts},
        "stops": ", ".join(planned.stops) or "nothing",
        "takes": f"about {planned.seconds:.0f} s; the guide allows {planned.rto:.0f} s",
        "confirm with": f"`{planned.target}`",
    }
    lines = [f"- **{name}**: {value}" for name, value in facts.items()]
    steps = [f"{number}. {step}" for number, step in enumerate(planned.steps, 1)]
    return "\n".join([*lines, "", *steps, "", *(f"> {note}" for note in (*planned.images, *planned.notes))])


def _plan_text(planned: RestorePlan) -> str:
    preview = planned.preview
    facts = {
        "from": f"set {planned.set}, `{planned.artifact}` ({planned.standing})",
        "replaces": preview.replaces,
        "keeps": planned.safety,
        "stops": ", ".join(planned.stops) or "nothing",
        **{
            f"room in {room.where}": f"{room.needed} bytes wanted, {room.free} free" for room in preview.rooms
        },
        "takes": f"about {preview.seconds} s",
        "confirm with": f"`{planned.target}`",
    }
    lines = [f"- **{name}**: {value}" for name, value in facts.items()]
    steps = [f"{number}. {step}" for number, step in enumerate(preview.steps, 1)]
    return "\n".join([*lines, "", *steps, "", *(f"> {note}" for note in preview.notes)])
