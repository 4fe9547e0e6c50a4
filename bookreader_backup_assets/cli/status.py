"""`status`: are backups and copies there, young enough, and is there room? One line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import click

from bookreader_backup_assets import away
from bookreader_backup_assets.actions import keys
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.copies import Holding, ThreeTwoOne, look, same_disk, three_two_one
from bookreader_backup_assets.actions.drilled import Drilled, drilled
from bookreader_backup_assets.actions.growth import Growth, growth, history
from bookreader_backup_assets.actions.installation import LOCAL, VAULTS, read_identity, utc_now
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.assembly import local_vault, objectives
from bookreader_backup_assets.cli import output, status_output
from bookreader_backup_assets.cli.key import held_keys
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.plan import Plan, load_plan
from bookreader_backup_assets.settings import Settings, load_settings

HISTORY = 14
"""How many days' sets `--history` shows."""


@click.command("status")
@click.option(
    "--vault",
    "vaults",
    multiple=True,
    metavar="VAULT",
    help="Look only at this one: `local`, `nas`, `offsite` or `git`; repeatable.",
)
@click.option("--history", "with_history", is_flag=True, help="Also show what each day's set has added.")
@output.json_option
def command(vaults: tuple[str, ...], with_history: bool, as_json: bool) -> None:
    """Say how old the newest verified artifact of each asset is in each vault, against the plan's objective.

    And whether that makes 3-2-1; how the last drill went; and how the local vault fills: the rate is what
    was added in the last 30 days, told from three days on.

    Exit status 1 if anything is missing or too old, or a vault that the plan wants is not set up or cannot
    be asked; if the last drill failed, or there was none for two months; if the next set has no room, or if
    the vault is full within a week at that rate. Reads the vaults only: works with Dagster down.

    \b
    bookreader-backup status
    bookreader-backup status --vault local      asks no other host
    """  # noqa: D301 - click's mark for a block that keeps its lines
    settings = load_settings()
    plan = load_plan(settings.plan, timezone=settings.timezone)
    seen = _look(settings, plan, vaults, utc_now(), with_history=with_history)
    problems = list(_problems(seen))
    if as_json:
        output.say_json(status_output.document(seen, problems))
    else:
        status_output.say(seen, problems)
    sys.exit(1 if problems else 0)


@dataclass(frozen=True)
class Status:
    """All that was seen. `unset` are the vaults that the plan wants and no setting says the place of,
    `spared` those of them whose copies another vault has, too. `counted` is None where there is nothing to
    count: only some vaults were looked at, or the plan keeps all `here`. The rest is of the local vault.
    """

    holdings: tuple[Holding, ...]
    unset: tuple[str, ...]
    spared: tuple[str, ...]
    counted: ThreeTwoOne | None
    here: bool
    fills: Growth | None = None
    drill: Drilled | None = None
    shut: int = 0
    days: tuple[tuple[str, dict[str, int]], ...] = ()


def _look(
    settings: Settings, plan: Plan, only: tuple[str, ...], now: datetime, *, with_history: bool
) -> Status:
    outside = away.outside(settings, plan, quick=True)
    for name in only:
        if name != LOCAL and name not in outside:
            known = f"there are: {', '.join((LOCAL, *outside))}"
            raise RefusedError(f"there is no vault {name!r}", hint=VAULTS.get(name, known))
    wanted = {name: objectives(plan, name) for name in VAULTS if plan.copies(name)}
    names = only or (LOCAL, *(name for name in outside if name in wanted))
    local, own = Catalog(local_vault(settings)), objectives(plan)
    try:
        made = read_identity(local.vault)
        begun = min((entry.captured_at for entry in local.entries() if not entry.late), default=None)
    except BackupError:  # said where it is looked at
        made = begun = None

    def held(name: str) -> Holding:
        counted = own if name == LOCAL else objectives(plan, name)
        rare = [asset for asset, age in counted.items() if age > own[asset]]
        opened = partial(_opened, outside[name], made) if name != LOCAL else lambda: local
        shares = partial(same_disk, outside[name], local.vault) if name != LOCAL else lambda: False
        return look(name, opened, counted, now, begun=begun, rare=rare, shares=shares)

    with ThreadPoolExecutor() as threads:  # or one that does not answer would be waited for after another
        holdings = list(threads.map(held, names))
    unset = () if only else away.unset(settings, plan)
    copied = {asset.split("/")[0]: None for assets in wanted.values() for asset in assets}
    seen = Status(
        holdings=tuple(holdings),
        unset=unset,
        spared=tuple(one for one in unset if one == "git" and _elsewhere(plan, one, unset)),
        counted=three_two_one(holdings, copied) if copied and not only else None,
        here=not copied,
    )
    if any(one.vault == LOCAL and not one.error for one in holdings):
        seen = replace(
            seen,
            fills=growth(local, tuple(own), now),
            drill=drilled(local, made[1] if made else now, now),
            shut=len(keys.shut(local.entries(), held_keys(settings))),
            days=tuple(history(local, HISTORY)) if with_history else (),
        )
    return seen


def _opened(outside: Outside, made: tuple[str, datetime] | None) -> Catalog:
    """Return what a vault has of this installation; on a host without one, of that which it would read."""
    return Catalog(outside.place.vault(made[0] if made else outside.find(None)))


def _elsewhere(plan: Plan, vault: str, unset: tuple[str, ...]) -> bool:
    """Whether all that is wanted in a vault is wanted in another, too, that is set up."""
    others = [plan.copies(one) for one in VAULTS if one not in unset]
    return any(plan.copies(vault).keys() <= rows.keys() for rows in others)


def _problems(seen: Status) -> Iterator[str]:
    """Yield what is wrong, in the words of the first line."""
    copies = []
    for held in seen.holdings:
        if held.error:
            copies.append(f"the vault {held.vault} cannot be asked: {held.error}")
        elif held.short and held.vault == LOCAL:
            yield f"no verified backup young enough of {', '.join(held.short)}"
        elif held.short:
            copies.append(f"no verified copy young enough in {held.vault} of {_named(held)}")
        if held.unreadable:
            where = "" if held.vault == LOCAL else f" of {held.vault}"
            yield f"{len(held.unreadable)} entries or proofs{where} cannot be read"
    copies += [
        f"the plan wants copies in {name}, which is not set up: {VAULTS[name]}, or take it out of the plan"
        for name in seen.unset
        if name not in seen.spared
    ]
    yield from copies
    if seen.counted and seen.counted.lacking and not copies:  # or that is why
        yield status_output.counted(seen)
    if seen.drill and seen.drill.problem:
        yield seen.drill.problem
    if seen.fills:
        yield from _of_room(seen.fills)


def _named(held: Holding) -> str:
    return "anything" if 1 < len(held.ages) == len(held.short) else ", ".join(held.short)


def _of_room(fills: Growth) -> Iterator[str]:
    if fills.why:
        yield fills.why
    elif fills.short:
        free, needed = output.size(fills.free), output.size(fills.needed)
        yield f"the vault has {free} free, and the next set wants {needed}"
    elif fills.soon:
        yield f"the vault is full in {status_output.until(fills)}"
