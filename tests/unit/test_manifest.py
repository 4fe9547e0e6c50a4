"""The fold of a day's artifacts into a manifest, and where an entry stands with its proofs."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bookreader_backup_assets.core.artifact import Entry, Problem, Proof
from bookreader_backup_assets.core.check import failed, inconclusive, passed
from bookreader_backup_assets.core.manifest import UNCHANGED, Failure, fold, is_whole, standing

NOON = datetime(2025, 10, 24, 12, tzinfo=UTC)
DAY = "2025-10-24"
LATER = NOON + timedelta(hours=1)


def entry(asset="redis/rdb", *, at=NOON, sha256="a" * 64, **more):
    """Return an entry with one check, `sha256`."""
    component, artifact = asset.split("/")
    name = f"{component}/{artifact}_{at:%Y-%m-%d_%H-%M-%S}.x"
    fields = {"set": DAY, "checks": ("sha256", "readable"), **more}
    return Entry("i", component, artifact, name, captured_at=at, size=7, sha256=sha256, **fields)


def proof(of, *outcomes, at=NOON):
    """Return a proof of an entry."""
    return Proof("i", of.name, of.sha256, at, tuple(outcomes))


GOOD = (passed("sha256", ""), passed("readable", ""))


def manifest_of(*held, failures=(), planned=("redis/rdb",)):
    """Fold what is held into the day's manifest."""
    return fold(
        installation="i",
        set_id=DAY,
        sealed_at=NOON,
        host="h",
        planned=planned,
        entries=held,
        failures=failures,
    )


def test_what_tells_of_the_source_says_nothing_of_the_bytes():
    """A manifest of an incomplete set, and logs with a gap, are whole; storage that is incomplete is not."""
    for asset, check in (("logs/archive", "no_gap"), ("backup_set/manifest", "complete")):
        one = entry(asset, checks=("sha256", check))
        said = (passed("sha256", ""), failed(check, ""))
        assert is_whole(one, standing(one, [proof(one, *said)]))
        assert not is_whole(one, standing(one, [proof(one, failed(check, ""))]))
        assert not is_whole(one, standing(one, [proof(one, failed("sha256", ""), passed(check, ""))]))
    one = entry("storage/archive", checks=("sha256", "complete"))
    assert not is_whole(one, standing(one, [proof(one, passed("sha256", ""), failed("complete", ""))]))


def test_verified_needs_every_check_of_the_entry():
    """An entry stands verified only when each of its checks has passed, and no other proof counts."""
    one = entry()
    assert str(standing(one, [])) == "unverified"
    assert str(standing(one, [proof(one, passed("sha256", ""))])) == "unverified"
    assert str(standing(one, [proof(one, *GOOD)])) == "verified"
    assert str(standing(one, [proof(one, *GOOD, failed("other", ""))])) == "verified"


def test_could_not_tell_is_not_verified():
    """An inconclusive check is neither a pass nor a failure."""
    one = entry()
    assert (
        str(standing(one, [proof(one, passed("sha256", ""), inconclusive("readable", ""))])) == "inconclusive"
    )


def test_could_not_tell_does_not_undo_what_was_proven():
    """A look from a machine without the key, or without servers, takes nothing away; a failure does."""
    one = entry()
    later = proof(one, inconclusive("readable", "no server here"), at=LATER)
    assert str(standing(one, [proof(one, *GOOD), later])) == "verified"
    assert (
        str(standing(one, [proof(one, passed("sha256", ""), failed("readable", "")), later]))
        == "inconclusive"
    )


def test_the_latest_proof_counts():
    """A later failure outweighs an earlier pass, and the other way round, whatever the order of reading."""
    one = entry()
    good, bad = proof(one, *GOOD), proof(one, failed("sha256", "rot"), at=NOON + timedelta(days=1))
    assert str(standing(one, [bad, good])) == "failed"
    again = proof(one, *GOOD, at=NOON + timedelta(days=2))
    assert str(standing(one, [again, bad, good])) == "verified"


def test_a_copy_with_other_bytes_is_not_mended_from_afar():
    """What was compared there counts there, until it is compared again; the original may be whole."""
    one = entry()
    bad = proof(one, failed("same_bytes", ""), at=NOON + timedelta(hours=1))
    elsewhere = proof(one, *GOOD, at=NOON + timedelta(hours=2))
    again = proof(one, passed("same_bytes", ""), at=NOON + timedelta(hours=3))
    assert str(standing(one, [proof(one, *GOOD), bad, elsewhere])) == "failed"
    assert str(standing(one, [proof(one, *GOOD), bad, elsewhere, again])) == "verified"


def test_a_proof_of_other_bytes_says_nothing():
    """A proof names the bytes it is about."""
    one = entry()
    assert str(standing(one, [proof(entry(sha256="b" * 64), *GOOD)])) == "unverified"


def test_a_set_takes_the_newest_verified_artifact_of_its_day():
    """A newer artifact that failed its checks does not displace the one that passed."""
    old, new = entry(), entry(at=NOON + timedelta(hours=1))
    made = manifest_of((old, [proof(old, *GOOD)]), (new, [proof(new, failed("sha256", "rot"))]))
    assert made.members[0].name == old.name
    assert made.complete


def test_other_days_labels_and_late_ones_stay_out():
    """A day's set has that day's unlabelled artifacts; one that was filed late only if there is no other."""
    other = entry(set="2025-10-23")
    labelled = entry(label="pre-deploy", at=NOON + timedelta(minutes=1))
    assert manifest_of((other, []), (labelled, [])).members == ()
    late = entry(label="late", late=True, at=NOON + timedelta(days=3))
    assert [m.late for m in manifest_of((late, [])).members] == [True]
    own = entry()
    assert [m.late for m in manifest_of((late, [proof(late, *GOOD)]), (own, [])).members] == [False]


def test_an_unchanged_source_refers_to_the_artifact_that_exists():
    """What was found unchanged on the day is in its set, and named as such."""
    old = entry(set="2025-10-01", at=NOON - timedelta(days=23))
    still = proof(old, passed(UNCHANGED, "", set=DAY))
    made = manifest_of((old, [proof(old, *GOOD), still]))
    assert [(m.name, m.unchanged) for m in made.members] == [(old.name, True)]
    assert made.complete


def test_what_is_missing_is_named_with_its_reason():
    """The latest failure says why; where nothing was tried, that is said."""
    early = Failure("i", "redis/rdb", DAY, NOON, "it was not there")
    late = Failure("i", "redis/rdb", DAY, NOON + timedelta(hours=1), "wrong password", "correct it")
    made = manifest_of(failures=(late, early), planned=("redis/rdb", "config/archive"))
    assert [(m.asset, m.why) for m in made.missing] == [
        ("redis/rdb", "wrong password (correct it)"),
        ("config/archive", "no capture was attempted"),
    ]
    assert not made.complete


def test_captured_but_unproven_is_missing_too():
    """A set is complete only with verified artifacts; the checks that lack are named."""
    one = entry()
    made = manifest_of((one, [proof(one, passed("sha256", ""))]))
    assert made.missing[0].why == "captured, but not proven: readable never made"


def test_the_text_form_has_statistics_problems_and_checksums():
    """The guide's text: components, what was met, rows, and lines for `sha256sum -c`."""
    tables = {"public.users": {"rows": 5, "digest": None, "owner": "u"}}
    dump = entry("postgresql/dump", fingerprint={"kind": "tables", "tables": tables})
    files = entry("storage/archive", problems=(Problem("vanished", "a\nb\udcff"),))
    text = manifest_of((dump, []), (files, []), planned=("postgresql/dump", "storage/archive")).to_text()
    assert "Users: 5" in text
    assert "Books: unknown" in text
    assert r"storage/archive: 'a\nb\udcff' vanished" in text
    assert f"{dump.sha256}  {dump.name}" in text.splitlines()
    text.encode("utf-8")


@given(st.permutations(range(6)), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_fold_does_not_depend_on_order(order, good):
    """The same artifacts fold into the same manifest, in whatever order they are read."""
    held = []
    for i, fine in enumerate(good):
        one = entry(at=NOON + timedelta(minutes=i))
        held.append((one, [proof(one, *GOOD)] if fine else []))
    assert manifest_of(*held) == manifest_of(*(held[i] for i in order))
