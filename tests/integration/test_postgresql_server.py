"""PostgreSQL servers that we start ourselves."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers import postgresql
from tests.fixtures.postgresql import programs

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder():
    """A folder that the server's account can reach: pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="bb-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def _ask(server, query, **env):
    runner = LocalRunner(programs=server.programs)
    return runner.run(["psql", "-XqAtwc", query], env={**server.env, **env}).stdout.decode().strip()


def _gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_server_with_a_password_asks_for_it(folder):
    """It listens on 127.0.0.1 with scram, fsync as asked, and leaves neither process nor folder."""
    password = Secret('it\'s %s "odd" \\')
    with postgresql.start(
        programs(), folder, superuser="boss", password=password, durable=True, settings={"work_mem": "5MB"}
    ) as server:
        assert server.host == "127.0.0.1"
        assert _ask(server, "SELECT current_user, current_setting('fsync')") == "boss|on"
        assert _ask(server, "SHOW work_mem") == "5MB"
        with pytest.raises(CommandError, match="password authentication failed"):
            _ask(server, "SELECT 1", PGPASSWORD="wrong")
        assert not list(server.data.parent.glob("password*"))
        assert password.reveal() not in repr(server)
        assert list(folder.iterdir())
    assert _gone(server.pid)
    assert list(folder.iterdir()) == []


def test_a_scratch_server_is_reached_by_its_socket_only(folder):
    """No port, no password; `scratch` is the only role; a deep folder does not make the path too long."""
    deep = folder / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with postgresql.scratch(programs(), deep) as scratch:
        query = "SELECT string_agg(rolname, ','), current_setting('listen_addresses') FROM pg_roles"
        query += " WHERE rolname !~ '^pg_'"
        said = scratch.runner.run(["psql", "-XqAtwc", query], env=scratch.env)
        assert said.stdout == b"scratch|\n"
        assert scratch.sees_files
        assert os.stat(scratch.env["PGHOST"]).st_mode & 0o077 == 0
    assert list(deep.iterdir()) == []
    assert not os.path.exists(scratch.env["PGHOST"])


def test_two_servers_at_once_do_not_meet():
    """Each has its own port and folder."""
    secret = Secret("x")
    with (
        postgresql.start(programs(), password=secret) as one,
        postgresql.start(programs(), password=secret) as two,
    ):
        assert one.port != two.port
        assert one.data != two.data


def test_an_error_inside_still_ends_the_server(folder):
    """Whatever happens to its user, the server and its folder go."""
    with pytest.raises(KeyboardInterrupt), postgresql.start(programs(), folder) as server:  # noqa: PT012
        connected = server.pid
        raise KeyboardInterrupt
    assert _gone(connected)
    assert list(folder.iterdir()) == []


def test_a_server_that_does_not_start_shows_its_log(folder):
    """A setting that it refuses: the error holds the server's own words, and nothing is left."""
    with (
        pytest.raises(SourceError, match="no_such_setting"),
        postgresql.start(programs(), folder, settings={"no_such_setting": "1"}),
    ):
        pass
    assert list(folder.iterdir()) == []


def test_a_cluster_that_cannot_be_made_says_why(folder):
    """The words of initdb are in the error."""
    with (
        pytest.raises(CommandError, match=r"initdb.*pg_bad"),
        postgresql.start(programs(), folder, superuser="pg_bad"),
    ):
        pass
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error():
    """The hint names the setting."""
    with (
        pytest.raises(SourceAbsentError, match="nonexistent") as caught,
        postgresql.start(programs(), Path("/nonexistent")),
    ):
        pass
    assert "BACKUP_SCRATCH" in caught.value.hint


@pytest.mark.skipif(not AS_ROOT, reason="only root runs servers as another user")
def test_as_root_a_closed_folder_is_refused_for_data(tmp_path):
    """Nobody cannot enter a home: said before anything is made."""
    tmp_path.chmod(0o700)
    with (
        pytest.raises(SourceAbsentError, match="nobody, who cannot reach"),
        postgresql.scratch(programs(), tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root runs servers as another user")
def test_as_root_programs_in_a_closed_home_are_copied(tmp_path):
    """Programs that nobody may execute, such as a wheel in root's home, are used from a copy."""
    wheel = programs("wheel")
    home = tmp_path / "home"
    shutil.copytree(wheel.parent, home / "pg", symlinks=True)
    home.chmod(0o700)
    for _ in range(2):
        with postgresql.scratch(home / "pg" / "bin") as scratch:
            done = scratch.runner.run(["psql", "-XqAtwc", "SELECT 1"], env=scratch.env)
        assert done.stdout == b"1\n"
    used = scratch.runner.programs
    assert home not in used.parents
    assert used == postgresql._copied(home / "pg" / "bin")
