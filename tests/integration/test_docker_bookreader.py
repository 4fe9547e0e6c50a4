"""A whole BookReader in containers: captured, checked and sealed by the same code as everywhere."""

import json
import threading

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.seal import seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.settings import Settings
from tests.fixtures.code import repository

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
WRITE = "INSERT INTO generated_images (book, path) SELECT 1, 'written' FROM generate_series(1, 20)"


@pytest.fixture
def installation(bookreader_containers, tmp_path, monkeypatch):
    """The settings of an operator whose BookReader runs in Docker."""
    there = bookreader_containers
    monkeypatch.setenv("DOCKER_HOST", there.engine.address)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / ".env").write_text("DB_PASSWORD=x\n")
    return assemble(
        Settings(
            runner="docker",
            vault=tmp_path / "vault",
            key=Secret("a passphrase"),
            compose_project=there.project,
            postgresql_database=there.database,
            postgresql_user=there.user,
            postgresql_password=Secret(there.password),
            redis_password=Secret(there.redis_password),
            storage_path=there.storage_path,
            config_root=tmp_path / "config",
            config_paths=(".env",),
            code_path=repository(tmp_path / "code"),
        )
    )


@pytest.fixture
def busy(bookreader_containers):
    """Somebody who writes rows throughout."""
    there, stop = bookreader_containers, threading.Event()

    def write():
        while not stop.is_set():
            there.postgresql.run(["psql", "-Xqc", WRITE], env=there.libpq)

    writer = threading.Thread(target=write)
    writer.start()
    yield
    stop.set()
    writer.join()


@pytest.mark.usefixtures("busy")
def test_everything_is_captured_and_proven(installation, bookreader_containers):
    """Every artifact of the day passes every check, restored in containers of the same images."""
    day = installation.today()
    entries = {}
    for asset, component in installation.components.items():
        entries[asset], _ = capture(installation, component, day)
    for asset, entry in entries.items():
        proof = verify(installation, installation.component(asset), entry)
        assert [o for o in proof.checks if o.verdict is not Verdict.PASSED] == [], asset
    dump = entries["postgresql/dump"]
    assert dump.source["container"] == bookreader_containers.postgresql_name
    assert dump.source["image"].startswith("bookreader-test-postgres:")
    manifest = seal(installation, day)
    document = json.loads(b"".join(installation.vault.open(manifest.name)))
    assert set(document["images"]) == {"postgres", "redis", "backend"}
    written = b"".join(path.read_bytes() for path in installation.vault.root.rglob("*.json"))
    assert bookreader_containers.password.encode() not in written
