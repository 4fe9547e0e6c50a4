"""`bookreader-backup`: the commands, found by name and imported only when they are called."""

from __future__ import annotations

import importlib
import signal
import sys

import click

from bookreader_backup_assets import __version__
from bookreader_backup_assets.cli.output import complain
from bookreader_backup_assets.core.errors import BackupError, RefusedError

COMMANDS = {
    "demo": "demo",
    "init": "init",
    "doctor": "doctor",
    "backup": "backup",
    "adopt": "adopt",
    "list": "listing",
    "verify": "verify",
    "replicate": "replicate",
    "restore": "restore",
    "drill": "drill",
    "prune": "prune",
    "pin": "pin",
    "offsite": "offsite",
    "status": "status",
    "key": "key",
    "plan": "plan",
    "diff": "diff",
}
"""Command to the module of this folder that has it, in the order of `--help`."""
STOPPED = 130
"""The exit status of a command that was interrupted, as shells have it for Ctrl-C."""


class Commands(click.Group):
    """Imports a command's module when the command is asked for: Dagster alone takes seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of a first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bookreader_backup_assets.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="bookreader-backup")
def group() -> None:
    """Backups of BookReader AI: captured, verified, and restorable without this program.

    \b
    First time here:      bookreader-backup demo
    Set it up:            bookreader-backup init
    Is it set up right?   bookreader-backup doctor
    A backup, now:        bookreader-backup backup
    What is there:        bookreader-backup list
    Is it still good?     bookreader-backup verify
    Bring it back:        bookreader-backup restore
    Would it come back?   bookreader-backup drill
    What may go, and why? bookreader-backup prune --plan
    For cron and Nagios:  bookreader-backup status
    What changed in .env? bookreader-backup diff

    Settings come from BACKUP_… variables, or bookreader-backup.env or .env in the current folder.
    Exit status: 0 fine, 1 a problem was found, 2 refused or wrong usage, 130 stopped.
    """  # noqa: D301 - click's mark for a block that keeps its lines


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. Trouble ends in one sentence and a hint, not in a traceback.

    SIGTERM and a closed terminal stop a command as Ctrl-C does: what it started is ended, and what it
    had half written is removed.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not where nohup has it ignored
        signal.signal(signal.SIGHUP, _interrupt)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        group.main(args=arguments, prog_name="bookreader-backup", standalone_mode=False)
    except BackupError as error:
        complain(error, as_json=as_json)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if as_json:
            complain(RefusedError(error.format_message()), as_json=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(STOPPED)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
