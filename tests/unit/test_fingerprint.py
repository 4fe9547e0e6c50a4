"""Fingerprints compared: equal means equal, and a difference names its place."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.core.fingerprint import Difference, compare, describe

quick = settings(deadline=None, max_examples=100)
keys = st.text("abcdef._", min_size=1, max_size=6)
leaves = st.integers(0, 99) | st.text("0123456789abcdef", min_size=1, max_size=4)
trees = st.recursive(
    leaves, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=4), max_leaves=15
)
prints = st.dictionaries(keys, trees, min_size=1, max_size=4)


def _paths(tree, above=()):
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _at(tree, path):
    for key in path[:-1]:
        tree = tree[key]
    return tree


@quick
@given(prints)
def test_equal_fingerprints_have_no_difference(fingerprint):
    """A copy equals its original."""
    assert compare(fingerprint, copy.deepcopy(fingerprint)) == []


@quick
@given(prints, prints)
def test_difference_is_symmetric(one, other):
    """Whether two differ does not depend on which is expected; only equal ones do not."""
    assert bool(compare(one, other)) == bool(compare(other, one)) == (one != other)


@quick
@given(prints, st.data())
def test_any_change_is_found_and_named(fingerprint, data):
    """A changed value, a lost one and an added one are each one difference, at its path."""
    path = data.draw(st.sampled_from(list(_paths(fingerprint))))
    where = " ".join(path).strip()
    changed, lost, added = (copy.deepcopy(fingerprint) for _ in range(3))
    _at(changed, path)[path[-1]] = "something else"
    del _at(lost, path)[path[-1]]
    _at(added, path)["a new key"] = 1
    assert [difference.where for difference in compare(fingerprint, changed)] == [where]
    (difference,) = compare(fingerprint, lost)
    assert (difference.where, difference.found) == (where, "nothing")
    (difference,) = compare(fingerprint, added)
    assert (difference.expected, difference.found) == ("nothing", 1)


@quick
@given(prints, st.data())
def test_what_was_not_counted_is_no_difference(fingerprint, data):
    """None on either side means that nobody looked; a key that is not there is still missed."""
    path = data.draw(st.sampled_from(list(_paths(fingerprint))))
    uncounted = copy.deepcopy(fingerprint)
    _at(uncounted, path)[path[-1]] = None
    assert compare(fingerprint, uncounted) == compare(uncounted, fingerprint) == []
    del fingerprint[path[0]]
    assert len(compare(uncounted, fingerprint)) == 1


def test_differences_come_in_the_order_expected():
    """A report reads as the capture was recorded; what only the other side has comes last."""
    expected = {"tables": {"b": {"rows": 2}, "a": {"rows": 1}}}
    found = {"tables": {"new": {"rows": 9}, "a": {"rows": 0}, "b": {"rows": 0}}}
    assert [str(difference) for difference in compare(expected, found)] == [
        "tables b rows: expected 2, found 0",
        "tables a rows: expected 1, found 0",
        "tables new: expected nothing, found something",
    ]


def test_a_dictionary_in_place_of_a_number_is_a_difference():
    """Shapes are compared, too, and a whole branch is not printed."""
    assert compare({"a": 1}, {"a": {"b": 2}}) == [Difference("a", 1, "something")]


def test_many_differences_are_summed_up():
    """A sentence for people names the first few, and how many more there are."""
    differences = [Difference(str(number), 1, 2) for number in range(7)]
    assert describe(differences[:1]) == "0: expected 1, found 2"
    assert describe(differences, limit=2) == "0: expected 1, found 2; 1: expected 1, found 2; and 5 more"
    assert describe([]) == ""
