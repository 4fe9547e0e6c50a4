"""The host and its vault are gone: a new one, with the bucket and the key, gets back all that it held."""

import json
import os
import shutil
from pathlib import Path

import pytest
from dotenv import dotenv_values

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import replicate
from bookreader_backup_assets.actions.seal import ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.settings import load_settings
from tests.deploy.conftest import project_image  # noqa: F401 - a fixture
from tests.fixtures.away import plan_with
from tests.fixtures.docker import LABEL, until
from tests.fixtures.installation import KEY
from tests.fixtures.living import _KEYS, _ROWS, at_once
from tests.fixtures.trees import look

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("disasters")]
PARTS = ("config", "postgresql", "redis", "storage")


def held(project, storage, config):
    """All that a BookReader holds, its files without times."""
    files = look(os.fsencode(storage))
    return {
        "rows": project.sql(_ROWS),
        "keys": [project.cache("EVAL", _KEYS, "0", database=number) for number in range(3)],
        "files": {path: (*what[:3], *what[4:]) for path, what in files.items() if path != b"."},
        "config": {name: (config / name).read_bytes() for name in ("docker-compose.yml", ".env")},
    }


def back_up_offsite(environ):
    """Capture, verify and seal everything on the first host, and bring it into the bucket."""
    made = at_once(assemble(load_settings(environ, env_file=Path(os.devnull))))
    day = made.today()
    for component in (one for one in made.components.values() if one.component in PARTS):
        verify(made, component, capture(made, component, day)[0])
    verify(made, ManifestComponent(), seal(made, day))
    for entry in waiting(made, Catalog(made.vault), "offsite"):
        assert replicate(made, entry, "offsite").outcome.passed


class Machine:
    """A container of this project's image on this machine's network, with nothing of the first host."""

    def __init__(self, engine, image, binds, environ):
        self.api, self.environ = engine.api, environ
        host = self.api.create_host_config(network_mode="host", binds=[f"{path}:{path}" for path in binds])
        made = self.api.create_container(
            image, ["sleep", "600"], hostname="fresh", host_config=host, labels={LABEL: str(os.getpid())}
        )
        self.id = made["Id"]
        self.api.start(self.id)

    def run(self, *arguments, **more):
        """Run the program in it, and return what it prints."""
        said = {**self.environ, **more}
        began = self.api.exec_create(self.id, ["bookreader-backup", *arguments], environment=said)["Id"]
        printed = self.api.exec_start(began).decode()
        assert self.api.exec_inspect(began)["ExitCode"] == 0, f"{arguments}: {printed}"
        return printed

    def remove(self):
        """Remove it."""
        self.api.remove_container(self.id, force=True, v=True)


def test_a_new_host_gets_everything_back(make_project, project_image, bucket, tmp_path):  # noqa: F811
    """Listed, verified and restored out of the bucket: rows, keys, files and configuration as they were."""
    first = make_project("first")
    first.compose.up()
    first.fill()
    (tmp_path / "key").write_text(KEY)
    for name, secret in (("id", bucket.key_id), ("secret", bucket.secret_key)):
        (tmp_path / name).write_text(secret.reveal())
    offsite = {
        "BACKUP_KEY_FILE": str(tmp_path / "key"),
        "BACKUP_OFFSITE_BUCKET": bucket.bucket,
        "BACKUP_OFFSITE_ENDPOINT": bucket.endpoint,
        "BACKUP_OFFSITE_ACCESS_KEY_FILE": str(tmp_path / "id"),
        "BACKUP_OFFSITE_SECRET_KEY_FILE": str(tmp_path / "secret"),
    }
    plan = {"BACKUP_PLAN": str(plan_with(tmp_path, offsite="{ days = 30 }"))}
    back_up_offsite({**first.environ, **offsite, **plan, "BACKUP_VAULT": str(tmp_path / "vault")})
    good = held(first, first.storage, first.folder)
    first.lose()
    shutil.rmtree(tmp_path / "vault")
    assert not first.folder.exists()

    second = make_project("second")
    second.compose.up("postgres", "redis", "backend")
    until(lambda: second.sql("SELECT 1"), "PostgreSQL")
    (tmp_path / "fresh").mkdir()
    keys = [str(tmp_path / name) for name in ("key", "id", "secret", "fresh")]
    socket = second.engine.address.removeprefix("unix://")
    there = Machine(second.engine, project_image, [*keys, socket], offsite)
    try:
        listed = there.run("list", "--vault", "offsite")
        assert all(f"{part}/" in listed for part in PARTS)
        assert "unverified" not in listed
        there.run("restore", "config", "--vault", "offsite", "--into", str(tmp_path / "fresh" / "app"))
        said = dotenv_values(tmp_path / "fresh" / "app" / ".env")  # what the first host's configuration says
        services = {
            "DOCKER_HOST": second.engine.address,
            "BACKUP_COMPOSE_PROJECT": second.name,
            "BACKUP_POSTGRESQL_USER": said["DB_USER"],
            "BACKUP_POSTGRESQL_DATABASE": said["DB_NAME"],
            "BACKUP_POSTGRESQL_PASSWORD": said["DB_PASSWORD"],
            "BACKUP_REDIS_PASSWORD": said["REDIS_PASSWORD"],
        }
        from_there = ("--vault", "offsite")
        verified = there.run("verify", *from_there, **services)
        assert "failed" not in verified
        there.run("restore", "postgresql", *from_there, "--confirm", "bookreader", **services)
        planned = json.loads(there.run("restore", "redis", *from_there, "--plan", "--json", **services))
        there.run("restore", "redis", *from_there, "--confirm", planned["target"], **services)
        there.run("restore", "storage", *from_there, "--into", str(tmp_path / "fresh/storage"), **services)
        assert held(second, tmp_path / "fresh" / "storage", tmp_path / "fresh" / "app") == good
        reports = there.run("restore", "reports", **services)
        assert reports.count("restored") == 4
    finally:
        there.remove()
