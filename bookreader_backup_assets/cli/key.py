"""`key`: which key opens what, a new one in its place, and the page to restore by."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from bookreader_backup_assets.actions import keys
from bookreader_backup_assets.actions.init_plan import IDENTITY
from bookreader_backup_assets.actions.init_writes import alone
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.keys import Held, Opens
from bookreader_backup_assets.actions.recovery_kit import Kit, text
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import BackupError, KeyMissingError, NotFoundError, RefusedError
from bookreader_backup_assets.core.secret import key_id
from bookreader_backup_assets.settings import Settings, load_settings, old_keys
from bookreader_backup_assets.settings_file import FILE, read_file, settings_file

_VARIABLES = ("BACKUP_KEY", "BACKUP_KEY_FILE", "BACKUP_OLD_KEY_FILES")


@click.group("key")
def command() -> None:
    """Keys: the passphrases that encrypt roles and configuration.

    \b
    bookreader-backup key list             which key opens what, and what no key here opens
    bookreader-backup key rotate           a new key from now on; the old one goes on opening what it did
    bookreader-backup key kit --show-key   the page to print and to keep away from this host
    """  # noqa: D301 - click's mark for a block that keeps its lines


@command.command("list")
@output.json_option
def listing(as_json: bool) -> None:
    """List every key: whether this machine holds it, and the artifacts and sets that it opens.

    A key is named by 8 digits made from it, from which nobody gets the passphrase. Exit status 1 if an
    artifact's key is not on this machine: copy it back, and name its file in BACKUP_OLD_KEY_FILES.
    """
    settings = load_settings()
    installation = _installation(settings)
    found = keys.who_opens(installation, held_keys(settings))
    unread = [str(path) for path, key in old_keys(settings).items() if key is None]
    good = all(one.good for one in found)
    if as_json:
        document = [{**asdict(one), "entries": [e.name for e in one.entries], **_sets(one)} for one in found]
        output.say_json({"ok": good, "keys": document, "unreadable": unread})
    else:
        rows = [[one.id, *_row(one)] for one in found]
        output.table(["key", "", "where", "artifacts", "sets"], rows, right=(3,))
        for path in unread:
            output.say(f"BACKUP_OLD_KEY_FILES names {path}, which cannot be read, or is empty")
        if not good:
            output.say(
                "What is of a key that is nowhere cannot be restored: copy that key back, and name its"
            )
            output.say("file in BACKUP_OLD_KEY_FILES.")
    sys.exit(0 if good else 1)


@command.command("rotate")
@click.option(
    "--new-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the passphrase in this file, of 12 characters at least, instead of making one.",
)
@output.json_option
def rotating(new_key_file: Path | None, as_json: bool) -> None:
    """Have a new key encrypt from now on. Nothing old is encrypted again.

    The settings file is changed in one step, and then names the new key, and the old one among
    BACKUP_OLD_KEY_FILES: it goes on opening what it encrypted. The next backup is encrypted with the new key,
    also where nothing has changed, so that the newest set needs no other. The new key lies in a file of its
    own, beside the others; the file of a passphrase that you have chosen can go.

    \b
    bookreader-backup key rotate
    bookreader-backup key rotate --new-key-file passphrase
    """  # noqa: D301 - click's mark for a block that keeps its lines
    file = _where_the_key_is()
    with alone(file.absolute().parent):
        settings = load_settings()
        if not settings.key:
            raise KeyMissingError("there is no key yet", hint="bookreader-backup init makes one")
        held, installation = held_keys(settings), _installation(settings)
        folder = held[0].file.absolute().parent if held[0].file else file.absolute().with_suffix(".secrets")
        lost = [path for path, key in old_keys(settings).items() if key is None]
        target = keys.rotate(installation, file, held, folder, new_file=new_key_file, lost=lost)
    after = assemble(load_settings())
    if as_json:
        said = {
            "key": after.key_id,
            "file": str(target),
            "before": installation.key_id,
            "settings": str(file),
        }
        output.say_json(said)
        return
    output.say(f"From now on {after.key_id} encrypts, in {target}; {installation.key_id} opens what it did.")
    output.say("Next: restart Dagster's processes, if they run; then bookreader-backup backup, so that the")
    output.say("newest set needs the new key only; then print the kit, bookreader-backup key kit --show-key,")
    output.say("and keep it away from this host, with the one before: until then that is the one that works.")


@command.command("kit")
@click.option("--show-key", is_flag=True, help="Print the passphrases, too: for paper, not for a log.")
def kitting(show_key: bool) -> None:
    """Print the recovery kit: where everything is, and how it comes back without this program.

    With its passphrases it has every one that this machine holds: earlier ones open what they encrypted.

    \b
    bookreader-backup key kit --show-key | lpr
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    output.say(kit(settings, _installation(settings), show_key=show_key))


def kit(settings: Settings, installation: Installation, *, show_key: bool = False) -> str:
    """Return the recovery kit of an installation, without any passphrase unless they are to be shown."""
    held = held_keys(settings)
    old = [one for one in held if one.key is not settings.key]
    file = settings_file(os.environ).absolute()
    reached: tuple[str, ...] = ()
    if settings.runner == "docker":
        reached = ("docker", "exec", "-i", "-e", "PGPASSWORD", "-e", f"PGUSER={settings.postgresql_user}")
        reached += (_postgresql(settings),)
    database = installation.system.database if installation.system else settings.postgresql_database
    return text(
        Kit(
            host=installation.host,
            installation=installation.id,
            vault=settings.vault.expanduser().absolute(),
            settings=str(file) if read_file(file) else "the environment",
            plan=f"{settings.plan}, timezone {installation.zone.key}",
            at=installation.now(),
            key_id=installation.key_id or "",
            key_file=str(held[0].file.absolute()) if settings.key and held[0].file else "KEY-FILE",
            old_keys=tuple(f"{key_id(one.key, installation.id)} in {one.file}" for one in old),
            database=database,
            restore=reached,
            config=str(settings.config_root.absolute()),
            storage=settings.storage_path,
            offsite=tuple(_copies(settings, installation.id)),
            keys=tuple((key_id(one.key, installation.id), one.key) for one in held) if show_key else (),
        )
    )


def _copies(settings: Settings, installation: str) -> Iterator[str]:
    """Yield where the copies are. The git remote's address may have a token in it, and is not told."""
    if settings.nas:
        yield f"nas: {settings.nas}/bookreader-backups/{installation}"
    if settings.offsite_bucket:
        at = f", at {settings.offsite_endpoint}" if settings.offsite_endpoint else ""
        yield f"offsite: s3://{settings.offsite_bucket}/bookreader-backups/{installation}/{at}"
    if settings.git_remote:
        yield f"git: branch bookreader-backups/{installation} of BACKUP_GIT_REMOTE"


def _installation(settings: Settings) -> Installation:
    """Return the installation whose vault is there: looking makes none. Raises `NotFoundError`."""
    installation = assemble(settings)
    try:
        installation.vault.stat(IDENTITY)
    except NotFoundError:
        raise NotFoundError(
            f"there is no vault at {settings.vault} yet",
            hint="bookreader-backup init, or correct BACKUP_VAULT",
        ) from None
    return installation


def _postgresql(settings: Settings) -> str:
    """The container's name, where the engine can be asked."""
    if settings.postgresql_container:
        return settings.postgresql_container
    from bookreader_backup_assets.runners.docker import POSTGRESQL, Engine, find_container

    try:
        return find_container(Engine(), POSTGRESQL, project=settings.compose_project)
    except BackupError:
        return "POSTGRESQL-CONTAINER"


def held_keys(settings: Settings) -> tuple[Held, ...]:
    """Return the passphrases that the settings name, the one that encrypts first, and where each lies."""
    return keys.as_held(settings.key, _key_file(), old_keys(settings))


def _key_file() -> Path | None:
    """The file that the key comes from, by the rules of `load_settings`; None where it is in the settings."""
    named = {name: value for name, (value, _) in read_file(settings_file(os.environ)).items()}
    for given in (dict(os.environ), named):
        if given.get("BACKUP_KEY"):
            return None
        if given.get("BACKUP_KEY_FILE"):
            return Path(given["BACKUP_KEY_FILE"])
    return None


def _where_the_key_is() -> Path:
    """Return the settings file that names the key. Raises `RefusedError` where it is not in one."""
    if here := [name for name in _VARIABLES if os.environ.get(name)]:
        raise RefusedError(
            f"{here[0]} is set in the environment, which this program cannot change",
            hint=f"move it to a settings file, such as ./{FILE}, and unset it: then rotate",
        )
    file = settings_file(os.environ)
    if not any(name in _VARIABLES for name in read_file(file)):
        raise KeyMissingError(f"no key is named in {file}", hint="bookreader-backup init makes one")
    return file


def _sets(one: Opens) -> dict[str, str | None]:
    sets = sorted(entry.set for entry in one.entries)
    return {"from": sets[0] if sets else None, "to": sets[-1] if sets else None}


def _row(one: Opens) -> list[str]:
    sets = _sets(one)
    state = "encrypts" if one.current else "opens" if one.place else "NOWHERE"
    said = f"{sets['from']} to {sets['to']}" if sets["from"] else "-"
    return [state, one.place or "-", str(len(one.entries)), said]
