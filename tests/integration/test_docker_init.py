"""`init` on real containers: a compose project that this project did not write, two of them, and none.

`FOREIGN` is written as BookReader AI's own deployment is: its services, container names with underscores, a
password of Redis on the command line, one of PostgreSQL in a secret, options and paths as there.
"""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.runners.compose import Compose
from bookreader_backup_assets.runners.docker import POSTGRESQL, DockerRunner
from bookreader_backup_assets.runners.docker_engine import Engine
from tests.fixtures.compose import PASSWORD, REDIS_PASSWORD
from tests.fixtures.docker import LABEL, _own_engine, until
from tests.fixtures.missing import missing

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LONG = f"{PASSWORD} it's"
"""A password that shells and settings files could trip over."""
FOREIGN = f"""\
services:
  postgres:
    image: ${{POSTGRES_IMAGE}}
    container_name: ${{PREFIX}}_postgres
    entrypoint: [sh, -c, 'export POSTGRES_PASSWORD="$$(cat $$POSTGRES_PASSWORD_FILE)"; exec /start']
    environment:
      POSTGRES_DB: bookreader_prod
      POSTGRES_USER: reader
      POSTGRES_PASSWORD_FILE: /run/secrets/db_password
    secrets: [db_password]
    volumes: [postgres_data:/var/lib/postgresql/data]
    labels: &mine {{{LABEL}: "${{OWNER}}"}}
  redis:
    image: ${{REDIS_IMAGE}}
    container_name: ${{PREFIX}}_redis
    entrypoint: []
    command: >-
      sh -c 'exec redis-server --requirepass "$$REDIS_PASSWORD" --appendonly yes
      --maxmemory-policy allkeys-lru --save "900 1 300 10 60 10000" --repl-diskless-sync-delay 0'
    environment: {{REDIS_PASSWORD: "${{REDIS_PASSWORD}}"}}
    volumes: [redis_data:/data]
    labels: *mine
  backend: &backend
    image: ${{BACKEND_IMAGE}}
    container_name: ${{PREFIX}}_backend
    environment: &env
      DATABASE_URL: "postgresql+asyncpg://reader:${{URL_PASSWORD}}@postgres:5432/bookreader_prod"
      PGHOST: postgres
      PGDATABASE: bookreader_prod
      PGUSER: reader
      PGPASSWORD: "${{DB_PASSWORD}}"
      REDIS_PASSWORD: "${{REDIS_PASSWORD}}"
    ports: ["127.0.0.1:${{BACKEND_PORT}}:8000"]
    volumes: ["./backend/storage:/app/storage"]
    labels: *mine
  celery-worker:
    image: ${{WORKER_IMAGE}}
    container_name: ${{PREFIX}}_celery
    command: &wait [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]
    volumes: ["./backend/storage:/app/storage"]
    labels: *mine
  celery-beat:
    image: ${{WORKER_IMAGE}}
    container_name: ${{PREFIX}}_beat
    command: *wait
    environment: {{CELERY_BROKER_URL: "redis://:${{REDIS_PASSWORD}}@redis:6379/1"}}
    labels: *mine
  nginx:
    image: ${{WORKER_IMAGE}}
    container_name: ${{PREFIX}}_nginx
    command: *wait
    volumes:
      - ./nginx/nginx.conf:/etc/nginx/nginx.conf:ro
      - ./certificates:/etc/nginx/ssl:ro
      - ./backend/storage:/app/storage:ro
    labels: *mine
secrets:
  db_password: {{file: ./secrets/db_password}}
volumes:
  postgres_data:
  redis_data:
"""
ODD = f"""\
services:
  maindb:
    image: ${{POSTGRES_IMAGE}}
    environment: {{POSTGRES_DB: app, POSTGRES_USER: bookreader, POSTGRES_PASSWORD: {PASSWORD}}}
    labels: &mine {{{LABEL}: "${{OWNER}}"}}
  cache:
    image: ${{REDIS_IMAGE}}
    command: [/usr/local/etc/redis/redis.conf]
    volumes: ["./redis.conf:/usr/local/etc/redis/redis.conf:ro"]
    labels: *mine
"""


@pytest.fixture
def foreign(make_project):
    """A BookReader of somebody else's writing, in a git repository, that runs and has data."""
    made = make_project()
    folder = made.folder
    (folder / "docker-compose.yml").unlink()
    (folder / "docker-compose.prod.yml").write_text(FOREIGN, encoding="utf-8")
    lines = {
        "PREFIX": f"reader_{os.getpid()}",
        "DB_PASSWORD": f"'{LONG}'" if "'" not in LONG else f'"{LONG}"',
        "URL_PASSWORD": "wrong",
        "REDIS_PASSWORD": REDIS_PASSWORD,
    }
    text = (folder / ".env").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if line.partition("=")[0] not in lines]
    written = [*kept, *(f"{name}={value}" for name, value in lines.items())]
    (folder / ".env").write_text("\n".join(written) + "\n", encoding="utf-8")
    for name, said in (("secrets/db_password", LONG), ("nginx/nginx.conf", "events {}\n")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(said, encoding="utf-8")
    (folder / "certificates").mkdir()
    (folder / "certificates" / "site.pem").write_text("a certificate\n", encoding="utf-8")
    for words in (["init", "-q"], ["add", "docker-compose.prod.yml"], ["commit", "-q", "-m", "as deployed"]):
        who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, timeout=60)
    compose = Compose(folder, made.engine, made.name, ("docker-compose.prod.yml",))
    compose.up(wait=False)
    there = replace(made, compose=compose)
    env = {"PGHOST": "127.0.0.1", "PGUSER": "reader", "PGPASSWORD": LONG, "PGDATABASE": "bookreader_prod"}
    sql = "CREATE TABLE books AS SELECT 1 AS id, 'x' AS title, '/app/storage/books/1.epub' AS file_path"
    until(lambda: there.postgresql.run(["psql", "-Xqc", sql], env=env), "PostgreSQL")
    auth = {"REDISCLI_AUTH": REDIS_PASSWORD}
    until(lambda: b"OK" in there.redis.run(["redis-cli", "SET", "a", "1"], env=auth).stdout, "Redis")
    (there.storage / "books").mkdir()
    (there.storage / "books" / "1.epub").write_bytes(b"a book")
    return there


@pytest.fixture
def operator(foreign, tmp_path):
    """Run a command as somebody at a shell of that host would, in BookReader's folder."""
    home = tmp_path / "home"
    home.mkdir()
    clean = {
        name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "XDG_STATE_HOME"}
    }

    def call(*words, cwd=foreign.folder, **more):
        env = {**clean, "HOME": str(home), "PATH": f"{BIN}:{clean['PATH']}", **more}
        return subprocess.run(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return call


def test_the_readmes_first_day(foreign, operator, tmp_path):
    """Its commands, as they stand there, lead from a running BookReader to a backup that would come back.

    Only what is this test's own is said beside them: which of the projects on this engine, and where the
    vault goes. `status` has the last word on what is still to do: the shipped plan wants copies elsewhere.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (
        one for one in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "-backup init" in one
    )
    assert block.count("\n") == 7
    settings = tmp_path / "etc" / "bookreader-backup.env"
    told = {"BACKUP_COMPOSE_PROJECT": foreign.name, "BACKUP_VAULT": str(tmp_path / "vault")}
    said = {}
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            assert value == "/etc/bookreader-backup/bookreader-backup.env"
            told[name] = str(settings)
            continue
        done = operator(*words, cwd=tmp_path, **told)
        assert done.returncode == (words[1] == "status"), f"{line}\n{done.stdout}\n{done.stderr}"
        said[words[1]] = done.stdout
        if words[1] == "init":
            del told["BACKUP_COMPOSE_PROJECT"], told["BACKUP_VAULT"]  # from here on the settings file knows
    assert said["status"].startswith("PROBLEM: the plan wants copies in offsite, which is not set up: set ")
    assert "passed" in said["drill"]
    key = (settings.parent / "bookreader-backup.secrets" / "key").read_text().strip()
    assert key in said["key"]
    for secret in (key, LONG, REDIS_PASSWORD):
        assert not [name for name, output in said.items() if secret in output and name != "key"]
        assert secret not in settings.read_text()
    for path in (settings, *(tmp_path / "etc").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    by_the_kit(foreign, said["key"], tmp_path / "work")
    assert git_status(foreign) == ["?? .env", "?? backend/", "?? certificates/", "?? nginx/", "?? secrets/"]


def test_what_is_found(foreign, operator, tmp_path):
    """Names, passwords, folders and services are those of the compose file, which is not read for them; in
    the git tree that they lie in, settings, secrets and vault are ignored; again, and nothing changes.
    """
    vault = foreign.folder / "backups" / "vault"
    done = operator("bookreader-backup", "init", "--project", foreign.name, "--vault", str(vault), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    port = foreign.port
    assert {
        name: value
        for name, value in made["settings"].items()
        if not name.endswith(("_FILE", "_ROOT", "_VAULT"))
    } == {
        "BACKUP_COMPOSE_PROJECT": foreign.name,
        "BACKUP_POSTGRESQL_DATABASE": "bookreader_prod",
        "BACKUP_POSTGRESQL_USER": "reader",
        "BACKUP_STORAGE_PATH": "/app/storage",
        "BACKUP_CONFIG_PATHS": "docker-compose.prod.yml,secrets/db_password,.env,nginx,certificates",
        "BACKUP_COMPOSE_FILES": "docker-compose.prod.yml",
        "BACKUP_SERVICES": "backend,celery-worker,celery-beat",
        "BACKUP_HEALTH_URLS": f"http://127.0.0.1:{port}/api/v1/health,http://127.0.0.1:{port}/api/v1/books",
    }
    assert "appendonly yes" in made["found"]["redis"]
    assert "allkeys-lru" in made["found"]["redis"]
    assert made["found"]["storage"].endswith("shared by backend, celery-worker, nginx")
    secrets = foreign.folder / "bookreader-backup.secrets"
    assert (secrets / "postgresql").read_text() == LONG + "\n"
    assert (secrets / "redis").read_text() == REDIS_PASSWORD + "\n"
    ignored = (foreign.folder / ".gitignore").read_text().splitlines()
    assert ignored == ["/backups/vault", "/bookreader-backup.env", "/bookreader-backup.secrets"]
    files = snapshot(foreign.folder)
    again = operator("bookreader-backup", "init", "--project", foreign.name)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "are kept" in again.stdout
    assert snapshot(foreign.folder) == files
    (foreign.folder / "secrets" / "db_password").write_text("another")
    settings = foreign.folder / "bookreader-backup.env"
    settings.write_text(settings.read_text().replace("bookreader_prod", "gone"))
    other = operator("bookreader-backup", "init", "--project", foreign.name)
    assert "BACKUP_POSTGRESQL_DATABASE is gone; found: bookreader_prod" in other.stdout
    assert other.returncode == 1


def test_two_bookreaders_are_refused(make_project, tmp_path):
    """Both are named, with what to say; the one that is said is found, whatever its services are called, and
    again by the settings that are kept; one whose database is stopped is not taken for one that never was.
    """
    one, other = make_project("one"), make_project("other")
    conf = f'requirepass "{REDIS_PASSWORD} #2"\nappendonly yes\n'
    for made in (one, other):
        (made.folder / "docker-compose.yml").write_text(ODD, encoding="utf-8")
        (made.folder / "redis.conf").write_text(conf, encoding="utf-8")
        made.compose.up(wait=False)

    def init(*words):
        return subprocess.run(
            [BIN / "bookreader-backup", "init", *words],
            cwd=one.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    refused = init()
    assert refused.returncode == 2
    assert f"{one.name} (in {one.folder}, {one.name}_maindb_1, {one.name}_cache_1)" in refused.stderr
    assert other.name in refused.stderr
    assert "init --project " in refused.stderr
    assert not (one.folder / "bookreader-backup.env").exists()
    env = {"PGHOST": "127.0.0.1", "PGUSER": "bookreader", "PGPASSWORD": PASSWORD}
    runner = DockerRunner(one.engine, POSTGRESQL, configured=f"{one.name}_maindb_1")
    until(lambda: runner.run(["psql", "-Xqc", "SELECT 1", "app"], env=env), "PostgreSQL")
    made = json.loads(init("--project", one.name, "--json", "--vault", str(tmp_path / "vault")).stdout)
    assert made["settings"]["BACKUP_POSTGRESQL_CONTAINER"] == f"{one.name}_maindb_1"
    assert made["settings"]["BACKUP_REDIS_CONTAINER"] == f"{one.name}_cache_1"
    assert made["settings"]["BACKUP_POSTGRESQL_DATABASE"] == "app"
    assert made["settings"]["BACKUP_CONFIG_PATHS"] == "docker-compose.yml,.env,redis.conf"
    assert (one.folder / "bookreader-backup.secrets" / "redis").read_text() == f"{REDIS_PASSWORD} #2\n"
    assert [found["seen"] for found in made["findings"] if found["subject"] == "init"] == [
        "no folder looks like storage: set BACKUP_STORAGE_CONTAINER and BACKUP_STORAGE_PATH"
    ]
    again = json.loads(init("--json").stdout)
    assert again["found"]["project"] == f"{one.name}, in {one.folder}"
    assert again["settings"] == made["settings"]
    assert again["differences"] == {}
    with other.engine.guarded():
        other.engine.api.stop(f"{other.name}_maindb_1", timeout=0)
    stopped = init("--project", other.name)
    assert stopped.returncode == 2
    assert f"has {other.name}_maindb_1, which does not run" in stopped.stderr


def test_where_nothing_runs(tmp_path):
    """An engine without a container: it says so, and what to do."""
    if os.geteuid() != 0:
        missing("it takes root to start an engine without containers")
    with _own_engine(tmp_path / "e") as engine:
        done = subprocess.run(
            [BIN / "bookreader-backup", "init"],
            cwd=tmp_path,
            env={**os.environ, "DOCKER_HOST": Engine(engine.address).address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert "no BookReader runs here" in done.stderr
    assert "docker compose up -d" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def by_the_kit(there, page, folder):
    """Lose the database, and type what the kit says: it is there again, and the files lie beside."""
    env = {"PGHOST": "127.0.0.1", "PGUSER": "reader", "PGPASSWORD": LONG, "PGDATABASE": "postgres"}

    def sql(text, database):
        words = ["psql", "-XqAtc", text]
        said = there.postgresql.run(words, env={**env, "PGDATABASE": database}).stdout
        return said.decode().strip()

    sql("DROP DATABASE bookreader_prod", "postgres")
    script = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    folder.mkdir()
    home = Path(f"/tmp/bb-first-{os.getpid()}")
    home.mkdir(mode=0o700)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{script}\ngpgconf --kill all; rm -r $GNUPGHOME"],
        cwd=folder,
        env={**os.environ, "PGPASSWORD": LONG, "GNUPGHOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sql("SELECT title FROM books", "bookreader_prod") == "x"
    assert (folder / "restored" / "storage" / "books" / "1.epub").read_bytes() == b"a book"
    assert (folder / "restored" / "config" / "nginx" / "nginx.conf").is_file()


def snapshot(folder):
    """Every file but storage's: mode, time and content."""
    return {
        path: (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts[:-1]
    }


def git_status(there):
    """What git says of the folder."""
    words = ["git", "-C", str(there.folder), "status", "--porcelain"]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
