"""Names, entries and proofs: what is written can be read back, for ever, and nothing else can."""

# ruff: noqa: DTZ001 - names hold wall time
import contextlib
import json
import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.core.artifact import (
    FORMAT_VERSION,
    KINDS,
    ArtifactName,
    Companion,
    Entry,
    Problem,
    Proof,
    check_label,
)
from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.errors import BackupError, DamagedError, RefusedError

quick = settings(deadline=None, max_examples=100)
words = st.text(st.characters(codec="utf-8"), max_size=12)
paths = st.binary(max_size=20).map(os.fsdecode)
counts = st.integers(0, 2**53)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
instants = st.datetimes(
    datetime(1970, 1, 1),
    datetime(2200, 1, 1),
    timezones=st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
values = st.recursive(
    st.none() | st.booleans() | counts | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
labels = st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True).filter(lambda label: label not in KINDS)
names = st.builds(
    ArtifactName,
    component=st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
    stem=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,15}", fullmatch=True)
    | st.sampled_from(["a_2025-10-24_02-00-00", "x_full", "x_2", "redis_dump", "7", "a_", "b__"]),
    taken=st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)).map(lambda t: t.replace(microsecond=0)),
    suffix=st.from_regex(r"(\.[a-z0-9]{1,6}){1,4}", fullmatch=True),
    twin=st.integers(1, 120),
    kind=st.sampled_from([None, *KINDS]),
    label=st.none() | labels,
)
entries = st.builds(
    Entry,
    installation=words,
    component=words,
    artifact=words,
    name=words,
    set=words,
    captured_at=instants,
    size=counts,
    sha256=digests,
    codecs=st.lists(words, max_size=3).map(tuple),
    label=st.none() | labels,
    late=st.booleans(),
    seconds=st.floats(0, 1e6),
    versions=st.dictionaries(words, words, max_size=3),
    source=st.dictionaries(words, words, max_size=3),
    fingerprint=st.dictionaries(words | paths, values, max_size=3),
    companions=st.lists(st.builds(Companion, words, words, counts, digests), max_size=2).map(tuple),
    problems=st.lists(st.builds(Problem, words, paths), max_size=3).map(tuple),
    checks=st.lists(words, max_size=3).map(tuple),
    verified=st.lists(words, max_size=3).map(tuple),
)
outcomes = st.builds(
    Outcome,
    words,
    st.sampled_from(Verdict),
    words,
    st.dictionaries(words, values, max_size=3),
    st.floats(0, 9),
)
proofs = st.builds(
    Proof, words, words, digests, instants, st.lists(outcomes, max_size=3).map(tuple), words, st.floats(0, 9)
)


@quick
@given(names)
def test_a_name_is_parsed_by_what_formats_it(name):
    """Every name comes back from its text: twins, kinds, labels, stems with underscores, digits, dates."""
    assert ArtifactName.parse(str(name)) == name


@quick
@given(
    st.text(max_size=40)
    | st.from_regex(r"[a-z]+/[a-z0-9_]+_2025-\d\d-\d\d_\d\d-\d\d-\d\d\.x", fullmatch=True)
)
@example("c/s_0001-01-01_00-00-00.x")
def test_what_parses_formats_to_the_same_text(text):
    """No text has two readings: what is no name is refused, the rest is formatted as it was."""
    with contextlib.suppress(RefusedError):
        assert str(ArtifactName.parse(text)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ({"stem": "bookreader", "suffix": ".dump"}, "c/bookreader_2025-10-24_02-00-00.dump"),
        (
            {"stem": "storage", "suffix": ".tar.gz", "kind": "full"},
            "c/storage_2025-10-24_02-00-00_full.tar.gz",
        ),
        (
            {"stem": "redis_dump", "suffix": ".rdb.gz", "twin": 2, "label": "pre-deploy"},
            "c/redis_dump_2025-10-24_02-00-00_2_pre-deploy.rdb.gz",
        ),
    ],
)
def test_names_are_the_guides(name, text):
    """Names look as in the guide's appendix A."""
    assert str(ArtifactName(component="c", taken=datetime(2025, 10, 24, 2), **name)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bookreader_2025-10-24_02-00-00.dump",
        "c/bookreader_2025-10-24_02-00-00",
        "c/bookreader_2025-13-24_02-00-00.dump",
        "c/bookreader_2025-02-30_02-00-00.dump",
        "c/bookreader_2025-10-24_02-00-00_1.dump",
        "c/bookreader_2025-10-24_02-00-00_Label.dump",
        "c/bookreader_٢٠٢٥-10-24_02-00-00.dump",
        "../c/bookreader_2025-10-24_02-00-00.dump",
        "c/../bookreader_2025-10-24_02-00-00.dump",
        "c/bookreader_2025-10-24_02-00-00.dump\n",
    ],
)
def test_other_names_are_refused(text):
    """What this program did not name is no artifact."""
    with pytest.raises(RefusedError):
        ArtifactName.parse(text)


def test_twins_count_up():
    """Each twin has a name of its own, which says so from the second on."""
    first = ArtifactName("c", "s", datetime(2025, 10, 26, 2), ".x")
    assert str(first.next_twin()) == "c/s_2025-10-26_02-00-00_2.x"
    assert first.next_twin().next_twin().twin == 3


@pytest.mark.parametrize("label", ["", "Pre", "full", "incr", "2nd", "a_b", "a b", "a\n", "a" * 41, "ä"])
def test_labels_that_cannot_stand_in_a_name_are_refused(label):
    """A label that would be read back as something else is refused, and the hint says what goes."""
    with pytest.raises(RefusedError) as refused:
        check_label(label)
    assert "pre-deploy" in refused.value.hint


@quick
@given(labels)
def test_other_labels_pass(label):
    """A letter, then letters, digits and dashes: 40 at most."""
    assert check_label(label) == label


@quick
@given(entries)
def test_an_entry_is_read_as_it_was_written(entry):
    """Every field comes back, paths that are no UTF-8 included; instants as the same instant in UTC."""
    stored = entry.to_json()
    stored.decode("ascii")
    found = Entry.from_json(stored)
    assert found == entry
    assert found.captured_at.tzinfo is UTC
    assert [os.fsencode(p.where) for p in found.problems] == [os.fsencode(p.where) for p in entry.problems]
    assert found.to_json() == stored


@quick
@given(proofs)
def test_a_proof_is_read_as_it_was_written(proof):
    """Outcomes, verdicts and measurements come back; the name sorts by time, whatever the offset was."""
    found = Proof.from_json(proof.to_json())
    assert found == proof
    assert found.proof_name == proof.proof_name
    assert all(isinstance(outcome.verdict, Verdict) for outcome in found.checks)


def _entry(**changed):
    return Entry(
        **{
            "installation": "i",
            "component": "redis",
            "artifact": "rdb",
            "name": "redis/redis_dump_2025-10-24_02-30-00.rdb.gz",
            "set": "2025-10-24",
            "captured_at": datetime(2025, 10, 24, 2, 30, tzinfo=UTC),
            "size": 1,
            "sha256": "0" * 64,
            **changed,
        }
    )


def _changed(document, **changed):
    return json.dumps({**json.loads(document), **changed}).encode()


def test_entries_put_the_format_first_and_time_in_utc():
    """Whoever opens an entry in an editor sees its format at once, and instants that end in Z."""
    lines = _entry().to_json().decode().splitlines()
    assert lines[1] == ' "format_version": 1,'
    assert ' "captured_at": "2025-10-24T02:30:00.000000Z",' in lines


@pytest.mark.parametrize("read", [Entry.from_json, Proof.from_json])
def test_a_newer_format_is_refused_with_a_hint(read):
    """A newer release's document is not guessed at."""
    with pytest.raises(DamagedError) as damaged:
        read(_changed(_entry().to_json(), format_version=FORMAT_VERSION + 1), name="x.entry.json")
    assert "x.entry.json has format version 2" in damaged.value.message
    assert "newer release" in damaged.value.hint


@pytest.mark.parametrize("read", [Entry.from_json, Proof.from_json])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"format_version": "1"}',
        b'{"format_version": 1}',
        b'{"a": 1}',
        _entry().to_json()[:-20],
    ],
    ids=range(10),
)
def test_garbage_is_damage(read, data):
    """Whatever lies under an entry's name, reading it ends in `DamagedError`."""
    with pytest.raises(DamagedError):
        read(data)


@quick
@given(st.binary(max_size=60))
def test_any_bytes_are_damage(data):
    """No bytes make another error."""
    with pytest.raises(DamagedError):
        Entry.from_json(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"captured_at": "2025-10-24T02:30:00"},
        {"captured_at": "yesterday"},
        {"captured_at": None},
        {"companions": [1]},
        {"problems": None},
        {"problems": [{"what": "x", "else": "y"}]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_an_entry_with_a_wrong_field_is_damage(changed):
    """An instant without its offset, a part of another shape, a field that nobody knows."""
    with pytest.raises(DamagedError):
        Entry.from_json(_changed(_entry().to_json(), **changed))


def test_a_proof_with_an_unknown_verdict_is_damage():
    """Three verdicts, and nothing that could be taken for a pass."""
    proof = Proof(
        "i", "a", "0" * 64, datetime(2025, 10, 24, tzinfo=UTC), (Outcome("c", Verdict.PASSED, "m"),)
    )
    with pytest.raises(DamagedError):
        Proof.from_json(proof.to_json().replace(b'"passed"', b'"fine"'))


def test_a_proof_is_named_after_its_artifact_and_instant():
    """Two proofs of one artifact lie side by side, in order of time."""
    at = datetime(2025, 10, 24, 3, 0, 0, 5, tzinfo=timezone(timedelta(hours=3)))
    assert Proof("i", "redis/x.rdb.gz", "", at, ()).proof_name == (
        "redis/x.rdb.gz.proof-20251024T000000.000005Z.json"
    )


def test_an_entry_names_itself_and_its_companions():
    """The file it lies in, the asset it is of, and the files beside it; a role that is not there is none."""
    index = Companion("index", "storage/x.index.gz", 3, "0" * 64)
    entry = _entry(companions=(index,))
    assert entry.asset == "redis/rdb"
    assert entry.entry_name == f"{entry.name}.entry.json"
    assert entry.companion("index") == index
    with pytest.raises(DamagedError):
        entry.companion("sql")


def test_what_json_cannot_hold_is_refused_before_it_is_stored():
    """A fingerprint with an object in it is a bug, and fails where it is made."""
    with pytest.raises(TypeError):
        _entry(fingerprint={"x": object()}).to_json()


def test_errors_carry_a_hint_and_an_exit_status():
    """0 is fine, 1 a problem found, 2 refused."""
    assert BackupError("m", hint="h").exit_code == 1
    assert RefusedError("m").exit_code == 2
    assert str(BackupError("m", hint="h")) == "m"
