"""What a killed demo left behind: servers, ended where they are surely its own, and their folders."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_ENDS_WITHIN = 15.0


def record(file: Path, servers: Iterable[tuple[int, Path]], *, kept: Iterable[tuple[int, Path]] = ()) -> None:
    """Write down the servers that now run, by process id and folder, in case nobody gets to end them.

    The folders of those that are `kept` outlive them.
    """
    lines = [
        [pid, str(folder), stays] for stays, of in ((False, servers), (True, kept)) for pid, folder in of
    ]
    file.write_text(json.dumps(lines), encoding="utf-8")


def end_previous(file: Path) -> None:
    """End the servers in `file` that still run, and remove their folders, unless those are to stay.

    A process id may belong to somebody else by now: a process is ended only where its working folder is
    in the one written down. Where that cannot be asked (no /proc), nothing is ended and nothing removed.
    """
    try:
        lines = json.loads(file.read_text(encoding="utf-8"))
        recorded = [(int(pid), Path(folder), bool(stays)) for pid, folder, stays in lines]
    except (OSError, ValueError, TypeError):
        recorded = []
    for pid, folder, stays in recorded:
        if not Path("/proc/self/cwd").exists():
            continue
        for number in (signal.SIGINT, signal.SIGKILL):
            if _runs_in(pid, folder):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
                _await_end(pid, folder)
        if not stays:
            shutil.rmtree(folder, ignore_errors=True)
    file.unlink(missing_ok=True)


def _runs_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder.resolve())
    except OSError:
        return False


def _await_end(pid: int, folder: Path) -> None:
    deadline = time.monotonic() + _ENDS_WITHIN
    while _runs_in(pid, folder) and time.monotonic() < deadline:
        time.sleep(0.02)
