"""`pin`: keep a backup set, whatever the plan says, until a day."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime

import click

from bookreader_backup_assets.actions import pins
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.settings import load_settings


@click.command("pin")
@click.argument("set_id", required=False, metavar="[SET]")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="The last day: 2027-01-31.")
@click.option("--because", default="", metavar="TEXT", help="Why, for whoever wonders later.")
@click.option("--list", "listing", is_flag=True, help="List the pins that stand.")
@click.option("--remove", is_flag=True, help="Take the pin of SET back: the plan decides again.")
@output.json_option
def command(
    set_id: str | None, until: datetime | None, because: str, *, listing: bool, remove: bool, as_json: bool
) -> None:
    """Keep a backup SET in every vault through a day, whatever the plan says; or list what is kept so.

    A later pin of the same set replaces the one before. A vault that cannot be reached is named, and what is
    in it is kept all the same by every prune from here. Exit status 1 then.

    \b
    bookreader-backup pin 2025-10-24 --until 2027-01-31 --because "the audit of 2026"
    bookreader-backup pin --list
    bookreader-backup pin 2025-10-24 --remove
    """  # noqa: D301 - click's mark for a block that keeps its lines
    installation = assemble(load_settings())
    if listing or set_id is None:
        if set_id or until or because or remove:
            raise click.UsageError("--list takes nothing else; a pin needs a SET")
        _print(pins.standing_pins(installation), as_json=as_json)
        return
    if remove:
        if until or because:
            raise click.UsageError("--remove takes neither --until nor --because")
        said, missed = pins.unpin(installation, set_id)
    elif until is None:
        raise RefusedError("a pin needs its last day", hint="--until YYYY-MM-DD")
    else:
        said, missed = pins.pin(installation, set_id, until.date(), because)
    for error in missed:
        output.complain(error)
    if as_json:
        output.say_json({**asdict(said), "missed": [error.message for error in missed]})
    elif remove:
        output.say(f"{said.set} is not pinned any more")
    else:
        output.say(f"{said.set} stays until {said.until}: {output.printable(said.because)}")
    sys.exit(1 if missed else 0)


def _print(standing: list[pins.Pinned], *, as_json: bool) -> None:
    if as_json:
        output.say_json({"pins": [asdict(one) for one in standing]})
    elif not standing:
        output.say("nothing is pinned")
    else:
        rows = [
            [p.set, str(p.until), output.printable(p.because), f"{p.at:%Y-%m-%d}", p.host] for p in standing
        ]
        output.table(["set", "until", "because", "since", "host"], rows)
