"""One command, watched from outside: seconds, memory of its processes, and disk it needs for a while.

Linux only: everything is read from /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MEMORY_EVERY = 0.05
"""Seconds between two looks at memory."""
DISK_SHARE = 20
"""A look at the disk is followed by a pause of so many times what it took: 5 % of one core at most."""
SERVERS = ("postgres", "redis-server")
"""Programs that are not counted: the scratch servers of a test restore."""


@dataclass
class Watched:
    """What was seen of one command: `memory` and `disk` are (clock, bytes) in the order of time."""

    seconds: float = 0.0
    output: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    disk: list[tuple[float, int]] = field(default_factory=list)

    def peak_memory(self, spans: Iterable[tuple[float, float]] | None = None) -> int:
        """The most resident memory (bytes) of all processes together, within `spans` of the clock."""
        return _peak(self.memory, spans)

    def peak_disk(self, spans: Iterable[tuple[float, float]] | None = None) -> int:
        """The most bytes on disk that were neither there before nor are part of the output."""
        return _peak(self.disk, spans)


def watched(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    output: Path,
    temporary: Sequence[Path],
    log: Path,
    patience: float,
) -> Watched:
    """Run `argv` to its end and return what was seen of it.

    `output` is the folder that it leaves its result in: a file there that is gone at the end was
    temporary. In the folders `temporary` everything is, but for what they held before. Raises
    `RuntimeError` with the end of its log if it fails or is not done within `patience` seconds.
    """
    before = sum(_size(folder) for folder in temporary)
    held = _files(output)
    found = Watched()
    files: list[tuple[float, int, dict[int, int]]] = []
    done = threading.Event()
    with log.open("ab") as said:
        began = time.monotonic()
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )

        def look_at_memory() -> None:
            known: set[int] = set()
            while not done.wait(MEMORY_EVERY):
                pids = set(_tree(process.pid))
                # a child has all of its parent's memory between vfork and exec: it counts when seen again
                found.memory.append((time.time(), sum(_resident(pid) for pid in pids & known)))
                known = pids

        def look_at_disk() -> None:
            took = 0.0
            while not done.wait(max(MEMORY_EVERY, DISK_SHARE * took)):
                start = time.monotonic()
                other = sum(_size(folder) for folder in temporary) - before + _unlinked(_tree(process.pid))
                files.append((time.time(), other, _files(output)))
                took = time.monotonic() - start

        lookers = [threading.Thread(target=look, daemon=True) for look in (look_at_memory, look_at_disk)]
        for looker in lookers:
            looker.start()
        try:
            status = process.wait(patience)
            found.seconds = time.monotonic() - began
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            done.set()
            for looker in lookers:
                looker.join()
    if status != 0:
        end = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{argv[0]} ended with {status}:\n{end}")
    final = _files(output)
    found.output = sum(size for inode, size in final.items() if inode not in held)
    for at, other, seen in files:
        gone = sum(size for inode, size in seen.items() if inode not in final)
        found.disk.append((at, max(0, other) + gone))
    return found


def _peak(samples: list[tuple[float, int]], spans: Iterable[tuple[float, float]] | None) -> int:
    within = None if spans is None else list(spans)
    return max(
        (
            value
            for at, value in samples
            if within is None or any(begin <= at <= end for begin, end in within)
        ),
        default=0,
    )


def _tree(root: int) -> Iterator[int]:
    try:
        with open(f"/proc/{root}/comm", encoding="utf-8", errors="replace") as file:
            if file.read().strip() in SERVERS:
                return
        threads = os.listdir(f"/proc/{root}/task")
    except OSError:  # it has ended
        return
    yield root
    for thread in threads:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{root}/task/{thread}/children", encoding="ascii") as file,
        ):
            for child in file.read().split():
                yield from _tree(int(child))


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _unlinked(pids: Iterable[int]) -> int:
    """Return the bytes in files without a name that these processes hold open, each once."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        found[status.st_ino] = status.st_size
    return sum(found.values())


def _files(folder: Path) -> dict[int, int]:
    """Return the size of every file below `folder`, by inode: a renamed file is the same file."""
    return {status.st_ino: status.st_size for status in _stats(str(folder))}


def _size(folder: Path) -> int:
    return sum(_files(folder).values())


def _stats(folder: str) -> Iterator[os.stat_result]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # made later, or gone again
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _stats(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False)
