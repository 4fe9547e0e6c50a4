"""The log of this program itself: one line for each capture, verification, restore, drill, and refusal.

`<UTC> <level> <what> <subject> <outcome>`, appended to the file of `BACKUP_LOG` by every process that works
here. It tells what happened when; what there is, the vault tells.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.errors import BackupError, RefusedError

NAME = "bookreader-backup"


def silent() -> logging.Logger:
    """Return a log that nobody reads."""
    log = logging.Logger(NAME)  # noqa: LOG001 - not the process's: each installation has its own
    log.addHandler(logging.NullHandler())
    return log


def open_log(path: Path, now: Callable[[], datetime]) -> logging.Logger:
    """Return the log in the file at `path`, made with mode 0600 when its first line is written."""
    log = logging.Logger(NAME)  # noqa: LOG001 - as above
    log.addHandler(_Appending(path, now))
    return log


@contextmanager
def noted(log: logging.Logger, what: str, subject: str) -> Iterator[Callable[[str], object]]:
    """Write one line when the block ends: what it said at last, or what went wrong."""
    said = ["done"]
    try:
        yield said.append
    except RefusedError as error:
        log.warning("%s %s refused: %s", what, subject, error.message)
        raise
    except BackupError as error:
        log.error("%s %s failed: %s", what, subject, error.message)  # noqa: TRY400 - one line, no traceback
        raise
    except Exception as error:
        log.error("%s %s failed: %s", what, subject, type(error).__name__)  # noqa: TRY400 - as above
        raise
    except BaseException:
        log.warning("%s %s stopped", what, subject)
        raise
    log.info("%s %s %s", what, subject, said[-1])


@contextmanager
def refusals(log: logging.Logger, what: str) -> Iterator[None]:
    """Write a line if the block is refused. For what says itself how it ended."""
    try:
        yield
    except RefusedError as error:
        log.warning("%s refused: %s", what, error.message)
        raise


def note_checks(log: logging.Logger, artifact: str, outcomes: tuple[Outcome, ...]) -> None:
    """Write the line of a verification: its verdicts, and what was wrong."""
    bad = [f"{o.check} {o.verdict}: {o.message}" for o in outcomes if o.verdict is not Verdict.PASSED]
    failed = any(o.verdict is Verdict.FAILED for o in outcomes)
    level = logging.ERROR if failed else logging.WARNING if bad else logging.INFO
    log.log(level, "verify %s %s", artifact, "; ".join(bad) or f"{len(outcomes)} checks passed")


class _Appending(logging.Handler):
    """Opens, appends one line in one write, and closes: many processes share the file, and rotate it."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._path = path
        self._now = now

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line. A log that cannot be written spoils no backup: it is said on stderr."""
        message = " ".join(record.getMessage().split("\n"))
        at = self._now().astimezone(UTC)
        line = f"{at:%Y-%m-%dT%H:%M:%S.%f}Z {record.levelname} {message}\n"
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, line.encode("utf-8", "backslashreplace"))
            finally:
                os.close(file)
        except OSError as error:
            sys.stderr.write(f"BACKUP_LOG {self._path} cannot be written: {error.strerror}\n")
