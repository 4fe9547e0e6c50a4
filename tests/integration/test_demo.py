"""The demo's BookReader: real servers, real files, found by production's settings, gone afterwards."""

import json
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import zipfile
import zlib
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bookreader_backup_assets.away import unset
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX
from bookreader_backup_assets.core.errors import RefusedError, SourceAbsentError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.demo.bookreader import bookreader
from bookreader_backup_assets.demo.content import FOLDERS, write_library
from bookreader_backup_assets.plan import load_plan
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers import s3
from bookreader_backup_assets.servers.programs import postgresql_programs, redis_programs
from bookreader_backup_assets.settings import load_settings
from bookreader_backup_assets.vaults.s3 import S3Vault
from tests.fixtures.missing import missing

SMALL = 0.05
_SECRET = {"key", "postgresql_url", "redis_url", "offsite_access_key", "offsite_secret_key", "git_remote"}
XHTML = "{http://www.w3.org/1999/xhtml}"
FB2 = "{http://www.gribuser.ru/xml/fictionbook/2.0}"


@pytest.fixture(scope="module", autouse=True)
def _programs():
    try:
        postgresql_programs()
        redis_programs()
        s3.program()
    except SourceAbsentError as error:
        missing(error.message)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A whole demo, running."""
    with bookreader(tmp_path_factory.mktemp("demo") / ".demo") as running:
        yield running


def _sql(system, query):
    runner = LocalRunner(programs=system.postgresql.programs)
    argv = ["psql", "-XAtd", "bookreader", "-v", "ON_ERROR_STOP=1", "-c", query]
    return runner.run(argv, env=system.postgresql.env).stdout.decode().split()


def _bucket(system):
    return S3Vault(system.s3.access(system.environ["BACKUP_OFFSITE_BUCKET"]), "of-this-test/")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# the files


def test_the_tree_is_the_guides(system):
    """Folders as the guide draws them, 10 to 20 MB, odd names, an empty folder and a link among them."""
    storage = Path(system.environ["BACKUP_STORAGE_PATH"])
    assert all((storage / name).is_dir() for name in FOLDERS)
    files = [path for path in storage.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) == 600
    assert 10 << 20 < sum(path.stat().st_size for path in files) < 20 << 20
    names = "".join(path.name for path in files)
    assert all(odd in names for odd in ('"', "'", " ", "Война", "%"))
    assert [path.name for path in storage.rglob("*") if path.is_dir() and not any(path.iterdir())] == [
        "drafts"
    ]
    assert (storage / "covers/default.png").is_symlink()
    assert (storage / "covers/default.png").exists()


def test_books_are_real(system):
    """Every EPUB is a valid zip with its `mimetype` first and stored, every chapter and FB2 well-formed."""
    storage = Path(system.environ["BACKUP_STORAGE_PATH"])
    epubs, fb2s = sorted(storage.glob("books/epub/*")), sorted(storage.glob("books/fb2/*"))
    assert (len(epubs), len(fb2s)) == (100, 50)
    for path in epubs[:20]:
        with zipfile.ZipFile(path) as book:
            assert book.testzip() is None
            first = book.infolist()[0]
            assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
            assert path.read_bytes()[30:58] == b"mimetypeapplication/epub+zip"
            listed = ET.fromstring(book.read("OEBPS/content.opf")).iter("{http://www.idpf.org/2007/opf}item")
            for item in listed:
                content = book.read(f"OEBPS/{item.get('href')}")
                if item.get("media-type") == "application/xhtml+xml":
                    assert ET.fromstring(content).find(f"{XHTML}body") is not None
    for path in fb2s[:10]:
        book = ET.parse(path).getroot()
        assert book.tag == f"{FB2}FictionBook"
        assert len(book.findall(f"{FB2}body/{FB2}section")) >= 4
    assert len({path.read_bytes() for path in epubs}) == 100


def test_images_are_real(system):
    """Every chunk of a PNG has its checksum, and the pixels are as many as the header says."""
    for image in system.library.images[:20]:
        data = (Path(system.environ["BACKUP_STORAGE_PATH"]) / image.path).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) == image.size
        chunks, at = {}, 8
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
            assert int.from_bytes(data[at + 8 + size : at + 12 + size], "big") == zlib.crc32(kind + body)
            chunks[kind] = body
            at += 12 + size
        assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
        assert len(zlib.decompress(chunks[b"IDAT"])) == image.height * (image.width * 3 + 1)


def test_the_same_seed_makes_the_same_bytes(tmp_path):
    """So that a second run's storage has not changed; another seed makes other books; scale is scale."""
    one, same, other = (
        write_library(tmp_path / name, seed=seed, scale=scale)
        for name, seed, scale in (("one", 1, SMALL), ("same", 1, SMALL), ("other", 2, 2 * SMALL))
    )
    assert one == same != other
    assert (len(one.books), len(other.books)) == (8, 15)
    for file in one.books:
        paths = [tmp_path / name / file.path for name in ("one", "same")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert paths[0].stat().st_mtime_ns == paths[1].stat().st_mtime_ns


# the servers


def test_the_database_is_bookreaders(system):
    """All tables have the rows that were written; extension, enums, sequences and roles are there."""
    assert len(system.rows) == 14
    for table, rows in system.rows.items():
        assert _sql(system, f"SELECT count(*) FROM {table}") == [str(rows)]
    assert 5_000 < sum(system.rows.values()) < 20_000
    assert _sql(system, "SELECT version_num FROM alembic_version") == ["3f1c9a7be204"]
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert _sql(system, owners) == ["bookreader_user"]
    assert _sql(system, "SELECT has_table_privilege('bookreader_readonly', 'users', 'SELECT')") == ["t"]
    assert _sql(system, "SELECT has_table_privilege('bookreader_readonly', 'users', 'DELETE')") == ["f"]
    assert _sql(system, "SELECT count(*) FROM pg_type WHERE typtype = 'e'") == ["5"]
    assert _sql(system, "SELECT nextval('payments_id_seq')") == ["501"]
    trigram = "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%trgm%'"
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'"
    assert _sql(system, trigram) == _sql(system, available)


def test_rows_and_files_belong_together(system):
    """Every path in the database is a file, of the size that its row says, and every image has a row."""
    storage = Path(system.environ["BACKUP_STORAGE_PATH"])
    query = "SELECT json_build_array(file_path, file_size, cover_image) FROM books"
    runner = LocalRunner(programs=system.postgresql.programs)
    said = runner.run(["psql", "-XAtd", "bookreader", "-c", query], env=system.postgresql.env).stdout
    rows = [json.loads(line) for line in said.splitlines()]
    assert len(rows) == 150
    for path, size, cover in rows:
        assert (storage / path).stat().st_size == size
        assert (storage / cover).is_file()
    images = _sql(system, "SELECT local_path FROM generated_images")
    assert sorted(images) == sorted(str(p.relative_to(storage)) for p in storage.glob("images/*/*.png"))


def test_redis_is_bookreaders(system):
    """Sessions that expire in 0, queues in 1, results in 2; password, AOF and eviction as in production."""
    server = system.redis
    assert set(system.keys) == {"0", "1", "2"}
    assert all(system.keys.values())
    assert server.run("-n", "1", "LLEN", "celery").strip() == "25"
    session = server.run("-n", "0", "--scan", "--pattern", "session:*").split()[0]
    assert 80_000 < int(server.run("TTL", session)) < 90_000
    for name, value in (("appendonly", "yes"), ("maxmemory-policy", "allkeys-lru")):
        assert server.run("CONFIG", "GET", name).split() == [name, value]
    without = LocalRunner().run([*server.cli, "PING"], env={"REDISCLI_AUTH": ""})
    assert b"NOAUTH" in without.stdout or b"ERR" in without.stdout


def test_the_database_wants_its_password(system):
    """Nobody gets in without it, as in production."""
    refused = subprocess.run(
        [str(system.postgresql.programs / "psql"), "-Xwc", "SELECT 1"],
        env={**os.environ, **system.postgresql.env, "PGPASSWORD": "wrong"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert b"password" in refused.stderr


# the configuration and the settings


def test_the_configuration_is_whole(system):
    """Compose file, `.env`, nginx, and a key that fits its certificate."""
    root = Path(system.environ["BACKUP_CONFIG_ROOT"])
    assert all((root / path).exists() for path in system.environ["BACKUP_CONFIG_PATHS"].split(","))
    compose = (root / "docker-compose.yml").read_text(encoding="utf-8")
    assert "container_name: bookreader_postgres" in compose
    assert "DB_USER=bookreader_user" in (root / ".env").read_text(encoding="utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / "nginx/certs/bookreader.crt", root / "nginx/certs/bookreader.key")
    for secret in (".env", "nginx/certs/bookreader.key"):
        assert stat.S_IMODE((root / secret).stat().st_mode) == 0o600


def test_the_settings_lead_to_it(system):
    """The same settings as production's: they parse, and no secret is in the environment, only in files."""
    found = load_settings(system.environ, env_file=Path("/dev/null"))
    assert found.runner == "local"
    assert found.postgresql_url.reveal().endswith(f"@127.0.0.1:{system.postgresql.port}/bookreader")
    assert found.redis_url.reveal().endswith(f":{system.redis.port}")
    assert found.offsite_endpoint == system.s3.endpoint
    assert unset(found, load_plan(found.plan)) == (), "all that production's plan wants"
    said = (system.folder / "config/.env").read_text(encoding="utf-8")
    secrets = [line.partition("=")[2] for line in said.splitlines() if "PASSWORD" in line or "KEY" in line]
    secrets += [found.key.reveal(), system.postgresql.password.reveal()]
    secrets += [found.offsite_access_key.reveal(), found.offsite_secret_key.reveal()]
    assert not [secret for secret in secrets if secret in str(system.environ) + repr(system)]
    for path in (system.folder / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(system.folder.stat().st_mode) == 0o700


def test_the_operators_own_settings_do_not_reach_it(system, tmp_path):
    """A key, a plan or a timezone that is set for the real BookReader is not the demo's."""
    (tmp_path / ".env").write_text("BACKUP_KEY=real\nBACKUP_PLAN=real.toml\n", encoding="utf-8")
    environ = {"BACKUP_TIMEZONE": "Asia/Omsk", "BACKUP_REDIS_PASSWORD": "real", **system.environ}
    assert load_settings(environ, env_file=tmp_path / ".env").model_dump(exclude=_SECRET) == load_settings(
        system.environ, env_file=Path("/dev/null")
    ).model_dump(exclude=_SECRET)
    found = load_settings(environ, env_file=tmp_path / ".env")
    assert found.key.reveal() == (system.folder / "secrets/key").read_text(encoding="utf-8").strip()
    assert found.redis_password is None


def test_one_demo_per_folder(system):
    """A second one is refused, with what to do, and the first one is unharmed."""
    with pytest.raises(RefusedError, match="a demo runs in") as refused, bookreader(system.folder):
        pytest.fail("it started")
    assert "stop that one" in refused.value.hint
    assert _alive(system.postgresql.pid)
    assert _alive(system.redis.pid)
    assert _alive(system.s3.pid)


# the copies elsewhere


def test_after_a_demo_its_bucket_is_listed_without_it(tmp_path):
    """The whole demo, ended; then a process with only bucket, keys and endpoint lists all that it made."""
    program = [sys.executable, "-m", "bookreader_backup_assets"]
    folder = tmp_path / ".demo"

    def run(*arguments, env):
        return subprocess.run(
            [*program, *arguments],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = run("demo", "--no-ui", "--folder", str(folder), env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sha256 computed by the service from what it received, as captured" in done.stdout
    assert "is offsite, too" in done.stderr
    keys = [folder / "secrets" / f"offsite_{one}" for one in ("access_key", "secret_key")]
    held = tuple(Secret(file.read_text(encoding="utf-8").strip()) for file in keys)
    entries = (folder / "vault").rglob(f"*{ENTRY_SUFFIX}")
    made = {str(path.relative_to(folder / "vault")).removesuffix(ENTRY_SUFFIX) for path in entries}
    shutil.rmtree(folder / "vault")
    with s3.start(folder / "s3", key=held) as server:
        listed = run(
            "list",
            "--vault",
            "offsite",
            "--json",
            env={
                **bare,
                "BACKUP_VAULT": str(tmp_path / "empty"),
                "BACKUP_KEY_FILE": str(folder / "secrets/key"),
                "BACKUP_OFFSITE_BUCKET": "bookreader-backups",
                "BACKUP_OFFSITE_ENDPOINT": server.endpoint,
                "BACKUP_OFFSITE_ACCESS_KEY_FILE": str(keys[0]),
                "BACKUP_OFFSITE_SECRET_KEY_FILE": str(keys[1]),
            },
        )
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    weekday = date.fromisoformat(rows[-1]["set"][:10]).weekday()
    local_only = {name for name in made if name.startswith("redis/") and weekday != 6}
    assert {row["artifact"] for row in rows} == made - local_only
    assert {row["standing"] for row in rows} == {"verified"}


# beginning and end


def test_again_in_the_same_folder(tmp_path):
    """Vault, key, bucket and configuration stay, so that history grows; servers and storage are new."""
    with bookreader(tmp_path, scale=SMALL) as first:
        (tmp_path / "vault/kept").write_text("x", encoding="utf-8")
        (tmp_path / "storage/books/epub/new").write_text("x", encoding="utf-8")
        key = (tmp_path / "secrets/key").read_bytes()
        configuration = (tmp_path / "config/.env").read_bytes()
        _bucket(first).put("copied", [b"x"])
    assert not _alive(first.postgresql.pid)
    assert not _alive(first.redis.pid)
    assert not _alive(first.s3.pid)
    assert not first.postgresql.data.exists()
    with bookreader(tmp_path, scale=SMALL) as second:
        assert (tmp_path / "vault/kept").exists()
        assert not (tmp_path / "storage/books/epub/new").exists()
        assert (tmp_path / "secrets/key").read_bytes() == key
        assert (tmp_path / "config/.env").read_bytes() == configuration
        assert [stored.name for stored in _bucket(second).list()] == ["copied"]
        assert _sql(second, "SELECT count(*) FROM books") == ["8"]
        assert second.rows == first.rows
        assert second.keys == first.keys


def test_an_exception_stops_it_all(tmp_path):
    """Whatever goes wrong inside, the servers are stopped, and their data is gone."""
    with pytest.raises(ZeroDivisionError), bookreader(tmp_path, scale=SMALL) as running:
        raise ZeroDivisionError
    assert not _alive(running.postgresql.pid)
    assert not _alive(running.redis.pid)
    assert not _alive(running.s3.pid)
    assert list((tmp_path / "redis").iterdir()) == []
    assert not (tmp_path / "servers.json").exists()


SCRIPT = """
import sys
from pathlib import Path
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.demo.bookreader import bookreader

with bookreader(Path(sys.argv[1]), scale=0.05) as running:
    print(running.postgresql.pid, running.postgresql.data, running.redis.pid, running.s3.pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def _demo(folder, python=sys.executable, **options):
    argv = [python, "-c", SCRIPT, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as child:
        try:
            postgresql, data, *others = child.stdout.readline().split()
            yield child, [int(postgresql), *map(int, others)], Path(data)
        finally:
            child.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_stops_it_all(tmp_path, number, status):
    """Ctrl-C and a polite kill leave nothing running."""
    with _demo(tmp_path) as (child, servers, data):
        child.send_signal(number)
        assert child.wait(60) == status
        assert [pid for pid in servers if _alive(pid)] == []
        assert not data.parent.exists()


def test_after_a_kill_the_next_one_tidies_up(tmp_path):
    """Killed outright, its servers run on; the next demo ends exactly those, keeps the bucket, and starts."""
    with _demo(tmp_path) as (child, servers, data):
        child.kill()
        child.wait(60)
        assert [pid for pid in servers if not _alive(pid)] == []
    with bookreader(tmp_path, scale=SMALL) as running:
        assert [pid for pid in servers if _alive(pid)] == []
        assert not data.parent.exists()
        assert (tmp_path / "s3" / "s3.log").exists()
        assert _sql(running, "SELECT count(*) FROM books") == ["8"]


def test_a_stranger_with_a_recorded_number_is_left_alone(tmp_path):
    """A process id that belongs to somebody else by now is not ended."""
    with subprocess.Popen(["sleep", "600"], cwd="/") as stranger:
        try:
            gone = tmp_path / "gone"
            (tmp_path / "servers.json").write_text(f'[[{stranger.pid}, "{gone}", false]]', encoding="utf-8")
            with bookreader(tmp_path, scale=SMALL):
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_an_ordinary_user_runs_it(tmp_path):
    """As root the servers run as nobody; as anybody else, as that user."""
    if os.geteuid() != 0:
        pytest.skip("every other test of this file ran as an ordinary user")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    account = {"user": 65534, "group": 65534, "extra_groups": []}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    probe = [python, "-c", "import bookreader_backup_assets.demo.bookreader"]
    options = {"env": env, "cwd": "/", **account}
    if (
        python is None
        or subprocess.run(probe, check=False, capture_output=True, timeout=60, **options).returncode
    ):
        missing("no Python that an ordinary user can run, while the tests run as root")
    home = Path(
        subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True, timeout=9).stdout.strip()
    )
    os.chown(home, 65534, 65534)
    try:
        with _demo(home / ".demo", python, **options) as (child, servers, _):
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in servers} == {65534}
            child.stdin.close()
            assert child.wait(60) == 0
    finally:
        shutil.rmtree(home)
