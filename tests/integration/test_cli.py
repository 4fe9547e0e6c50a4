"""The command line on real servers: what it prints, what it exits with, and what it imports."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]
ASSETS = [
    "postgresql/globals",
    "postgresql/dump",
    "postgresql/sql",
    "redis/rdb",
    "storage/archive",
    "config/archive",
]
HEAVY = ("dagster", "docker", "boto3")


@pytest.fixture
def run(environ, tmp_path):
    """Run the program in an empty folder with a home of its own; return what came of it."""
    home = tmp_path / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if k not in {"DAGSTER_HOME", "XDG_STATE_HOME"}}

    def call(*arguments, timeout=120, **more):
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=home,
            env={**clean, "HOME": str(home), **environ, **more},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call


def test_a_first_day(run, kept_here):
    """At first `doctor` finds no backup; after one, list, verify, status and doctor are content."""
    assert run("doctor").returncode == 1
    done = run("backup", "--without-dagster", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert [asset["asset"] for asset in made["assets"]] == [*ASSETS, "backup_set/manifest"]
    assert {asset["standing"] for asset in made["assets"]} == {"verified"}
    listed = json.loads(run("list", "--json").stdout)
    assert {entry["asset"] for entry in listed} == {*ASSETS, "backup_set/manifest"}
    verified = run("verify", "--json")
    assert verified.returncode == 0, verified.stderr
    verdicts = [check["verdict"] for a in json.loads(verified.stdout)["artifacts"] for check in a["checks"]]
    assert set(verdicts) == {"passed"}
    assert run("status").stdout.startswith("OK")
    assert json.loads(run("status", "--json").stdout)["ok"] is True
    doctor = run("doctor", "--json")
    assert (doctor.returncode, json.loads(doctor.stdout)["ok"]) == (0, True)


def test_backup_runs_the_jobs_that_dagster_shows(run, tmp_path):
    """`backup` goes through Dagster: its runs, materializations and checks are in Dagster's storage."""
    done = run("backup", "config", "redis", DAGSTER_HOME=str(tmp_path / "dagster"))
    assert done.returncode == 0, done.stdout + done.stderr
    from dagster import AssetKey, DagsterInstance

    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        runs = {(r.job_name, str(r.status.value)) for r in instance.get_runs()}
        assert runs == {
            ("capture_config", "SUCCESS"),
            ("capture_redis", "SUCCESS"),
            ("seal", "FAILURE"),  # the day has no database yet, and its manifest says so
        }
        event = instance.get_latest_materialization_event(AssetKey(["config", "archive"]))
        assert event.asset_materialization.partition
        assert event.asset_materialization.metadata["artifact"].value in done.stdout


def test_without_dagsters_storage_it_says_what_still_works(run, tmp_path):
    """A broken Dagster is an error with a way out, and that way works."""
    (tmp_path / "file").touch()
    broken = str(tmp_path / "file" / "home")
    done = run("backup", "config", DAGSTER_HOME=broken)
    assert done.returncode == 1
    assert "--without-dagster" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("backup", "config", "--without-dagster", DAGSTER_HOME=broken).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backup", "mysql"], "there are: postgresql, redis, storage, config"),
        (["list", "2001-01-01"], "none yet"),
        (["verify"], "bookreader-backup list"),
        (["restor"], "No such command"),
        (["list", "--jsn"], "--json"),
    ],
    ids=" ".join,
)
def test_what_is_refused_or_wrong_exits_with_2(run, arguments, said):
    """Wrong usage and refusals exit with 2 and say what there is instead."""
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_component_that_fails_does_not_stop_the_others(run, tmp_path):
    """Exit 1; the reason and the hint are shown; the rest is captured; the manifest names what is missing."""
    done = run(
        "backup", "--json", BACKUP_STORAGE_PATH=str(tmp_path / "no such"), DAGSTER_HOME=str(tmp_path / "d")
    )
    assert done.returncode == 1
    made = {asset["asset"]: asset for asset in json.loads(done.stdout)["assets"]}
    assert made["storage/archive"]["standing"] == "missing"
    assert "is not a folder" in made["storage/archive"]["why"]
    assert {made[asset]["standing"] for asset in ASSETS if asset != "storage/archive"} == {"verified"}
    complete = {c["check"]: c for c in made["backup_set/manifest"]["checks"]}["complete"]
    assert complete["verdict"] == "failed"
    assert "storage/archive" in complete["message"]


def test_damage_turns_verify_red(run, environ):
    """One flipped byte in each artifact: verify names each and exits with 1; status follows."""
    assert run("backup", "--without-dagster").returncode == 0
    names = [e["artifact"] for e in json.loads(run("list", "--json").stdout) if e["asset"] in ASSETS]
    for name in names:
        path = os.path.join(environ["BACKUP_VAULT"], name)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    done = run("verify", "--json")
    assert done.returncode == 1
    for artifact in json.loads(done.stdout)["artifacts"]:
        verdicts = {check["check"]: check["verdict"] for check in artifact["checks"]}
        assert verdicts["sha256"] == "failed", artifact
    status = run("status")
    assert status.returncode == 1
    assert status.stdout.startswith("PROBLEM: no verified backup young enough of postgresql/globals")
    with open(os.path.join(environ["BACKUP_VAULT"], f"{names[0]}.entry.json"), "w", encoding="utf-8") as file:
        file.write("{")
    assert "1 entries or proofs cannot be read" in run("status").stdout.splitlines()[0]


@pytest.mark.parametrize("arguments", [["list"], ["status"], ["--help"], ["backup", "--help"]], ids=" ".join)
def test_commands_that_launch_no_run_import_nothing_heavy(run, arguments):
    """Dagster takes seconds to import, so commands that do not need it do not."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments],
        env={**os.environ, "BACKUP_RUNNER": "local"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not imported & set(HEAVY)
    assert "click" in imported


@pytest.mark.parametrize(
    "arguments", [["list", "2001-01-01"], ["backup", "mysql"], ["nothing"]], ids=" ".join
)
def test_errors_are_json_too(run, arguments):
    """With --json an error is a document on stderr, wrong usage included."""
    done = run(*arguments, "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]) == (2, "RefusedError")


def test_a_closed_pipe_does_not_change_the_exit_status(run, environ, tmp_path):
    """`status | head -1` says what `status` says."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "status"],
        env={**os.environ, **environ},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize("options", [["--without-dagster"], []], ids=["alone", "dagster"])
def test_a_stopped_backup_leaves_nothing_half(environ, system, tmp_path, number, options):
    """Ctrl-C, SIGTERM and a closed terminal end it with 130: no half file, no scratch server, no next job."""
    big = tmp_path / "storage"
    big.mkdir()
    with (big / "big").open("wb") as file:
        for _ in range(15):
            file.write(os.urandom(10_000_000))
    env = {
        **os.environ,
        **environ,
        "BACKUP_STORAGE_PATH": str(big),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }
    child = subprocess.Popen(
        [*PROGRAM, "backup", "storage", "config", *options],
        env=env,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),  # noqa: PLW1509 - as some parents do
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    vault = tmp_path / "vault"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(f.stat().st_size for f in vault.glob("storage/*.partial")):
        time.sleep(0.005)
    child.send_signal(number)
    said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert b"stopped" in said[1]
    assert not list(vault.glob("storage/*"))
    assert not list(vault.glob("config/*")), "the next component was not begun"


def test_a_seal_that_fails_is_a_failure(run, environ, tmp_path):
    """A manifest that cannot be written turns `backup` red, with and without Dagster."""
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    (vault / "backup_set").touch()
    for options in (["--without-dagster"], []):
        done = run("backup", "config", *options, DAGSTER_HOME=str(tmp_path / "dagster"))
        assert done.returncode == 1
        assert "backup_set" in done.stderr


def test_every_command_has_help_that_teaches(run):
    """Each command says what it does in its first line, and its options; the group shows a first day."""
    group = run("--help")
    for command in ("demo", "doctor", "backup", "list", "verify", "status"):
        assert re.search(rf"^  {command} +\S", group.stdout, re.MULTILINE)
        text = run(command, "--help").stdout
        assert "--json" in text
        assert len(text.splitlines()) >= 6


def test_secrets_show_nowhere(run, environ, system):
    """No password or passphrase in what is printed, nor in any file of the vault."""
    from tests.fixtures.installation import SECRETS

    done = run("backup", "--without-dagster", "--json")
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr
        for folder, _, files in os.walk(environ["BACKUP_VAULT"]):
            for file in files:
                if not file.endswith((".gpg", ".dump", ".rdb.gz", ".tar.gz")):
                    with open(os.path.join(folder, file), "rb") as opened:
                        assert secret.encode() not in opened.read(), file


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(run, environ, tmp_path):
    """What takes over a second shows a bar with rate and time left on a terminal; plain lines elsewhere."""
    plain = run("backup", "redis", "--without-dagster")
    assert "capturing redis/rdb: " in plain.stderr
    assert "\x1b[" not in plain.stderr
    script = (
        "import time\nfrom bookreader_backup_assets.cli.output import watch\n"
        "with watch('capturing', 30_000_000) as progress:\n"
        "    for _ in range(16):\n        time.sleep(0.1)\n        progress(1_500_000)\n"
    )
    main, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", script], stderr=terminal, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            more = os.read(main, 65536)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(main)
    assert child.wait(30) == 0
    assert b"MB/s" in shown
    assert b"0:00:0" in shown
