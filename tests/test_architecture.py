"""The shape of the code: imports point down, it is linted, and its types hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command):
    """Ruff, the strict type checker and import-linter have nothing to say."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_stay_small():
    """No module has more than 300 lines: beyond that a second noun is hiding."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "bookreader_backup_assets").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}
