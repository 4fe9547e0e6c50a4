"""`init` without Docker, as it is typed: what it takes, writes, keeps and asks; and the recovery kit."""

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers import postgresql
from bookreader_backup_assets.servers.redis_wire import free_port
from tests.fixtures.installation import POSTGRESQL_PASSWORD
from tests.fixtures.postgresql import programs
from tests.fixtures.redis import PASSWORD
from tests.fixtures.trees import look

PROGRAM = Path(sys.executable).with_name("bookreader-backup")


@pytest.fixture
def told(system):
    """What somebody without Docker exports, by the block that `init` prints for them."""
    given = {name: value for name, value in system.environ.items() if name != "BACKUP_KEY_FILE"}
    return {**given, "BACKUP_CONFIG_PATHS": "docker-compose.yml,.env,nginx"}


@pytest.fixture
def init(tmp_path):
    """Run `init`, or another command, in a folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()

    def call(*arguments, **environ):
        return subprocess.run(
            [PROGRAM, *(arguments or ["init"])],
            cwd=folder,
            env=clean(tmp_path, environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def clean(folder, environ):
    """An environment with nothing of ours but `environ`."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), **environ}


def test_without_docker(init, told, tmp_path):
    """It says what to set, in a block that can be copied; with that set it writes settings that work alone,
    in which no secret is; and again it changes nothing.
    """
    refused = init(DOCKER_HOST=f"unix://{tmp_path}/no.socket")
    assert refused.returncode == 2
    assert "cannot be reached" in refused.stderr
    block = dict(re.findall(r"^  export (\w+)=(\S+)$", refused.stderr, re.MULTILINE))
    assert block.keys() <= told.keys()
    assert block["BACKUP_RUNNER"] == told["BACKUP_RUNNER"]
    assert not list((tmp_path / "here").iterdir())

    (tmp_path / "here" / ".env").write_text("BACKUP_DIR=/somebody/elses\n")
    vault = str(tmp_path / "vault")
    given = {name: told[name] for name in block}
    done = init("init", "--vault", vault, "--plan", "development", **given)
    findings = re.findall(r"^problem  (\S+):", done.stdout, re.MULTILINE)
    assert done.returncode == bool(findings), done.stdout + done.stderr
    assert not {"init", "config/archive:", "storage/archive", "redis/rdb", "postgresql/dump"} & {*findings}
    here = tmp_path / "here"
    settings, secrets = here / "bookreader-backup.env", here / "bookreader-backup.secrets"
    assert {path.name for path in secrets.iterdir()} == {"key", "postgresql-url", "redis-url"}
    for path in (settings, *secrets.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    key = (secrets / "key").read_text().strip()
    for secret in (key, POSTGRESQL_PASSWORD, PASSWORD, given["BACKUP_POSTGRESQL_URL"]):
        assert secret not in settings.read_text() + done.stdout + done.stderr
    assert "BACKUP_PLAN=development\n" in settings.read_text()
    assert json.loads((tmp_path / "vault" / "installation.json").read_text())["id"] in done.stdout
    before = look(os.fsencode(here))
    again = init("init", DOCKER_HOST=f"unix://{tmp_path}/no.socket")
    assert again.returncode == done.returncode, again.stdout + again.stderr
    assert "are kept" in again.stdout
    assert "found: " not in again.stdout
    assert look(os.fsencode(here)) == before
    captured = init("backup", "config", "--without-dagster")
    assert re.search(r"^config/archive .* verified$", captured.stdout, re.MULTILINE), captured.stdout
    listed = json.loads(init("key", "list", "--json").stdout)
    assert [len(one["entries"]) for one in listed["keys"]] == [1]


def test_a_key_and_a_vault_that_exist_are_taken(init, told, tmp_path):
    """A host that is set up again takes up its vault with its key: nothing of it is replaced; with another
    key it is told what is shut.
    """
    vault, key = tmp_path / "vault", tmp_path / "safe" / "key"
    first = init("init", "--vault", str(vault), "--key-file", str(key), "--json", **told)
    made = key.read_text(), (vault / "installation.json").read_text()
    shutil.rmtree(tmp_path / "here" / "bookreader-backup.secrets")
    (tmp_path / "here" / "bookreader-backup.env").unlink()
    second = json.loads(init("init", "--vault", str(vault), "--key-file", str(key), "--json", **told).stdout)
    assert (key.read_text(), (vault / "installation.json").read_text()) == made
    assert json.loads(first.stdout)["files"][str(key)] == "written"
    assert (second["files"][str(key)], second["files"][str(vault)]) == ("kept", "kept")
    assert init("backup", "config", "--without-dagster").returncode in {0, 1}
    (tmp_path / "here" / "bookreader-backup.env").unlink()
    other = {"BACKUP_KEY_FILE": str(tmp_path / "other")}
    third = json.loads(init("init", "--vault", str(vault), "--json", **told, **other).stdout)
    (shut,) = (one["seen"] for one in third["findings"] if one["subject"] == "key")
    assert shut == "1 artifacts in the vault are of a key that is not here"
    assert (tmp_path / "other").is_file()


@pytest.mark.parametrize(
    ("words", "there", "said"),
    [
        (["--vault", "{0}/full"], {"full/postgresql/x.dump": "x"}, "--vault"),
        (["--vault", "{0}/file"], {"file": "x"}, "is a file"),
        (["--vault", "{storage}/backups"], {}, "in its own backups"),
        (["--vault", "{0}/.git/v"], {}, "in git's own folder"),
        (["--vault", "{0}/v", "--key-file", "{0}/v/key"], {}, "in the vault"),
        (["--vault", "{0}/v", "--key-file", "{0}/key"], {"key": "two\nlines\n"}, "more than one line"),
        (["--vault", "{0}/v"], {"here/bookreader-backup.secrets/redis-url": "other"}, "move it away"),
    ],
    ids=["others' files", "a file", "in storage", "in git", "key in vault", "no key", "another password"],
)
def test_what_would_do_harm_is_refused(init, told, tmp_path, *, words, there, said):
    """Nothing is written then."""
    for name, text in there.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = look(os.fsencode(tmp_path))
    places = [word.format(tmp_path, storage=told["BACKUP_STORAGE_PATH"]) for word in words]
    done = init("init", *places, **told)
    assert done.returncode == 2
    assert said in done.stderr
    assert look(os.fsencode(tmp_path)) == before


def test_settings_in_bookreaders_env_are_kept(init, told, tmp_path):
    """Who has them there already is told what was found otherwise, and gets no second file that would win."""
    file = tmp_path / "here" / ".env"
    lines = {
        **told,
        "BACKUP_KEY": "a passphrase",
        "BACKUP_VAULT": str(tmp_path / "v"),
        "BACKUP_CONFIG_PATHS": ".env",
    }
    file.write_text("SECRET=x\n" + "".join(f"{name}='{value}'\n" for name, value in lines.items()))
    text = file.read_text()
    done = init("init", **told)
    assert "BACKUP_CONFIG_PATHS is .env; found: docker-compose.yml,.env,nginx" in done.stdout
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".env"]
    assert file.read_text() == text


def test_on_a_terminal_it_asks_once(told, tmp_path):
    """`n` ends it with nothing written."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [PROGRAM, "init", "--vault", str(tmp_path / "v")],
        cwd=tmp_path,
        env=clean(tmp_path, told),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(ours, b"n\n")
    said, _ = running.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert running.returncode == 130, said
    assert said.count("Write this?") == 1
    assert "BACKUP_RUNNER=local" in said
    assert list(tmp_path.iterdir()) == []


def test_the_kit_brings_it_back(embedded_bookreader, redis_folder, tmp_path):
    """Its commands, as they are printed, in a shell that finds neither this package nor a Python that has it:
    the database on another server, and storage, configuration and keys in files, are what was captured.
    """
    there = embedded_bookreader
    there.back_up()
    (tmp_path / "work").mkdir()
    page = subprocess.run(
        [PROGRAM, "key", "kit"],
        cwd=tmp_path,
        env=clean(tmp_path, there.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    script = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    tools = programs()
    with postgresql.start(tools, superuser="postgres", password=Secret("another's")) as server:
        env = {
            "PATH": f"{tools}:{redis_folder}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "GNUPGHOME": str(short_home()),
            "LC_ALL": "C.UTF-8",
            **{name: value for name, value in server.env.items() if name != "PGDATABASE"},
        }
        alone = "! command -v bookreader-backup && ! python3 -I -c 'import bookreader_backup_assets' 2>&-"
        for text in (alone, script, "gpgconf --kill all; rm -r $GNUPGHOME"):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=tmp_path / "work",
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        words = ["psql", "-XqAtw", "-d", there.database, "-c", "SELECT count(*), sum(id) FROM users"]
        rows = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60)
        assert rows.stdout.strip() == there.sql("SELECT count(*), sum(id) FROM users")
    restored = tmp_path / "work" / "restored"
    assert as_in_tar(restored / "storage") == as_in_tar(there.storage)
    assert as_in_tar(restored / "config") == as_in_tar(there.config)
    assert keys_of(restored / "dump.rdb", redis_folder, tmp_path) == int(there.cache("DBSIZE"))


def short_home():
    """A keyring folder whose path is short enough for gpg's sockets."""
    folder = Path(f"/tmp/bb-kit-{os.getpid()}")
    folder.mkdir(mode=0o700)
    return folder


def as_in_tar(folder):
    """What `look` sees, times in whole seconds."""
    seen = look(os.fsencode(folder)).items()
    return {path: (*facts[:3], facts[3] // 10**9, *facts[4:]) for path, facts in seen if path != b"."}


def keys_of(dump, redis_folder, folder):
    """How many keys a server has that starts on a dump, in its database 0."""
    port = free_port()
    words = [
        redis_folder / "redis-server",
        "--port",
        str(port),
        "--dir",
        str(dump.parent),
        "--bind",
        "127.0.0.1",
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder) as running:
        try:
            said, deadline = "", time.monotonic() + 20
            while not said.strip().isdigit():
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
                asked = [redis_folder / "redis-cli", "-p", str(port), "DBSIZE"]
                said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout
            return int(said)
        finally:
            running.kill()
