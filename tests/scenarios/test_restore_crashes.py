"""The program ends without a word, at every point of a restore or an undo: the next command settles it.

The live thing is a file here, so that every point can be tried; the real ones are in the other scenarios.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.journal import FOLDER, alone, journals, unfinished
from bookreader_backup_assets.actions.restore import restore
from bookreader_backup_assets.actions.restore_source import SCENARIOS
from bookreader_backup_assets.actions.undo import finish, leave, undo
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.check import failed, passed
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options, Preview
from bookreader_backup_assets.vaults.local import LocalVault

SERVICES = ("backend", "celery-worker", "celery-beat")


@dataclass
class Fuse:
    """Burns down by one at every step; at 0 this process is gone, as after SIGKILL."""

    left: int = 10**9

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(9)


@dataclass(frozen=True)
class Place:
    """A live thing, its services, and what goes wrong: all on disk, so that it outlives a process."""

    folder: Path
    fuse: Fuse = field(default_factory=Fuse)
    stays_away: frozenset[str] = frozenset()
    wrong: str = ""

    def read(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text() if path.exists() else None

    def write(self, name: str, text: str | None) -> None:
        self.fuse.burn()
        if text is None:
            (self.folder / name).unlink(missing_ok=True)
        else:
            (self.folder / f"{name}.partial").write_text(text)
            os.replace(self.folder / f"{name}.partial", self.folder / name)
        self.fuse.burn()

    # Services

    def running(self) -> tuple[str, ...]:
        return tuple(name for name in SERVICES if self.read(f"{name}.runs"))

    def stop(self, name: str) -> None:
        self.write(f"{name}.runs", None)

    def start(self, name: str) -> None:
        if name in self.stays_away:
            raise SourceError(f"{name} exits again")
        self.write(f"{name}.runs", "yes")


@dataclass(frozen=True)
class FileRestoration:
    """Restores the file `live`. With `displaces` the old one is kept beside it, else in a safety capture."""

    place: Place
    stored: object
    displaces: bool
    target: str = "live"
    quiet: bool = True
    keeps_old: bool = False

    def preview(self) -> Preview:
        return Preview("a file", self.place.read("live") is not None, ("replace it",))

    def begin(self, stamp: str) -> dict:
        return {"new": f"new-{stamp}", "old": f"old-{stamp}"}

    def beside(self, state, progress) -> None:
        self.place.write(state["new"], "half")
        if self.place.wrong == "beside":
            raise DamagedError("the artifact is damaged")
        self.place.write(state["new"], "good")

    def compare(self, state):
        if self.place.wrong == "compare":
            return failed("equal", "it is not equal")
        return passed("equal", "it is")

    def swap(self, state) -> None:
        assert self.place.running() == (), "services must be stopped"
        if self.place.read(state["new"]) is None:
            return
        if self.displaces and self.place.read(state["old"]) is None:
            self.place.write(state["old"], self.place.read("live"))
        if self.place.wrong == "swap":
            raise SourceError("it is gone")
        self.place.write("live", "good")
        self.place.write(state["new"], None)

    def confirm(self, state):
        if self.place.wrong == "confirm":
            return failed("swapped", "it is another")
        return passed("swapped", "it is there")

    def undo(self, state, safety) -> None:
        assert self.place.running() == (), "services must be stopped"
        if self.displaces:
            before = self.place.read(state["old"]) or self.place.read("live")
        elif safety is None:
            raise RefusedError("nothing was kept")
        else:
            before = "before"
        self.place.write("live", before)

    def abandon(self, state) -> None:
        self.place.write(state["new"], None)

    def accept(self, state) -> None:
        self.place.write(state["old"], None)


@dataclass(frozen=True)
class BurningVault(LocalVault):
    """A vault in which every write is a point to crash at."""

    fuse: Fuse = field(default_factory=Fuse)

    def put(self, name, chunks, **more):
        self.fuse.burn()
        super().put(name, chunks, **more)
        self.fuse.burn()


@pytest.fixture(params=[True, False], ids=["displaced", "captured"])
def make(request, installation, tmp_path):
    """Make a place with a fuse of so many steps, and the installation that restores it."""
    component = installation.component("redis/rdb")
    entry, _ = capture(installation, component, "2025-10-24")
    verify(installation, component, entry)
    (tmp_path / "place").mkdir()
    safe = replace(installation, lock=tmp_path / "lock")

    def made(steps: int = 10**9, **more):
        fuse = Fuse(steps)
        place = Place(tmp_path / "place", fuse, **more)

        def restoration(stored, options):
            return FileRestoration(place, stored, displaces=request.param)

        return place, replace(
            safe,
            vault=BurningVault(installation.vault.root, fuse=fuse),
            restorations={"redis": restoration},
            services=place,
        )

    return made


def reset(make) -> None:
    """Make everything as it was before. Journals of what is settled go: each would be read again."""
    place, made = make()
    with alone(made):
        finish(made)
    shutil.rmtree(made.vault.root / FOLDER, ignore_errors=True)
    place.write("live", "before")
    for name in SERVICES[:2]:
        place.write(f"{name}.runs", "yes")
    place.write(f"{SERVICES[2]}.runs", None)


def crash(action) -> bool:
    """Do something in a process of its own; say whether that ended without a word."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - it must not run the tests a second time
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the action itself has failed"
    return status == 9


def points(make, action) -> Iterator[int]:
    """Crash an action at each of its points in turn, everything being as before each time."""
    for steps in range(1, 200):
        reset(make)
        _, made = make(steps)
        if not crash(lambda made=made: action(made)):
            assert steps > 10, "there were points to crash at"
            return
        yield steps
    pytest.fail("it has no end")


def as_it_was_left(place) -> Mapping[str, object]:
    """The live thing, and who runs."""
    return {"live": place.read("live"), "runs": place.running()}


def go(made) -> object:
    """Restore it."""
    return restore(made, "redis", confirm="live")


def test_the_same_command_goes_on(make):
    """After a crash at any point, the same command restores, and the services that ran run again."""
    for steps in points(make, go):
        place, made = make()
        assert go(made).good
        assert as_it_was_left(place) == {"live": "good", "runs": SERVICES[:2]}, steps
        assert unfinished(made) == []


def test_its_undo_goes_back_to_before_the_crash(make):
    """However far it came: what the command that went on prints as its undo brings the first state back."""
    for steps in points(make, go):
        place, made = make()
        crashed = unfinished(made)
        confirmed = any(journal.has("confirmed") for journal in crashed)
        report = go(made)
        assert undo(made, report.id, confirm="live").result == "undone"
        if not confirmed and crashed:
            assert as_it_was_left(place) == {"live": "before", "runs": SERVICES[:2]}, steps


def test_finish_settles_it(make):
    """It is as before or restored, never between; and the services that ran run again."""
    seen = set()
    for steps in points(make, go):
        place, made = make()
        with alone(made):
            finish(made)
        left = as_it_was_left(place)
        assert left["live"] in {"before", "good"}, steps
        assert left["runs"] == SERVICES[:2], steps
        seen.add(left["live"])
        assert unfinished(made) == []
    assert seen == {"before", "good"}


def test_undo_goes_back(make):
    """A restore that crashed at any point can be undone; the services that ran run again."""
    for steps in points(make, go):
        place, made = make()
        for journal in unfinished(made):
            undo(made, journal.id, confirm="live")
        assert as_it_was_left(place)["live"] in {"before", "good"}, steps  # good: it had ended
        assert place.running() == SERVICES[:2], steps


def test_a_crash_of_the_undo(make):
    """An undo that crashed at any point is gone on with by the next command."""
    for steps in range(1, 200):
        reset(make)
        place, made = make()
        report = go(made)
        _, burning = make(steps)
        if not crash(lambda burning=burning, report=report: undo(burning, report.id, confirm="live")):
            assert steps > 5
            return
        with alone(made):
            finish(made)
        last = journals(made)[-1]
        assert as_it_was_left(place)["live"] == ("before" if last.has("undo") else "good"), steps
        assert place.running() == SERVICES[:2], steps
    pytest.fail("it has no end")


@pytest.mark.parametrize("wrong", ["beside", "compare", "swap", "confirm"])
def test_what_goes_wrong_is_put_back(make, wrong):
    """At whatever step, the live thing is as before, the services run, and the report says where."""
    reset(make)
    place, made = make(wrong=wrong)
    with pytest.raises(BackupError):
        go(made)
    assert as_it_was_left(place) == {"live": "before", "runs": SERVICES[:2]}
    report = journals(made)[-1].report()
    assert (report["result"], report["stopped_at"]) == ("abandoned", wrong)
    assert unfinished(made) == []


def test_a_service_that_does_not_come_back(make):
    """It is restored, and the report is not good: it names who stays away."""
    reset(make)
    place, made = make(stays_away=frozenset({"backend"}))
    report = go(made)
    assert (report.result, report.good) == ("restored", False)
    assert ["backend" in outcome.message for outcome in report.outcomes if not outcome.passed] == [True]
    assert place.running() == ("celery-worker",)


def test_what_cannot_be_finished_can_be_left(make):
    """A killed restore whose target is gone does not block the others for ever."""
    reset(make)
    _, made = make(30)
    assert crash(lambda: go(made))
    _, broken = make(wrong="swap", stays_away=frozenset(SERVICES))
    (journal,) = unfinished(broken)
    report = leave(broken, journal.id)
    assert report.result == "failed"
    assert unfinished(broken) == []


def test_one_restore_at_a_time(make):
    """A second one is refused while the first works."""
    reset(make)
    _, made = make()
    with alone(made), pytest.raises(RefusedError, match="a restore is at work"):
        go(made)


def test_every_scenario_has_an_asset(installation):
    """What a scenario restores from is something that is captured."""
    assert set(SCENARIOS.values()) <= set(installation.components)
    assert Options.from_dict({"tables": ["a"]}).tables == ("a",)
