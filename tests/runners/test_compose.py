"""A whole BookReader brought up by Docker Compose, and what is said where that cannot be."""

import os
from dataclasses import replace

import pytest

from bookreader_backup_assets.core.errors import SourceAbsentError, SourceError
from bookreader_backup_assets.runners.compose import Compose
from tests.fixtures.compose import PASSWORD

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]


def test_a_bookreader_is_brought_up_stopped_and_started(bookreader_project):
    """What uses the data ends and comes back; the rest runs on, and the answers are the same."""
    project = bookreader_project
    before = project.answer("/books")
    assert before[0] == 200
    assert len(before[1]) == 40
    assert all(book["stored"] for book in before[1])
    ran = project.services.running()
    assert [name.replace("_", "-").rsplit("-", 2)[-2] for name in ran] == ["backend", "worker", "beat"]
    for name in ran:
        project.services.stop(name)
    assert project.services.running() == ()
    assert project.sql("SELECT count(*) FROM books") == "40"
    with pytest.raises(OSError, match="refused"):
        project.answer("/health")
    for name in ran:
        project.services.start(name)
    assert project.services.running() == ran
    assert project.answer("/books") == before


@pytest.fixture
def written(make_project):
    """A project of which nothing runs."""
    return make_project()


def _rewrite(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_what_the_file_says(written):
    """Services in its words, images with variables replaced, and nothing is started."""
    assert sorted(written.compose.services()) == [
        "backend", "celery-beat", "celery-worker", "postgres", "redis",
    ]  # fmt: skip
    images = written.compose.images()
    assert images["celery-beat"] == images["celery-worker"] != images["backend"]
    assert images["postgres"].startswith("bookreader-test-postgres:")
    environment = written.compose.config()["services"]["backend"]["environment"]
    assert environment["PGPASSWORD"] == PASSWORD
    assert written.compose.containers() == ()


def test_a_lost_env_file_is_noticed(written):
    """Compose itself goes on with empty passwords."""
    assert written.compose.unset() == ()
    (written.folder / ".env").unlink()
    assert {"DB_PASSWORD", "REDIS_PASSWORD"} < set(written.compose.unset())


def test_some_services_are_brought_up_with_what_they_need(written):
    """PostgreSQL alone, then the backend's containers are made and not started."""
    written.compose.up("postgres")
    assert len(written.compose.containers()) == 1
    assert written.services.running() == ()
    assert written.sql("SELECT 1") == "1"
    written.compose.create("backend")
    assert len(written.compose.containers()) == 3
    assert written.services.running() == ()


def test_a_service_that_is_not_healthy_is_an_error_with_its_log(written):
    """Up is not the same as started."""
    _rewrite(
        written.folder / "docker-compose.yml",
        "[CMD, python3, /serve.py, --listening]",
        "[CMD-SHELL, 'echo no such table; exit 1']",
    )
    _rewrite(
        written.folder / "docker-compose.yml",
        "retries: 100\n    labels: *mine\n    restart: unless-stopped\n  celery",
        "retries: 2\n    labels: *mine\n    restart: unless-stopped\n  celery",
    )
    with pytest.raises(SourceError, match=r"backend.* is unhealthy \(no such table\)"):
        written.compose.up("backend")
    backend = written.services.running()[0]
    written.services.stop(backend)
    with pytest.raises(SourceError, match=r"backend.* is unhealthy \(no such table\)"):
        written.services.start(backend)


def test_what_compose_refuses_is_said(written):
    """Such as an image that is not there."""
    _rewrite(written.folder / ".env", "WORKER_IMAGE=", "WORKER_IMAGE=127.0.0.1:9/no-such-image-")
    with pytest.raises(SourceError, match=r"docker compose up failed: .*no-such-image"):
        written.compose.up("celery-beat", within=120)


def test_no_file_or_a_wrong_one_is_refused_with_the_remedy(written, tmp_path):
    """No folder, no file, and one that compose does not accept."""
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(SourceAbsentError, match=r"no folder|no compose file") as raised:
            Compose(folder, written.engine, "p").config()
        assert "bookreader-backup restore config" in raised.value.hint
        (tmp_path / "empty").mkdir(exist_ok=True)
    below = written.folder / "below"
    below.mkdir()
    with pytest.raises(SourceAbsentError, match=r"below has no compose file"):
        Compose(below, written.engine).services()  # and not the one of the folder above
    with pytest.raises(SourceAbsentError, match=r"has no other\.yml"):
        replace(written.compose, files=("other.yml",)).services()
    (written.folder / "docker-compose.yml").write_text("services: {a: {imagine: b}}")
    with pytest.raises(SourceError, match=r"does not accept the file in .*imagine") as raised:
        written.compose.services()
    assert raised.value.hint == "correct it: docker compose config"


def test_no_docker_on_the_machine_is_said(written, tmp_path, monkeypatch):
    """Neither command: what to install."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SourceAbsentError, match="docker is not on this machine"):
        Compose(written.folder, written.engine).services()
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "docker").chmod(0o755)
    with pytest.raises(SourceAbsentError, match="compose plugin is not") as raised:
        Compose(written.folder, written.engine).services()
    assert raised.value.hint == "apt-get install docker-compose-plugin"


def test_the_plugin_is_preferred(written, tmp_path, monkeypatch):
    """`docker compose` where it answers, as operators have it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text('#!/bin/sh\nshift\nexec echo "$@"\n')
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    compose = Compose(written.folder, written.engine, "mine", ("docker-compose.yml",))
    assert compose.command == ("docker", "compose")
    said = ("--file", "docker-compose.yml", "--project-name", "mine", "config", "--services")
    assert compose.services() == said


def test_an_engine_that_is_not_there_is_said(written, tmp_path):
    """It is not the file's fault."""
    away = replace(written.compose, engine=replace(written.engine, address=f"unix://{tmp_path}/none"))
    with pytest.raises(SourceAbsentError, match=r"cannot be reached|does not reach"):
        away.up("postgres")
