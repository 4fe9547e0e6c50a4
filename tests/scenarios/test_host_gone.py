"""The whole host is gone, or all of it is damaged: one command brings everything back, and proves it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.journal import alone, find, journals, unfinished
from bookreader_backup_assets.actions.seal import ManifestComponent, seal
from bookreader_backup_assets.actions.system import restore_system
from bookreader_backup_assets.actions.system_plan import PARTS, plan_system
from bookreader_backup_assets.actions.undo import finish, undo
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.errors import BackupError, RefusedError
from bookreader_backup_assets.settings import load_settings
from tests.fixtures.docker import LABEL
from tests.fixtures.installation import KEY
from tests.fixtures.living import _KEYS, _ROWS, at_once, with_settings
from tests.fixtures.trees import look

PROGRAM = [sys.executable, "-m", "bookreader_backup_assets"]


@pytest.fixture
def embedded(embedded_bookreader):
    """An embedded BookReader, whose shape has no columns of files and which nobody asks by HTTP."""
    return with_settings(embedded_bookreader, health_urls=",", file_columns=",")


def damage(there):
    """Damage every part of an embedded BookReader, and return what it is like then."""
    there.sql("DELETE FROM alembic_version; DROP TABLE empty")
    there.cache("FLUSHALL")
    there.cache("SET", "left", "over")
    shutil.rmtree(there.storage / "books")
    (there.storage / "covers" / "extra.bin").write_bytes(b"nobody knows it")
    (there.config / ".env").unlink()
    (there.config / "nginx" / "nginx.conf").write_text("broken")
    return what_is_there(there)


def without_ours(tree):
    """A tree without what restores keep in it for their undo; times are compared by the parts' own tests."""
    return {
        path: (*what[:3], *what[4:])
        for path, what in tree.items()
        if b".bookreader" not in path and path != b"."
    }


def what_is_there(there):
    """Everything; of the configuration, whose archive has whole seconds, without times."""
    found = there.everything()
    config = without_ours(found["config"])
    return {**found, "files": without_ours(found["files"]), "config": config}


def test_a_damaged_system_comes_back(embedded):
    """Rows, keys, files and configuration are as they were captured, and the report says so."""
    good = what_is_there(embedded)
    embedded.back_up()
    assert damage(embedded) != good
    report = restore_system(embedded.installation, confirm=embedded.installation.host)
    assert report.good, report
    assert what_is_there(embedded) == good
    stored = find(embedded.installation, report.id).report()
    assert [step["step"] for step in stored["steps"]] == [
        "config", "postgresql", "redis", "storage", "up", "check",
    ]  # fmt: skip
    assert len(stored["state"]["parts"]) == 4


def test_its_undo_brings_the_damaged_system_back(embedded):
    """All parts are as they were before the restore, in whatever state that was."""
    embedded.back_up()
    damaged = damage(embedded)
    host = embedded.installation.host
    report = restore_system(embedded.installation, confirm=host)
    assert what_is_there(embedded) != damaged
    with pytest.raises(RefusedError, match="not its name"):
        undo(embedded.installation, report.id, confirm="another")
    assert undo(embedded.installation, report.id, confirm=host).result == "undone"
    assert what_is_there(embedded) == damaged
    with pytest.raises(RefusedError, match="undone already"):
        undo(embedded.installation, report.id, confirm=host)


def test_nothing_is_touched_without_the_name_of_the_host(embedded):
    """A plan, and a restore that was not confirmed, only look."""
    embedded.back_up()
    damaged = damage(embedded)
    planned = plan_system(embedded.installation)
    assert [part.part for part in planned.parts] == ["config", "postgresql", "redis", "storage"]
    assert all(part.standing == "verified" for part in planned.parts)
    assert planned.rto == 4 * 3600
    for confirm in ("", "another", embedded.database):
        with pytest.raises(RefusedError, match="this would replace"):
            restore_system(embedded.installation, confirm=confirm)
    assert what_is_there(embedded) == damaged
    assert journals(embedded.installation) == []


def test_a_part_that_the_set_lacks_is_refused_or_left_out(embedded):
    """The refusal names the part and the option; with it, the part stays as it is."""
    good = what_is_there(embedded)
    embedded.back_up("postgresql", "storage", "config")
    damaged = damage(embedded)
    with pytest.raises(RefusedError, match="has no redis/rdb") as raised:
        plan_system(embedded.installation)
    assert "--without redis" in raised.value.hint
    report = restore_system(embedded.installation, without=["redis"], confirm=embedded.installation.host)
    assert report.good, report
    assert what_is_there(embedded) == {**good, "keys": damaged["keys"]}
    with pytest.raises(RefusedError, match="no part 'logs'"):
        plan_system(embedded.installation, without=["logs"])


def test_all_parts_are_of_one_set(embedded):
    """The newest set that has every part verified, though single parts are newer."""
    good = what_is_there(embedded)
    embedded.clock.set("2026-03-01T12:00:00+00:00")
    first = embedded.back_up()
    embedded.clock.forward(days=1)
    embedded.sql("INSERT INTO users (email) VALUES ('later@example.org')")
    embedded.back_up("postgresql")
    planned = plan_system(embedded.installation)
    assert planned.set == first
    assert restore_system(embedded.installation, confirm=planned.target).good
    assert what_is_there(embedded) == good


def test_one_that_failed_is_gone_on_with(embedded):
    """The report says where it stopped; the same command restores the rest, and its undo undoes all."""
    good = what_is_there(embedded)
    embedded.back_up()
    damaged = damage(embedded)
    made, host = embedded.installation, embedded.installation.host
    aside = embedded.storage.with_name("aside")
    embedded.storage.rename(aside)
    embedded.storage.write_bytes(b"no folder")  # found when it is looked at: in the plan
    with pytest.raises(RefusedError, match="is not a folder"):
        restore_system(made, confirm=host)
    assert journals(made) == []
    embedded.storage.unlink()
    aside.rename(embedded.storage)

    def broken(stored, options):
        whole = made.restorations["storage"](stored, options)
        return Refusing(whole)

    worse = replace(made, restorations={**made.restorations, "storage": broken})
    with pytest.raises(BackupError, match="the disk is gone") as raised:
        restore_system(worse, confirm=host)
    (first,) = [one for one in journals(made) if one.header["scenario"] == "system"]
    stored = first.report()
    assert (stored["result"], stored["stopped_at"]) == ("failed", "storage")
    assert f"restore undo {first.id} --confirm {host}" in raised.value.hint
    assert what_is_there(embedded) == {**good, "files": damaged["files"]}
    report = restore_system(made, confirm=host)
    assert report.good, report
    assert what_is_there(embedded) == good
    assert [step.said.split(":")[0] for step in report.steps[:3]] == ["in place already"] * 3
    undo(made, report.id, confirm=host)
    assert what_is_there(embedded) == damaged


class Refusing:
    """A restoration whose first step fails."""

    def __init__(self, whole):
        self.whole = whole

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def beside(self, state, progress):
        raise BackupError("the disk is gone")


def start_it(there):
    """Start a restore in a process of its own."""
    argv = [*PROGRAM, "restore", "system", "--confirm", there.installation.host]
    return subprocess.Popen(
        argv, env={**os.environ, **there.environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def kill_after(running, seconds):
    """Kill it after some seconds, unless it has ended."""
    try:
        said, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=30)
    else:
        assert running.returncode == 0, said.decode()


def test_killed_at_random_moments_the_same_command_goes_on(embedded):
    """However often it was killed, in the end all is as captured, and one undo brings all of it back."""
    good = what_is_there(embedded)
    embedded.back_up()
    host = embedded.installation.host
    damaged = damage(embedded)
    started = time.monotonic()
    running = start_it(embedded)
    said, _ = running.communicate(timeout=180)
    assert running.returncode == 0, said.decode()
    longest = time.monotonic() - started
    undo(embedded.installation, journals_of_systems(embedded)[-1].id, confirm=host)
    assert what_is_there(embedded) == damaged
    for moment in sorted(random.uniform(0.5, longest) for _ in range(3)):
        kill_after(start_it(embedded), moment)
    running = start_it(embedded)
    said, _ = running.communicate(timeout=180)
    assert running.returncode == 0, said.decode()
    assert what_is_there(embedded) == good
    assert unfinished(embedded.installation) == []
    for journal in reversed(journals_of_systems(embedded)):
        if not journal.is_undone:
            undo(embedded.installation, journal.id, confirm=host)
    assert what_is_there(embedded) == damaged


def test_killed_and_undone(embedded):
    """A killed restore is undone by its id, or finished, which leaves each part as it was or as captured."""
    good = what_is_there(embedded)
    embedded.back_up()
    host = embedded.installation.host
    damaged = damage(embedded)
    for moment in (random.uniform(1.5, 4), random.uniform(1.5, 6)):
        kill_after(start_it(embedded), moment)
        for journal in reversed(journals_of_systems(embedded)):
            report = journal.report()
            if not journal.is_undone and (report is None or report["result"] != "abandoned"):
                with alone(embedded.installation):
                    finish(embedded.installation)
                found = what_is_there(embedded)
                assert all(found[part] in (good[part], damaged[part]) for part in found)
                if journal.report()["result"] != "abandoned":
                    undo(embedded.installation, journal.id, confirm=host)
        assert what_is_there(embedded) == damaged
        assert unfinished(embedded.installation) == []


def journals_of_systems(there):
    """The restores of a system, oldest first."""
    return [one for one in journals(there.installation) if one.header["scenario"] == "system"]


@pytest.fixture
def project(bookreader_project, tmp_path):
    """A whole BookReader as a compose project, with what backs it up."""
    return WholeProject(bookreader_project, tmp_path)


class WholeProject:
    """A compose project, its settings, and all that it holds."""

    def __init__(self, made, tmp_path):
        self.made, self.key = made, tmp_path / "key"
        self.key.touch(mode=0o600)
        self.key.write_text(KEY)
        self.vault = tmp_path / "vault"
        self.environ = {
            **made.environ, "BACKUP_VAULT": str(self.vault), "BACKUP_KEY_FILE": str(self.key),
        }  # fmt: skip

    @property
    def installation(self):
        return at_once(assemble(load_settings(self.environ, env_file=Path(os.devnull))))

    def back_up(self):
        installation = self.installation
        day = installation.today()
        for component in (one for one in installation.components.values() if one.component in PARTS):
            entry, _ = capture(installation, component, day)
            verify(installation, component, entry)
        verify(installation, ManifestComponent(), seal(installation, day))

    def everything(self):
        config = {name: (self.made.folder / name).read_bytes() for name in ("docker-compose.yml", ".env")}
        return {
            "rows": self.made.sql(_ROWS),
            "keys": [self.made.cache("EVAL", _KEYS, "0", database=number) for number in range(3)],
            "files": without_ours(look(os.fsencode(self.made.storage))),
            "config": config,
        }

    def requires_equal(self, good):
        """All is as it was, and the backend answers from it."""
        assert self.everything() == good
        status, books = self.made.answer("/books")
        assert status == 200
        assert len(books) == 40
        assert all(book["stored"] for book in books)
        assert self.made.answer("/health")[0] == 200


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_a_damaged_project_comes_back_but_for_a_service_and_its_undo_goes_back(project):
    """Over a system that runs: services are stopped meanwhile, and what was before can be had again.

    One of them stays away: exit status 1, the service named with its log; rows, keys, files and
    configuration are as captured, and the backend answers from them.
    """
    file = project.made.folder / "docker-compose.yml"
    text, beat = file.read_text(), "celery-beat:\n    <<: *worker\n"
    assert beat in text
    file.write_text(text.replace(beat, beat + "    command: [sh, -c, 'echo no broker here; exit 3']\n"))
    good = project.everything()
    project.back_up()
    ran = project.made.services.running()
    project.made.sql("DELETE FROM generated_images; DELETE FROM books WHERE id > 3")
    project.made.cache("FLUSHALL")
    shutil.rmtree(project.made.storage / "covers")
    damaged = project.everything()
    made = project.installation
    assert plan_system(made).stops == ran
    assert project.everything() == damaged
    done = subprocess.run(
        [*PROGRAM, "restore", "system", "--confirm", made.host],
        env={**os.environ, **project.environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no broker here" in done.stdout
    assert "that the guide allows" in done.stdout
    (journal,) = journals_of_systems(project)
    report = journal.report()
    assert report["result"] == "restored"
    assert {one["check"] for one in report["outcomes"] if one["verdict"] != "passed"} == {"services"}
    assert next(step["said"] for step in report["steps"] if step["step"] == "stop") == ", ".join(ran)
    project.requires_equal(good)
    undone = undo(made, journal.id, confirm=made.host)
    assert undone.result == "undone"
    assert [one.message.split()[0] for one in undone.outcomes] == [name for name in ran if "beat" in name]
    assert project.everything() == damaged
    assert {name for name in ran if "beat" not in name} <= set(project.made.services.running())


@pytest.mark.docker
@pytest.mark.xdist_group("disasters")
def test_from_a_machine_with_only_the_vault_the_key_and_this_package(project, image):
    """Containers, volumes and the folder are gone, and the host with them. One that was just installed:
    one command in it brings everything back, with nothing of the old one. All of it is there again, runs,
    answers, and is equal.

    It shares this machine's network, because the health URLs are asked on it, and the engine's socket.
    """
    good = project.everything()
    project.back_up()
    project.made.lose()
    planned = plan_system(project.installation)
    assert all(part.replaces.startswith(("not there yet", "nothing")) for part in planned.parts), planned
    assert not project.made.folder.exists()
    project.made.folder.mkdir()
    package = Path(sys.modules["bookreader_backup_assets"].__file__).parent
    reads = {sys.prefix, sys.base_prefix, str(package), str(project.key)}
    writes = {
        str(project.vault),
        str(project.made.folder),
        project.made.engine.address.removeprefix("unix://"),
    }
    engine = project.made.engine
    host = engine.api.create_host_config(
        network_mode="host",
        binds=[*(f"{path}:{path}:ro" for path in sorted(reads)), *(f"{path}:{path}" for path in writes)],
    )
    container = engine.api.create_container(
        image("rescue"),
        [sys.executable, "-m", "bookreader_backup_assets", "restore", "system", "--confirm", "rescue"],
        hostname="rescue",
        host_config=host,
        environment={
            **project.environ,
            "DOCKER_HOST": engine.address,
            "PYTHONPATH": str(package.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        labels={LABEL: str(os.getpid())},
    )["Id"]
    try:
        engine.api.start(container)
        status = engine.api.wait(container, timeout=300)["StatusCode"]
        said = engine.api.logs(container).decode()
    finally:
        engine.api.remove_container(container, force=True, v=True)
    assert status == 0, said
    project.requires_equal(good)
    (journal,) = journals_of_systems(project)
    report = journal.report()
    assert (report["host"], report["result"]) == ("rescue", "restored")
    assert [step["step"] for step in report["steps"]] == [
        "config", "images", "make", "postgresql", "redis", "storage", "up", "check",
    ]  # fmt: skip
    found = {one["check"] for one in report["outcomes"] if one["verdict"] == "passed"}
    assert {"postgresql/rows_equal", "services", "alembic_version", "references", "health"} <= found
    assert len(found) == len(report["outcomes"])
