"""What the guide's script has left is adopted as far as it is whole, and nothing of it is touched."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from bookreader_backup_assets.actions.adopt import adopt
from bookreader_backup_assets.actions.adopt_found import ADOPTED
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.restore_source import choose
from bookreader_backup_assets.actions.seal import fold_set
from bookreader_backup_assets.cli.adopt import command
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.guide import HOST, Script, installed
from tests.fixtures.living import embedded, with_settings
from tests.fixtures.missing import missing
from tests.fixtures.trees import as_nobody, look

LEFT = ("postgresql/dump", "postgresql/sql", "redis/rdb", "storage/archive", "config/archive")


@dataclass(frozen=True)
class Night:
    """One run of the script: its folder, and its stamp."""

    script: Script
    stamp: str


@pytest.fixture(scope="module")
def night(system, redis_folder, shared_scratch, tmp_path_factory):
    """The script was run once on a BookReader, and found no gpg. Copy what it left; change nothing of it."""
    folder = tmp_path_factory.mktemp("night")
    with embedded(system, redis_folder, folder, shared_scratch) as there:
        script = installed(there, folder)
        yield Night(script, script.run())


@pytest.fixture
def there(night, tmp_path):
    """The BookReader of that night, with a vault of the test's own."""
    return with_settings(night.script.there, vault=str(tmp_path / "vault"))


@pytest.fixture
def left(night, tmp_path):
    """A copy of what the script left, to be damaged."""
    return Path(shutil.copytree(night.script.folder, tmp_path / "left", symlinks=True))


def only(folder, pattern):
    """Leave nothing in a folder but one file, and return it."""
    (kept,) = folder.rglob(pattern)
    for path in folder.rglob("*"):
        if path.is_file() and path != kept:
            path.unlink()
    return kept


def adopted(installation, folder, **options):
    """Adopt, and return the lines by file name."""
    return {Path(line.file).name: line for line in adopt(installation, folder, **options)}


def by_kind(lines):
    """The lines of backups, by what they are."""
    return {line.asset: line for line in lines.values() if line.asset in LEFT}


def entries(installation):
    """All that the vault has."""
    return Catalog(installation.vault).entries()


def vault_files(installation):
    """Every file of the vault, entry or not."""
    return [path for path in installation.vault.root.rglob("*") if path.is_file()]


def test_a_night_of_the_script(there, left, night):
    """Planned, adopted once, and proven; named after its day and host; what lies there is as it was."""
    before = look(os.fsencode(left))
    planned = by_kind(adopted(there.installation, left, plan=True))
    assert {asset: line.verdict for asset, line in planned.items()} == dict.fromkeys(LEFT, "ready")
    assert vault_files(there.installation) == []
    lines = adopted(there.installation, left)
    assert {asset: line.verdict for asset, line in by_kind(lines).items()} == dict.fromkeys(LEFT, "verified")
    assert lines[f"backup_manifest_{night.stamp}.txt"].verdict == "read"
    assert look(os.fsencode(left)) == before
    held = {entry.asset: entry for entry in entries(there.installation)}
    moment = datetime.strptime(night.stamp, "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC)
    for asset, entry in held.items():
        assert (entry.label, entry.late, entry.host) == (ADOPTED, True, HOST)
        assert entry.set == night.stamp[:10] == by_kind(lines)[asset].set
        assert timedelta(0) <= entry.captured_at - moment < timedelta(seconds=10)
        assert entry.source["checksum"] == "as its manifest has it"
        assert entry.source["fingerprint"] == "taken at adoption"
    assert held["postgresql/dump"].fingerprint["tables"]["public.books"]["rows"] == 2000
    assert held["postgresql/dump"].fingerprint["alembic_version"] == "abc123"
    assert held["postgresql/dump"].fingerprint["sequences"]["public.users_id_seq"] == 300
    assert "public.countdown" not in held["postgresql/dump"].fingerprint["sequences"]
    assert held["postgresql/dump"].source["encoding"] == "UTF8"
    assert held["postgresql/dump"].source["collate"]
    assert held["config/archive"].source["key"]
    (dump,) = left.rglob("*.dump")
    assert (there.installation.vault.root / held["postgresql/dump"].name).read_bytes() == dump.read_bytes()
    for path in vault_files(there.installation):
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"SECRET_KEY_OF_BOOKREADER" not in path.read_bytes()
    again = by_kind(adopted(there.installation, left))
    assert {asset: line.verdict for asset, line in again.items()} == dict.fromkeys(LEFT, "already")
    assert entries(there.installation) == sorted(held.values(), key=lambda e: (e.captured_at, e.name))


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_the_script_as_it_runs_in_production(docker_bookreader, tmp_path):
    """`docker exec` and `docker cp`: proven in scratch containers; the owners that are lost come back."""
    there = docker_bookreader
    if shutil.which("docker") is None:
        missing("no docker command, which the script is made of")
    for path in (there.storage, *there.storage.rglob("*")):
        os.chown(path, 4711, 4712)
    good = look(os.fsencode(there.storage), seconds=True)
    script = installed(there, tmp_path)
    script.run()
    lines = by_kind(adopted(there.installation, script.folder))
    assert {asset: line.verdict for asset, line in lines.items()} == dict.fromkeys(LEFT, "verified")
    assert "4711:4712" in lines["storage/archive"].why
    held = {entry.asset: entry for entry in entries(there.installation)}
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(there.installation.vault.root / held["storage/archive"].name) as archive:
        archive.extractall(tmp_path / "unpacked", filter="fully_trusted")
    assert look(os.fsencode(tmp_path / "unpacked"), seconds=True) == good


def cut(path, part=2):
    """Keep the first half, or another part."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // part])


def cut_inside(path):
    """Let tar have been killed, and gzip have ended well."""
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[: len(data) // 1024 * 512]))


def test_half_files_get_no_entry(there, left):
    """Each is named and said to be damaged; of none is anything in the vault."""
    (left / f"{next(left.rglob('backup_manifest*')).name}").unlink()
    paths = {suffix: next(left.rglob(suffix)) for suffix in ("*.dump", "*.sql.gz", "*.rdb.gz", "config_*")}
    (archive,) = left.rglob("storage_*")
    twin = archive.with_name("storage_2025-10-24_02-00-00.tar.gz")
    shutil.copy(archive, twin)
    empty = paths["*.dump"].with_name("bookreader_2025-10-24_02-00-00.dump")
    empty.touch()
    for path in (*paths.values(), archive):
        cut(path)
    cut_inside(twin)
    lines = adopted(there.installation, left)
    assert {line.verdict for line in lines.values()} == {"damaged"}
    assert len(lines) == 7
    assert all(line.bad and line.why for line in lines.values())
    assert lines[empty.name].why == "it is empty"
    assert "cut short" in lines[twin.name].why
    assert vault_files(there.installation) == []


def test_a_dump_cut_anywhere_is_half(there, left):
    """Without its last bytes, or within its header: no place is late or early enough to look whole."""
    dump = only(left, "*.dump")
    whole = dump.read_bytes()
    for size in (len(whole) - 1, len(whole) // 4, 30, 8):
        dump.write_bytes(whole[:size])
        (line,) = adopted(there.installation, left, plan=True).values()
        assert line.verdict == "damaged", size


def test_foreign_files_and_impossible_names(there, left, tmp_path):
    """What is nobody's backup is passed over; what cannot be of that moment is refused, and says why."""
    rdb = only(left, "*.rdb.gz")
    outside = tmp_path / "outside.dump"
    outside.write_bytes(b"PGDMP")
    for name in ("notes.txt", "backup.dump", "bookreader_backup.tar.gz", "redis.conf"):
        (left / name).write_text("foreign", encoding="utf-8")
    (left / "bookreader_2025-10-25_02-00-00.dump").symlink_to(outside)
    (left / "linked").symlink_to(tmp_path)
    os.mkfifo(left / "dump_2025-10-26_02-00-00.rdb.gz")
    refused = {
        "dump_2025-02-30_02-00-00.rdb.gz": "no moment",
        "dump_2025-10-24_25-00-00.rdb.gz": "no moment",
        "dump_2999-01-01_00-00-00.rdb.gz": "still to come",
        "redis_dump_2025-10-24.rdb.gz": "written on another day",
    }
    for name in refused:
        shutil.copy(rdb, left / name)
    (left / "storage_2025-10-24_02-00-00.tar.gz").write_bytes(b"not an archive at all")
    (left / "bookreader_2025-10-24_02-00-00.dump").write_bytes(b"PGDM is not enough")
    rdb.unlink()
    before = {path: path.lstat() for path in left.rglob("*")}
    lines = adopted(there.installation, left)
    for name, said in refused.items():
        assert lines.pop(name).why.count(said), name
    assert lines.pop("storage_2025-10-24_02-00-00.tar.gz").verdict == "damaged"
    assert lines.pop("bookreader_2025-10-24_02-00-00.dump").verdict == "damaged"
    assert {line.verdict for line in lines.values()} == {"passed over"}
    assert len(lines) == 7
    after = {path: path.lstat() for path in left.rglob("*")}
    assert {p: (s.st_ino, s.st_mtime_ns, s.st_mode) for p, s in after.items()} == {
        p: (s.st_ino, s.st_mtime_ns, s.st_mode) for p, s in before.items()
    }
    assert vault_files(there.installation) == []


def test_what_is_not_as_its_manifest_has_it(there, left):
    """A file that was changed since is named and not taken, whole as it may be; without a manifest, it is."""
    rdb = only(left, "*.rdb.gz")
    sums = left / "backup_checksums_2025-10-24.txt"
    sums.write_text(f"{'0' * 64}  ./redis/{rdb.name}\n", encoding="ascii")
    line = adopted(there.installation, left)[rdb.name]
    assert (line.verdict, line.why) == ("damaged", "its sha256 is not the one that its manifest has")
    result = CliRunner().invoke(command, [str(left)], env=there.environ)
    assert result.exit_code == 1
    assert "1 damaged" in result.stdout
    assert "nothing there was changed" in result.stdout
    sums.write_text("nothing of use", encoding="ascii")
    lines = adopted(there.installation, left)
    assert lines[rdb.name].verdict == "verified"
    assert lines[sums.name].verdict == "passed over"
    (entry,) = entries(there.installation)
    assert entry.source["checksum"] == "in no manifest"


def test_a_dump_of_redis_that_is_the_one_before(script):
    """BGSAVE had not ended: it is of the instant that Redis says, under that day, and is told; once."""
    there = script.there
    there.cache("BGSAVE")
    time.sleep(1.1)
    there.cache("SET", "later", "than the save")
    there.cache("CONFIG", "SET", "rdb-key-save-delay", "20000")
    script.run(sleep="0", gpg="none")
    rdb = only(script.folder, "*.rdb.gz")
    (line,) = adopted(there.installation, script.folder).values()
    assert line.verdict == "verified"
    assert "older than its name says" in line.why
    (entry,) = entries(there.installation)
    assert entry.captured_at < datetime.strptime(rdb.name[5:24], "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC)
    assert entry.problems
    with gzip.open(rdb) as old, gzip.open(rdb.with_name("dump_2026-01-01_02-00-00.rdb.gz"), "wb", 1) as new:
        shutil.copyfileobj(old, new)
    lines = adopted(there.installation, script.folder)
    assert {line.verdict for line in lines.values()} == {"already"}


def test_an_archive_that_nests(script):
    """What an older run had left in /tmp is left out, and named: the tree that was copied is the night's."""
    there = script.there
    stale = script.temporary / "storage_backup"
    shutil.copytree(there.storage, stale)
    (stale / "books" / "0.bin").write_bytes(b"as it was long ago")
    (stale / "books" / "deleted since.bin").write_bytes(b"long ago")
    good = look(os.fsencode(there.storage), seconds=True)
    script.run()
    only(script.folder, "storage_*")
    (line,) = adopted(there.installation, script.folder).values()
    assert line.verdict == "verified"
    assert "an older run" in line.why
    (entry,) = entries(there.installation)
    into = script.folder.with_name("unpacked")
    into.mkdir()
    with tarfile.open(there.installation.vault.root / entry.name) as archive:
        archive.extractall(into, filter="fully_trusted")
    assert look(os.fsencode(into), seconds=True) == good


def test_a_folder_of_storage_that_is_called_storage(there, left):
    """One that shares no name with its neighbours is BookReader's own, and is kept with them."""
    archive = only(left, "storage_*")
    with tarfile.open(archive, "w:gz", format=tarfile.GNU_FORMAT) as made:
        for name in ("", "/books", "/storage", "/storage/else"):
            folder = tarfile.TarInfo(f"storage_backup{name}")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            made.addfile(folder)
        for name in ("books/1.epub", "storage/else/2.epub"):
            member = tarfile.TarInfo(f"storage_backup/{name}")
            member.size = 3
            made.addfile(member, io.BytesIO(b"abc"))
    (line,) = adopted(there.installation, left).values()
    assert line.verdict == "verified"
    (entry,) = entries(there.installation)
    assert entry.fingerprint["files"] == 2


def test_owners_that_the_script_lost(there, left, tmp_path):
    """`docker cp` makes everything root's: it becomes the live folder's owner's again, and that is said."""
    if os.geteuid() != 0:
        missing("only root can give files away")
    only(left, "storage_*")
    live = Path(shutil.copytree(there.storage, tmp_path / "storage"))
    os.chown(live, 4711, 4712)
    (line,) = adopted(with_settings(there, storage_path=str(live)).installation, left).values()
    assert (line.verdict, "4711:4712" in line.why) == ("verified", True)
    (entry,) = entries(there.installation)
    with tarfile.open(there.installation.vault.root / entry.name) as archive:
        assert {(member.uid, member.gid) for member in archive} == {(4711, 4712)}


def test_gpg_that_nobody_types_to(script):
    """The script ends there: no configuration, no manifest. The rest is adopted without one."""
    there = script.there
    script.run(gpg="cron", fails=True)
    shutil.rmtree(script.folder / "postgresql")
    lines = adopted(there.installation, script.folder)
    assert {line.asset: line.verdict for line in lines.values()} == {
        "redis/rdb": "verified",
        "storage/archive": "verified",
    }
    assert {entry.source["checksum"] for entry in entries(there.installation)} == {"in no manifest"}


def test_a_configuration_of_another_passphrase(there, left, tmp_path):
    """It is refused, with what opens it; with that passphrase among the old keys it comes in under ours."""
    clear = only(left, "config_*")
    passphrase = tmp_path / "old"
    passphrase.touch(mode=0o600)
    passphrase.write_text("what somebody typed", encoding="utf-8")
    typed = ["--batch", "--pinentry-mode", "loopback", "--passphrase-file", str(passphrase)]
    typed += ["--s2k-count", "65536"]  # for speed: the default takes a tenth of a second each time
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    try:
        subprocess.run(
            ["gpg", "--homedir", str(home), *typed, "--symmetric", "--cipher-algo", "AES256", str(clear)],
            check=True,
            timeout=60,
        )
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, timeout=30)
    clear.unlink()
    (line,) = adopted(there.installation, left).values()
    assert line.verdict == "refused"
    assert "BACKUP_OLD_KEY_FILES" in line.why
    (line,) = adopted(with_settings(there, old_key_files=str(passphrase)).installation, left).values()
    assert (line.verdict, line.why) == ("verified", "")
    (entry,) = entries(there.installation)
    stored = there.installation.vault.open(entry.name)
    opened = b"".join(there.installation.codecs.decode(entry.codecs, stored))
    with tarfile.open(fileobj=io.BytesIO(opened)) as archive:
        assert {"docker-compose.yml", ".env", "nginx/nginx.conf"} <= set(archive.getnames())


def test_a_clear_configuration_and_no_key(there, left):
    """Without a key it is refused, and never stored in clear; with one, its place is named to be cleared."""
    path = only(left, "config_*")
    environ = {name: value for name, value in there.environ.items() if "KEY" not in name}
    keyless = with_settings(replace(there, environ=environ))
    (line,) = adopted(keyless.installation, left).values()
    assert line.verdict == "refused"
    assert vault_files(keyless.installation) == []
    (line,) = adopted(there.installation, left).values()
    assert line.verdict == "verified"
    assert "in clear there" in line.why
    assert path.exists()
    assert entries(there.installation)[0].problems == ()  # it is not the configuration's


@dataclass(frozen=True)
class Full(LocalVault):
    """A vault on a disk with little room."""

    room: int = 0

    def free(self):
        return self.room


def test_no_room_for_one_file_is_no_end(there, left):
    """What does not fit is named, and left; what fits is taken; nothing half lies there."""
    shutil.rmtree(left / "postgresql")
    small = replace(there.installation, vault=Full(there.installation.vault.root, room=100_000))
    lines = by_kind(adopted(small, left))
    assert {asset: line.verdict for asset, line in lines.items()} == {
        "redis/rdb": "verified",
        "config/archive": "verified",
        "storage/archive": "refused",
    }
    assert "free" in lines["storage/archive"].why
    assert not list(small.vault.root.glob("storage/*"))


@dataclass(frozen=True)
class NoPostgresql:
    """Scratch servers, but none of PostgreSQL."""

    of: object

    @contextmanager
    def postgresql(self, at_least=0):
        raise SourceAbsentError("there is no server here", hint="install one")
        yield

    def __getattr__(self, name):
        return getattr(self.of, name)


def test_a_dump_that_cannot_be_proven_here(there, left):
    """It is whole, so it is taken; it stands as inconclusive, and adopting again with a server proves it."""
    only(left, "*.dump")
    bare = replace(there.installation, scratch=NoPostgresql(there.installation.scratch))
    (line,) = adopted(bare, left).values()
    assert (line.verdict, line.bad) == ("inconclusive", True)
    assert "there is no server here" in line.why
    (entry,) = entries(bare)
    (line,) = adopted(there.installation, left, plan=True).values()
    assert (line.verdict, line.why, line.bad) == ("already", "it is not proven yet", True)
    (line,) = adopted(there.installation, left).values()
    assert (line.verdict, line.bad) == ("already", False)
    assert Catalog(there.installation.vault).standing(entry).verdict is Verdict.PASSED


def test_ours_comes_before_adopted(there, left):
    """A day has what this program captured on it; what was adopted stands in only where there is nothing."""
    only(left, "*.rdb.gz")
    (line,) = adopted(there.installation, left).values()
    catalog = Catalog(there.installation.vault)
    assert choose(catalog, "redis/rdb", line.set).label == ADOPTED
    own, _ = capture(there.installation, there.installation.component("redis/rdb"), line.set)
    older = replace(own, captured_at=own.captured_at - timedelta(days=1))
    path = there.installation.vault.root / own.entry_name
    path.write_bytes(older.to_json())  # though it be the older one
    catalog = Catalog(there.installation.vault)
    assert catalog.of_day("redis/rdb", line.set) == older
    assert choose(catalog, "redis/rdb", line.set) == older
    members = fold_set(there.installation, catalog, line.set).members
    assert [member.name for member in members if member.asset == "redis/rdb"] == [own.name]


def test_a_vault_inside_of_the_folder(there, left):
    """Artifacts of this program are not adopted, and the script's clean-up is warned of."""
    inside = with_settings(there, vault=str(left))
    rdb = only(left, "*.rdb.gz")
    own, _ = capture(inside.installation, inside.installation.component("redis/rdb"), "2025-10-24")
    result = CliRunner().invoke(command, [str(left), "--json"], env=inside.environ)
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    verdicts = {Path(line["file"]).name: line["verdict"] for line in document["files"]}
    assert verdicts[rdb.name] == "verified"
    assert verdicts[Path(own.name).name] == "passed over"
    assert "out of cron" in document["warning"]
    assert len(entries(inside.installation)) == 2
    assert rdb.exists()


def test_a_dump_of_another_database(there, left):
    """It is not BookReader's, whatever its name: refused, with the way to say that it was."""
    dump = only(left, "*.dump")
    (line,) = adopted(
        with_settings(there, postgresql_url=there.environ["BACKUP_POSTGRESQL_URL"] + "x").installation,
        left,
        plan=True,
    ).values()
    assert line.verdict == "refused"
    assert f"BACKUP_POSTGRESQL_DATABASE={there.database}" in line.why
    assert dump.exists()


def test_a_file_that_is_older_than_its_name(there, left):
    """It is adopted, and what does not fit is said and recorded: the name may be of another timezone."""
    config = only(left, "config_*")
    os.utime(config, (config.stat().st_mtime - 7200,) * 2)
    (line,) = adopted(there.installation, left).values()
    assert (line.verdict, "of another timezone" in line.why) == ("verified", True)
    (entry,) = entries(there.installation)
    assert any("another timezone" in problem.what for problem in entry.problems)


def test_a_script_that_writes_meanwhile(there, left):
    """A file that grows between its two readings is refused, and nothing of it is kept."""
    rdb = only(left, "*.rdb.gz")
    whole = rdb.read_bytes()

    @contextmanager
    def growing(doing, size):
        if doing.startswith("adopting"):
            rdb.write_bytes(whole + b"more")
        yield lambda count: None

    (line,) = adopted(replace(there.installation, watch=growing), left).values()
    assert line.verdict in {"refused", "damaged"}
    assert list(there.installation.vault.list("redis/")) == []


@pytest.mark.parametrize("when", ["reading", "adopting", "verifying"])
def test_stopped_and_run_again(there, left, when):
    """Wherever it is stopped, the vault has all of a file or nothing, and the next run ends in the same."""
    only(left, "*.rdb.gz")

    @contextmanager
    def stopping(doing, size):
        def progress(count):
            if doing.startswith(when):
                raise KeyboardInterrupt

        yield progress

    with pytest.raises(KeyboardInterrupt):
        adopted(replace(there.installation, watch=stopping), left)
    assert len(list(there.installation.vault.list("redis/"))) == (2 if when == "verifying" else 0)
    (line,) = adopted(there.installation, left).values()
    assert (line.verdict, line.bad) == ("already" if when == "verifying" else "verified", False)
    (entry,) = entries(there.installation)
    assert Catalog(there.installation.vault).standing(entry).verdict is Verdict.PASSED


def test_what_may_not_be_read(there, left):
    """A folder that may not be listed is an error; a file that may not be read is one line."""
    if os.geteuid() != 0:
        missing("only root can become nobody")
    rdb = only(left, "*.rdb.gz")
    with pytest.raises(RefusedError):
        list(adopt(there.installation, left / "nowhere"))
    rdb.chmod(0)
    for folder in [left, *left.parents]:
        if folder.stat().st_mode & 0o5 != 0o5 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o5)
    with as_nobody():
        (line,) = adopted(there.installation, left, plan=True).values()
    assert line.verdict == "refused"
    assert "cannot be read" in line.why
