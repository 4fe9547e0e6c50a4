"""Fixtures of every suite, and the switch that turns a skip for a missing service into a failure."""

import os

import pytest

pytest_plugins = [
    "tests.fixtures.postgresql",
    "tests.fixtures.redis",
    "tests.fixtures.docker",
    "tests.fixtures.installation",
    "tests.fixtures.away",
    "tests.fixtures.git",
    "tests.fixtures.living",
    "tests.fixtures.contained",
    "tests.fixtures.compose",
    "tests.fixtures.guide",
    "tests.fixtures.s3",
]

LONGEST = (
    "test_tools_find_nothing[mypy]",
    "killed_at_random_moments",
    "test_one_of_a_hundred_thousand",
    "test_restore_crashes.py",
    "test_restore_killed.py",
    "test_runbooks.py",
)

for name in [name for name in os.environ if name.startswith("BACKUP_")]:
    del os.environ[name]  # a developer's own settings are not the tests'


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that nobody waits for it at the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what this machine could not run."""
    reasons = {str(report.longrepr[2]) for report in terminalreporter.getreports("skipped")}
    for reason in sorted(reasons):
        terminalreporter.write_line(
            f"not run on this machine: {reason.removeprefix('Skipped: ')}", yellow=True
        )
