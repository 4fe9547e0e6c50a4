"""Capture, verify, catalog and seal over a real vault, with a component that is plain bytes."""

import dataclasses
import multiprocessing
import os
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.examine import examine
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.actions.report import ages, day_report
from bookreader_backup_assets.actions.seal import ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.codecs import gzip
from bookreader_backup_assets.codecs.chain import Codec, Codecs
from bookreader_backup_assets.components.base import Capture, Facts
from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.check import passed
from bookreader_backup_assets.core.errors import (
    BackupError,
    DamagedError,
    NotFoundError,
    RefusedError,
    SourceError,
    SpaceError,
)
from bookreader_backup_assets.vaults.local import LocalVault
from bookreader_backup_assets.vaults.names import PARTIAL

NOW = datetime(2025, 10, 24, 2, 0, 0, tzinfo=UTC)
DAY = "2025-10-24"


@dataclasses.dataclass(frozen=True)
class Plain:
    """A component that captures `content`, and fails after it if told so."""

    content: bytes = b"bookreader"
    fail: BackupError | None = None
    constant: bool = False
    companions: dict = dataclasses.field(default_factory=dict)
    slow: bool = False
    expected: int | None = None
    component: str = "redis"
    artifact: str = "rdb"
    stem: str = "redis_dump"
    suffix: str = ".rdb"
    kind: str | None = None
    codecs: tuple = ("gzip",)
    checks = {"readable": "it reads"}  # noqa: RUF012 - a constant of the test

    def probe(self):
        if self.fail:
            raise self.fail
        return {"server": "1"}

    @contextmanager
    def capture(self):
        def chunks():
            while self.slow:
                yield os.urandom(100_000)
                time.sleep(0.001)
            yield self.content
            if self.fail:
                raise self.fail

        facts = Facts(NOW, {"kind": "keys"}, problems=(Problem("met"),), companions=self.companions)
        yield Capture(chunks(), lambda: facts, self.expected)

    def unchanged_since(self, newest):
        return self.constant

    def verify(self, stored, scratch, names):
        content = b"".join(stored.plain())
        if "readable" in names and content:
            yield passed("readable", "it reads")


@pytest.fixture
def installation(tmp_path):
    """An installation with one component and an empty vault, at 02:00 on its day."""
    return make(tmp_path)


def make(folder, component=None, **more):
    """Return an installation over `folder`/vault."""
    component = component or Plain()
    return Installation(
        vault=LocalVault(folder / "vault"),
        codecs=Codecs({"gzip": Codec("gzip", ".gz", gzip.encode, gzip.decode)}),
        components={"redis/rdb": component},
        planned=("redis/rdb",),
        scratch=None,
        zone=ZoneInfo("UTC"),
        now=more.pop("now", lambda: NOW),
        **more,
    )


def files(installation):
    """Return the names of all files in the vault that belong to artifacts, half-written ones included."""
    root = installation.vault.root
    every = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return sorted(name for name in every if name.startswith(("redis/", "backup_set/")))


def test_a_capture_leaves_the_artifact_and_its_entry(installation):
    """The entry says what was stored: name, size, hash of the stored bytes, facts, and the checks to pass."""
    entry, new = capture(installation, Plain(), DAY)
    assert new
    assert entry.name == "redis/redis_dump_2025-10-24_02-00-00.rdb.gz"
    assert files(installation) == [entry.name, entry.entry_name]
    assert installation.vault.digest(entry.name) == entry.sha256
    assert entry.checks == ("not_empty", "sha256", "readable")
    assert entry.problems == (Problem("met"),)
    assert Catalog(installation.vault).entries() == [entry]


def test_companions_are_kept_and_named(installation):
    """An index is a file of its own, whose hash the entry has."""
    entry, _ = capture(installation, Plain(companions={("index", ".index.gz"): [b"rows"]}), DAY)
    index = entry.companion("index")
    assert b"".join(installation.vault.open(index.name)) == b"rows"
    assert installation.vault.digest(index.name) == index.sha256


def test_a_capture_that_fails_leaves_nothing_but_the_reason(installation):
    """No artifact, no partial, no entry; the failure is recorded with its hint for the manifest."""
    with pytest.raises(SourceError):
        capture(installation, Plain(fail=SourceError("it broke", hint="mend it")), DAY)
    assert files(installation) == []
    (failure,) = Catalog(installation.vault).failures(DAY)
    assert (failure.asset, failure.error, failure.hint) == ("redis/rdb", "it broke", "mend it")


def test_a_companion_that_fails_takes_the_artifact_with_it(installation):
    """What is stored before the entry is taken back if the entry is not reached."""

    def broken():
        yield b"half"
        raise SourceError("no index")

    with pytest.raises(SourceError):
        capture(installation, Plain(companions={("index", ".index.gz"): broken()}), DAY)
    assert files(installation) == []


def test_two_captures_of_one_second_are_twins(installation):
    """The second takes the next free name; both count."""
    first, _ = capture(installation, Plain(), DAY)
    second, _ = capture(installation, Plain(), DAY)
    assert second.name == "redis/redis_dump_2025-10-24_02-00-00_2.rdb.gz"
    assert {e.name for e in Catalog(installation.vault).entries()} == {first.name, second.name}


def test_captures_at_once_harm_nothing(tmp_path):
    """Eight processes that capture the same asset in the same second leave eight whole artifacts."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=lambda: capture(make(tmp_path), Plain(), DAY)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 8
    installation = make(tmp_path)
    entries = Catalog(installation.vault).entries()
    assert len(entries) == 8
    assert len({entry.installation for entry in entries}) == 1
    assert all(installation.vault.digest(entry.name) == entry.sha256 for entry in entries)


def written(folder):
    """Return whether a capture below `folder` has written anything yet."""
    return any(partial.stat().st_size for partial in folder.rglob(f"*{PARTIAL}"))


def test_a_process_killed_at_any_moment_leaves_no_file_under_a_final_name(tmp_path):
    """SIGKILL while the stream runs: at most a `.partial`, which nothing lists."""
    context = multiprocessing.get_context("fork")
    installation = make(tmp_path)
    for attempt in range(20):
        child = context.Process(target=lambda: capture(make(tmp_path), Plain(slow=True, codecs=()), DAY))
        child.start()
        deadline = time.monotonic() + 30
        while not written(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(attempt / 2000)
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
        for partial in tmp_path.rglob(f"*{PARTIAL}"):
            os.truncate(partial, 0)  # so that the next one is seen to write
    assert all(name.endswith(PARTIAL) for name in files(installation))
    assert list(installation.vault.list("redis/")) == []
    capture(installation, Plain(), DAY)  # and what they left is in nobody's way
    assert len(Catalog(installation.vault).entries()) == 1


def test_no_room_is_seen_before_anything_is_read(tmp_path):
    """A capture that would not fit is refused before it starts, with the numbers."""
    installation = make(tmp_path)
    with pytest.raises(SpaceError, match="wants"):
        capture(installation, Plain(expected=1 << 60), DAY)
    assert files(installation) == []


def test_an_unchanged_source_is_not_stored_again(installation):
    """The set refers to the artifact that exists, by a proof; an unverified one is captured again."""
    constant = Plain(constant=True)
    first, _ = capture(installation, constant, "2025-10-23")
    again, new = capture(installation, constant, DAY)
    assert new, "the first was not verified yet"
    verify(installation, constant, again)
    held, new = capture(installation, constant, "2025-10-25")
    assert (held, new) == (again, False)
    catalog = Catalog(installation.vault)
    assert catalog.of_day("redis/rdb", "2025-10-25") == again
    assert catalog.of_day("redis/rdb", "2025-10-23") == first
    assert catalog.of_day("redis/rdb", "2025-10-26") is None


def test_verify_keeps_what_it_found(installation):
    """A proof lies beside the artifact, and the catalog reads it."""
    entry, _ = capture(installation, Plain(), DAY)
    assert str(Catalog(installation.vault).standing(entry)) == "unverified"
    proof = verify(installation, Plain(), entry)
    assert [(o.check, o.passed) for o in proof.checks] == [
        ("readable", True),
        ("not_empty", True),
        ("sha256", True),
    ]
    catalog = Catalog(installation.vault)
    assert catalog.proofs(entry) == [proof]
    assert str(catalog.standing(entry)) == "verified"


def damage(installation, entry, change):
    """Change the stored bytes behind the vault's back."""
    path = installation.vault.local_path(entry.name)
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "red"),
    [
        (lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], {"sha256", "readable"}),
        (lambda data: data[:-1], {"sha256", "readable", "not_empty"}),
        (lambda _data: b"", {"sha256", "readable", "not_empty"}),
    ],
    ids=["a flipped bit", "a byte short", "empty"],
)
def test_damage_turns_checks_red(installation, change, red):
    """Each change of the stored bytes is found, and the artifact is not verified any more."""
    entry, _ = capture(installation, Plain(), DAY)
    verify(installation, Plain(), entry)
    damage(installation, entry, change)
    proof = verify(installation, Plain(), entry)
    assert {o.check for o in proof.checks if not o.passed} == red
    assert str(Catalog(installation.vault).standing(entry)) == "failed"


def test_a_file_that_is_gone_is_an_outcome_not_a_crash(installation):
    """A missing artifact fails all its checks."""
    entry, _ = capture(installation, Plain(), DAY)
    installation.vault.delete(entry.name)
    assert not any(o.passed for o in verify(installation, Plain(), entry).checks)


@pytest.mark.parametrize("which", ["artifact", "companion"])
def test_what_a_listing_shows_to_be_gone_does_not_stand_as_verified(installation, which):
    """`list` and `status` read no artifact, and still see what is gone or short, an index included."""
    component = Plain(companions={("index", ".index.gz"): [b"rows"]})
    entry, _ = capture(installation, component, DAY)
    verify(installation, component, entry)
    assert Catalog(installation.vault).newest("redis/rdb", verified=True) == entry
    name = entry.name if which == "artifact" else entry.companion("index").name
    installation.vault.local_path(name).write_bytes(b"short")
    assert str(Catalog(installation.vault).standing(entry)) == "failed"
    installation.vault.delete(name)
    catalog = Catalog(installation.vault)
    assert str(catalog.standing(entry)) == "failed"
    assert catalog.newest("redis/rdb", verified=True) is None
    assert seal(installation, DAY).fingerprint["missing"] == ["redis/rdb"]


def test_an_entry_that_names_another_file_is_unreadable(installation):
    """An entry speaks for the file that it lies beside, and for nothing outside of the vault."""
    entry, _ = capture(installation, Plain(), DAY)
    forged = dataclasses.replace(entry, name="../../elsewhere/redis_dump_2025-10-24_02-00-00.rdb.gz")
    installation.vault.local_path(entry.entry_name).write_bytes(forged.to_json())
    catalog = Catalog(installation.vault)
    assert (catalog.entries(), catalog.unreadable) == ([], [entry.entry_name])
    (found,) = (one for one in examine(installation, {}) if entry.entry_name in one.seen)
    assert "copy that file from another vault" in found.hint
    assert "leave the artifact beside it alone" in found.hint


def test_files_without_an_entry_are_strays(installation):
    """What a killed capture left under a final name is told apart, with its size."""
    capture(installation, Plain(companions={("index", ".index.gz"): [b"rows"]}), DAY)
    seal(installation, DAY)
    assert Catalog(installation.vault).strays() == {}
    installation.vault.put("redis/redis_dump_2025-10-23_02-00-00.rdb.gz", [b"12345"])
    assert list(Catalog(installation.vault).strays().values()) == [5]
    findings = {f.subject: f.seen for f in examine(installation, {})}
    assert "1 files without an entry" in findings["strays"]
    assert findings["strays"].endswith(": redis/redis_dump_2025-10-23_02-00-00.rdb.gz")


def test_a_stopped_capture_says_so(installation):
    """Ctrl-C leaves no artifact, and the manifest can say why there is none."""
    with pytest.raises(KeyboardInterrupt):
        capture(installation, Plain(fail=KeyboardInterrupt()), DAY)
    assert files(installation) == []
    assert [f.error for f in Catalog(installation.vault).failures(DAY)] == ["it was stopped"]


def test_a_vault_that_takes_nothing_is_found_before_the_night(tmp_path):
    """`doctor` looks whether the vault can be written, not only whether it can be read."""
    (tmp_path / "vault").write_text("a file")
    findings = {f.subject: f for f in examine(make(tmp_path), {})}
    assert not findings["vault"].good


def test_a_check_that_says_nothing_has_failed(installation):
    """Silence is not a pass."""
    entry, _ = capture(installation, Plain(content=b""), DAY)
    proof = verify(installation, Plain(content=b""), entry, names=["readable"])
    assert [(o.check, o.passed) for o in proof.checks] == [("readable", False)]


def test_proofs_of_one_instant_are_told_apart(installation):
    """Two proofs of the same microsecond are both kept."""
    entry, _ = capture(installation, Plain(), DAY)
    verify(installation, Plain(), entry)
    verify(installation, Plain(), entry)
    assert len(Catalog(installation.vault).proofs(entry)) == 2


def test_one_damaged_entry_does_not_hide_the_others(installation):
    """The catalog names it and reads on."""
    first, _ = capture(installation, Plain(), DAY)
    second, _ = capture(installation, Plain(), DAY)
    installation.vault.local_path(first.entry_name).write_bytes(b"{")
    catalog = Catalog(installation.vault)
    assert catalog.entries() == [second]
    assert catalog.unreadable == [first.entry_name]


def test_one_damaged_failure_does_not_keep_a_day_from_being_sealed(installation):
    """It is named as unreadable, and the manifest is made without it."""
    with pytest.raises(SourceError):
        capture(installation, Plain(fail=SourceError("it broke")), DAY)
    (name,) = (stored.name for stored in installation.vault.list("failures/"))
    installation.vault.local_path(name).write_bytes(b'{"format_version": 1}')
    catalog = Catalog(installation.vault)
    assert (catalog.failures(DAY), catalog.unreadable) == ([], [name])
    assert seal(installation, DAY).fingerprint["missing"] == ["redis/rdb"]


def test_a_set_is_sealed_again_as_a_new_file(installation):
    """Each seal is a manifest of its own; the newest is the day's."""
    entry, _ = capture(installation, Plain(), DAY)
    first = seal(installation, DAY)
    assert not verify(installation, ManifestComponent(), first).checks[0].passed, "nothing was verified yet"
    verify(installation, Plain(), entry)
    second = seal(installation, DAY)
    assert second.name != first.name
    assert all(o.passed for o in verify(installation, ManifestComponent(), second).checks)
    assert second.fingerprint == {"kind": "manifest", "complete": True, "members": 1, "missing": []}


def test_a_manifest_names_what_failed(installation):
    """`complete` is red and gives the reason that the capture gave."""
    with pytest.raises(SourceError):
        capture(installation, Plain(fail=SourceError("it broke")), DAY)
    outcome = verify(installation, ManifestComponent(), seal(installation, DAY)).checks[0]
    assert (outcome.check, outcome.passed, outcome.message) == ("complete", False, "redis/rdb: it broke")


def test_a_damaged_manifest_is_found(installation):
    """A manifest that is no JSON any more fails, without a traceback."""
    capture(installation, Plain(), DAY)
    entry = seal(installation, DAY)
    damage(installation, entry, lambda data: data.replace(b'"missing"', b'"missinG"'))
    assert not any(o.passed for o in verify(installation, ManifestComponent(), entry).checks[:1])


def test_an_empty_past_day_is_not_sealed(installation):
    """A manifest of a day on which nothing was tried would say nothing."""
    with pytest.raises(RefusedError):
        seal(installation, "2025-10-01")
    assert files(installation) == []


def test_a_day_report_says_why_there_is_nothing(installation):
    """The line of an asset without artifact carries the reason and the hint."""
    with pytest.raises(SourceError):
        capture(installation, Plain(fail=SourceError("it broke", hint="mend it")), DAY)
    (line,) = day_report(Catalog(installation.vault), DAY, ("redis/rdb",))
    assert (line.good, line.standing, line.why) == (False, "missing", "it broke; mend it")


def test_a_failed_second_try_is_told_beside_the_artifact(tmp_path):
    """The day keeps its good artifact, and the report does not hide the failure after it."""
    installation = make(tmp_path)
    verify(installation, Plain(), capture(installation, Plain(), DAY)[0])
    later = make(tmp_path, now=lambda: NOW + timedelta(hours=1))
    with pytest.raises(SourceError):
        capture(later, Plain(fail=SourceError("it broke")), DAY)
    (line,) = day_report(Catalog(installation.vault), DAY, ("redis/rdb",))
    assert line.good
    assert line.why == "a later capture failed: it broke"


def test_age_counts_from_the_newest_verified(installation):
    """An unverified newer artifact makes nothing younger; 26 hours are the objective."""
    objective = {"redis/rdb": timedelta(hours=26)}
    assert not ages(Catalog(installation.vault), objective, NOW)[0].good
    entry, _ = capture(installation, Plain(), DAY)
    assert not ages(Catalog(installation.vault), objective, NOW)[0].good
    verify(installation, Plain(), entry)
    assert ages(Catalog(installation.vault), objective, NOW + timedelta(hours=26))[0].good
    assert not ages(Catalog(installation.vault), objective, NOW + timedelta(hours=27))[0].good


def test_an_artifact_of_the_future_is_not_young(installation):
    """A clock that was ahead once must not keep `status` green until it is caught up with."""
    verify(installation, Plain(), capture(installation, Plain(), DAY)[0])
    objective = {"redis/rdb": timedelta(hours=26)}
    assert ages(Catalog(installation.vault), objective, NOW - timedelta(minutes=4))[0].good
    assert not ages(Catalog(installation.vault), objective, NOW - timedelta(minutes=6))[0].good


def test_unchanged_is_as_young_as_the_finding(installation):
    """A configuration that has not changed for a month is not a month old."""
    constant = Plain(constant=True)
    verify(installation, constant, capture(installation, constant, DAY)[0])
    month = NOW + timedelta(days=30)
    later = dataclasses.replace(installation, now=lambda: month)
    capture(later, constant, "2025-11-23")
    assert ages(Catalog(installation.vault), {"redis/rdb": timedelta(hours=26)}, month)[0].good


def test_examine_finds_what_is_wrong_and_what_to_do(tmp_path):
    """A source that does not answer, and a vault without a backup, are findings with hints."""
    broken = make(tmp_path, Plain(fail=SourceError("it broke", hint="mend it")))
    findings = {f.subject: f for f in examine(broken, {"redis/rdb": timedelta(hours=26)})}
    assert (findings["redis/rdb"].good, findings["redis/rdb"].hint) == (False, "mend it")
    assert not findings["newest"].good
    assert findings["vault"].good
    fine = make(tmp_path)
    verify(fine, Plain(), capture(fine, Plain(), DAY)[0])
    assert all(f.good for f in examine(fine, {"redis/rdb": timedelta(hours=26)}))


def test_the_installation_keeps_its_id(tmp_path):
    """The id is made once, in the vault's root, and every process reads the same."""
    assert make(tmp_path).id == make(tmp_path).id
    with pytest.raises(NotFoundError):
        LocalVault(tmp_path / "other").stat("installation.json")


def test_bytes_that_read_back_differently_do_not_count(tmp_path):
    """A disk that lies is found before there is an entry, and its artifact is removed."""

    class Lying(LocalVault):
        def digest(self, name):
            return "0" * 64

    installation = dataclasses.replace(make(tmp_path), vault=Lying(tmp_path / "vault"))
    with pytest.raises(DamagedError):
        capture(installation, Plain(), DAY)
    assert files(installation) == []
