"""`restore`: bring back one part of BookReader, or all of it; compared, reported, undoable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bookreader_backup_assets.actions import restore as restoring
from bookreader_backup_assets.actions import undo as undoing
from bookreader_backup_assets.actions.installation import LOCAL, VAULTS
from bookreader_backup_assets.actions.journal import alone, journals
from bookreader_backup_assets.actions.restore_source import LATEST
from bookreader_backup_assets.actions.system import restore_system
from bookreader_backup_assets.actions.system_plan import PARTS, plan_system
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output, restore_output
from bookreader_backup_assets.cli import restore_system as restore_system_output
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.settings import load_settings

if TYPE_CHECKING:
    from bookreader_backup_assets.actions.installation import Installation

Function = Callable[..., Any]
_ALWAYS = (
    click.option(
        "--from",
        "from_set",
        default=LATEST,
        show_default=True,
        metavar="SET",
        help="The backup set: a day such as 2025-10-24, a labelled set, or `latest` (the newest verified).",
    ),
    click.option(
        "--vault",
        default=LOCAL,
        show_default=True,
        metavar="VAULT",
        help="Where it is taken from: `local` (BACKUP_VAULT), `nas`, `offsite`, `git`, or the folder of"
        " a copy.",
    ),
    click.option("--plan", "plan_only", is_flag=True, help="Print what would be done, and do nothing."),
    click.option("--confirm", default="", metavar="NAME", help="The name of what is replaced, typed back."),
    click.option(
        "--no-safety",
        default="",
        metavar="REASON",
        help="Go on although the present state cannot be kept. There is no undo then.",
    ),
    output.json_option,
)
_INTO = "Put it into this {}, and replace nothing."
_OUTSIDE = click.option(
    "--outside-links", is_flag=True, help="Also make symlinks that lead out of the folder."
)
_vault_option = _ALWAYS[1]
_confirm_option = _ALWAYS[3]


@click.group("restore")
def command() -> None:
    """Restore a part of BookReader, or all of it, from a backup set.

    Every restore shows its plan with --plan; asks for the name of what it replaces with --confirm; keeps
    the present state; restores beside the live data; compares that with the fingerprint taken at capture;
    and only then swaps. Its report says how to undo it. A restore that was killed is finished, or cleared
    away, by the next one.

    \b
    bookreader-backup restore postgresql --plan
    bookreader-backup restore postgresql --from 2025-10-24 --confirm bookreader
    bookreader-backup restore file --path 'books/42/*' --into /tmp/look
    bookreader-backup restore reports
    """  # noqa: D301 - click's mark for a block that keeps its lines


def _always(function: Function) -> Function:
    return reduce(lambda made, option: option(made), reversed(_ALWAYS), function)


def _scenario(name: str, help_text: str, *options: Function) -> None:
    """Add a command that restores one scenario, with the options that it knows."""

    def run(**given: Any) -> None:
        always = {key: given.pop(key) for key in ("from_set", "vault", "plan_only", "confirm", "no_safety")}
        as_json = given.pop("as_json")
        wanted = Options.from_dict(given)
        if name == "table" and not wanted.tables and not wanted.schema:
            raise RefusedError("no table is named", hint="say which: --table users, or --schema public")
        if name == "file" and not wanted.paths:
            raise RefusedError(
                "no path is named", hint="say which: --path books/42.epub, or --path 'covers/*'"
            )
        _restore(name, wanted, always, as_json=as_json)

    made = reduce(lambda function, option: option(function), reversed(options), _always(run))
    command.add_command(click.command(name, help=help_text)(made))


_scenario(
    "postgresql",
    "Restore the whole database: into a new one beside it, compared, then swapped by rename.",
    click.option("--migrate", is_flag=True, help="Then run `alembic upgrade head` in the backend."),
)
_scenario(
    "table",
    "Restore tables in one transaction; those that refer to them are left whole.",
    click.option(
        "--table", "tables", multiple=True, metavar="TABLE", help="`books`, `public.books`; repeatable."
    ),
    click.option("--schema", metavar="SCHEMA", help="All tables of a schema."),
    click.option("--into", metavar="NAME", help=_INTO.format("new table")),
)
_scenario("redis", "Restore all keys; services are stopped for it, the append-only files made anew.")
_scenario(
    "storage",
    "Restore the whole storage folder: the files of the set, and none besides.",
    click.option("--in-place", is_flag=True, help="Write only the files that differ: where room is short."),
    click.option("--into", metavar="FOLDER", help=_INTO.format("folder")),
    _OUTSIDE,
)
_scenario(
    "file",
    "Restore files of storage, reading only the parts of the archive that hold them.",
    click.option("--path", "paths", multiple=True, metavar="PATH", help="A path or glob; repeatable."),
    click.option("--into", metavar="FOLDER", help=_INTO.format("folder")),
    _OUTSIDE,
)
_scenario(
    "config",
    "Restore the compose file, .env, nginx and certificates: decrypted and compared.",
    click.option("--into", metavar="FOLDER", help=_INTO.format("folder")),
)
_scenario(
    "code",
    "Restore BookReader's git repository; files that are missing come back, others are left.",
    click.option("--into", metavar="FOLDER", help=_INTO.format("folder")),
)


@command.command("system")
@_always
@click.option(
    "--without",
    multiple=True,
    metavar="PART",
    help=f"Leave this part as it is; repeatable: {', '.join(PARTS)}.",
)
def system(without: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Restore all of BookReader, on a host that has only Docker, or over a damaged one.

    The configuration, the images of the manifest, PostgreSQL, Redis, storage, then all services; at last
    the migration, the files that rows point to, and the health URLs. NAME is this host's name. What was
    restored before it stopped, or was stopped, is not restored again by the same command.
    """
    installation = _installation(given["vault"])
    if given["plan_only"] or not (given["confirm"] or as_json):
        restore_system_output.plan(plan_system(installation, given["from_set"], without), as_json=as_json)
        if given["plan_only"]:
            return
        raise RefusedError("nothing was done: the name of the host was not typed back")
    report = restore_system(
        installation, given["from_set"], without, confirm=given["confirm"], no_safety=given["no_safety"]
    )
    assert installation.system is not None
    restore_system_output.reported(report, installation.system.rto, as_json=as_json)


@command.command("undo")
@click.argument("report", metavar="REPORT")
@_vault_option
@_confirm_option
@output.json_option
def undo(report: str, vault: str, confirm: str, as_json: bool) -> None:
    """Bring back the state from before a restore. REPORT is its id, or the path of its report."""
    installation = _installation(vault)
    restore_output.reported(undoing.undo(installation, report, confirm=confirm), as_json=as_json)


@command.command("accept")
@click.argument("report", metavar="REPORT")
@_vault_option
@_confirm_option
def accept(report: str, vault: str, confirm: str) -> None:
    """Remove what the undo of a restore would need: the database or the files from before take room."""
    undoing.accept(_installation(vault), report, confirm=confirm)
    output.say(f"{report} is accepted: there is nothing left to undo")


@command.command("finish")
@_vault_option
@click.option("--leave", default="", metavar="REPORT", help="Give up on this one: it stays as it is.")
@output.json_option
def finish(vault: str, leave: str, as_json: bool) -> None:
    """Finish the restores that were killed, and start the services that they stopped.

    What had begun to replace live data is brought to its end; of others, what was made beside is removed.
    """
    installation = _installation(vault)
    with alone(installation):
        ended = [undoing.leave(installation, leave)] if leave else undoing.finish(installation)
    if as_json:
        output.say_json([restore_output.document(report) for report in ended])
    elif not ended:
        output.say("no restore was killed")
    for report in () if as_json else ended:
        restore_output.report(report)
    sys.exit(0 if all(report.good or report.result == "abandoned" for report in ended) else 1)


@command.command("reports")
@_vault_option
@output.json_option
def reports(vault: str, as_json: bool) -> None:
    """List the restores that were made, what became of them, and whether they can be undone."""
    restore_output.reports(journals(_installation(vault)), as_json=as_json)


def _restore(scenario: str, options: Options, given: dict[str, Any], *, as_json: bool) -> None:
    installation = _installation(given["vault"])
    if given["plan_only"]:
        planned = restoring.plan(installation, scenario, given["from_set"], options)
        restore_output.plan(planned, as_json=as_json)
        return
    if not given["confirm"] and options.into is None and not as_json:
        restore_output.plan(restoring.plan(installation, scenario, given["from_set"], options), as_json=False)
        raise RefusedError("nothing was done: the name of what is replaced was not typed back")
    report = restoring.restore(
        installation,
        scenario,
        given["from_set"],
        options,
        confirm=given["confirm"],
        no_safety=given["no_safety"],
    )
    restore_output.reported(report, as_json=as_json)


def _installation(vault: str) -> Installation:
    settings, named = load_settings(), ""
    if vault in VAULTS:
        installation = replace(assemble(settings), watch=output.watch, source_named=vault)
        installation.vault_outside(vault)
        return installation
    if vault != LOCAL:
        folder = Path(vault).expanduser()
        if not (folder / "installation.json").exists():
            raise RefusedError(
                f"{vault} is not a vault: it has no installation.json",
                hint="name its top folder, the one that has postgresql/ and storage/ in it",
            )
        named = str(folder.absolute())
        settings = settings.model_copy(update={"vault": folder.absolute()})
    return replace(assemble(settings), watch=output.watch, vault_named=named)
