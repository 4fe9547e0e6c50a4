"""A restore is killed with SIGKILL, at a random moment: the same command goes on, or undo goes back."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from bookreader_backup_assets.actions.journal import alone, journals, unfinished
from bookreader_backup_assets.actions.restore import restore
from bookreader_backup_assets.actions.undo import finish, undo
from bookreader_backup_assets.core.restore_plan import Options

SCENARIOS = {
    "postgresql": ("rows", lambda there: there.sql("DELETE FROM alembic_version; DROP TABLE empty")),
    "storage": ("files", lambda there: shutil.rmtree(there.storage / "books")),
    "redis": ("keys", lambda there: there.cache("FLUSHDB", database=1)),
    "table": ("rows", lambda there: there.sql("UPDATE users SET email = 'x' || id; DELETE FROM books")),
    "file": ("files", lambda there: (there.storage / "covers/2.bin").write_bytes(b"junk")),
}
"""Each scenario: what of a BookReader it restores, and how that is damaged first."""
COMPONENTS = {"file": "storage", "table": "postgresql"}
"""What is backed up for a scenario, where that is called otherwise."""
OPTIONS = {"file": Options(paths=("covers",)), "table": Options(tables=("users", "books"))}
MOMENTS = 2
_LONGEST: dict[str, float] = {}


def command(there, scenario, *options):
    """Start a restore in a process of its own."""
    argv = [sys.executable, "-m", "bookreader_backup_assets", "restore", scenario, *options]
    target = restore_target(there, scenario)
    for path in options_of(scenario).paths:
        argv += ["--path", path]
    for table in options_of(scenario).tables:
        argv += ["--table", table]
    return subprocess.Popen(
        [*argv, "--confirm", target],
        env={**os.environ, **there.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def restore_target(there, scenario):
    """The name that an operator types back."""
    from bookreader_backup_assets.actions.restore import plan

    return plan(there.installation, scenario, options=options_of(scenario)).target


def options_of(scenario):
    """What a scenario is asked besides what and from where."""
    return OPTIONS.get(scenario, Options())


def killed(there, scenario, after):
    """Start a restore, kill it after some seconds, and say whether it had ended before."""
    running = command(there, scenario)
    try:
        running.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=30)
        return True
    assert running.returncode == 0
    return False


def seconds_of_one(there, scenario):
    """How long a whole restore takes in a process of its own, which is made."""
    started = time.monotonic()
    running = command(there, scenario)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said.decode()
    _LONGEST[scenario] = time.monotonic() - started
    return _LONGEST[scenario]


def longest_of(there, scenario):
    """How long one took, if one was made already; or else makes one."""
    return _LONGEST.get(scenario) or seconds_of_one(there, scenario)


@pytest.fixture(params=SCENARIOS)
def damaged(request, embedded_bookreader):
    """A scenario, a BookReader whose data of it was damaged after a backup, and a way to look at it."""
    what, damage = SCENARIOS[request.param]
    there = embedded_bookreader
    there.back_up(COMPONENTS.get(request.param, request.param))
    good = getattr(there, what)()
    damage(there)
    return request.param, there, getattr(there, what), good


def moments(longest):
    """Random moments of a command that takes `longest` seconds."""
    return [random.uniform(0.2, longest) for _ in range(MOMENTS)]


def test_the_same_command_goes_on(damaged):
    """However often it is killed, the restore that is let live ends with the data of the set."""
    scenario, there, look, good = damaged
    for moment in moments(longest_of(there, scenario)):
        killed(there, scenario, moment)
    target = restore_target(there, scenario)
    report = restore(there.installation, scenario, options=options_of(scenario), confirm=target)
    assert report.good
    assert look() == good
    assert unfinished(there.installation) == []


def test_undo_goes_back(damaged):
    """A restore that was killed is undone: the data is what it was before."""
    scenario, there, look, good = damaged
    before = look()
    assert before != good
    longest = seconds_of_one(there, scenario)
    last = journals(there.installation)[-1]
    undo(there.installation, last.id, confirm=last.header["target"])
    assert look() == before
    for moment in moments(longest):
        known = {journal.id for journal in journals(there.installation)}
        killed(there, scenario, moment)
        for journal in journals(there.installation):
            if journal.id not in known:
                undo(there.installation, journal.id, confirm=journal.header["target"])
        assert look() == before


def test_finish_leaves_one_or_the_other(damaged):
    """A killed restore that is finished leaves the data from before, or the set's, and never a mixture."""
    scenario, there, look, good = damaged
    before = look()
    for moment in moments(longest_of(there, scenario)):
        killed(there, scenario, moment)
        with alone(there.installation):
            finish(there.installation)
        assert look() in (before, good)
        assert unfinished(there.installation) == []
