"""`postgresql/dump` when something is wrong: a clear error, what to do, and nothing half-done."""

import dataclasses
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from bookreader_backup_assets.components import psql
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError, CommandError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers.programs import major_version
from tests.fixtures.missing import missing
from tests.fixtures.postgresql import USER, USER_PASSWORD, programs, shaped_server

KILLS = 100


@pytest.fixture
def dump(postgresql_server, database):
    """The component on a database of the test's own."""
    return PostgresqlDump(postgresql_server.runner, postgresql_server.env, database)


def _capture(component):
    with component.capture() as capture:
        for _ in capture.chunks:
            pass
        return capture.facts()


def _attempt(kept):
    try:
        return kept.capture().size, ""
    except CommandError as error:
        return None, error.message


def _children():
    """Process ids and names of this process's children, whichever thread started them."""
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                yield int(pid), Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue


def _kill(name):
    killed = 0
    for pid, command in list(_children()):
        if command == name:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def _backends(server, database):
    return int(server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"))


def _until(true, within=20.0):
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("env", "kind", "said", "hint"),
    [
        ({"PGPASSWORD": "wrong"}, SourceError, "does not let this user in", "BACKUP_POSTGRESQL_PASSWORD"),
        ({"PGPASSWORD": ""}, SourceError, "does not let this user in", "BACKUP_POSTGRESQL_PASSWORD"),
        ({"PGUSER": "nobody_here"}, SourceError, "does not let this user in", "BACKUP_POSTGRESQL_USER"),
        ({"PGPORT": "1"}, SourceAbsentError, "cannot be reached", "start it"),
        ({"PGHOST": "/nonexistent"}, SourceAbsentError, "cannot be reached", "start it"),
        ({"PGHOST": "nowhere.invalid"}, SourceAbsentError, "cannot be reached", "BACKUP_POSTGRESQL_URL"),
    ],
    ids=["wrong password", "no password", "no such user", "nothing listens", "no socket", "no such host"],
)
def test_a_server_that_cannot_be_used_says_what_to_do(env, kind, said, hint, dump):
    """Each cause has its own sentence and hint, at the capture's start and for `doctor`."""
    broken = dataclasses.replace(dump, env={**dump.env, **env})
    for attempt in (_capture, PostgresqlDump.probe):
        with pytest.raises(kind, match=said) as caught:
            attempt(broken)
        assert hint in caught.value.hint
        assert "wrong" not in str(caught.value)


def test_a_database_that_is_not_there_is_named(dump):
    """The name in question is in the message."""
    with pytest.raises(SourceError, match=r'no such database.*"libros" does not exist') as caught:
        _capture(dataclasses.replace(dump, database="libros"))
    assert "BACKUP_POSTGRESQL_DATABASE" in caught.value.hint


def test_a_table_that_may_not_be_read_fails_the_capture(dump, postgresql_kept):
    """A user who may not read all gets an error with the grant to make, and no file."""
    env = {**dump.env, "PGUSER": USER, "PGPASSWORD": USER_PASSWORD}
    kept = postgresql_kept(dataclasses.replace(dump, env=env))
    with pytest.raises(SourceError, match=r"may not read all.*permission denied") as caught:
        kept.capture()
    assert "pg_read_all_data" in caught.value.hint
    assert [name for name in kept.files() if not name.endswith(".json")] == []


def test_hidden_rows_are_an_error_not_a_smaller_backup(dump, postgresql_server):
    """Row security would silently leave rows out: the capture refuses instead."""
    postgresql_server.sql(
        f"GRANT pg_read_all_data TO {USER}; ALTER TABLE reading_sessions_2024 ENABLE ROW LEVEL SECURITY",
        dump.database,
    )
    env = {**dump.env, "PGUSER": USER, "PGPASSWORD": USER_PASSWORD}
    try:
        with pytest.raises(SourceError, match="row-level security"):
            _capture(dataclasses.replace(dump, env=env))
    finally:
        postgresql_server.sql(f"REVOKE pg_read_all_data FROM {USER}")


def test_an_older_client_is_refused_before_anything_starts(postgresql_kept):
    """pg_dump of an older major version: refused, naming both versions and the setting."""
    older, newer = sorted(
        (programs("machine"), programs("wheel")), key=lambda f: major_version(f / "pg_dump")
    )
    if major_version(older / "pg_dump") == major_version(newer / "pg_dump"):
        missing("two major versions of PostgreSQL")
    with shaped_server(newer) as server:
        component = PostgresqlDump(LocalRunner(programs=older), server.env, "shape")
        kept = postgresql_kept(component)
        with pytest.raises(SourceError, match=r"pg_dump is \d+\.\d+, and the server \d+") as caught:
            kept.capture()
        with pytest.raises(SourceError, match="pg_dump is"):
            component.probe()
    assert "BACKUP_POSTGRESQL_PROGRAMS" in caught.value.hint
    assert [name for name in kept.files() if not name.endswith(".json")] == []


def test_a_newer_client_is_fine(postgresql_kept):
    """A newer pg_dump serves an older server; the check wants a scratch server that can read its dump."""
    older, newer = sorted(
        (programs("machine"), programs("wheel")), key=lambda f: major_version(f / "pg_dump")
    )
    if major_version(older / "pg_dump") == major_version(newer / "pg_dump"):
        missing("two major versions of PostgreSQL")
    with shaped_server(older) as server:
        kept = postgresql_kept(PostgresqlDump(LocalRunner(programs=newer), server.env, "shape"))
        entry = kept.capture()
    outcome = kept.verify(entry, "restorable")["restorable"]
    newest = max(major_version(programs() / "pg_dump"), 0)
    fits = newest >= major_version(newer / "pg_dump")
    assert outcome.verdict is (Verdict.PASSED if fits else Verdict.INCONCLUSIVE), outcome


def test_a_locked_table_ends_the_capture(dump, postgresql_server, monkeypatch):
    """A migration that holds a table makes the capture give up with a hint, rather than wait for ever."""
    for module in ("psql", "postgresql"):
        monkeypatch.setattr(f"bookreader_backup_assets.components.{module}.LOCK_WAIT", 1)
    env = {**dump.env, "PGDATABASE": dump.database}
    argv = ["psql", "-XqAtw"]
    with postgresql_server.runner.session(argv, env=env) as session:
        session.send(b"BEGIN; LOCK TABLE books; SELECT 1;\n")
        session.readline(20)
        with pytest.raises(SourceError, match="stayed locked") as caught:
            _capture(dump)
    assert "migration" in caught.value.hint
    _until(lambda: _backends(postgresql_server, dump.database) == 0)


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A runner whose pg_dump is killed some seconds after it was started."""

    inner: LocalRunner
    delays: list

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def stream(self, argv, **given):
        timer = threading.Timer(self.delays.pop(), _kill, ["pg_dump"])
        timer.start()
        try:
            yield from self.inner.stream(argv, **given)
        finally:
            timer.cancel()
            timer.join()


def test_a_killed_pg_dump_leaves_nothing_under_a_final_name(postgresql_server, postgresql_kept):
    """Killed at a hundred random moments: an error and no file each time, unless it had ended before."""
    name = postgresql_server.new_database()
    postgresql_server.sql(
        "CREATE TABLE pages AS SELECT n, (SELECT string_agg(md5(random()::text || n || m), '')"
        " FROM generate_series(1, 40) m) AS text FROM generate_series(1, 3000) n",
        name,
    )
    whole = PostgresqlDump(postgresql_server.runner, postgresql_server.env, name, digests=False)
    kept = postgresql_kept(whole)
    with whole.capture() as capture:
        started = time.monotonic()
        expected = sum(map(len, capture.chunks))
        took = time.monotonic() - started
    delays = [random.uniform(0.0, took) for _ in range(KILLS)]
    kept = postgresql_kept(dataclasses.replace(whole, runner=Deadly(postgresql_server.runner, delays)))
    killed = 0
    for _ in range(KILLS):
        before = kept.files()
        size, said = _attempt(kept)
        if size is None:
            assert "was killed by SIGKILL" in said
            assert [name for name in kept.files() if name not in before and not name.endswith(".json")] == []
            killed += 1
        else:
            assert abs(size - expected) < 1000
    assert killed > KILLS / 4
    _until(lambda: _backends(postgresql_server, name) == 0)


@pytest.mark.parametrize("moment", ["counting", "afterwards"])
def test_a_session_that_dies_fails_the_capture(moment, dump, postgresql_server, postgresql_kept, monkeypatch):
    """Without the session there is no proof that the counts belong to the dump: an error, no file."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bookreader-backup'"
    )
    end += f" AND datname = '{dump.database}' AND query NOT LIKE '%COPY%' AND pid <> pg_backend_pid()"

    class Ending(LocalRunner):
        def stream(self, argv, **given):
            if moment == "counting":
                postgresql_server.sql(end)
            yield from super().stream(argv, **given)
            postgresql_server.sql(end)

    kept = postgresql_kept(dataclasses.replace(dump, runner=Ending(programs=dump.runner.programs)))
    with pytest.raises(BackupError, match=r"terminating connection|snapshot|server closed|lost"):
        kept.capture()
    assert [name for name in kept.files() if not name.endswith(".json")] == []


def test_leaving_a_capture_early_ends_what_it_started(postgresql_server):
    """Neither a program here nor a query there outlives a capture that was given up."""
    name = postgresql_server.new_database()
    postgresql_server.sql("CREATE TABLE numbers AS SELECT generate_series(1, 1500000) n", name)
    dump = PostgresqlDump(postgresql_server.runner, postgresql_server.env, name)
    with dump.capture() as capture:
        next(capture.chunks)
    _until(lambda: _backends(postgresql_server, name) == 0)
    assert not [command for _, command in _children() if command in ("psql", "pg_dump")]
    assert not [t for t in threading.enumerate() if t.name == "fingerprint"]


@pytest.mark.parametrize("damage", ["cut to half", "cut to its head", "flipped", "junk", "empty"])
def test_a_damaged_dump_is_an_outcome(damage, dump, postgresql_kept):
    """Whatever happened to the bytes, the checks answer: failed, and never an exception."""
    kept = postgresql_kept(dump)
    entry = kept.capture()
    path = kept.path(entry)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        for at in range(len(data) // 2, len(data), 997):
            data[at] ^= 0x55
    damaged = {
        "cut to half": data[: len(data) // 2],
        "cut to its head": data[:40],
        "flipped": data,
        "junk": b"not a dump at all" * 100,
        "empty": b"",
    }[damage]
    path.write_bytes(damaged)
    found = kept.verify(entry)
    assert found["sha256"].verdict is Verdict.FAILED
    assert found["restorable"].verdict is Verdict.FAILED, found["restorable"]
    if damage not in ("cut to half", "flipped"):
        assert found["tables_listed"].verdict is Verdict.FAILED


def test_no_password_is_in_an_argv_or_a_repr(dump, postgresql_server, monkeypatch):
    """Programs get the password in their environment only, and nothing prints it."""
    secret = dump.env["PGPASSWORD"]
    seen = []

    class Watching(LocalRunner):
        def stream(self, argv, **given):
            for chunk in super().stream(argv, **given):
                seen.extend(Path(f"/proc/{pid}/cmdline").read_bytes() for pid, _ in _children())
                yield chunk

    facts = _capture(dataclasses.replace(dump, runner=Watching(programs=dump.runner.programs)))
    assert any(b"pg_dump" in line for line in seen)
    assert any(b"psql" in line for line in seen)
    assert not [line for line in seen if secret.encode() in line]
    assert secret not in repr(dump) + repr(facts) + repr(postgresql_server.server)


def test_the_operators_own_environment_chooses_no_server(dump, monkeypatch, tmp_path):
    """PGHOSTADDR and PGOPTIONS are ignored; PGSERVICE, which libpq prefers to PGHOST, is refused."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.99")
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")
    assert _capture(dump).fingerprint["alembic_version"] == "abc123"
    (tmp_path / "services").write_text("[other]\nhost=/nonexistent\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "other")
    with pytest.raises(SourceError, match="PGSERVICE is set") as caught:
        _capture(dump)
    assert "unset PGSERVICE" in caught.value.hint


def test_every_meaning_has_a_hint():
    """No error of a client program that is understood leaves the reader alone."""
    assert all(hint and what for _, _, what, hint in psql._MEANINGS)
    unknown = CommandError("psql", 1, "psql: something else")
    assert psql.meaning(unknown) is unknown
