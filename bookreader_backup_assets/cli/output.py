"""What commands print: tables and bars on a terminal, plain lines elsewhere, JSON if asked."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.streams import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
vault_option: Callable[..., Any] = click.option(
    "--vault",
    default="local",
    show_default=True,
    metavar="VAULT",
    help="Which vault is read: `local`, `nas`, `offsite` or `git`.",
)
_PATIENCE = 1.0
"""Seconds before something is worth a bar or a line."""
_MARKS = {
    "verified": "green",
    "passed": "green",
    "ok": "green",
    "inconclusive": "yellow",
    "unverified": "yellow",
}


def say(line: str = "") -> None:
    """Print a line. Where nobody reads any more, as after `| head`, go on: the exit status still counts."""
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_json(document: Any) -> None:
    """Print a JSON document, stable and with UTC instants."""
    say(json.dumps(document, indent=2, default=_jsonable))


def complain(error: BackupError, *, as_json: bool = False) -> None:
    """Print an error and its hint on stderr."""
    if as_json:
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        click.echo(json.dumps(said, indent=2), err=True)
        return
    click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.hint:
        click.echo(click.style("hint:  ", fg="cyan") + error.hint, err=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows under headings, columns aligned; those numbered in `right` to the right."""
    widths = [max(len(str(row[i])) for row in [headings, *rows]) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        styled = [
            click.style(p, fg=_MARKS[c]) if c in _MARKS else p for p, c in zip(padded, cells, strict=True)
        ]
        return "  ".join(styled).rstrip()

    say(click.style(line([heading.upper() for heading in headings]), bold=True))
    for row in rows:
        say(line(row))


def printable(path: str) -> str:
    """Return a path for a terminal: newlines, control characters and bytes that are no UTF-8 escaped."""
    escaped = path.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)


def size(count: int | None) -> str:
    """Return bytes as people read them: 1.4 GB."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def span(duration: timedelta | float | None) -> str:
    """Return a duration as people read it: 2 d 3 h, 4 h 12 min, 3.1 s."""
    if duration is None:
        return "-"
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds % 60)} s"


@contextmanager
def watch(doing: str, expected: int | None) -> Iterator[Progress]:
    """Show how far something is: a bar with bytes, rate and time left on a terminal, a line elsewhere.

    What is done within a second shows nothing on a terminal.
    """
    started = time.monotonic()
    passed = 0
    bar = _bar(doing, expected) if sys.stderr.isatty() else None
    patience = threading.Timer(_PATIENCE, bar.start if bar else lambda: None)
    patience.daemon = True

    def progress(count: int) -> None:
        nonlocal passed
        passed += count
        if bar is not None:
            bar.update(bar.task_ids[0], completed=passed, total=max(expected, passed) if expected else None)

    patience.start()
    try:
        yield progress
    finally:
        patience.cancel()
        patience.join()
        if bar is not None:
            bar.stop()
    seconds = time.monotonic() - started
    if bar is None:
        rate = f", {size(int(passed / seconds))}/s" if passed and seconds > _PATIENCE else ""
        amount = f"{size(passed)} in " if passed else ""
        click.echo(f"{doing}: {amount}{span(seconds)}{rate}", err=True)


def _bar(doing: str, expected: int | None) -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(doing, total=expected)
    return bar


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
