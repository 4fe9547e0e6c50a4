"""Drills on real servers: what comes back is compared and timed, and production is never touched."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions import drill_folder
from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill import drill
from bookreader_backup_assets.actions.drill_ground import SHORT
from bookreader_backup_assets.actions.drill_report import DRILL, read_report
from bookreader_backup_assets.actions.report import day_report
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble, drill_ground
from bookreader_backup_assets.codecs import gpg_key
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.drill import CHECKS, Objective
from bookreader_backup_assets.core.errors import KeyMissingError, RefusedError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.settings import load_settings
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.installation import KEY, SECRETS
from tests.fixtures.trees import look

ASSETS = {
    "postgresql": "postgresql/dump",
    "redis": "redis/rdb",
    "storage": "storage/archive",
    "config": "config/archive",
}
GONE = {
    "BACKUP_RUNNER": "local",
    "BACKUP_POSTGRESQL_URL": "postgresql://nobody:none@127.0.0.1:9/none",
    "BACKUP_REDIS_URL": "redis://127.0.0.1:9",
    "BACKUP_STORAGE_PATH": "/nowhere/storage",
    "BACKUP_CONFIG_ROOT": "/nowhere",
}


@pytest.fixture(autouse=True)
def scratch(environ):
    """A scratch folder of the test's own, which must be empty at its end."""
    folder = Path(tempfile.mkdtemp(prefix="bb-scratch-", dir="/tmp"))
    folder.chmod(0o755)  # root's servers run as nobody
    environ["BACKUP_SCRATCH"] = str(folder)
    yield folder
    left = sorted(folder.iterdir())
    shutil.rmtree(folder)
    assert left == []
    assert drill_folder.strays(SHORT) == []


def everything(installation):
    """Capture and verify everything."""
    for component in installation.components.values():
        verify(installation, component, capture(installation, component, installation.today())[0])


@pytest.fixture(scope="module")
def good_vault(system, tmp_path_factory):
    """A vault with a good set, to be copied."""
    vault = tmp_path_factory.mktemp("good") / "vault"
    environ = {**system.environ, "BACKUP_VAULT": str(vault)}
    everything(assemble(load_settings(environ, env_file=Path(os.devnull))))
    return vault


@pytest.fixture
def captured(good_vault, installation):
    """The installation, with a good set."""
    shutil.copytree(good_vault, installation.vault.root, dirs_exist_ok=True)
    return installation


@pytest.fixture
def drilled(captured, settings):
    """A way to have a drill, over the usual ground or a changed one; returns its report."""

    def call(scenario="system", from_set="latest", *, key_file=None, vault=None, **changes):
        with drill_ground(settings, captured, key_file=key_file, vault=vault) as ground:
            entry, report = drill(captured, replace(ground, **changes), scenario, from_set)
        assert read_report(captured, entry) == report
        return report

    return call


def verdicts(report):
    """What the three checks say."""
    return {name: str(report.check(name).verdict) for name in CHECKS}


def said(report, scenario):
    """What was found of one part."""
    (part,) = (part for part in report.parts if part.scenario == scenario)
    return part, "; ".join(outcome.message for outcome in part.outcomes)


def change_a_byte(installation, asset):
    """Change one byte in the middle of the newest artifact of an asset."""
    path = installation.vault.local_path(Catalog(installation.vault).newest(asset).name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_the_system_comes_back(drilled, captured):
    """Every part is equal, each step has its time, and the report is a verified artifact."""
    report = drilled()
    assert [part.scenario for part in report.parts] == ["config", "postgresql", "redis", "storage", "file"]
    assert verdicts(report) == dict.fromkeys(CHECKS, "passed"), report.to_text()
    steps = {part.scenario: [step.step for step in part.steps] for part in report.parts}
    assert steps["postgresql"] == steps["redis"] == steps["file"] == ["read", "restore", "compare"]
    assert all(part.seconds > 0 and part.bytes > 0 for part in report.parts)
    assert report.set == captured.today()
    assert report.key == "the passphrase of this installation"
    assert [secret for secret in SECRETS if secret in report.to_json().decode() + report.to_text()] == []
    catalog = Catalog(captured.vault)
    (entry,) = catalog.entries(asset=DRILL)
    assert str(catalog.standing(entry)) == "verified"


def test_most_months_are_partial(drilled):
    """The database, Redis, the configuration, and one file read by its own bytes alone."""
    report = drilled("partial")
    assert [part.scenario for part in report.parts] == ["postgresql", "redis", "config", "file"]
    assert report.good
    (part, message) = said(report, "file")
    assert "as captured" in message
    assert part.outcomes[0].measured["bytes"] >= 20_000


def test_production_is_not_needed_and_not_touched(captured, environ, system):
    """With every address of production leading nowhere, all of it comes back; its files are as before."""
    before = look(str(system.storage)), look(str(system.config))
    elsewhere = load_settings({**environ, **GONE}, env_file=Path(os.devnull))
    blind = assemble(elsewhere)
    with drill_ground(elsewhere, blind) as ground:
        _, report = drill(blind, ground, "system")
    assert report.good, report.to_text()
    assert (look(str(system.storage)), look(str(system.config))) == before


@pytest.mark.parametrize("scenario", ASSETS)
def test_a_corrupted_artifact_fails_the_drill(drilled, captured, scenario):
    """One changed byte: that part has not come back, the others have; the artifact is no good any more."""
    asset = ASSETS[scenario]
    entry = Catalog(captured.vault).newest(asset)
    change_a_byte(captured, asset)
    report = drilled("system", captured.today())
    part, message = said(report, scenario)
    assert not part.equal
    assert entry.name == part.artifact
    assert message
    assert {one.scenario for one in report.parts if not one.equal} - {"file"} == {scenario}
    assert verdicts(report)["compared"] == verdicts(report)["within_rto"] == "failed"
    assert Catalog(captured.vault).standing(entry).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("scenario", "fingerprint"),
    [
        ("postgresql", lambda f: {**f, "sequences": {**f["sequences"], "public.gone": 7}}),
        ("redis", lambda f: {**f, "databases": {**f["databases"], "9": 12}}),
        ("storage", lambda f: {**f, "files": f["files"] + 1}),
        ("config", lambda f: {**f, "content": "0" * 64}),
    ],
    ids=list(ASSETS),
)
def test_what_comes_back_is_compared(drilled, captured, scenario, fingerprint):
    """Whole bytes that restore well, and hold something else than was counted at capture, fail the drill."""
    entry = Catalog(captured.vault).newest(ASSETS[scenario])
    document = json.loads(entry.to_json())
    document["fingerprint"] = fingerprint(document["fingerprint"])
    captured.vault.local_path(entry.name).with_name(Path(entry.entry_name).name).write_text(
        json.dumps(document)
    )
    report = drilled(scenario)
    assert verdicts(report)["compared"] == "failed", report.to_text()
    assert [step.step for step in report.parts[0].steps][-1] == "compare"


def test_an_objective_of_nothing_fails(drilled):
    """Everything is equal, and nothing can be recovered in no time."""
    report = drilled("redis", objectives={"database": Objective(0.0, 86400.0)})
    assert verdicts(report) == {"compared": "passed", "within_rto": "failed", "within_rpo": "passed"}


def test_a_set_that_is_too_old_fails(drilled, clock):
    """A day and an hour later, with nothing captured since, more could have been lost than may be."""
    clock.forward(hours=25)
    report = drilled("redis")
    assert verdicts(report) == {"compared": "passed", "within_rto": "passed", "within_rpo": "failed"}
    assert "25.0 h old" in report.check("within_rpo").message


def test_an_unchanged_configuration_is_as_young_as_its_last_look(drilled, captured, clock):
    """It was captured days ago, and found unchanged an hour ago."""
    clock.forward(days=3)
    everything(captured)
    clock.forward(hours=1)
    report = drilled("config")
    assert report.good, report.to_text()
    assert report.set == captured.today()
    assert report.parts[0].artifact == Catalog(captured.vault).newest("config/archive").name
    assert report.results[0].age == pytest.approx(3600, abs=60)


def test_the_newest_good_set_is_taken(drilled, captured, clock):
    """What has failed its checks is passed over, unless it is asked for by its name."""
    first = captured.today()
    clock.forward(days=1)
    everything(captured)
    change_a_byte(captured, "redis/rdb")
    verify(captured, captured.component("redis/rdb"), Catalog(captured.vault).newest("redis/rdb"))
    assert drilled("redis").set == first
    assert drilled("postgresql").set == captured.today()
    report = drilled("redis", captured.today())
    assert "has failed its checks" in said(report, "redis")[1]
    assert not report.good


def test_what_a_set_lacks_fails_the_drill_and_is_filed(installation, settings):
    """A set without its database is a red report, and not a drill of the rest."""
    for asset in ("redis/rdb", "storage/archive", "config/archive"):
        component = installation.component(asset)
        verify(installation, component, capture(installation, component, installation.today())[0])
    with drill_ground(settings, installation) as ground:
        entry, report = drill(installation, ground, "partial")
    assert "has no postgresql/dump" in said(report, "postgresql")[1]
    assert set(verdicts(report).values()) == {"failed"}
    assert said(report, "redis")[0].equal
    assert Catalog(installation.vault).standing(entry).verdict is Verdict.FAILED


def test_nothing_to_drill_is_refused(installation, settings):
    """An empty vault and an unknown set are refusals that say what there is; nothing is filed."""
    with drill_ground(settings, installation) as ground:
        with pytest.raises(RefusedError, match="nothing was captured yet"):
            drill(installation, ground, "partial")
        everything(installation)
        with pytest.raises(RefusedError, match="no set '2001-01-01'") as refused:
            drill(installation, ground, "partial", "2001-01-01")
        with pytest.raises(RefusedError, match="no drill called 'mysql'"):
            drill(installation, ground, "mysql")
    assert installation.today() in refused.value.hint
    assert Catalog(installation.vault).entries(asset=DRILL) == []


def test_a_report_is_no_backup(drilled, captured):
    """No component's newest, no part of a day's set, and no failure of one."""
    before = {asset: Catalog(captured.vault).newest(asset) for asset in captured.components}
    drilled("partial")
    catalog = Catalog(captured.vault)
    (entry,) = catalog.entries(asset=DRILL)
    assert {asset: catalog.newest(asset) for asset in captured.components} == before
    assert catalog.newest(DRILL) is None
    assert not entry.regular
    assert entry.set.endswith("_drill")
    lines = day_report(catalog, captured.today(), tuple(captured.components))
    assert [line.entry for line in lines] == list(before.values())
    assert drilled("redis").set == captured.today(), "the next drill takes the day's set, not the report's"


def test_proofs_are_kept_beside_what_came_back(drilled, captured):
    """Each artifact has a proof of the drill, dated, with its outcome."""
    drilled("system")
    catalog = Catalog(captured.vault)
    found = {
        scenario: [outcome.check for outcome in catalog.proofs(catalog.newest(asset))[-1].checks]
        for scenario, asset in ASSETS.items()
    }
    assert found["postgresql"] == ["restorable"]
    assert found["redis"] == ["keys_equal"]
    assert found["storage"] in (["files_equal"], ["file_equal"])
    assert found["config"] == ["files_equal"]


def test_a_copy_of_a_vault_is_drilled_and_not_written_to(drilled, captured, tmp_path):
    """A disk out of the safe: its set comes back, the report is filed at home, the copy stays as it is."""
    shutil.copytree(captured.vault.root, tmp_path / "copy")
    for entry in Catalog(captured.vault).entries():
        captured.vault.delete(entry.name)
    before = look(str(tmp_path / "copy"))
    report = drilled("system", vault=tmp_path / "copy")
    assert report.good, report.to_text()
    assert report.vault == str(tmp_path / "copy")
    assert look(str(tmp_path / "copy")) == before
    assert len(Catalog(captured.vault).entries(asset=DRILL)) == 1
    assert Catalog(LocalVault(tmp_path / "copy")).entries(asset=DRILL) == []


def test_the_key_in_escrow(captured, environ, tmp_path):
    """Without the usual key nothing encrypted comes back; with the one in escrow alone, all of it does."""
    environ = {name: value for name, value in environ.items() if name != "BACKUP_KEY_FILE"}
    settings = load_settings(environ, env_file=Path(os.devnull))
    without = assemble(settings)
    with drill_ground(settings, without) as ground:
        _, report = drill(without, ground, "partial")
    assert {part.scenario for part in report.parts if not part.equal} == {"postgresql", "config"}
    assert "there is no encryption key" in said(report, "config")[1]
    (tmp_path / "escrow").write_text(KEY + "\n")
    with drill_ground(settings, without, key_file=tmp_path / "escrow") as ground:
        _, report = drill(without, ground, "partial")
    assert report.good, report.to_text()
    assert report.key == f"the passphrase in {tmp_path / 'escrow'}"
    assert KEY not in report.to_json().decode()


def test_a_wrong_key_in_escrow_fails_although_the_usual_one_is_here(drilled, captured, tmp_path):
    """Only the key in the file is tried; and that says nothing against the artifacts."""
    (tmp_path / "escrow").write_text("another passphrase\n")
    report = drilled("partial", key_file=tmp_path / "escrow")
    assert {part.scenario for part in report.parts if not part.equal} == {"postgresql", "config"}
    assert "the key does not open this artifact" in said(report, "postgresql")[1]
    assert verdicts(report)["compared"] == "failed"
    catalog = Catalog(captured.vault)
    assert catalog.standing(catalog.newest("config/archive")).verdict is Verdict.PASSED


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_an_escrow_file_without_a_key_is_refused(captured, settings, tmp_path, name):
    """No file, or nothing in it: refused before anything is read."""
    (tmp_path / "empty").touch()
    with pytest.raises(KeyMissingError), drill_ground(settings, captured, key_file=tmp_path / name):
        pass


def test_no_room_for_storage_fails_before_it_is_unpacked(drilled, captured):
    """What the entry says is larger than the disk: the drill says how much is wanted, and unpacks nothing."""
    entry = Catalog(captured.vault).newest("storage/archive")
    document = json.loads(entry.to_json())
    document["fingerprint"]["bytes"] = 1 << 60
    path = captured.vault.local_path(entry.name)
    path.with_name(Path(entry.entry_name).name).write_text(json.dumps(document))
    report = drilled("storage")
    part, message = said(report, "storage")
    assert "BACKUP_SCRATCH" in message
    assert part.steps == ()
    assert not report.good


def test_stopped_in_the_middle_it_leaves_nothing(captured, settings, scratch, monkeypatch):
    """Ctrl-C while storage is unpacked: no folder, no server, no report."""
    from bookreader_backup_assets.components import drill_files

    seen = []

    def stop(*_):
        seen.extend(path.name for path in scratch.rglob("*.bin"))
        raise KeyboardInterrupt

    monkeypatch.setattr(drill_files, "compare", stop)
    with drill_ground(settings, captured) as ground, pytest.raises(KeyboardInterrupt):
        drill(captured, ground, "storage")
    assert len(seen) == 40, "it was unpacked by then"
    assert list(scratch.iterdir()) == []
    assert Catalog(captured.vault).entries(asset=DRILL) == []


def test_what_a_killed_drill_left_is_found_and_removed(scratch, drilled):
    """Its folder, whatever nobody may enter in it, is named by `doctor`, and the next drill removes it."""
    stray = scratch / f"{drill_folder.PREFIX}killed"
    (stray / "storage" / "closed").mkdir(parents=True)
    (stray / "storage" / "closed" / "file").touch()
    (stray / "storage" / "closed").chmod(0)
    with drill_folder.drill_folder(SHORT) as held:
        assert drill_folder.strays(SHORT) == [], "one that is used is no stray"
        (finding,) = drill_folder.stray_findings([scratch, SHORT])
        assert str(stray) in finding.seen
        assert str(held) not in finding.seen
    assert not finding.good
    drilled("redis")
    assert not stray.exists()


@pytest.fixture(scope="module")
def armoured():
    """An OpenPGP key with a passphrase, as it is kept in a safe: secret part, public part, fingerprint."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        environ = {**os.environ, "GNUPGHOME": home}
        gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "safe"]

        def run(*arguments):
            return subprocess.run(
                [*gpg, *arguments], env=environ, capture_output=True, check=True, timeout=120
            ).stdout

        run("--quick-generate-key", "escrow@example.org", "future-default", "default", "never")
        listed = run("--with-colons", "--list-secret-keys").decode()
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        yield run("--armor", "--export-secret-keys"), run("--export"), fingerprint
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=False, timeout=60)


@pytest.fixture
def to_the_key(armoured):
    """A way to encrypt to that key."""

    def encrypt(plain):
        with tempfile.TemporaryDirectory(dir="/tmp") as home:
            environ = {**os.environ, "GNUPGHOME": home}
            subprocess.run(
                ["gpg", "--batch", "--import"], input=armoured[1], env=environ, check=True, timeout=60
            )
            encrypting = ["gpg", "--batch", "--trust-model", "always", "-r", "escrow@example.org", "-e"]
            return subprocess.run(
                encrypting, input=plain, env=environ, capture_output=True, check=True, timeout=60
            ).stdout

    return encrypt


def agents():
    """The agents of gpg that run for a folder of a drill."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = process.read_bytes()
        except OSError:
            continue
        if b"gpg-agent" in said and drill_folder.PREFIX.encode() in said:
            found.append(said)
    return found


def gone():
    """Whether there is no agent, once those of drills in other tests that run now have ended."""
    deadline = time.monotonic() + 30
    while agents() and time.monotonic() < deadline:
        time.sleep(0.2)
    return not agents()


def test_an_openpgp_key_in_escrow(captured, settings, armoured, to_the_key, tmp_path):
    """What was encrypted to it is opened in a keyring of its own, which is gone afterwards with its agent."""
    (tmp_path / "key.asc").write_bytes(armoured[0])
    locked = settings.model_copy(update={"key": Secret("safe")})
    with drill_ground(locked, captured, key_file=tmp_path / "key.asc") as ground:
        assert ground.key_name == f"OpenPGP {armoured[2]} in {tmp_path / 'key.asc'}"
        plain = os.urandom(3_000_000)
        assert b"".join(ground.codecs.decode(["gpg"], [to_the_key(plain)])) == plain
        with pytest.raises(KeyMissingError, match="encrypted with a passphrase"):
            list(ground.codecs.decode(["gpg"], captured.codecs.encode(["gpg"], [b"x" * 100])))
        assert len(agents()) == 1
    assert gone()


def test_a_locked_or_wrong_openpgp_key_is_told(settings, captured, armoured, to_the_key, tmp_path):
    """Without its passphrase, and with another's, it opens nothing, and is not called damage."""
    (tmp_path / "key.asc").write_bytes(armoured[0])
    message = to_the_key(b"content")
    for passphrase in (None, Secret("not it")):
        locked = settings.model_copy(update={"key": passphrase})
        with (
            pytest.raises(KeyMissingError),
            drill_ground(locked, captured, key_file=tmp_path / "key.asc") as ground,
        ):
            list(ground.codecs.decode(["gpg"], [message]))
    (tmp_path / "broken.asc").write_bytes(gpg_key.ARMOUR + b"\n\nnothing\n")
    with (
        pytest.raises(KeyMissingError, match=r"does not take the key|no secret key"),
        drill_ground(settings, captured, key_file=tmp_path / "broken.asc"),
    ):
        pass
    assert gone()
