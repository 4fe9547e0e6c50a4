"""Ids of sets: days, and moments with their label."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookreader_backup_assets.core.errors import RefusedError
from bookreader_backup_assets.core.set_id import day_of, is_set, label_of, labelled_id

MOMENT = datetime.fromisoformat("2025-10-24T14:05")


def test_a_labelled_set_is_named_by_its_moment():
    """Date, time and label; a second one of that second has a number."""
    assert labelled_id(MOMENT, "pre-deploy") == "2025-10-24_14-05-00_pre-deploy"
    assert labelled_id(MOMENT, "pre-deploy", 2) == "2025-10-24_14-05-00_2_pre-deploy"


@given(
    at=st.datetimes(min_value=datetime.fromisoformat("1000-01-01")),
    label=st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True).filter(lambda x: x not in {"full", "incr"}),
    twin=st.integers(1, 99),
)
def test_an_id_says_its_day_and_its_label(at, label, twin):
    """Whatever the label and the number of twins."""
    made = labelled_id(at, label, twin)
    assert (day_of(made), label_of(made)) == (at.date(), label)


def test_a_day_has_no_label():
    """Nor has anything else that is no labelled set."""
    assert [label_of(one) for one in ("2025-10-24", "2025-10-24-02:00", "x", "")] == [None] * 4
    assert day_of("2025-10-24") == date(2025, 10, 24)
    found = [is_set(one) for one in ("2025-10-24", "2025-10-24_14-05-00_x", "2025-10-24-02:00", "2025-10")]
    assert found == [True, True, False, False]


@pytest.mark.parametrize(
    "label", ["pre/deploy", "../x", "Pre", "", "1st", "a" * 41, "a b", "full", "a_b", "é"]
)
def test_what_can_be_no_label_is_refused(label):
    """A slash, a space, capitals: names of files are made of it. The hint has the whole rule."""
    with pytest.raises(RefusedError, match="cannot be a label") as refused:
        labelled_id(MOMENT, label)
    for said in ("pre-deploy", "at most 40", "not full or incr"):
        assert said in refused.value.hint


def test_what_is_no_set_is_refused():
    """With a hint at how one is written."""
    with pytest.raises(RefusedError, match=r"'24\.10\.' is not the id of a set"):
        day_of("24.10.")
