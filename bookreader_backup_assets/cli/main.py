"""`bookreader-backup`: the commands, found by name and imported only when they are called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from bookreader_backup_assets import __version__
from bookreader_backup_assets.cli.output import complain
from bookreader_backup_assets.core.errors import BackupError

COMMANDS = {
    "demo": "demo",
    "doctor": "doctor",
    "backup": "backup",
    "list": "listing",
    "verify": "verify",
    "status": "status",
}
"""Command to the module of this folder that has it, in the order of `--help`."""


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
    Is it set up right?   bookreader-backup doctor
    A backup, now:        bookreader-backup backup
    What is there:        bookreader-backup list
    Is it still good?     bookreader-backup verify
    For cron and Nagios:  bookreader-backup status

    Settings come from BACKUP_… variables or a .env file in the current folder.
    Exit status: 0 fine, 1 a problem was found, 2 refused or wrong usage.
    """  # noqa: D301 - click's mark for a block that keeps its lines


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit. An error of ours ends in one sentence and a hint, not a traceback."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        return group.main(args=arguments, prog_name="bookreader-backup")
    except BackupError as error:
        complain(error, as_json=as_json)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # somebody closed our output, as `| head` does
        sys.exit(0)


if __name__ == "__main__":
    main()
