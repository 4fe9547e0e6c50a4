"""`drill` as an operator meets it: what it prints, what it exits with, and what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_folder import PREFIX
from bookreader_backup_assets.actions.drill_report import DRILL
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.installation import KEY, SECRETS

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]


@pytest.fixture(scope="module")
def good_vault(system, tmp_path_factory):
    """A vault with a good set, to be copied."""
    vault = tmp_path_factory.mktemp("good") / "vault"
    environ = {**system.environ, "BACKUP_VAULT": str(vault)}
    installation = assemble(load_settings(environ, env_file=Path(os.devnull)))
    for component in installation.components.values():
        verify(installation, component, capture(installation, component, installation.today())[0])
    return vault


@pytest.fixture
def scratch(environ):
    """A scratch folder of the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="bb-scratch-", dir="/tmp"))
    folder.chmod(0o755)  # root's servers run as nobody
    environ["BACKUP_SCRATCH"] = str(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def vault(good_vault, environ):
    """The vault of this test's installation, with a good set."""
    return shutil.copytree(good_vault, Path(environ["BACKUP_VAULT"]))


@pytest.fixture
def begin(environ, scratch, vault, tmp_path):
    """Start the program in an empty folder."""
    home = tmp_path / "home"
    home.mkdir()

    def call(*arguments, **more):
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=home,
            env={**os.environ, "HOME": str(home), **environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture
def run(begin):
    """Run the program to its end."""

    def call(*arguments, **more):
        child = begin(*arguments, **more)
        out, err = child.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, child.returncode, out, err)

    return call


def reports(environ):
    """The reports in the vault."""
    installation = assemble(load_settings(environ, env_file=Path(os.devnull)))
    return Catalog(installation.vault).entries(asset=DRILL)


def test_a_drill(run, environ, scratch):
    """Its times and ages against the objectives, exit status 0, a report, and nothing left; no secret."""
    done = run("drill", "system")
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "postgresql  restore",
        "SCENARIO",
        "RTO",
        "4 h 0 min",
        "compared: passed",
        "within_rpo: passed",
    ):
        assert said in done.stdout, done.stdout
    (entry,) = reports(environ)
    assert f"the report is {entry.name}" in done.stdout
    assert list(scratch.iterdir()) == []
    assert [secret for secret in SECRETS if secret in done.stdout + done.stderr] == []


def test_as_json(run, environ):
    """One document with every part, result and check."""
    done = run("drill", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert [part["scenario"] for part in document["parts"]] == ["postgresql", "redis", "config", "file"]
    assert {check["check"]: check["verdict"] for check in document["checks"]} == {
        "compared": "passed",
        "within_rto": "passed",
        "within_rpo": "passed",
    }
    assert document["report"] == reports(environ)[0].name


def test_a_corrupted_artifact_exits_with_1(run, environ, vault):
    """What did not come back, and why, is printed and filed; the set is no longer taken for good."""
    (dump,) = vault.glob("redis/*.rdb.gz")
    data = bytearray(dump.read_bytes())
    data[len(data) // 2] ^= 0xFF
    dump.write_bytes(data)
    done = run("drill", "redis")
    assert done.returncode == 1
    assert "compared: failed: redis:" in done.stdout
    assert len(reports(environ)) == 1
    assert run("status").returncode == 1


def test_an_objective_of_nothing_exits_with_1(run, tmp_path):
    """The plan's objectives count."""
    shipped = Path(__file__).parents[2] / "bookreader_backup_assets/plans/production.toml"
    text = shipped.read_text(encoding="utf-8")
    assert "database = 1," in text
    (tmp_path / "plan.toml").write_text(text.replace("database = 1,", "database = 0,"), encoding="utf-8")
    done = run("drill", "redis", BACKUP_PLAN=str(tmp_path / "plan.toml"))
    assert done.returncode == 1
    assert "within_rto: failed: redis took" in done.stdout
    assert "compared: passed" in done.stdout


def test_with_the_key_in_escrow(run, environ, tmp_path):
    """On a machine without the usual key it fails, and with the file out of the safe it does not."""
    del environ["BACKUP_KEY_FILE"]
    assert run("drill", "config").returncode == 1
    (tmp_path / "escrow").write_text(KEY)
    done = run("drill", "config", "--key-file", str(tmp_path / "escrow"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_from_a_copy_of_the_vault(run, environ, vault, tmp_path):
    """A copy is read, and the report is filed at home."""
    shutil.copytree(vault, tmp_path / "disk")
    shutil.rmtree(vault / "redis")
    assert run("drill", "redis").returncode == 1
    done = run("drill", "redis", "--vault", str(tmp_path / "disk"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["vault"] == str(tmp_path / "disk")
    assert len(reports(environ)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drill", "mysql"], "'mysql' is not one of"),
        (["drill", "--from", "2001-01-01"], "there is no set '2001-01-01'"),
        (["drill", "--vault", "/nowhere"], "/nowhere is not a vault"),
        (["drill", "--key-file", "/nowhere"], "/nowhere cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_or_refused_exits_with_2(run, environ, arguments, said):
    """Wrong usage and refusals say what is wrong, and file nothing."""
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert reports(environ) == []


def test_the_report_can_be_verified_and_is_listed(run, environ, kept_here):
    """`verify` looks at a report as at everything, `list` has it, and the day's set is as it was."""
    run("drill", "redis")
    (entry,) = reports(environ)
    assert run("verify", entry.set).returncode == 0
    assert entry.name in run("list", entry.set).stdout
    before = json.loads(run("verify", "--json").stdout)
    assert before["set"] == entry.set[:10]
    assert run("status").returncode == 0


def in_the_middle(child, scratch):
    """Wait until a drill has its folder and a server."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if any(scratch.glob(f"{PREFIX}*")) and any(scratch.glob("bb-pg-*")):
            return
        time.sleep(0.01)
    pytest.fail(f"no drill began: {child.communicate(timeout=60)}")


def test_stopped_it_leaves_nothing(begin, scratch, environ):
    """SIGTERM in the middle: exit status 130, no folder, no server, no report."""
    child = begin("drill", "postgresql")
    in_the_middle(child, scratch)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert list(scratch.iterdir()) == []
    assert reports(environ) == []


def test_killed_its_folder_is_found(begin, run, scratch, environ):
    """SIGKILL in the middle: `doctor` names the folder, the next drill removes it, and nothing was filed."""
    child = begin("drill", "postgresql")
    in_the_middle(child, scratch)
    child.kill()
    child.communicate(timeout=60)
    (stray,) = scratch.glob(f"{PREFIX}*")
    assert reports(environ) == []
    doctor = run("doctor")
    assert doctor.returncode == 1
    assert str(stray) in doctor.stdout
    assert run("drill", "redis").returncode == 0
    assert not stray.exists()
    assert str(stray) not in run("doctor").stdout
    for server in scratch.glob("bb-pg-*/data/postmaster.pid"):
        os.kill(int(server.read_text().split()[0]), signal.SIGKILL)
