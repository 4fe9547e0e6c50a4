"""Logs without an engine: hours, the text of an archive, what rotation can have dropped, and gaps."""

import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.actions.program_log import noted, open_log, silent
from bookreader_backup_assets.components.logs_gap import no_gap
from bookreader_backup_assets.components.logs_text import Tally, recount, written
from bookreader_backup_assets.core.artifact import Entry
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.hour import begin_of, brief, instant_of, is_hour, key_of, stamp
from bookreader_backup_assets.runners.docker_rotation import may_have_rotated
from bookreader_backup_assets.runners.log_file import LogFile
from bookreader_backup_assets.runners.logs import Line

NOON = datetime(2025, 10, 24, 12, tzinfo=UTC)


def at(minutes, nanoseconds=0):
    """The stamp of so many minutes after noon."""
    return stamp(NOON + timedelta(minutes=minutes))[:20] + f"{nanoseconds:09}Z"


def source(oldest=-90, *, identity="a1", lines=3, last=None, whole=True, running=True, **more):
    """What is recorded of a container: `oldest` and `last` in minutes after noon."""
    return {
        "id": identity,
        "driver": "json-file",
        "running": running,
        "lines": lines,
        "bytes": 10 * lines,
        "first": None,
        "last": None if last is None else at(last),
        "oldest": None if oldest is None else at(oldest),
        "whole": whole,
        **more,
    }


def archive(since, until, sources, *, label=None):
    """The entry of an archive from and to so many minutes after noon."""
    begin = NOON + timedelta(minutes=since)
    hour = label is None
    return Entry(
        installation="i",
        component="logs",
        artifact="archive",
        name=f"logs/logs_{since}_{until}{label or ''}.log.gz",
        set=key_of(begin) if hour else f"2025-10-24_12-00-00_{label}",
        captured_at=NOON + timedelta(minutes=until),
        size=1,
        sha256="",
        label=label,
        fingerprint={"kind": "logs", "since": at(since), "until": at(until), "sources": sources},
    )


class TestHour:
    """Hours of UTC, and stamps that sort as text."""

    def test_key_and_begin(self):
        """A key names the beginning of its hour in UTC, whatever zone the instant is told in."""
        instant = datetime.fromisoformat("2025-10-26T02:30:00+02:00")  # the first of two, in Berlin
        later = datetime.fromisoformat("2025-10-26T02:30:00+01:00")
        assert (key_of(instant), key_of(later)) == ("2025-10-26-00:00", "2025-10-26-01:00")
        assert begin_of(key_of(instant)) == datetime(2025, 10, 26, 0, tzinfo=UTC)

    @pytest.mark.parametrize(
        "text", ["2025-10-24", "2025-10-24-02:30", "2025-10-24-2:00", "2025-10-24_02-00-00_x", ""]
    )
    def test_what_is_no_hour(self, text):
        """Anything but an hour's key is refused, and is no hour's set."""
        with pytest.raises(RefusedError, match="is not an hour"):
            begin_of(text)
        assert not is_hour(text)
        assert is_hour("2025-10-24-02:00")

    def test_stamps_sort_like_instants(self):
        """A stamp has nine digits, is UTC, and gives its instant back."""
        assert stamp(NOON) == "2025-10-24T12:00:00.000000000Z"
        assert stamp(NOON) < stamp(NOON + timedelta(microseconds=1)) < stamp(NOON + timedelta(hours=10))
        assert instant_of(stamp(NOON + timedelta(microseconds=7))) == NOON + timedelta(microseconds=7)
        assert brief(stamp(NOON)) == "2025-10-24 12:00:00 UTC"
        assert brief("2025-10-24T12:00:00.123456789Z") == "2025-10-24 12:00:00.123 UTC"


class TestText:
    """What is written is counted, and counted again."""

    def test_counted_as_written(self):
        """Lines, bytes and the first and last stamp are told from the text alone, in chunks of any size."""
        lines = [
            Line(at(1, 5).encode(), b"stdout", b"one two  three"),
            Line(at(0, 9).encode(), b"stderr", b""),
            Line(at(2).encode(), b"stdout", "Привет\r".encode()),
        ]
        tally = Tally()
        text = b"".join(written("backend/bookreader_backend", lines, tally))
        assert text.splitlines()[0] == f"backend/bookreader_backend {at(1, 5)} stdout one two  three".encode()
        for size in (1, 7, 1000):
            chunks = [text[number : number + size] for number in range(0, len(text), size)]
            assert recount(chunks) == {"backend/bookreader_backend": tally}
        assert tally.counted() == {"lines": 3, "bytes": 27, "first": at(0, 9), "last": at(2)}

    def test_what_came_before_an_error_is_there(self):
        """Lines that were counted before a log broke off are in the text."""

        def breaks():
            yield Line(at(1).encode(), b"stdout", b"one")
            raise SourceError("broke off")

        tally, text = Tally(), []
        with pytest.raises(SourceError):
            text.extend(written("a/b", breaks(), tally))
        assert recount(text) == {"a/b": tally}

    @pytest.mark.parametrize(
        "text",
        [
            b"a/b 2025-10-24T12:00:00.000000000Z stdout cut",
            b"a/b yesterday stdout text\n",
            b"\n",
            b"\xff\xfe 2025-10-24T12:00:00.000000000Z stdout text\n",
            b"a/b 2025-10-24T12:00:00.000000000Z\n",
            b"x" * (3 << 20),
        ],
        ids=["cut", "no stamp", "empty", "no name", "no stream", "endless"],
    )
    def test_other_text_is_damage(self, text):
        """What is no line of an archive is named as damage, and never held whole."""
        with pytest.raises(DamagedError):
            recount([text])


class TestRotation:
    """What a driver can have dropped."""

    @pytest.mark.parametrize(
        ("driver", "options", "dropped"),
        [
            ("json-file", {}, False),
            ("json-file", {"max-size": "-1"}, False),
            ("json-file", {"max-size": "1k"}, True),
            ("json-file", {"max-size": "10k", "max-file": "2"}, True),
            ("json-file", {"max-size": "10k", "max-file": "3"}, False),
            ("json-file", {"max-size": "0.02MB", "max-file": "2"}, False),
            ("json-file", {"max-size": "10m", "max-file": "3", "labels": "x"}, True),
            ("json-file", {"max-size": "much", "max-file": "3"}, True),
            ("local", {}, False),
            ("local", {"max-size": "5k"}, False),
            ("journald", {}, True),
            ("syslog", {}, True),
        ],
    )
    def test_by_options(self, driver, options, dropped):
        """A hundred lines of fifty bytes, about 15 kB of records, fit where that is certain."""
        assert may_have_rotated({"Type": driver, "Config": options}, [b"x" * 50] * 100) is dropped

    def test_escapes_count(self):
        """A byte that a record has as six is counted so."""
        options = {"Type": "json-file", "Config": {"max-size": "10k", "max-file": "2"}}
        assert not may_have_rotated(options, [b"x" * 5000])
        assert may_have_rotated(options, [b"\0" * 5000])


class TestNoGap:
    """Whether an archive goes on where the others end, told from entries alone."""

    def test_the_first_has_nothing_before_it(self):
        """The first hour passes, and says that it is the first."""
        said = no_gap(archive(0, 60, {"backend/b": source()}), [])
        assert said.verdict is Verdict.PASSED
        assert "it is the first" in said.message

    def test_goes_on_where_the_one_before_ends(self):
        """An hour that joins the one before, with logs that reach back to it, passes."""
        said = no_gap(
            archive(0, 60, {"backend/b": source()}), [archive(-60, 0, {"backend/b": source(last=-1)})]
        )
        assert said.verdict is Verdict.PASSED
        assert "2025-10-24 12:00:00 UTC, where the one before it ends" in said.message

    def test_an_hour_that_nobody_archived(self):
        """A hole between hours is named with its two instants, until the hour is filled in."""
        before, this = archive(-180, -120, {"backend/b": source()}), archive(0, 60, {"backend/b": source()})
        said = no_gap(this, [before])
        assert said.verdict is Verdict.FAILED
        assert "from 2025-10-24 10:00:00 UTC to 2025-10-24 12:00:00 UTC" in said.message
        assert said.measured["gaps"] == [{"source": "all", "from": at(-120), "until": at(0)}]
        filled = [
            archive(-120, -60, {"backend/b": source()}),
            archive(-60, 0, {"backend/b": source()}),
        ]
        assert no_gap(this, [before, *filled]).passed

    def test_a_label_older_than_all_hours_is_no_hole(self):
        """Where retention has left a labelled archive alone, the oldest hour is the first."""
        said = no_gap(
            archive(0, 60, {"backend/b": source()}),
            [archive(-500, -450, {"backend/b": source()}, label="pre-deploy")],
        )
        assert said.passed

    def test_rotated_away_since(self):
        """Lines that the one before saw and the engine no longer has: the gap is named, and certain."""
        before = archive(-60, 0, {"backend/b": source(-90, last=-2)})
        said = no_gap(archive(0, 60, {"backend/b": source(25, whole=False)}), [before])
        assert said.verdict is Verdict.FAILED
        assert "backend/b logged from 2025-10-24 12:00:00 UTC to 2025-10-24 12:25:00 UTC" in said.message
        assert "rotated away" in said.message
        assert "2025-10-24 11:58:00 UTC" in said.message, "the last line that there is"
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(0), "until": at(25)}]

    def test_emptied_by_hand(self):
        """A log that never rotates and has lost its beginning was emptied: the same gap."""
        before = archive(-60, 0, {"backend/b": source(-90)})
        assert no_gap(archive(0, 60, {"backend/b": source(25)}), [before]).verdict is Verdict.FAILED
        nothing_left = source(None, lines=0)
        said = no_gap(archive(0, 60, {"backend/b": nothing_left}), [before])
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(0), "until": at(60)}]

    def test_rotated_without_loss(self):
        """Rotation that dropped only what is archived already is no gap."""
        before = archive(-60, 0, {"backend/b": source(-90)})
        assert no_gap(archive(0, 60, {"backend/b": source(-5, whole=False)}), [before]).passed
        assert no_gap(archive(0, 60, {"backend/b": source(0, whole=False)}), [before]).passed

    def test_rotated_after_a_labelled_capture(self):
        """What a labelled archive has of the hour is not lost, only what lies after it."""
        before = archive(-60, 0, {"backend/b": source(-90)})
        label = archive(0, 20, {"backend/b": source(-90)}, label="pre-deploy")
        assert no_gap(archive(0, 60, {"backend/b": source(15, whole=False)}), [before, label]).passed
        said = no_gap(archive(0, 60, {"backend/b": source(30, whole=False)}), [before, label])
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(20), "until": at(30)}]

    def test_a_labelled_capture_with_a_gap_covers_nothing(self):
        """A labelled archive that came after the loss cannot stand in for what was lost."""
        before = archive(-60, 0, {"backend/b": source(-90)})
        label = archive(0, 40, {"backend/b": source(25)}, label="pre-deploy")
        said = no_gap(archive(0, 60, {"backend/b": source(25)}), [before, label])
        assert said.verdict is Verdict.FAILED

    def test_an_hour_known_later_to_have_been_longer(self):
        """A backfill of an hour whose lines a later archive still saw knows that they are gone."""
        later = archive(60, 120, {"backend/b": source(-90)})
        said = no_gap(archive(0, 60, {"backend/b": source(70, lines=0)}), [later])
        assert said.verdict is Verdict.FAILED
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(0), "until": at(60)}]

    def test_cannot_be_told(self):
        """A log that rotates and begins within the hour may have had more: no pass, and no failure."""
        said = no_gap(archive(0, 60, {"backend/b": source(25, whole=False)}), [])
        assert said.verdict is Verdict.INCONCLUSIVE
        assert "may have been rotated away" in said.message
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(0), "until": at(25)}]

    def test_made_within_the_hour(self):
        """A container that is new, and whose log is whole, has no gap; nor has one that never logs."""
        before = archive(-60, 0, {"backend/b": source(-90)})
        new = {
            "backend/b": source(-90),
            "nginx/n": source(25, identity="b2"),
            "x/x": source(None, identity="c"),
        }
        assert no_gap(archive(0, 60, new), [before]).passed

    def test_a_container_that_went_without_a_capture(self):
        """A container that ran and is gone is named: what it logged last cannot be known."""
        before = archive(-60, 0, {"backend/b": source(), "nginx/n": source(identity="b2")})
        said = no_gap(archive(0, 60, {"backend/b": source()}), [before])
        assert said.verdict is Verdict.INCONCLUSIVE
        assert "nginx/n was there at 2025-10-24 12:00:00 UTC, and is gone" in said.message
        assert "--label pre-deploy" in said.message

    def test_a_container_that_went_after_a_labelled_capture(self):
        """What it logged till then is in the labelled archive, which is named; what came after is unknown."""
        before = archive(-60, 0, {"backend/b": source()})
        label = archive(0, 20, {"backend/b": source()}, label="pre-deploy")
        anew = {"backend/b": source(21, identity="b2")}
        said = no_gap(archive(0, 60, anew), [before, label])
        assert said.verdict is Verdict.INCONCLUSIVE
        assert f"what it logged till then is in {label.name}" in said.message
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(20), "until": at(60)}]
        assert (
            no_gap(archive(60, 120, anew), [before, label, archive(0, 60, anew)]).message.count("gone") == 0
        )

    def test_before_it_was_made_it_logged_nothing(self):
        """A container made within the hour lacks nothing of the time before; one made after it, nothing."""
        young = source(25, whole=False, created=at(20))
        said = no_gap(archive(0, 60, {"backend/b": young}), [])
        assert said.measured["gaps"] == [{"source": "backend/b", "from": at(20), "until": at(25)}]
        later = source(None, lines=0, whole=False, created=at(73))
        assert no_gap(archive(0, 60, {"backend/b": later}), []).passed

    def test_a_stopped_container_that_was_removed(self):
        """One that had ended before has nothing more to log."""
        before = archive(-60, 0, {"backend/b": source(), "once/o": source(identity="o", running=False)})
        assert no_gap(archive(0, 60, {"backend/b": source()}), [before]).passed

    def test_a_log_that_broke_off(self):
        """What could not be read to its end fails, with what was said."""
        broken = source(error="the log of backend/b cannot be read to its end: invalid character")
        said = no_gap(archive(0, 60, {"backend/b": broken}), [])
        assert said.verdict is Verdict.FAILED
        assert "invalid character" in said.message

    def test_archived_twice_is_no_gap(self):
        """An hour that is archived again after its lines were rotated away is held by the first."""
        first = archive(0, 60, {"backend/b": source(-90)})
        again = archive(0, 60, {"backend/b": source(55, whole=False)})
        again = type(again)(**{**vars(again), "name": "logs/again"})
        assert no_gap(again, [first]).passed


class TestProgramLog:
    """The log of this program, written by several processes and read back by the hour."""

    def test_one_line_for_each_thing(self, tmp_path):
        """Done, refused, failed and stopped are each one line: instant, level, what, subject, outcome."""
        path = tmp_path / "log"
        log = open_log(path, lambda: NOON)
        with noted(log, "capture", "redis/rdb") as say:
            say("redis/x.rdb.gz\nof 10 bytes")
        for error in (RefusedError("no"), SourceError("not there"), OSError("a secret"), KeyboardInterrupt()):
            with pytest.raises(type(error)), noted(log, "restore", "redis"):
                raise error
        lines = path.read_text().splitlines()
        assert lines[0] == "2025-10-24T12:00:00.000000Z INFO capture redis/rdb redis/x.rdb.gz of 10 bytes"
        assert [line.split(" ", 1)[1] for line in lines[1:]] == [
            "WARNING restore redis refused: no",
            "ERROR restore redis failed: not there",
            "ERROR restore redis failed: OSError",
            "WARNING restore redis stopped",
        ]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_many_processes_share_it(self, tmp_path):
        """Lines of processes that write at once are whole, and none is lost."""
        script = (
            "import sys, pathlib; from datetime import datetime, UTC\n"
            "from bookreader_backup_assets.actions.program_log import open_log\n"
            "log = open_log(pathlib.Path(sys.argv[1]), lambda: datetime.now(UTC))\n"
            "for n in range(200): log.info('capture %s %s', sys.argv[2], 'x' * 500)\n"
        )
        path = tmp_path / "log"
        running = [subprocess.Popen([sys.executable, "-c", script, path, str(n)]) for n in range(3)]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        lines = path.read_text().splitlines()
        assert len(lines) == 600
        assert all(re.fullmatch(r"\S+Z INFO capture [012] x{500}", line) for line in lines)

    def test_a_log_that_cannot_be_written_spoils_nothing(self, tmp_path, capsys):
        """It is said on stderr, and what was being done goes on."""
        log = open_log(tmp_path / "absent" / "log", lambda: NOON)
        log.info("capture redis/rdb done")
        assert "BACKUP_LOG" in capsys.readouterr().err
        silent().info("heard by nobody")

    def test_read_back_by_the_hour(self, tmp_path):
        """The file and the one that logrotate put beside it are read; a foreign line goes with the last."""
        path = tmp_path / "log"
        path.with_name("log.1").write_text("2025-10-24T11:59:59.999999Z INFO before\n")
        path.write_text(
            "2025-10-24T12:00:00.000000Z INFO first\nforeign\n2025-10-24T13:00:00.000000Z INFO after\n"
        )
        own = LogFile(path)
        (one,) = own.sources()
        found = list(own.lines(one, at(0), at(60)))
        assert [line.message for line in found] == [b"INFO first", b"foreign"]
        assert {line.stamp.decode() for line in found} == {at(0)}
        assert own.oldest(one) == "2025-10-24T11:59:59.999999000Z"
        assert not own.is_whole(one)
        os.remove(path.with_name("log.1"))
        assert own.is_whole(one)
        assert LogFile(tmp_path / "absent").oldest(one) is None
        with pytest.raises(SourceError, match="cannot be read"):
            LogFile(tmp_path).oldest(one)
        with pytest.raises(SourceError, match="there is no folder"):
            LogFile(tmp_path / "absent" / "log").oldest(one)
