"""What `init` makes of what it sees, and how it writes: pure facts, a small web server, and files."""

import http.server
import os
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bookreader_backup_assets.actions import init_access, init_folders, init_plan, init_writes
from bookreader_backup_assets.actions.discover import BookReader, choose
from bookreader_backup_assets.actions.init_plan import Proposal, Writes, host_zone
from bookreader_backup_assets.actions.init_writes import git_top
from bookreader_backup_assets.core.errors import RefusedError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.docker_project import Container, Mount
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.pages import ROOT, RUNBOOKS, blocks
from tests.unit.test_keys import killed_at

POSTGRES = Container("app_db_1", "postgres:17-alpine", "db", "app", programs=frozenset({"postgres"}))
REDIS = Container("app_cache_1", "redis:7.4-alpine", "cache", "app", programs=frozenset({"redis-server"}))
BACKEND = Container("app_backend_1", "app", "backend", "app", programs=frozenset({"python"}))


def among(**kinds):
    """A BookReader with these others, by service."""
    return BookReader(
        "app", POSTGRES, REDIS, tuple(replace(one, service=name) for name, one in kinds.items())
    )


def mounting(*mounts, **more):
    """A container with mounts, each `source:target` or `source:target:ro`."""
    made = []
    for text in mounts:
        source, target, *how = text.split(":")
        made.append(Mount(source, target, not source.startswith("/"), how != ["ro"]))
    return replace(BACKEND, mounts=tuple(made), **more)


def test_servers_are_known_by_what_runs_in_them():
    """Whatever they are called; an exporter, a proxy and a tool with the word in its name are none."""
    exporter = replace(
        POSTGRES, name="e", service="postgres-exporter", programs=frozenset({"postgres_exporter"})
    )
    sentinel = replace(REDIS, name="s", service="redis-sentinel", programs=frozenset({"redis-sentinel"}))
    there = choose([POSTGRES, REDIS, BACKEND, exporter, sentinel])
    assert (there.postgresql, there.redis) == (POSTGRES, REDIS)
    assert there.others == (BACKEND, exporter, sentinel)


def test_a_server_that_has_just_been_started_is_one():
    """It makes its cluster first; and what has its image, to dump it, is none where the server runs."""
    starting = replace(POSTGRES, programs=frozenset({"sh", "initdb"}))
    assert choose([starting, REDIS]).postgresql == starting
    dumping = replace(POSTGRES, name="app_dump_1", service="dump", programs=frozenset({"sh", "sleep"}))
    assert choose([POSTGRES, dumping, REDIS]).postgresql == POSTGRES


def test_where_the_engine_does_not_tell_the_image_and_the_command_do():
    """A filter before the engine may not let its question through."""
    quiet = [replace(one, programs=frozenset()) for one in (POSTGRES, REDIS, BACKEND)]
    assert choose(quiet).redis.name == REDIS.name
    custom = replace(
        quiet[1], image="registry/our-cache@sha256:1", words=("/usr/bin/redis-server", "--port", "1")
    )
    assert choose([quiet[0], custom]).redis == custom


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ([], "compose projects here: none"),
        ([BACKEND], "compose projects here: app"),
        ([POSTGRES, BACKEND], "app has no Redis"),
        ([replace(POSTGRES, running=False, programs=frozenset()), REDIS], "app_db_1, which does not run"),
        ([POSTGRES, replace(REDIS, project="other")], "app has no Redis; other has no PostgreSQL"),
        ([replace(POSTGRES, project=None), replace(REDIS, project=None)], "runs here"),
    ],
)
def test_where_nothing_runs_it_says_what_there_is(containers, said):
    """With what is missing, and what to do."""
    with pytest.raises(RefusedError, match="no BookReader") as refused:
        choose(containers)
    assert said in refused.value.message
    assert "docker compose up -d" in refused.value.hint


def test_two_are_refused_and_one_is_chosen():
    """Both are named, with folder and servers; the project that is said is taken."""
    folder = Path("/opt/a")
    one = [replace(container, folder=folder) for container in (POSTGRES, REDIS)]
    other = [replace(container, project="b", name=f"b{container.service}") for container in one]
    with pytest.raises(RefusedError) as refused:
        choose([*one, *other])
    assert "app (in /opt/a, app_db_1, app_cache_1); b (in /opt/a, bdb, bcache)" in refused.value.message
    assert refused.value.hint.endswith("init --project app")
    assert choose([*one, *other], project="b").postgresql.name == "bdb"


def test_of_several_servers_the_usual_one_or_the_named_one():
    """Two that are equally likely are refused, with the variable that says which."""
    queue = replace(REDIS, name="app_queue_1", service="queue")
    with pytest.raises(RefusedError, match="app_cache_1, app_queue_1") as refused:
        choose([POSTGRES, REDIS, queue])
    assert "BACKUP_REDIS_CONTAINER=app_cache_1" in refused.value.hint
    assert choose([POSTGRES, REDIS, queue], named=(None, "app_queue_1")).redis == queue
    usual = replace(REDIS, name="app_redis_1", service="redis")
    assert choose([POSTGRES, REDIS, usual]).redis == usual


def test_containers_that_compose_did_not_make():
    """By their usual names only: two strangers are no BookReader."""
    made = [replace(one, project=None, service="") for one in (POSTGRES, REDIS)]
    named = [replace(made[0], name="bookreader-db"), replace(made[1], name="bookreader_redis")]
    assert choose([*made, *named]).postgresql == named[0]
    assert choose(made, named=("app_db_1", "app_cache_1")).project is None


def test_storage_is_what_backend_and_workers_share(tmp_path):
    """Never the database's volume, a configuration, or code; the code's `storage` folder, if that is it."""
    shared = mounting("/srv/files:/app/storage", "/srv/app/nginx.conf:/etc/nginx/nginx.conf:ro")
    there = among(
        backend=shared, worker=mounting("/srv/files:/app/storage"), nginx=mounting("/srv/files:/w:ro")
    )
    found = init_folders.storage(there)
    assert (found.path, found.source, found.shared) == (
        "/app/storage",
        "/srv/files",
        ("backend", "nginx", "worker"),
    )
    assert found.container.service == "backend"
    volume = among(backend=mounting("app_uploads:/data/files", "logs:/var/log/app"))
    assert init_folders.storage(volume).source == "app_uploads"
    (tmp_path / "storage").mkdir()
    code = mounting(f"{tmp_path}:/app")
    assert init_folders.storage(among(backend=code, worker=code)).path == "/app/storage"
    data = replace(POSTGRES, mounts=(Mount("/pg/storage", "/var/lib/postgresql/data"),))
    reader = BookReader("app", data, REDIS, (mounting("/pg/storage:/backup/storage"),))
    assert init_folders.storage(reader) is None
    assert init_folders.storage(among(backend=mounting("/srv/x:/app/x"))) is None
    other = mounting("/srv/x:/app/x")
    assert init_folders.storage(among(backend=other, worker=other)).path == "/app/x"
    (tmp_path / "storage").rmdir()
    (tmp_path / "pyproject.toml").touch()
    assert init_folders.storage(among(backend=code, worker=code)) is None


def test_the_configuration_is_what_is_there(tmp_path):
    """Compose files, what they name, what servers have mounted; nothing twice, no storage and no vault."""
    root = tmp_path / "app"
    for name in ("nginx/nginx.conf", "deploy/redis.conf", "backend/storage/1", "vault/x", "certs/a.pem"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    outside = tmp_path / "letsencrypt"
    outside.mkdir()
    compose = 'services: {web: {env_file: [.env.prod, {path: gone}]}}\nsecrets: {one: {file: "./pw"}}\n'
    (root / "docker-compose.yml").write_text(compose)
    for name in (".env", ".env.prod", "pw", "README.md"):
        (root / name).write_text("x")
    mounts = mounting(
        f"{root}/nginx/nginx.conf:/etc/nginx/nginx.conf:ro",
        f"{outside}:/etc/letsencrypt:ro",
        "/etc/localtime:/etc/localtime:ro",
        f"{root}/vault:/etc/vault",
        f"{root}/deploy/redis.conf:/redis.conf:ro",
    )
    there = among(nginx=mounts)
    apart = [str(root / "backend/storage"), str(root / "vault")]
    assert init_folders.config_paths(there, root, apart) == (
        "docker-compose.yml",
        ".env.prod",
        "pw",
        ".env",
        "nginx",
        "certs",
        str(outside),
        "deploy/redis.conf",
    )
    assert init_folders.config_paths(among(), tmp_path / "nowhere", []) == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("docker-compose.yml",), ()),
        (("/r/docker-compose.yml", "/r/docker-compose.override.yml"), ()),
        (
            ("docker-compose.yml", "docker-compose.prod.yml"),
            ("docker-compose.yml", "docker-compose.prod.yml"),
        ),
        (("/elsewhere/c.yml",), ("/elsewhere/c.yml",)),
    ],
)
def test_compose_files_are_named_only_if_they_are_not_the_usual(tmp_path, files, expected):
    """What compose takes by itself needs no setting, the override included."""
    (tmp_path / "docker-compose.yml").touch()
    if len(files) == 2 and "override" in files[1]:
        (tmp_path / "docker-compose.override.yml").touch()
    given = tuple(name.replace("/r/", f"{tmp_path}/") for name in files)
    there = BookReader("app", replace(POSTGRES, files=given), REDIS)
    assert init_folders.compose_files(there, tmp_path) == expected


def test_services_that_use_the_data_in_their_order():
    """By what they write, whom they talk to, whom they wait for, or what they are called; readers stay."""
    there = among(
        beat=replace(BACKEND, environment={"URL": "redis://:x@cache:6379/1"}, created="3"),
        pages=mounting("/srv/files:/app/storage:ro"),
        cron=replace(BACKEND, depends=("db",), created="4"),
        tasks=mounting("/srv/files:/app/storage", created="2"),
        backend=mounting("/srv/files:/app/storage", created="1"),
        dbadmin=replace(BACKEND, environment={"TITLE": "dbadmin"}),
    )
    found = init_folders.services(there, init_folders.storage(there))
    assert found == ("backend", "beat", "tasks", "cron")


class _Page(http.server.BaseHTTPRequestHandler):
    good: frozenset[str] = frozenset()

    def do_GET(self):
        self.send_response(200 if not self.good or self.path in self.good else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Serve pages that answer 200 for some paths, or, without any, for all; return the address."""
    running = []

    def start(*good):
        kind = type("Page", (_Page,), {"good": frozenset(good)})
        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{running[-1].server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


def test_health_urls_are_those_that_answer(serve):
    """The healthcheck's own path, or usual ones; a frontend that answers everything proves nothing."""
    frontend = replace(BACKEND, published=((80, serve()),))
    assert init_folders.health_urls(among(web=frontend)) == ()
    api = serve("/api/v1/health", "/api/v1/books")
    there = among(web=frontend, backend=replace(BACKEND, published=((8000, api),)))
    assert init_folders.health_urls(there) == (f"http://{api}/api/v1/health", f"http://{api}/api/v1/books")
    own = serve("/up")
    check = "CMD curl -f http://localhost:8000/up || exit 1"
    there = among(backend=replace(BACKEND, published=((8000, own),), healthcheck=check))
    assert init_folders.health_urls(there) == (f"http://{own}/up",)
    assert init_folders.health_urls(among(backend=replace(BACKEND, published=((1, "127.0.0.1:9"),)))) == ()


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        (("redis-server", "--requirepass", "a b", "--appendonly", "yes"), {}, "a b"),
        (("sh", "-c", "exec redis-server --requirepass 'a b' --save ''"), {}, "a b"),
        (("sh", "-c", "redis-server --requirepass $REDIS_PASSWORD"), {"REDIS_PASSWORD": "x"}, "x"),
        (("sh", "-c", 'redis-server --requirepass "${PW}"'), {"PW": "x y"}, "x y"),
        (("redis-server",), {"REDISCLI_AUTH": "x"}, "x"),
    ],
)
def test_the_password_of_redis_is_read_out_of_its_command(words, environment, expected):
    """As words, in a shell's line, by a variable, or from the environment."""
    there = replace(among(), redis=replace(REDIS, words=words, environment=environment))
    found = init_access._passwords(None, there)
    assert next(found).reveal() == expected


def test_logins_are_read_out_of_variables_and_urls():
    """Whoever's variables they are; URLs of the application's driver too, quoted as URLs are."""
    one = replace(
        BACKEND,
        environment={
            "DB_USER": "u", "DB_PASSWORD": "p", "DB_NAME": "d", "POSTGRES_PASSWORD": "q",
            "DATABASE_URL": "postgresql+asyncpg://me:p%40ss@db:5432/books?ssl=off", "OTHER": "mysql://x",
        },
    )  # fmt: skip
    found = [(a.user, a.password and a.password.reveal(), a.database) for a in init_access._logins(None, one)]
    assert found == [("postgres", "q", ""), ("u", "p", "d"), ("me", "p@ss", "books")]


def test_the_hosts_timezone(tmp_path):
    """Where it can be told, and is another than the plan's UTC."""
    for name, expected in (
        ("Europe/Moscow", "Europe/Moscow"),
        ("Etc/UTC", ""),
        ("UTC", ""),
        ("No/Where", ""),
    ):
        link = tmp_path / name.replace("/", "-")
        link.symlink_to(f"/usr/share/zoneinfo/{name}")
        assert host_zone(link) in {expected, ""}
    assert host_zone(tmp_path / "gone") == ""


@pytest.mark.parametrize(
    "value", ["plain/value,x", "", "two words", "it's", 'a"b', "a#b $c ${d}", "back\\slash"]
)
def test_a_line_is_read_as_it_was_written(tmp_path, value):
    """By this program's own reader, whatever is in it."""
    (tmp_path / "f").write_text(init_writes.line("BACKUP_PLAN", value or "x") + "\n")
    assert load_settings({}, env_file=tmp_path / "f").plan == (value or "x")
    with pytest.raises(RefusedError, match="several lines"):
        init_writes.line("BACKUP_PLAN", "a\nb")


def test_nothing_is_overwritten_and_rights_stay(tmp_path):
    """A new file is its owner's only; one that is there is left alone; one that is replaced keeps its mode,
    and a link to it stays one.
    """
    file = tmp_path / "a" / "b" / "file"
    assert init_writes.write_new(file, "one")
    assert not init_writes.write_new(file, "two")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("one", 0o600)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    (tmp_path / "link").symlink_to(file)
    init_writes.rewrite(tmp_path / "link", "three")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("three", 0o644)
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    with pytest.raises(SourceError, match="cannot be written"):
        init_writes.write_new(file / "below", "x")


def test_git_ignores_what_was_written(tmp_path):
    """Each line once, at the top of the tree that it lies in; git agrees; elsewhere nothing is written."""
    top = tmp_path / "tree"
    top.mkdir()
    subprocess.run(["git", "init", "-q", str(top)], check=True, timeout=60)
    (top / ".gitignore").write_text("*.log\n/key")
    (top / ".gitignore").chmod(0o644)
    paths = [top / "key", top / "deep" / "vault", top / "odd [name] #1"]
    assert init_writes.ignore([*paths, paths[1], tmp_path / "outside"]) == [top / ".gitignore"]
    lines = (top / ".gitignore").read_text().splitlines()
    assert lines[:3] == ["*.log", "/key", "/deep/vault"]
    assert len(lines) == 4
    assert init_writes.ignore(paths) == []
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    seen = subprocess.run(
        ["git", "-C", str(top), "status", "--porcelain", "-uall"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert seen.stdout == "?? .gitignore\n"
    assert git_top(top / "deep" / "x") == top
    assert (top / ".gitignore").stat().st_mode & 0o777 == 0o644


def writes(folder):
    """What `init` would write into a folder that is a git tree."""
    secrets = {"BACKUP_REDIS_PASSWORD": Secret("of redis"), "BACKUP_POSTGRESQL_URL": Secret("postgresql://h")}
    proposal = Proposal({"BACKUP_RUNNER": "local"}, secrets)
    file = folder / "bookreader-backup.env"
    return Writes(
        proposal,
        file,
        file.with_suffix(".secrets"),
        folder / "bookreader-backup.secrets" / "key",
        folder / "v",
    )


def test_killed_at_any_moment(tmp_path):
    """Before any change of a file system: there are settings only where all that they name is there, and the
    same command ends it with the same key.
    """
    for step in range(1, 99):
        folder = tmp_path / str(step)
        (folder / ".git").mkdir(parents=True)
        planned = writes(folder)

        def init(planned=planned):
            init_plan.check(planned)
            init_plan.write_secrets(planned)
            init_plan.write_settings(planned, datetime.now(UTC))

        status = killed_at(step, init)
        key = planned.key.read_text() if planned.key.exists() else None
        if planned.settings.exists():
            load_settings({}, env_file=planned.settings)
        else:
            assert status != 0
            init()
        found = load_settings({}, env_file=planned.settings)
        assert key in (None, found.key.reveal() + "\n")
        assert found.redis_password.reveal() == "of redis"
        assert "/bookreader-backup.secrets" in (folder / ".gitignore").read_text().splitlines()
        assert not list(folder.rglob("*.partial")), step
        if status == 0:
            break
    assert status == 0
    assert step > 10


def test_the_vault_goes_where_nothing_else_lies(tmp_path, monkeypatch):
    """The guide's folder; beside it where the old script's backups are in it; or in the home of who may not
    write there.
    """
    monkeypatch.setattr(init_plan, "_DEFAULT", tmp_path / "backups" / "bookreader")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert init_plan.default_vault() == tmp_path / "backups" / "bookreader"
    (tmp_path / "backups" / "bookreader" / "postgresql").mkdir(parents=True)
    assert init_plan.default_vault() == tmp_path / "backups" / "bookreader-vault"
    (tmp_path / "backups" / "bookreader" / "installation.json").touch()
    assert init_plan.default_vault() == tmp_path / "backups" / "bookreader"
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert init_plan.default_vault() == tmp_path / "home" / "bookreader-backups"


def test_the_page_of_the_first_day_is_the_readmes():
    """The commands of the page are those that a test follows in the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (one for one in readme.split("```\n") if "bookreader-backup init " in one)
    typed = [line.split("#")[0].strip() for line in block.splitlines()[1:]]
    page = "".join(text for mark, text in blocks(RUNBOOKS / "first-day.md") if mark == "run")
    assert page.splitlines() == typed
