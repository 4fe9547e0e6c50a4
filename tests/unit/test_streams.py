"""Streams are counted and hashed as they pass, and secrets do not print."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.core.streams import Meter


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_a_meter_changes_nothing_and_counts_all(chunks):
    """Chunks pass one by one, unchanged; size, hash and progress speak of all of them."""
    told = []
    meter = Meter(iter(chunks), told.append)
    assert list(meter) == chunks
    assert meter.size == sum(told) == len(b"".join(chunks))
    assert meter.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert meter.ended


def test_a_meter_knows_that_it_has_not_seen_the_end():
    """Someone who stops reading, or a source that fails, leaves `ended` false."""

    def failing():
        yield b"a"
        raise OSError

    meter = Meter(failing())
    assert next(iter(meter)) == b"a"
    assert not meter.ended
    with pytest.raises(OSError):
        list(meter)
    assert not meter.ended
    assert meter.size == 1


def test_a_secret_does_not_print_itself():
    """However it is printed, formatted or nested, the text stays away; `reveal` alone gives it."""
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r:>9}", str([secret]), "%s" % secret):  # noqa: UP031
        assert "hunter2" not in shown
    assert not hasattr(secret, "__dict__")


def test_an_empty_secret_is_false():
    """So that a variable set to nothing is no key."""
    assert not Secret("")
    assert Secret("x")
