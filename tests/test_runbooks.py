"""Every runbook's commands are run, in order, against a BookReader that was damaged as the page expects.

A block of a page marked `sh run` is run. `sh restored`: afterwards everything is as it was captured.
`sh undone`: afterwards everything is as it was damaged. `sh killed`: a restore of the database is killed
beside the live one before it. A line whose comment says `exit status 1` has to end with that. Values are
replaced as `docs/runbooks/README.md` says. `OTHERS` have tests of their own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bookreader_backup_assets.actions.restore import plan
from tests.fixtures.code import held
from tests.fixtures.living import Living, with_settings
from tests.fixtures.pages import RUNBOOKS, blocks

PROGRAM = Path(sys.executable).with_name("bookreader-backup")
OTHERS = {"without-this-program.md", "first-day.md", "key.md", "adopt.md", "from-offsite.md"}
MARKS = {"run", "restored", "undone", "killed"}
LINE = re.compile(r"^ *(bookreader-backup .*)$", re.MULTILINE)
REPORT = re.compile(r"2025-10-24_05-10-00_[a-z]+")


def spoil_database(there: Living) -> None:
    """Lose a table, and rows of others."""
    there.sql("DELETE FROM alembic_version; DROP TABLE empty; UPDATE users SET email = 'x' || id")


def spoil_tables(there: Living) -> None:
    """Write nonsense into two tables."""
    there.sql("UPDATE books SET title = 'lost'; UPDATE users SET email = 'x' || id")


def flush_redis(there: Living) -> None:
    """Lose all keys, and have another."""
    there.cache("FLUSHALL")
    there.cache("SET", "later", "1")


def lose_storage(there: Living) -> None:
    """Lose a folder, overwrite a file, and have another."""
    shutil.rmtree(there.storage / "books")
    (there.storage / "covers" / "2.bin").write_bytes(b"overwritten")
    (there.storage / "later.bin").write_bytes(b"uploaded later")


def lose_files(there: Living) -> None:
    """Lose a file, and overwrite another."""
    (there.storage / "books" / "12.bin").unlink()
    (there.storage / "covers" / "2.bin").write_bytes(b"overwritten")


def lose_config(there: Living) -> None:
    """Lose one file, and break another."""
    (there.config / ".env").unlink()
    (there.config / "nginx" / "nginx.conf").write_text("broken")


def lose_code(there: Living) -> None:
    """Lose the repository's objects and a file."""
    shutil.rmtree(there.code / ".git" / "objects")
    (there.code / "README.md").unlink()


def lose_everything(there: Living) -> None:
    """All of it."""
    for damage in (spoil_database, flush_redis, lose_storage, lose_config):
        damage(there)


DAMAGE: dict[str, Callable[[Living], Any]] = {
    "README.md": lose_everything,
    "database.md": spoil_database,
    "table.md": spoil_tables,
    "redis.md": flush_redis,
    "storage.md": lose_storage,
    "file.md": lose_files,
    "config.md": lose_config,
    "code-lost.md": lose_code,
    "host-gone.md": lose_everything,
    "drill.md": lambda _: None,
    "stopped-half-way.md": spoil_database,
}
PAGES = sorted(page.name for page in RUNBOOKS.glob("*.md"))


@dataclass(frozen=True)
class Operator:
    """Somebody who types what a page says."""

    there: Living
    home: Path
    values: dict[str, str]

    def type(self, text: str) -> None:
        """Type the lines of a block."""
        for line in LINE.findall(text):
            argv = [self.put(word) for word in shlex.split(line, comments=True)]
            done = self.call(*argv[1:])
            expected = 1 if "# exit status 1" in line else 0
            assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"

    def put(self, word: str) -> str:
        """Return what is typed for a word of the page."""
        if not REPORT.fullmatch(word):
            return self.values.get(word, word)
        vault = self.values["the vault in use"]
        rows = json.loads(self.call("restore", "reports", "--vault", vault, "--json").stdout)
        return str([row["id"] for row in rows if row["id"].endswith(word.rpartition("_")[2])][-1])

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the program as it is installed, without Dagster, in an empty folder."""
        return subprocess.run(
            [str(PROGRAM), *arguments],
            cwd=self.home,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def kill_one(self) -> None:
        """Kill a restore of the database while it restores beside the live one."""
        folder = self.there.installation.vault.root / "restores"
        known = set(folder.glob("*/*_beside.json"))
        argv = [PROGRAM, "restore", "postgresql", "--from", self.values["2025-10-24"]]
        running = subprocess.Popen(
            [*map(str, argv), "--confirm", self.there.database],
            cwd=self.home,
            env=self.environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while set(folder.glob("*/*_beside.json")) == known:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait(30)

    def environ(self) -> dict[str, str]:
        """The environment of the program."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **self.there.environ}


@pytest.fixture
def operator(embedded_bookreader: Living, tmp_path: Path) -> Operator:
    """An operator at a BookReader that has been backed up, with a copy of the vault and the key."""
    there = with_settings(embedded_bookreader, health_urls=",", file_columns=",")
    day = there.back_up()
    vault = there.installation.vault.root
    shutil.copytree(vault, tmp_path / "copy")
    (tmp_path / "home").mkdir()
    values = {
        "2025-10-24": day,
        "bookreader": there.database,
        "bookreader-redis": plan(there.installation, "redis").target,
        "bookreader-host": there.installation.host,
        "/app/storage": str(there.storage),
        "/opt/bookreader-ai": str(there.config),
        "/mnt/copy/bookreader": str(tmp_path / "copy"),
        "/media/safe/backup_key": there.environ["BACKUP_KEY_FILE"],
        "/tmp/look": str(tmp_path / "look"),
        "books/42.epub": "books/12.bin",
        "the vault in use": str(vault),
    }
    return Operator(there, tmp_path / "home", values)


def state(there: Living) -> dict[str, Any]:
    """Everything, but for times, which an archive of configuration has in whole seconds, and what is kept
    for an undo.
    """
    found = there.everything()
    for name in ("files", "config"):
        found[name] = {
            path: (*what[:3], *what[4:])
            for path, what in found[name].items()
            if b".bookreader" not in path and path != b"."
        }
    return found | {"code": held(there.code)}


def test_every_page_is_known() -> None:
    """A page without a command that is run, or with a mark that nobody knows, is not proven."""
    assert set(PAGES) == {*DAMAGE, *OTHERS}
    for name in DAMAGE:
        marked = [(mark, text) for mark, text in blocks(RUNBOOKS / name) if mark]
        assert any(LINE.search(text) for _, text in marked), name
        assert {mark for mark, _ in marked} <= MARKS, name
        for _, text in marked:
            assert len(LINE.findall(text)) == len(text.strip().splitlines()), text


def test_every_page_is_in_the_index() -> None:
    """Who looks for what happened finds a page for it."""
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"\]\(([a-z-]+\.md)\)", index), "README.md"} == set(PAGES)


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_the_commands_of_the_page(operator: Operator, name: str) -> None:
    """Typed in order, they bring back what was captured, and their undo what was there before."""
    there = operator.there
    good = state(there)
    DAMAGE[name](there)
    damaged = state(there)
    assert (damaged == good) is (name == "drill.md")
    if name in ("code-lost.md", "host-gone.md"):
        operator.values["/opt/bookreader-ai"] = str(there.code)
    if name == "host-gone.md":
        operator.values["the vault in use"] = operator.values["/mnt/copy/bookreader"]
    expected = damaged
    for mark, text in blocks(RUNBOOKS / name):
        if mark == "killed":
            operator.kill_one()
        if mark:
            operator.type(text)
        if mark in ("restored", "undone"):
            expected = good if mark == "restored" else damaged
            assert state(there) == expected, text
    assert state(there) == expected
    databases = there.sql("SELECT datname FROM pg_database", "postgres").split("\n")
    if name == "stopped-half-way.md":
        assert [one for one in databases if one.startswith(f"{there.database}_")] == []
