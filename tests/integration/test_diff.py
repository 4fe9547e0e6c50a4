"""`diff` on real encrypted versions: what changed since the backup that somebody is about to restore."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.diff import ASSET, diff
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.installation import Clock

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
DAYS = ("2026-06-10", "2026-06-11")
SECRETS = ("hunter2", "hunter3", "hunter4", "hunter22")


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """A folder with a configuration, and a vault with two versions of it; its last state is a third."""
    folder = tmp_path_factory.mktemp("versions")
    app = folder / "app"
    (app / "nginx").mkdir(parents=True)
    (app / "docker-compose.yml").write_text("services: {}\n")
    (app / "nginx" / "nginx.conf").write_text("events {}\n")
    (app / ".env").write_text("DB_PASSWORD=hunter2\nOLD=hunter22\n")
    clock = Clock()
    for day in DAYS:
        clock.set(f"{day}T01:15:00+00:00")
        capture(made(folder, clock), made(folder, clock).component(ASSET), day)
        (app / ".env").write_text(f"DB_PASSWORD=hunter3\nSENTRY_DSN=hunter4{day}\n")
        (app / "nginx" / "nginx.conf").chmod(0o640)
    return folder


@pytest.fixture
def folder(captured, tmp_path):
    """A copy of it for one test."""
    return shutil.copytree(captured, tmp_path / "versions")


def environ(folder, **more):
    """Return the settings of an installation of which nothing but the configuration can be reached."""
    return {
        "BACKUP_RUNNER": "local",
        "BACKUP_VAULT": str(folder / "vault"),
        "BACKUP_CONFIG_ROOT": str(folder / "app"),
        "BACKUP_POSTGRESQL_URL": "postgresql://nobody@127.0.0.1:9/none",
        "BACKUP_REDIS_URL": "redis://127.0.0.1:9",
        "BACKUP_KEY": "a passphrase",
        **more,
    }


def made(folder, clock=None, **more):
    """Return the installation over a folder."""
    settings = load_settings(environ(folder, **more), env_file=Path(os.devnull))
    return assemble(settings, **({"now": clock} if clock else {}))


def run(folder, *arguments, **more):
    """Run the program, and return what came of it; no secret may be in what it said."""
    done = subprocess.run(
        [*PROGRAM, "diff", *arguments],
        env={**os.environ, **environ(folder, **more)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    return done


def said(found):
    """Return what differs, in short."""
    return {change.path: (change.what, str(change.variables or "")) for change in found.changes}


def test_the_latest_is_compared_with_what_lies_there(folder):
    """Without arguments: what has changed since the version that a restore would take."""
    done = run(folder)
    assert done.returncode == 1, done.stderr
    assert "2026-06-11" in done.stdout.splitlines()[0]
    assert str(folder / "app") in done.stdout.splitlines()[1]
    (line,) = (line for line in done.stdout.splitlines() if ".env" in line)
    assert line.split() == ["changed", ".env", "49", "B", "49", "B", "changed", "SENTRY_DSN"]
    newest = Catalog(made(folder).vault).newest(ASSET)
    assert newest.fingerprint["content"] not in done.stdout + run(folder, "--json").stdout


def test_versions_are_named_by_set_or_by_artifact(folder):
    """A day, the name that `list` shows, that name without its folder, and what lies there now."""
    installation = made(folder)
    first, second = (entry.name for entry in Catalog(installation.vault).entries(asset=ASSET))
    expected = {
        ".env": ("changed", "added SENTRY_DSN; removed OLD; changed DB_PASSWORD"),
        "nginx/nginx.conf": ("mode", ""),
    }
    for older, newer in (DAYS, (first, second), (first.partition("/")[2], "latest")):
        assert said(diff(installation, older, newer)) == expected, older
    backwards = said(diff(installation, DAYS[1], DAYS[0]))
    assert backwards[".env"] == ("changed", "added OLD; removed SENTRY_DSN; changed DB_PASSWORD")
    with pytest.raises(RefusedError) as refused:
        diff(installation, "2026-06-12")
    assert DAYS[1] in refused.value.hint


def test_json_has_all_of_it(folder):
    """Both versions, whether they are the same, and each change with its sizes and names."""
    done = run(folder, *DAYS, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["same"], document["complete"]) == (1, False, True)
    assert [document[side]["set"] for side in ("older", "newer")] == list(DAYS)
    env, conf = document["changes"]
    assert (env["older_size"], env["newer_size"]) == (33, 49)
    assert env["variables"]["removed"] == ["OLD"]
    assert (conf["what"], conf["said"]) == ("mode", "mode 640, was 644")


def test_the_same_exits_with_0(folder):
    """What is the same is said to be, also after a touch."""
    (folder / "app" / ".env").write_text(f"DB_PASSWORD=hunter3\nSENTRY_DSN=hunter4{DAYS[0]}\n")
    done = run(folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "the same: no content, mode or link differs",
    )


def test_without_the_key_names_and_sizes_are_compared(folder):
    """The sentence says so; what the entries cannot tell is trouble, not "the same"."""
    (folder / "app" / "new.conf").write_text("x")
    paths = {"BACKUP_CONFIG_PATHS": "docker-compose.yml,.env,nginx,new.conf"}
    another = diff(made(folder, BACKUP_KEY="another", **paths))
    assert (said(another), another.why != "") == ({"new.conf": ("added", "")}, True), ".env kept its size"
    done = run(folder, BACKUP_KEY="", **paths)
    assert (done.returncode, "new.conf" in done.stdout) == (1, True), done.stderr
    assert "only names and sizes were compared: there is no encryption key" in done.stdout
    done = run(folder, BACKUP_KEY="")
    assert done.returncode == 2
    assert "whether the contents are the same is not known" in done.stdout
    keyless = made(folder, BACKUP_KEY="")
    assert diff(keyless, DAYS[0], DAYS[0]).same is True
    assert said(diff(keyless, *DAYS)) == {".env": ("changed", "")}


def test_trouble_exits_with_2(folder):
    """A version there is not, a folder that is not there, a damaged artifact: none is "different"."""
    done = run(folder, BACKUP_CONFIG_ROOT=str(folder / "none"), BACKUP_KEY="")
    assert (done.returncode, "BACKUP_CONFIG_ROOT" in done.stderr) == (2, True)
    installation = made(folder)
    newest = Catalog(installation.vault).newest(ASSET)
    path = installation.vault.local_path(newest.name)
    data = path.read_bytes()
    path.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    with pytest.raises(DamagedError):
        diff(installation)
    assert run(folder).returncode == 2


def test_what_is_gone_is_a_change(folder):
    """Deleted files, also a whole folder of them, are removed; nothing configured is needed to be there."""
    (folder / "app" / ".env").unlink()
    shutil.rmtree(folder / "app" / "nginx")
    found = diff(made(folder))
    assert {c.path: c.what for c in found.changes} == dict.fromkeys(
        (".env", "nginx", "nginx/nginx.conf"), "removed"
    )


def test_an_installation_that_captures_it_otherwise_is_refused(folder):
    """What is no archive of files cannot be compared."""
    installation = made(folder)
    other = replace(installation, components={ASSET: installation.component("redis/rdb")})
    with pytest.raises(RefusedError):
        diff(other)
