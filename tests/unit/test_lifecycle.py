"""Lifecycle rules: which ones we want, and what those of others would do to what the plan keeps."""

from dataclasses import replace
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.core.lifecycle import (
    Kept,
    Rule,
    audit,
    audit_terms,
    id_prefix,
    kept_in,
    wanted,
)
from bookreader_backup_assets.core.policy import Keep, Policy

ID = "0f9a1c2d-1111-4222-8333-444455556666"
PREFIX = f"bookreader-backups/{ID}/"
PROBES = "bookreader-backups/.probe/"
POLICY = Policy(
    vault="offsite",
    zone=ZoneInfo("UTC"),
    rows={"postgresql": Keep(30, "days"), "logs": Keep(30, "days"), "config": Keep(10, "versions")},
    weekly=Keep(4, "weeks"),
    labels=Keep(90, "days"),
    full_on=lambda day: day.weekday() == date(2026, 11, 29).weekday(),
)
ROWS = ("weekly", "postgresql", "config", "logs", "labels")
OF_SETS = {"weekly": ["postgresql", "redis", "config"], "labels": ["postgresql"]}


@pytest.fixture
def kept():
    """What the plan keeps in the bucket."""
    return kept_in(PREFIX, POLICY, ROWS, OF_SETS)


def harms(kept, **rule):
    """Return what is harmful in a rule."""
    return [one for one in audit([Rule("theirs", **rule)], kept) if one.harmful]


def notes(kept, **rule):
    """Return what is worth a line, and no harm."""
    return [one for one in audit([Rule("theirs", **rule)], kept) if not one.harmful]


@pytest.mark.parametrize("versioned", [True, False])
def test_our_own_rules_touch_no_live_artifact(kept, versioned):
    """None of them removes or moves anything under the installation's prefix, whatever the plan."""
    ours = wanted(ID, PREFIX, PROBES, POLICY, ROWS, versioned=versioned)
    assert list(audit(ours, kept)) == []
    assert all(not rule.moves for rule in ours)
    assert [rule for rule in ours if rule.expires and rule.prefix.startswith(PREFIX)] == []
    assert all(rule.id.startswith("bookreader-backup-0f9a1c2d-") for rule in ours)


def test_unfinished_uploads_end_after_a_week():
    """What nobody goes on with is paid for, and no list shows it."""
    (rule,) = (one for one in wanted(ID, PREFIX, PROBES, POLICY, ROWS, versioned=False) if one.unfinished)
    assert (rule.unfinished, rule.prefix) == (7, PREFIX)


def test_what_was_overwritten_stays_as_long_as_anything_is_kept():
    """An overwritten copy can be had back for the longest time of the plan, and 30 days at least."""
    for versioned, days in ((True, 90), (False, None)):
        ours = wanted(ID, PREFIX, PROBES, POLICY, ROWS, versioned=versioned)
        assert next((rule.noncurrent for rule in ours if rule.noncurrent), None) == days
    ours = wanted(ID, PREFIX, PROBES, POLICY, ("weekly",), versioned=True)
    assert next(rule.noncurrent for rule in ours if rule.noncurrent) == 30


@pytest.mark.parametrize(
    "prefix", ["", "bookreader-backups/", PREFIX, f"{PREFIX}postgresql/", f"{PREFIX}postg"]
)
def test_an_expiry_before_the_plan_lets_go_is_found(kept, prefix):
    """Wherever its prefix meets ours, and it is named with the row that it hurts."""
    (harm,) = harms(kept, prefix=prefix, expires=30)
    assert harm.subject == "rule theirs"
    assert "postgresql 30 days" in harm.seen
    assert "prune" in harm.hint


@pytest.mark.parametrize(
    "rule",
    [
        {"prefix": f"{PREFIX}postgresql/", "expires": 30, "enabled": False},
        {"prefix": f"{PREFIX}postgresql/", "expires": 30, "tagged": True},
        {"prefix": "bookreader-backups/another-installation/", "expires": 1},
        {"prefix": "photos/", "expires": 1},
        {"prefix": f"{PREFIX}postgresql/", "unfinished": 1},
        {"prefix": f"{PREFIX}postgresql/", "noncurrent": 1},
        {"prefix": f"{PREFIX}postgresql/", "moves": (("STANDARD_IA", 30), ("GLACIER_IR", 60))},
    ],
    ids=["disabled", "tagged", "of others", "elsewhere", "uploads", "noncurrent", "readable classes"],
)
def test_what_hurts_nothing_is_passed_over(kept, rule):
    """Rules that are off, for tagged files, of other prefixes, or of classes that are read at once."""
    assert list(audit([Rule("theirs", **rule)], kept)) == []


def test_the_day_counts(kept):
    """`logs`, 30 days: after 30 is too early, since the thirtieth day after is kept; after 31 is not."""
    own = [one for one in kept if one.row == "logs"]
    assert harms(own, prefix=PREFIX, expires=30)
    assert not harms(own, prefix=PREFIX, expires=31)


def test_the_longest_row_of_a_folder_counts(kept):
    """Dumps are in daily, weekly and labelled sets: 60 days are enough for the first two only."""
    (harm,) = harms(kept, prefix=f"{PREFIX}postgresql/", expires=60)
    assert "labels 90 days" in harm.seen
    assert "postgresql 30 days" not in harm.seen
    assert harms(kept, prefix=f"{PREFIX}redis/", expires=28)
    assert not harms(kept, prefix=f"{PREFIX}redis/", expires=29)


def test_versions_have_no_age(kept):
    """Ten versions of a configuration may be ten years old: no expiry is late enough."""
    (harm,) = harms(kept, prefix=f"{PREFIX}config/", expires=36500)
    assert "config 10 versions" in harm.seen
    without = kept_in(PREFIX, replace(POLICY, rows={**POLICY.rows, "logs": None}), ROWS, OF_SETS)
    assert "without a limit" in harms(without, prefix=f"{PREFIX}logs/", expires=36500)[0].seen


def test_the_whole_prefix_never_expires(kept):
    """The file that says whose all this is was written once, on the first day."""
    (harm,) = harms(kept, prefix="bookreader-backups/", expires=36500)
    assert "installation.json" in harm.seen


def test_an_expiry_that_prune_outruns_is_worth_a_line(kept):
    """It does nothing until nothing is captured for so long; then it removes the last copy."""
    (note,) = notes(kept, prefix=f"{PREFIX}logs/", expires=365)
    assert "the last copy as well" in note.seen


def test_a_date_is_at_once(kept):
    """A rule with a date removes everything on it, and all that comes after: no age is young enough."""
    assert "names a date" in harms(kept, prefix=f"{PREFIX}logs/", expires=0)[0].seen


@pytest.mark.parametrize("kind", ["GLACIER", "DEEP_ARCHIVE"])
def test_classes_out_of_reach_are_found(kept, kind):
    """What takes hours to be read is no copy for a restore; once the plan has let go it may go there."""
    (harm,) = harms(kept, prefix=f"{PREFIX}logs/", moves=(("STANDARD_IA", 3), (kind, 30)))
    assert kind in harm.seen
    assert "GLACIER_IR" in harm.hint
    assert not harms(kept, prefix=f"{PREFIX}logs/", moves=((kind, 31),))


def test_the_rule_of_the_guide_hurts_twice(kept):
    """Glacier after 30 days and removal after 365 fit no retention of 30 days, and no configuration."""
    found = harms(kept, prefix="bookreader-backups/", moves=(("GLACIER", 30),), expires=365)
    assert len(found) == 2
    assert "postgresql 30 days" in found[1].seen
    assert "config 10 versions" in found[0].seen


def test_sizes_are_named(kept):
    """A rule for some sizes may mean ours, and says which."""
    assert "over 131072 bytes" in harms(kept, prefix=PREFIX, expires=1, sizes="over 131072 bytes")[0].seen


def test_rows_that_ask_for_what_cannot_be_read():
    """A plan that puts copies into Glacier has copies that nothing can check: its rows are named together."""
    rows = {"postgresql": "GLACIER", "logs": "STANDARD_IA", "weekly": "GLACIER_IR", "redis": "GLACIER"}
    (found,) = audit_terms(rows)
    assert found.seen.endswith(": postgresql, redis")
    assert "GLACIER_IR" in found.hint


def test_rules_speak():
    """What a rule does stands in a line."""
    rule = Rule("x", moves=(("GLACIER", 30),), expires=365, noncurrent=1, unfinished=7)
    assert str(rule) == (
        "moves what is 30 days old to GLACIER; removes what is 365 days old; removes what was overwritten or "
        "deleted 1 day ago; ends uploads begun 7 days ago"
    )
    assert str(Rule("y")) == "does nothing that is known here"
    assert id_prefix(ID) == "bookreader-backup-0f9a1c2d-"
    assert Kept("f/", "row", 3, "3 days").days == 3
