"""One table: this project, the guide's own script, restic and borg, on the same data in one run.

python bench/run.py [--scale 1.0] [--only WHAT,...] [--json] [--folder FOLDER]

What is compared, and how, is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import competitors
import data
import table
from competitors import PARTS, Command, System
from measure import Watched, watched
from restored import restored
from table import (
    BORG,
    CAPTURE,
    CHECKS,
    DAGSTER,
    EVERYTHING,
    GUIDE,
    MANIFEST,
    READ_BACK,
    RESTIC,
    RESTORABLE,
    US,
    Row,
    Rows,
)

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers import postgresql, redis
from bookreader_backup_assets.servers.programs import postgresql_programs, redis_programs

WHO = {"ours": US, "guide": GUIDE, "restic": RESTIC, "borg": BORG}
_STARTED = time.monotonic()


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    """Fill, compare, print. Return 0 whatever the goals say: figures of one machine fail nothing."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)  # servers and folders are taken away then too
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)  # as root, a scratch PostgreSQL runs as nobody, who must reach its folder
        said = table.machine()
        system, sizes = _fill(stack, folder, options.scale, options.parts)
        rows = Rows(tuple(_compare(system, options)), _idle(system), sizes)
        said |= competitors.versions(system)
    if options.json:
        document = {
            "scale": options.scale,
            "machine": said,
            "bytes": sizes,
            "idle_memory": rows.idle,
            "rows": [asdict(row) for row in (*rows.rows, *rows.totals())],
            "goals": [asdict(goal) for goal in rows.goals()],
        }
        print(json.dumps(document, indent=1))
    else:
        print(", ".join(f"{name} {value}" for name, value in said.items()))
        print(", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items()) + "\n")
        print(table.table(rows) + "\n\n" + table.goals(rows))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1.0: 1 GB of database, 100 MB of Redis, 2 GB of storage"
    )
    names = (*WHO, *PARTS)
    parser.add_argument(
        "--only",
        default="",
        help=f"separated by commas, competitors or parts or both: {', '.join(names)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--folder", help="where its temporary folder is made: 10 GB free at scale 1.0")
    options = parser.parse_args()
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"--only knows {', '.join(names)}, and not {', '.join(unknown)}")
    options.who = [name for name in chosen if name in WHO] or list(WHO)
    options.parts = [name for name in chosen if name in PARTS] or list(PARTS)
    return options


def _fill(stack: ExitStack, folder: Path, scale: float, parts: list[str]) -> tuple[System, dict[str, int]]:
    database = stack.enter_context(
        postgresql.start(postgresql_programs(), superuser="bookreader", password=Secret("not-a-secret"))
    )
    cache = stack.enter_context(
        redis.start(redis_programs(), folder, password=Secret("not-a-secret"), appendonly=True)
    )
    system = System(folder, database, cache, folder / "storage", folder / "configuration")
    sizes = {}
    if "postgresql" in parts:
        _say(f"filling the database, scale {scale}")
        sizes["postgresql"] = data.fill_database(database, scale)
    if "redis" in parts:
        _say("filling Redis")
        sizes["redis"] = data.fill_redis(cache, scale)
    if "storage" in parts:
        _say("filling storage")
        sizes["storage"] = data.fill_storage(system.storage, scale)
    _say(", ".join(f"{part} {size / 1e6:.0f} MB" for part, size in sizes.items()))
    data.fill_configuration(system.configuration)
    return system, sizes


def _compare(system: System, options: argparse.Namespace) -> Iterator[Row]:
    for part in options.parts:
        if "guide" in options.who:
            row, _ = _step(system, competitors.guide(system, part), part, GUIDE, CAPTURE)
            _say(f"  {restored(system, part)}")
            yield row
        if part == "storage":
            yield from _others(system, options)
        if "ours" in options.who:
            yield from _ours(system, part)
    if set(options.parts) == set(PARTS) and {"guide", "ours"} <= set(options.who):
        row, _ = _step(system, competitors.guide(system, MANIFEST), MANIFEST, GUIDE, CAPTURE)
        yield row
        shutil.rmtree(system.folder / "guide")
        shutil.rmtree(system.folder / "ours")
        yield from _ours(system, EVERYTHING)


def _others(system: System, options: argparse.Namespace) -> Iterator[Row]:
    made: dict[str, tuple[Callable[..., Command], tuple[str, ...], tuple[str, ...]]] = {
        "restic": (competitors.restic, ("backup", str(system.storage)), ("check", "--read-data")),
        "borg": (competitors.borg, ("create", "::bench", str(system.storage)), ("check", "--verify-data")),
    }
    for name in (name for name in made if name in options.who):
        command, capture, check = made[name]
        if competitors.absent(name):
            yield Row("storage", WHO[name], CAPTURE, note="skipped: not installed")
            continue
        for step, verb in ((CAPTURE, capture), (CHECKS, check)):
            row, _ = _step(system, command(system, *verb), "storage", WHO[name], step)
            yield row
        shutil.rmtree(system.folder / name)


def _ours(system: System, part: str) -> Iterator[Row]:
    command = competitors.ours(system, part)
    whole, seen = _step(system, command, part, US, "all")
    since = time.time() - seen.seconds
    found = competitors.phases(command, since)
    for phase in found:
        _say(f"  {phase.kind} {phase.asset}: {phase.begin - since:.1f} to {phase.end - since:.1f} s")
    rest = seen.seconds
    for kind in (CAPTURE, READ_BACK, CHECKS, RESTORABLE):
        of_kind = [phase for phase in found if phase.kind == kind]
        if not of_kind:
            continue
        spans = [(phase.begin, phase.end) for phase in of_kind]
        seconds = sum(phase.seconds for phase in of_kind)
        rest -= seconds
        yield Row(
            part,
            US,
            kind,
            seconds,
            memory=seen.peak_memory(spans),
            disk=seen.peak_disk(spans),
            output=whole.output if kind == CAPTURE else None,
            note=", ".join(f"{p.asset} {p.seconds:.1f}" for p in of_kind)
            if kind == CAPTURE and len(of_kind) > 1
            else "",
        )
    yield Row(part, US, DAGSTER, rest, memory=seen.peak_memory(), disk=seen.peak_disk(), note="peaks of all")


def _idle(system: System) -> int:
    _, seen = _step(system, competitors.idle(system), "", US, "idle Dagster run")
    return seen.peak_memory()


def _step(system: System, command: Command, part: str, who: str, step: str) -> tuple[Row, Watched]:
    competitors.prepare(command)
    _warm(system)
    seen = watched(
        command.argv,
        command.env,
        output=command.output,
        temporary=command.temporary,
        log=system.folder / "log",
        patience=command.patience,
    )
    _say(f"{part or 'nothing'}: {who}, {step}: {seen.seconds:.1f} s, {seen.peak_memory() / 1e6:.0f} MB")
    output = seen.output if step != CHECKS else None
    return Row(part, who, step, seen.seconds, seen.peak_memory(), seen.peak_disk(), output), seen


def _warm(system: System) -> None:
    """Write what is waiting to be written, and read all sources once, so that everybody starts alike."""
    os.sync()
    for folder in (system.storage, system.database.data / "base", system.redis.folder):
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass


def _say(what: str) -> None:
    print(f"{time.monotonic() - _STARTED:7.1f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
