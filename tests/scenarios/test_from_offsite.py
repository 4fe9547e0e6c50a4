"""The local vault is an empty folder: every part of BookReader comes back out of the bucket, compared."""

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.system import restore_system
from bookreader_backup_assets.actions.system_plan import plan_system
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.assembly import drill_ground
from bookreader_backup_assets.core.artifact import ENTRY_SUFFIX
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.away import plan_with
from tests.fixtures.faulty import Faulty
from tests.fixtures.installation import KEY
from tests.fixtures.living import embedded, with_settings
from tests.fixtures.s3 import raw
from tests.fixtures.trees import look

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
STAGED = "bookreader-restore-*.dump"


def without_ours(tree):
    """A tree without what restores keep in it for their undo, and without times."""
    return {p: (*w[:3], *w[4:]) for p, w in tree.items() if b".bookreader" not in p and p != b"."}


@pytest.fixture(scope="module")
def way(s3_server):
    """The way to the bucket, which counts."""
    with Faulty.before(s3_server.endpoint) as proxy:
        yield proxy


@contextmanager
def replicated(there, server, way, folder, **settings):
    """The same BookReader, all of it in a bucket of its own, and its local vault gone."""
    access = server.make_bucket(f"bucket-{os.urandom(6).hex()}")
    folder.mkdir(exist_ok=True)
    for name, secret in (("id", access.key_id), ("secret", access.secret_key)):
        (folder / name).write_text(secret.reveal())
    there = with_settings(
        there,
        offsite_bucket=access.bucket,
        offsite_endpoint=way.endpoint,
        offsite_access_key_file=str(folder / "id"),
        offsite_secret_key_file=str(folder / "secret"),
        file_columns=",",
        health_urls=",",
        **{"plan": str(plan_with(folder, offsite="{ days = 30 }")), **settings},
    )
    there.back_up()
    made = there.installation
    for entry in waiting(made, Catalog(made.vault), "offsite"):
        assert replicate(made, entry, "offsite").outcome.passed
    shutil.rmtree(there.environ["BACKUP_VAULT"])
    Path(there.environ["BACKUP_VAULT"]).mkdir()
    fresh = with_settings(there)
    yield replace(fresh, installation=replace(fresh.installation, source_named="offsite"))


@pytest.fixture(scope="module")
def lost(system, redis_folder, shared_scratch, s3_server, way, tmp_path_factory):  # noqa: PLR0917
    """A BookReader, all of which is in the bucket and nothing in its local vault."""
    folder = tmp_path_factory.mktemp("lost")
    with (
        embedded(system, redis_folder, folder, shared_scratch) as there,
        replicated(there, s3_server, way, folder / "away") as made,
    ):
        yield made


@pytest.fixture
def once(lost, way):
    """No more comes out of the bucket meanwhile than one reading of an asset, and entries and proofs."""

    @contextmanager
    def reading(asset):
        size = Catalog(lost.installation.source.vault).newest(asset).size
        way.forget()
        yield
        assert size <= way.received["GET object"] < size + 120_000
        assert not list(Path(lost.environ["BACKUP_VAULT"]).glob(".fetched*"))

    return reading


def run(there, *arguments):
    """Run the program, and return what it prints."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, **there.environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def put_back(there, report, before, found):
    """Undo a restore without naming a vault: nothing is read for it but what lies here."""
    at_home = replace(there.installation, source_named="local")
    assert undo(at_home, report.id, confirm=report.target).result == "undone"
    assert found() == before


@contextmanager
def watching_staged():
    """Look at what is staged in /tmp meanwhile: the modes that were seen."""
    seen, over = set(), threading.Event()

    def look_on():
        while not over.wait(0.001):
            for path in Path("/tmp").glob(STAGED):
                with suppress(FileNotFoundError):
                    seen.add(path.stat().st_mode & 0o777)

    before = set(Path("/tmp").glob(STAGED))
    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(10)
    assert set(Path("/tmp").glob(STAGED)) == before


def test_the_database(lost, once):
    """Encrypted in the bucket: it comes back equal, its clear copy on the disk is nobody else's and gone."""
    good = lost.rows()
    lost.sql("DELETE FROM alembic_version; DROP TABLE empty")
    damaged = lost.rows()
    planned = plan(lost.installation, "postgresql")
    assert planned.artifact.endswith(".gpg")
    assert any("/tmp" in room.where for room in planned.preview.rooms)
    assert any("for what is fetched" in room.where for room in planned.preview.rooms)
    with watching_staged() as modes, once("postgresql/dump"):
        report = restore(lost.installation, "postgresql", confirm=lost.database)
    assert report.good, report
    assert lost.rows() == good
    assert modes == {0o600}
    put_back(lost, report, damaged, lost.rows)
    assert restore(lost.installation, "postgresql", confirm=lost.database).good
    assert lost.rows() == good


def test_a_table(lost, once):
    """Only that table is touched, and it is as it was captured."""
    good = lost.rows()
    lost.sql("UPDATE users SET email = 'x' || id")
    wanted = Options(tables=("users",))
    target = plan(lost.installation, "table", options=wanted).target
    with once("postgresql/dump"):
        report = restore(lost.installation, "table", options=wanted, confirm=target)
    assert report.good, report
    assert lost.rows() == good


def test_redis(lost, once):
    """Every key is back; the undo takes the safety capture, which lies here."""
    good = lost.keys()
    lost.cache("FLUSHALL")
    lost.cache("SET", "left", "over")
    damaged = lost.keys()
    target = plan(lost.installation, "redis").target
    with once("redis/rdb"):
        report = restore(lost.installation, "redis", confirm=target)
    assert report.good, report
    assert lost.keys() == good
    put_back(lost, report, damaged, lost.keys)
    restore(lost.installation, "redis", confirm=report.target)
    assert lost.keys() == good


def test_storage(lost, once):
    """The whole folder is as it was captured."""
    good = lost.files()
    shutil.rmtree(lost.storage / "covers")
    (lost.storage / "books" / "0.bin").write_bytes(b"junk")
    target = plan(lost.installation, "storage").target
    with once("storage/archive"):
        report = restore(lost.installation, "storage", confirm=target)
    assert report.good, report
    assert without_ours(lost.files()) == without_ours(good)


def test_storage_in_place(lost):
    """Where room is short only what differs is written."""
    good = lost.files()
    (lost.storage / "books" / "0.bin").write_bytes(b"junk")
    target = plan(lost.installation, "storage").target
    assert restore(lost.installation, "storage", options=Options(in_place=True), confirm=target).good
    assert without_ours(lost.files()) == without_ours(good)


def test_a_file(lost, tmp_path):
    """By the command, into a folder: byte by byte what it was."""
    good = (lost.storage / "books" / "0.bin").read_bytes()
    run(
        lost,
        "restore",
        "file",
        "--vault",
        "offsite",
        "--path",
        "books/0.bin",
        "--into",
        str(tmp_path / "look"),
    )
    assert (tmp_path / "look" / "books" / "0.bin").read_bytes() == good


def test_the_configuration(lost, tmp_path):
    """Decrypted, and equal; also into a folder."""
    good = without_ours(look(os.fsencode(lost.config)))
    (lost.config / ".env").unlink()
    report = restore(lost.installation, "config", confirm=plan(lost.installation, "config").target)
    assert report.good, report
    assert without_ours(look(os.fsencode(lost.config))) == good
    restore(lost.installation, "config", options=Options(into=str(tmp_path / "look")), confirm="")
    assert {p: w[4] for p, w in look(os.fsencode(tmp_path / "look")).items() if b".env" in p} == {
        p: w[3] for p, w in good.items() if b".env" in p
    }


def test_the_code(lost, tmp_path):
    """The repository comes back into a folder with its history."""
    log = ["git", "-c", "safe.directory=*", "log", "--format=%H", "--all"]
    good = subprocess.run([*log], cwd=lost.code, capture_output=True, check=True, timeout=60).stdout
    report = restore(lost.installation, "code", options=Options(into=str(tmp_path / "code")), confirm="")
    assert report.good, report
    found = subprocess.run([*log], cwd=tmp_path / "code", capture_output=True, check=True, timeout=60)
    assert found.stdout == good != b""


def test_the_system(lost):
    """All parts at once, and one undo for all of them."""
    good = (lost.rows(), lost.keys(), without_ours(lost.files()))
    lost.sql("DELETE FROM alembic_version")
    lost.cache("FLUSHALL")
    shutil.rmtree(lost.storage / "covers")
    planned = plan_system(lost.installation)
    assert [part.part for part in planned.parts] == ["config", "postgresql", "redis", "storage"]
    assert planned.manifest
    report = restore_system(lost.installation, confirm=lost.installation.host)
    assert report.good, report
    assert (lost.rows(), lost.keys(), without_ours(lost.files())) == good


def test_the_reports_are_here(lost):
    """What was restored out of the bucket is told without it; and the bucket has none of our reports."""
    restore(lost.installation, "redis", confirm=plan(lost.installation, "redis").target)
    listed = json.loads(run(lost, "restore", "reports", "--json"))
    assert "redis/" in listed[-1]["artifact"]
    there = {stored.name for stored in lost.installation.source.vault.list()}
    assert not [name for name in there if name.startswith("restore")]


def test_list_and_verify(lost):
    """Everything is listed out of the bucket as it stood here, and every check is made again over it."""
    rows = json.loads(run(lost, "list", "--vault", "offsite", "--json"))
    assert {row["standing"] for row in rows} == {"verified"}
    assets = {row["asset"] for row in rows}
    assert assets >= {*lost.installation.planned, "code/bundle", "backup_set/manifest"}
    found = json.loads(run(lost, "verify", "--vault", "offsite", "--json"))
    verdicts = {check["verdict"] for one in found["artifacts"] for check in one["checks"]}
    assert verdicts == {"passed"}


def test_a_drill_with_the_key_in_escrow(lost, tmp_path):
    """The bucket is read, with no other key; the report is here, the proofs lie beside what was proven."""
    (tmp_path / "escrow").write_text(KEY)
    environ = {name: value for name, value in lost.environ.items() if name != "BACKUP_KEY_FILE"}
    there = replace(lost, environ=environ)
    run_with = ("drill", "system", "--vault", "offsite", "--key-file", str(tmp_path / "escrow"), "--json")
    document = json.loads(run(there, *run_with))
    assert document["vault"] == "offsite"
    assert document["key"] == f"the passphrase in {tmp_path / 'escrow'}"
    assert {check["verdict"] for check in document["checks"]} == {"passed"}
    assert {part["scenario"] for part in document["parts"]} == {
        "config", "postgresql", "redis", "storage", "file",
    }  # fmt: skip
    own, away = lost.installation.vault, lost.installation.source.vault
    assert document["report"] + ENTRY_SUFFIX in {stored.name for stored in own.list()}
    catalog = Catalog(away)
    dump = catalog.newest("postgresql/dump")
    assert [outcome.check for outcome in catalog.proofs(dump)[-1].checks] == ["restorable"]
    assert catalog.standing(dump).verdict is Verdict.PASSED


def test_what_is_damaged_there_fails_its_drill(lost):
    """A byte that changed in the bucket is found, and told beside the artifact there."""
    settings = load_settings(lost.environ, env_file=Path(os.devnull))
    made = replace(lost.installation, source_named="local")
    vault = lost.installation.source.vault
    entry = Catalog(vault).newest("redis/rdb")
    good = b"".join(vault.open(entry.name))
    where = {"Bucket": vault.access.bucket, "Key": vault.prefix + entry.name}
    raw(vault).put_object(**where, Body=good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    try:
        with drill_ground(settings, made, read="offsite") as ground:
            _, report = drill(made, ground, "redis", entry.set)
        assert not report.good
        assert report.vault == "offsite"
        assert Catalog(vault).standing(entry).verdict is Verdict.FAILED
    finally:
        raw(vault).put_object(**where, Body=good)
