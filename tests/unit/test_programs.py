"""Finding the programs of servers: a folder that was set, this machine's own, or a wheel's."""

import os

import pytest

from bookreader_backup_assets.core.errors import SourceAbsentError
from bookreader_backup_assets.servers import programs
from tests.fixtures.missing import missing


def _pretend(folder, names, version):
    folder.mkdir(parents=True)
    for name in names:
        program = folder / name
        said = (
            f"Redis server v={version}.0.1"
            if name.startswith("redis")
            else f"{name} (PostgreSQL) {version}.3"
        )
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize("only", ["machine", "wheel"])
@pytest.mark.parametrize(
    ("find", "program"),
    [(programs.postgresql_programs, "pg_dump"), (programs.redis_programs, "redis-server")],
    ids=["postgresql", "redis"],
)
def test_both_ways_of_finding_give_programs_that_run(find, program, only):
    """The machine's programs and the wheel's can each be asked for, and say their version."""
    try:
        folder = find(only=only)
    except SourceAbsentError as error:
        missing(f"{only}: {error.message}")
    assert programs.major_version(folder / program) > 0
    assert ("site-packages" in str(folder)) == (only == "wheel")


def test_a_folder_that_was_set_is_taken(tmp_path):
    """What was set wins over what the machine has."""
    folder = _pretend(tmp_path / "bin", programs.POSTGRESQL, 99)
    assert programs.postgresql_programs(folder) == folder
    assert programs.postgresql_programs(folder, at_least=99) == folder


def test_a_folder_that_was_set_must_be_complete(tmp_path):
    """A folder without the programs is an error that names those missing."""
    folder = _pretend(tmp_path / "bin", programs.POSTGRESQL_CLIENTS, 99)
    assert programs.postgresql_programs(folder, server=False) == folder
    with pytest.raises(SourceAbsentError, match="has no postgres, initdb, pg_ctl"):
        programs.postgresql_programs(folder)
    with pytest.raises(SourceAbsentError, match="has no redis-server, redis-cli"):
        programs.redis_programs(folder)


def test_a_folder_that_was_set_must_be_new_enough(tmp_path):
    """An older version than is needed is an error, not a surprise later."""
    folder = _pretend(tmp_path / "bin", programs.POSTGRESQL, 9)
    with pytest.raises(SourceAbsentError, match="version 9, and 15"):
        programs.postgresql_programs(folder, at_least=15)


def test_the_newest_on_the_machine_is_taken(tmp_path, monkeypatch):
    """Of several versions on PATH the newest is used, wherever it stands."""
    folders = [_pretend(tmp_path / str(v), programs.POSTGRESQL, v) for v in (96, 98, 97)]
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    assert programs.postgresql_programs(at_least=90) == folders[1]
    assert programs.postgresql_programs(only="machine") == folders[1]


def test_the_wheels_programs_are_not_the_machines(tmp_path, monkeypatch):
    """What the virtual environment has is the last choice, also where its folder is first on PATH."""
    own = _pretend(tmp_path / "venv" / "bin", (*programs.REDIS, *programs.POSTGRESQL), 99)
    machine = _pretend(tmp_path / "usr" / "bin", (*programs.REDIS, *programs.POSTGRESQL), 98)
    (tmp_path / "link").symlink_to(own)
    monkeypatch.setattr(programs.sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (own, tmp_path / "link", machine))))
    assert programs.redis_programs() == machine
    assert programs.postgresql_programs(only="machine") == machine
    with pytest.raises(SourceAbsentError):
        programs.redis_programs(at_least=99)


def test_nothing_that_fits_is_an_error_with_a_hint():
    """Without programs the error says how to get some."""
    with pytest.raises(SourceAbsentError, match="no server programs of PostgreSQL 999 or newer") as caught:
        programs.postgresql_programs(at_least=999)
    assert "apt-get install postgresql" in caught.value.hint
    with pytest.raises(SourceAbsentError, match="Redis 999") as caught:
        programs.redis_programs(at_least=999)
    assert "servers" in caught.value.hint
