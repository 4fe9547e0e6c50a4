"""`init`: settings, a key and a vault for the BookReader that runs here, and the page to restore by."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import click

from bookreader_backup_assets.actions import init_plan
from bookreader_backup_assets.actions.examine import Finding
from bookreader_backup_assets.actions.init_plan import Proposal, Writes, host_zone
from bookreader_backup_assets.actions.init_writes import alone
from bookreader_backup_assets.actions.installation import utc_now
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import doctor, output
from bookreader_backup_assets.cli.key import kit
from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError
from bookreader_backup_assets.settings import Settings, load_settings, secret_variables, variables
from bookreader_backup_assets.settings_file import ENV_FILE, FILE, PREFIX, read_file

_NO_DOCKER = """\
is it running, and may this user use it (docker version)? DOCKER_HOST sets its address.
Without Docker, set these, and come back; they go into the settings file, and secrets into files of their own:
  export BACKUP_RUNNER=local
  export BACKUP_POSTGRESQL_URL=postgresql://USER:PASSWORD@127.0.0.1:5432/bookreader
  export BACKUP_REDIS_URL=redis://:PASSWORD@127.0.0.1:6379
  export BACKUP_STORAGE_PATH=/opt/bookreader-ai/backend/storage
  export BACKUP_CONFIG_ROOT=/opt/bookreader-ai
  export BACKUP_CONFIG_PATHS=.env,nginx"""
_LATER = "newest"
"""The finding that nothing was captured yet: that is next, and nothing is wrong."""


@click.command("init")
@click.option("--project", help="Compose project to back up, where several could be BookReader.")
@click.option(
    "--vault",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the backups, made if it is not there. Default: /var/backups/bookreader.",
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Settings file to write. Default: ./{FILE}, which commands read; {ENV_FILE} names another.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the key: taken if it is there, made if not. Default: beside the settings file.",
)
@click.option("--plan", help="production, development, or the path of a plan of your own.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@output.json_option
def command(  # noqa: PLR0917 - click hands over options by name
    project: str | None,
    vault: Path | None,
    env_file: Path | None,
    key_file: Path | None,
    plan: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Look at the BookReader that runs here, and set its backups up: settings, key, vault.

    Services, database, passwords, storage and configuration are found by looking at the running containers;
    passwords are tried, and go into files that only you can read. What BACKUP_… variables say is taken as it
    is. BookReader's own .env is not touched. On a terminal it shows everything, and asks once.

    It never overwrites: a key or a vault that exists is taken, and settings that exist are kept: it looks at
    the BookReader that they are of, and shows what was found otherwise. So it can be run again at any time.

    \b
    cd /opt/bookreader-ai && bookreader-backup init
    bookreader-backup init --project bookreader --vault /srv/backups/bookreader --yes

    At the end it looks what is still wrong, as doctor does, and prints the recovery kit. Exit status 1 if
    something is wrong, 2 if there is no BookReader here, or several.
    """  # noqa: D301 - click's mark for a block that keeps its lines
    environ = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and value}
    named = environ.pop(ENV_FILE, "")
    settings_file = (env_file or Path(named or FILE)).absolute()
    kept = _existing(settings_file, default=not (env_file or named))
    held = {name: value for name, (value, _) in read_file(kept).items() if value} if kept else {}
    if project and project != held.get("BACKUP_COMPOSE_PROJECT"):
        held = {}  # it is asked about another than that which is kept
    said = {**held, **environ}
    place = vault or _told_path(said, "BACKUP_VAULT") or init_plan.default_vault()
    place = place.expanduser().absolute()
    key_file = key_file or _told_path(said, "BACKUP_KEY_FILE")
    environ.pop("BACKUP_KEY_FILE", None)  # it may be made yet
    told = load_settings(environ, env_file=kept if kept and held else Path(os.devnull))
    proposal = _with(_proposal(told, environ, project, place), environ, plan)
    folder = settings_file.with_suffix(".secrets")
    key = (key_file or folder / "key").expanduser().absolute()
    writes = Writes(proposal, settings_file, folder, key, place, told.key)
    if not as_json:
        _show(writes, kept)
    if kept is None:
        init_plan.check(writes)
        if not yes and not as_json and sys.stdin.isatty():
            click.confirm("\nWrite this?", abort=True, default=True)
        with alone(settings_file.parent):
            done = _write(writes)
    else:
        done = {kept: False}
    os.environ[ENV_FILE] = str(kept or settings_file)
    settings = load_settings()
    installation = assemble(settings)
    page = kit(settings, installation)
    findings = [
        *(Finding("init", good=False, seen=problem) for problem in proposal.problems),
        *(one for one in doctor.look(settings, installation) if one.good or one.subject != _LATER),
    ]
    good = all(one.good for one in findings)
    if as_json:
        output.say_json(_document(writes, kept, done, findings, page))
    else:
        _tell(
            done, findings, page, elsewhere=settings_file.parent != Path.cwd() or settings_file.name != FILE
        )
    sys.exit(0 if good else 1)


def _existing(settings_file: Path, *, default: bool) -> Path | None:
    """Return the file that has settings already: the one to write, or BookReader's `.env` in its place."""
    beside = Path(".env").absolute()
    if settings_file.exists():
        return settings_file
    ours = {known for name in variables() for known in (name, f"{name}_FILE")}
    return beside if default and beside.is_file() and ours & {*read_file(beside)} else None


def _proposal(told: Settings, environ: Mapping[str, str], project: str | None, vault: Path) -> Proposal:
    if told.runner == "local":
        return _as_told(told, environ)
    from bookreader_backup_assets.actions.init_access import Access
    from bookreader_backup_assets.actions.init_proposal import Told, propose
    from bookreader_backup_assets.runners.docker_engine import Engine

    given = "postgresql_user" in told.model_fields_set or told.postgresql_password
    access = Access(
        told.postgresql_database if "postgresql_database" in told.model_fields_set else "",
        told.postgresql_user if given else "",
        told.postgresql_password,
    )
    try:
        return propose(
            Engine(),
            Told(
                project or told.compose_project,
                (told.postgresql_container, told.redis_container),
                access,
                told.redis_password,
            ),
            here=Path.cwd(),
            vault=vault,
        )
    except SourceAbsentError as error:
        raise RefusedError(error.message, hint=_NO_DOCKER) from None


def _as_told(told: Settings, environ: Mapping[str, str]) -> Proposal:
    """Return what the environment says, where nothing can be found out."""
    secrets = {
        name: secret
        for name in secret_variables() - {f"{PREFIX}KEY"}
        if (secret := getattr(told, name.removeprefix(PREFIX).lower())) and name in environ
    }
    values = {"BACKUP_TIMEZONE": host_zone()} if host_zone() else {}
    storage = str(told.storage_path)
    return Proposal(values, secrets, (("services", "as the BACKUP_ variables say"),), storage=storage)


def _with(proposal: Proposal, environ: Mapping[str, str], plan: str | None) -> Proposal:
    """Return a proposal in which the environment has the last word, and options before it."""
    apart = {"BACKUP_VAULT", "BACKUP_KEY", "BACKUP_KEY_FILE", *secret_variables()}
    told = {name: value for name, value in environ.items() if name not in apart}
    told |= {"BACKUP_PLAN": plan} if plan else {}
    secrets = {n: secret for n, secret in proposal.secrets.items() if f"{n}_FILE" not in told}
    return replace(proposal, values={**proposal.values, **told}, secrets=secrets)


def _told_path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if name in environ else None


def _write(writes: Writes) -> dict[Path, bool]:
    done = init_plan.write_secrets(writes)
    made = assemble(load_settings(writes.values, env_file=Path(os.devnull)))
    new = not (writes.vault / init_plan.IDENTITY).exists()
    _ = made.id  # the vault, and its installation.json
    done[writes.vault] = new
    done[writes.settings] = init_plan.write_settings(writes, utc_now())
    return done


def _show(writes: Writes, kept: Path | None) -> None:
    output.say("Found:")
    for subject, seen in writes.proposal.seen:
        output.say(f"  {subject:<10} {seen}")
    for problem in writes.proposal.problems:
        output.say(f"  {click.style('problem', fg='red')}    {problem}")
    output.say()
    if kept is not None:
        output.say(f"Settings are there, and are kept: {kept}")
        for name, (now, found) in _differences(writes, kept).items():
            output.say(f"  {name} is {now or 'not set'}; found: {found}")
        return
    output.say(f"Settings, in {writes.settings}:")
    for name, value in writes.values.items():
        output.say(f"  {name}={value}")
    key = "taken" if writes.key.exists() else "made"
    vault = "taken" if (writes.vault / init_plan.IDENTITY).exists() else "made"
    output.say(f"Key: {writes.key}, is {key}. Vault: {writes.vault}, is {vault}.")


def _differences(writes: Writes, kept: Path) -> dict[str, tuple[str, str]]:
    existing = {name: value for name, (value, _) in read_file(kept).items()}
    now = load_settings({}, env_file=kept)
    found = init_plan.differences(existing, writes.proposal.values)
    for name, secret in writes.proposal.secrets.items():
        held = getattr(now, name.removeprefix(PREFIX).lower())
        if held is None or held.reveal() != secret.reveal():
            found[name] = ("another" if held else "", "one that works")
    return found


def _tell(done: Mapping[Path, bool], findings: list[Finding], page: str, *, elsewhere: bool) -> None:
    output.say()
    for path, new in done.items():
        output.say(f"{'written' if new else 'kept   '}  {path}")
    output.say()
    for finding in findings:
        doctor.say(finding)
    output.say()
    output.say(page)
    output.say(
        "Print that with its passphrase: bookreader-backup key kit --show-key. Then: bookreader-backup backup"
    )
    if elsewhere:
        output.say(f"Elsewhere than in the settings' own folder: export {ENV_FILE}={os.environ[ENV_FILE]}")


def _document(
    writes: Writes, kept: Path | None, done: Mapping[Path, bool], findings: list[Finding], page: str
) -> dict[str, object]:
    differing = _differences(writes, kept) if kept else {}
    return {
        "ok": all(one.good for one in findings),
        "found": dict(writes.proposal.seen),
        "settings": writes.values,
        "kept": str(kept) if kept else None,
        "differences": {name: {"is": now, "found": found} for name, (now, found) in differing.items()},
        "files": {str(path): "written" if new else "kept" for path, new in done.items()},
        "findings": [asdict(one) for one in findings],
        "kit": page,
    }
