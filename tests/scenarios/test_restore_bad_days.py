"""A restore on a bad day: nothing is lost, and what is said tells what to do."""

import contextlib
import json
import threading
from dataclasses import replace

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.journal import journals
from bookreader_backup_assets.actions.restore import restore
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.core.errors import (
    BackupError,
    CommandError,
    DamagedError,
    RefusedError,
    SpaceError,
)
from bookreader_backup_assets.vaults.local import LocalVault

DAMAGE = "DELETE FROM alembic_version"


@pytest.fixture
def damaged(embedded_bookreader):
    """A BookReader backed up, then damaged; `good` and `before` are what it held."""
    there = embedded_bookreader
    there.back_up("postgresql")
    good = there.rows()
    there.sql(DAMAGE)
    return there, good, there.rows()


def the_dump(there):
    """The dump's entry, and the path of its file."""
    entry = Catalog(there.installation.vault).newest("postgresql/dump")
    return entry, there.installation.vault.root / entry.name


def databases(there):
    """The databases that are this BookReader's, or made of it: the server has those of other tests, too."""
    ours = f"WHERE datname ~ '^{there.database}(_[a-z].*)?$'"
    return there.sql(f"SELECT string_agg(datname, ',' ORDER BY 1) FROM pg_database {ours}", "postgres")


def untouched(there, before, known):
    """Whether nothing was replaced and nothing was left."""
    return there.rows() == before and databases(there) == known


def test_a_flipped_byte_is_found_before_anything_is_replaced(damaged):
    """The artifact was verified once and has rotted since: refused, with its name, and nothing left."""
    there, _, before = damaged
    entry, path = the_dump(there)
    known = databases(there)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=entry.name):
        restore(there.installation, "postgresql", confirm=there.database)
    assert untouched(there, before, known)
    (journal,) = journals(there.installation)
    assert journal.report()["result"] == "abandoned"
    assert journal.report()["stopped_at"] == "beside"


def test_what_failed_its_checks_is_not_restored(damaged):
    """An artifact whose file is shorter than its entry says is not even begun with."""
    there, _, before = damaged
    _, path = the_dump(there)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedError, match="failed its checks"):
        restore(there.installation, "postgresql", there.installation.today(), confirm=there.database)
    assert there.rows() == before


def test_a_dump_newer_than_the_server_is_refused(damaged):
    """Before anything is touched, with the version that is wanted."""
    there, _, before = damaged
    entry, _ = the_dump(there)
    path = there.installation.vault.root / entry.entry_name
    document = json.loads(path.read_text())
    document["versions"]["server"] = "99.1"
    path.write_text(json.dumps(document))
    known = databases(there)
    with pytest.raises(RefusedError, match="older one cannot read") as refused:
        restore(there.installation, "postgresql", confirm=there.database)
    assert "99" in refused.value.hint
    assert untouched(there, before, known)
    assert journals(there.installation) == []


def test_a_database_that_is_busy_is_swapped_all_the_same(damaged):
    """Sessions that hold it are ended, whoever comes back at once finds the restored one."""
    there, good, _ = damaged
    stop = threading.Event()
    errors = []

    def hammer():
        while not stop.is_set():
            try:
                there.sql("BEGIN; SELECT count(*) FROM users; SELECT pg_sleep(0.05)")
            except CommandError as error:
                errors.append(error)

    clients = [threading.Thread(target=hammer) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        report = restore(there.installation, "postgresql", confirm=there.database)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert report.good
    assert there.rows() == good


def test_the_present_state_must_be_kept(damaged, tmp_path):
    """A live database that cannot be captured refuses the restore, unless a reason is given."""
    there, good, _ = damaged
    there.sql("CREATE TABLE broken (id int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    there.sql("UPDATE pg_proc SET prolang = 0 WHERE proname = 'f'")  # a catalog that pg_dump chokes on
    with pytest.raises(RefusedError, match="cannot be kept") as refused:
        restore(there.installation, "postgresql", confirm=there.database)
    assert "--no-safety" in refused.value.hint
    report = restore(
        there.installation, "postgresql", confirm=there.database, no_safety="its catalog is broken"
    )
    assert report.good
    assert report.safety == "waived: its catalog is broken"
    assert there.rows() == good
    undo(there.installation, report.id, confirm=there.database)
    assert there.sql("SELECT count(*) FROM pg_proc WHERE proname = 'f'") == "1"


def test_no_room_for_the_safety_capture(damaged, monkeypatch):
    """Seen before anything is done, with the numbers."""
    there, _, before = damaged
    monkeypatch.setattr(LocalVault, "free", lambda _: 1000)
    with pytest.raises(SpaceError, match="1000 bytes free"):
        restore(there.installation, "postgresql", confirm=there.database)
    assert there.rows() == before
    assert journals(there.installation) == []


def test_the_server_goes_away_in_the_middle(damaged):
    """Whatever step cannot reach it, the report says which, and the data is one state or the other."""
    there, good, before = damaged

    class Gone:
        """A runner that reaches the server so many times."""

        def __init__(self, inner, times):
            self.inner, self.times = inner, times

        def _count(self):
            self.times -= 1
            if self.times < 0:
                raise CommandError("psql", 2, "", what="lost its server")

        def run(self, argv, **given):
            self._count()
            return self.inner.run(argv, **given)

        def stream(self, argv, **given):
            self._count()
            return self.inner.stream(argv, **given)

        def session(self, argv, **given):
            self._count()
            return self.inner.session(argv, **given)

        def describe(self):
            return self.inner.describe()

    reached = there.installation.restorations["postgresql"]
    stopped_at = set()
    for times in range(4, 60):

        def cut(stored, options, times=times):
            made = reached(stored, options)
            return replace(made, runner=Gone(made.runner, times))

        cut_off = replace(there.installation, restorations={"postgresql": cut})
        try:
            restore(cut_off, "postgresql", confirm=there.database, no_safety="not of interest")
        except BackupError:
            journal = journals(there.installation)[-1:]
            stopped_at |= {j.records[-1]["step"] for j in journal}
            assert there.rows() in (before, good)
        else:
            break
    assert {"beside", "compare", "swap"} <= stopped_at
    report = restore(there.installation, "postgresql", confirm=there.database)
    assert report.good
    assert there.rows() == good
    with contextlib.suppress(RefusedError):
        undo(there.installation, report.id, confirm=there.database)


def test_a_vault_that_takes_no_journal_is_refused(damaged, tmp_path):
    """A vault that is read-only, say: with what to do, and before anything is touched."""
    there, _, before = damaged
    (tmp_path / "file").touch()
    made = replace(there.installation, lock=tmp_path / "file" / "lock")
    with pytest.raises(RefusedError, match="journal") as refused:
        restore(made, "postgresql", confirm=there.database)
    assert "--vault" in refused.value.hint
    assert there.rows() == before


def test_a_damaged_archive_is_named(damaged):
    """Whatever the damage looks like to who reads it: which artifact, and what to do."""
    there, _, _ = damaged
    there.back_up("storage")
    entry = Catalog(there.installation.vault).newest("storage/archive")
    path = there.installation.vault.root / entry.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    files = there.files()
    with pytest.raises(DamagedError) as found:
        restore(there.installation, "storage", confirm=str(there.storage))
    assert entry.name in found.value.hint
    assert "another set" in found.value.hint
    assert there.files() == files
