"""Outcomes: only a pass counts as passed."""

from bookreader_backup_assets.core.check import Verdict, failed, inconclusive, passed


def test_only_a_pass_is_passed():
    """What could not be told is neither a pass nor a failure."""
    made = [passed("c", "m", rows=1), failed("c", "m"), inconclusive("c", "m")]
    assert [outcome.passed for outcome in made] == [True, False, False]
    assert [outcome.verdict for outcome in made] == list(Verdict)


def test_an_outcome_keeps_what_was_measured():
    """Numbers travel with the verdict."""
    assert passed("c", "m", size_bytes=7, tables=2).measured == {"size_bytes": 7, "tables": 2}
