"""The guide's names, moments and sums; and the two formats that are read without their programs."""

import gzip
import io
import tarfile
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.actions.adopt_database import header
from bookreader_backup_assets.actions.adopt_storage import items
from bookreader_backup_assets.core.errors import DamagedError, RefusedError
from bookreader_backup_assets.core.guide_names import GuideName, hostname, parse, sums

BERLIN = ZoneInfo("Europe/Berlin")
LATER = datetime(2030, 1, 1, tzinfo=UTC)
STAMP = ("2025-10-24", "02-00-00")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # as the script names them
        ("bookreader_2025-10-24_02-00-00.dump", GuideName("postgresql/dump", *STAMP)),
        ("bookreader_2025-10-24_02-00-00.sql.gz", GuideName("postgresql/sql", *STAMP, ("gzip",))),
        ("bookreader_2025-10-24_02-00-00.sql", GuideName("postgresql/sql", *STAMP)),
        ("dump_2025-10-24_02-00-00.rdb.gz", GuideName("redis/rdb", *STAMP, ("gzip",))),
        ("dump_2025-10-24_02-00-00.rdb", GuideName("redis/rdb", *STAMP)),
        ("storage_2025-10-24_02-00-00.tar.gz", GuideName("storage/archive", *STAMP, ("gzip",))),
        ("config_2025-10-24_02-00-00.tar.gz", GuideName("config/archive", *STAMP, ("gzip",))),
        ("config_2025-10-24_02-00-00.tar.gz.gpg", GuideName("config/archive", *STAMP, ("gzip", "gpg"))),
        ("backup_manifest_2025-10-24_02-00-00.txt", GuideName("sums", *STAMP)),
        # by hand, and in the appendix
        ("bookreader_2025-10-24.dump", GuideName("postgresql/dump", "2025-10-24", None)),
        ("redis_dump_2025-10-24.rdb.gz", GuideName("redis/rdb", "2025-10-24", None, ("gzip",))),
        ("storage_backup_2025-10-24.tar.gz", GuideName("storage/archive", "2025-10-24", None, ("gzip",))),
        ("storage_2025-10-24_02-00-00_full.tar.gz", GuideName("storage/archive", *STAMP, ("gzip",))),
        (
            "config_2025-10-24_encrypted.tar.gz.gpg",
            GuideName("config/archive", "2025-10-24", None, ("gzip", "gpg")),
        ),
        ("backup_checksums_2025-10-24.txt", GuideName("sums", "2025-10-24", None)),
        # nobody's
        ("bookreader_2025-10-24_02-00-00.dump.partial", None),
        ("bookreader_2025-10-24_02-00-00.tar.gz", None),
        ("storage_2025-10-24_02-00-00.tar", None),
        ("wordpress_2025-10-24_02-00-00.sql.gz", None),
        ("bookreader_٢٠٢٥-10-24.dump", None),
        ("dump.rdb", None),
        ("", None),
    ],
)
def test_names(name, expected):
    """Each name of the guide says what it is, of when, and how it was written; no other says anything."""
    assert parse(name) == expected


def at(day, time, written, zone=BERLIN):
    """The instant that a stamp means, in UTC."""
    return GuideName("redis/rdb", day, time).instant(zone, written, LATER).astimezone(UTC)


def test_a_stamp_is_of_the_hosts_timezone():
    """Summer and winter; of the hour that a night has twice, the one in which the file was written."""
    noon = datetime(2025, 10, 26, 12, tzinfo=UTC)
    assert at("2025-07-01", "02-00-00", noon) == datetime(2025, 7, 1, tzinfo=UTC)
    assert at("2025-12-01", "02-00-00", noon) == datetime(2025, 12, 1, 1, tzinfo=UTC)
    first, second = datetime(2025, 10, 26, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 1, 30, tzinfo=UTC)
    assert at("2025-10-26", "02-30-00", first) == first
    assert at("2025-10-26", "02-30-00", second) == second


@pytest.mark.parametrize(
    ("day", "time", "said"),
    [
        ("2025-02-30", "02-00-00", "no moment"),
        ("2025-13-01", None, "no moment"),
        ("2025-10-24", "24-00-00", "no moment"),
        ("2025-03-30", "02-30-00", "was skipped by the clocks"),
        ("2030-01-02", "00-00-00", "still to come"),
        ("2025-10-25", None, "written on another day"),
    ],
)
def test_moments_that_never_were(day, time, said):
    """Each is refused, with the reason."""
    with pytest.raises(RefusedError, match=said):
        at(day, time, datetime(2025, 10, 24, 3, tzinfo=UTC))


def test_a_day_alone_takes_the_files_time():
    """The steps by hand name only the day; in Berlin it is the 25th by then."""
    written = datetime(2025, 10, 24, 22, 30, tzinfo=UTC)
    assert at("2025-10-25", None, written) == written


def test_sums_and_host_of_a_manifest():
    """Lines of sha256sum count, with folders or without, binary or not; nothing else does."""
    one, two = "a" * 64, "0" * 64
    text = f"Hostname: old-host\nUsers: 3\n{one}  ./redis/dump_x.rdb.gz\n{two} *b c.dump\n"
    text += f"{'A' * 64}  no\nabc  d\n"
    assert sums(text) == {"dump_x.rdb.gz": one, "b c.dump": two}
    assert (hostname(text), hostname("nothing")) == ("old-host", "")


def dump_header(version, database=b"bookreader", server=b"15.18 (Debian)", client=b"15.18"):
    """The first bytes of a dump in the custom format, as that version of the format has them."""
    number = lambda value: b"\0" + value.to_bytes(4, "little")  # noqa: E731
    compression = b"\1" if version >= (1, 15) else number(1)
    texts = b"".join(number(len(text)) + text for text in (database, server, client))
    return b"PGDMP" + bytes((*version, 0)) + b"\4\x08\1" + compression + number(0) * 7 + texts + b"rest"


@pytest.mark.parametrize("version", [(1, 13), (1, 14), (1, 15), (1, 16)])
def test_the_header_of_a_dump(version):
    """It names the database and the versions, in every format since PostgreSQL 9.6."""
    assert header(dump_header(version)) == ("bookreader", {"server": "15.18", "client": "15.18"})


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"PGDMP",
        b"-- PostgreSQL database dump\n",
        dump_header((1, 14))[:60],
        dump_header((1, 14)).replace(b"\1\0\1", b"\3\0\1"),
        dump_header((1, 14), server=b"x", client=b"y"),
    ],
    ids=range(6),
)
def test_what_is_no_dump(head):
    """Nothing that is cut, of another format, or makes no sense is taken for one."""
    with pytest.raises(DamagedError):
        header(head)


def archive(kind=tarfile.GNU_FORMAT):
    """A tar as the script makes it: one folder, a long name, a link, an empty file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as tar:
        for name, data in (("a" * 150, b"1" * 700), ("empty", b"")):
            member = tarfile.TarInfo(f"storage_backup/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("storage_backup/link")
        link.type, link.linkname = tarfile.SYMTYPE, "empty"
        tar.addfile(link)
    return made.getvalue()


def test_a_tar_read_in_any_pieces():
    """Contents are read, or passed over, however the bytes come."""
    whole = archive()
    for size in (1, 511, 1 << 20):
        chunks = [whole[i : i + size] for i in range(0, len(whole), size)]
        read = [(item.path, b"".join(item.chunks())) for item in items(chunks)]
        assert [len(content) for _, content in read] == [700, 0, 0]
        assert [item.path for item in items(chunks)] == [path for path, _ in read]


@pytest.mark.parametrize("size", [512, 1024, 3072, 3584, 4096])
def test_a_tar_that_is_cut_between_files(size):
    """It is seen, though no file is cut: only what ends as tar ends is whole."""
    with pytest.raises(DamagedError):
        list(items([archive()[:size]]))


def test_a_tar_of_another_format_or_with_something_behind():
    """It is refused, and not half understood."""
    with pytest.raises(DamagedError):
        list(items([archive(tarfile.PAX_FORMAT)]))
    with pytest.raises(DamagedError):
        list(items([archive() + gzip.compress(b"")]))
