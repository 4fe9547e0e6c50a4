"""The skimmer of Redis's dump format, on dumps of real servers and on bytes no server here can write."""

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookreader_backup_assets.components.rdb import Skim, rdb_version
from bookreader_backup_assets.core.errors import CommandError, DamagedError, SourceAbsentError
from bookreader_backup_assets.servers.programs import redis_programs
from bookreader_backup_assets.servers.redis import start
from tests.fixtures.missing import missing
from tests.fixtures.redis import KEYS, fill, find_redis, spoken

MARK = b"0123456789abcdef0123456789abcdef01234567"
END = b"\xff" + b"checksum"
HEAD = (
    b"REDIS0012" + b"\xfa\x09redis-ver\x057.4.1" + b"\xfa\x05ctime\xc2" + (1700000000).to_bytes(4, "little")
)


@pytest.fixture(scope="module", params=["machine", "wheel"])
def server(request, tmp_path_factory):
    """A server without a password, of each kind."""
    with start(find_redis(request.param), tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="module")
def dump(server):
    """What a server with every kind of value saves."""
    server.run("FLUSHALL")
    fill(server)
    return saved(server)


def saved(server):
    """Return the dump that the server saves."""
    assert server.run("SAVE").strip() == "OK"
    return (server.folder / "dump.rdb").read_bytes()


def skimmed(data, size=1 << 16):
    """Return what passes of `data`, in chunks of `size`, and the skimmer."""
    skim = Skim(data[at : at + size] for at in range(0, len(data), size))
    return b"".join(skim), skim


def text(value):
    """Encode a string of up to 16383 bytes."""
    size = len(value)
    return (bytes([size]) if size < 64 else (0x4000 | size).to_bytes(2, "big")) + value


@given(size=st.integers(1, 5000), marked=st.booleans())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dump_passes_however_it_is_cut_into_chunks(dump, size, marked):
    """Bytes pass unchanged, the mark does not, and keys are counted, wherever chunks begin."""
    passed, skim = skimmed(dump + MARK if marked else dump, size)
    assert passed == dump
    assert skim.databases == KEYS
    assert skim.aux["ctime"].isdigit()
    assert skim.version == rdb_version(dump)


@given(data=st.data())
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dump_cut_short_is_noticed(dump, data):
    """Whatever is missing at the end, iterating raises, and nothing but the dump had passed until then."""
    kept = data.draw(st.integers(0, len(dump) - 1))
    seen = []
    with pytest.raises(DamagedError, match="cut short"):
        seen.extend(Skim([dump[: kept // 2], dump[kept // 2 : kept]]))
    assert dump.startswith(b"".join(seen))


@given(data=st.data(), size=st.integers(1, 5000))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_pass_or_are_refused(dump, data, size):
    """A byte changed in transit leads to no error but ours, and to no byte that was not sent."""
    sent = bytearray(dump)
    sent[data.draw(st.integers(0, len(dump) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DamagedError):
        passed, _ = skimmed(bytes(sent), size)
        assert passed == sent


WORD = st.binary(min_size=1, max_size=300) | st.integers(-(2**40), 2**40).map(lambda n: str(n).encode())
SCORE = st.floats(allow_nan=False).map(lambda score: repr(score).encode())
VALUES = {
    b"SET": WORD.map(lambda word: [word]),
    b"RPUSH": st.lists(WORD, min_size=1, max_size=40),
    b"SADD": st.lists(WORD, min_size=1, max_size=40),
    b"HSET": st.lists(st.tuples(WORD, WORD), min_size=1, max_size=40).map(
        lambda pairs: [word for pair in pairs for word in pair]
    ),
    b"ZADD": st.lists(st.tuples(SCORE, WORD), min_size=1, max_size=40).map(
        lambda pairs: [word for pair in pairs for word in pair]
    ),
    b"XADD": st.tuples(WORD, WORD).map(lambda pair: [b"*", *pair]),
}
KEY = st.sampled_from(sorted(VALUES)).flatmap(
    lambda command: st.tuples(
        st.just(command), st.sampled_from([b"0", b"1", b"70", b"1000"]), WORD, VALUES[command], st.booleans()
    )
)


@given(keys=st.lists(KEY, max_size=15), policy=st.sampled_from(["noeviction", "allkeys-lru", "allkeys-lfu"]))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_keys_are_counted_as_the_server_counts_them(server, keys, policy):
    """Any values of any type, with expiry, idle times or frequencies beside them."""
    server.run("FLUSHALL")
    server.run("CONFIG", "SET", "maxmemory-policy", policy)
    for limit in ("hash-max-ziplist-entries", "zset-max-ziplist-entries", "set-max-intset-entries"):
        server.run("CONFIG", "SET", limit, "8")
    server.run("CONFIG", "SET", "list-max-ziplist-size", "4")
    commands = []
    for command, database, key, words, expires in keys:
        commands += [spoken(b"SELECT", database), spoken(command, key, *words)]
        commands += [spoken(b"EXPIRE", key, b"9999")] if expires else []
    with suppress(CommandError):  # a command of one type fails on a key of another
        server.run("--pipe", stdin=commands)
    listed = [line for line in server.run("INFO", "keyspace").splitlines() if line.startswith("db")]
    counted = {line[2:].split(":")[0]: int(line.split("keys=")[1].split(",")[0]) for line in listed}
    data = saved(server)
    passed, skim = skimmed(data + MARK, 777)
    assert passed == data
    assert skim.databases == counted


def test_functions_are_no_keys(tmp_path):
    """A library of functions, which came with Redis 7, is passed over."""
    try:
        programs = redis_programs(at_least=7)
    except SourceAbsentError as error:
        missing(error.message)
    with start(programs, tmp_path) as server:
        server.run("FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() end)")
        server.run("SET", "a", "1")
        data = saved(server)
    passed, skim = skimmed(data)
    assert passed == data
    assert skim.databases == {"0": 1}


LISTPACK_HASH = b"\x19" + text(b"k1") + bytes(8) + text(b"listpack")
TTL_HASH = b"\x18" + text(b"k2") + bytes(8) + b"\x02" + (b"\x00" + text(b"f") + b"\xc0\x07") * 2
OLD_ZSET = (
    b"\x03" + text(b"k3") + b"\x03" + text(b"m") + b"\x031.5" + text(b"n") + b"\xfe" + text(b"o") + b"\xfd"
)
MODULE = b"\x07" + text(b"k4") + b"\x81" + bytes(8) + b"\x01\x05\x02\x80\x00\x00\x00\x09"
MODULE += b"\x03abcd\x04abcdefgh\x05" + text(b"s" * 100) + b"\x00"
STREAM_1 = b"\x0f" + text(b"k5") + b"\x01" + text(b"i" * 16) + text(b"listpack") + b"\x01\x02\x03"
STREAM_1 += b"\x01" + text(b"group") + b"\x01\x02" + b"\x01" + bytes(24) + b"\x01"
STREAM_1 += b"\x01" + text(b"consumer") + bytes(8) + b"\x01" + bytes(16)
STREAM_3 = b"\x15" + text(b"k6") + b"\x01" + text(b"i" * 16) + text(b"listpack") + bytes(8)
STREAM_3 += b"\x01" + text(b"group") + b"\x01\x02\x03" + b"\x01" + bytes(24) + b"\x01"
STREAM_3 += b"\x01" + text(b"consumer") + bytes(16) + b"\x01" + bytes(16)
SLOT = b"\xf4\x0a\x01\x00"
MODULE_AUX = b"\xf7\x81" + bytes(8) + b"\x02\x01\x05" + text(b"aux") + b"\x00"
LONG = b"\x00\x80\x00\x00\x00\x03key" + b"\x81" + (70000).to_bytes(8, "big") + bytes(70000)
SECONDS = b"\xfd" + bytes(4) + b"\x00" + text(b"k7") + b"\xc1\x00\x01"
NEWER = [LISTPACK_HASH, TTL_HASH, OLD_ZSET, MODULE, STREAM_1, STREAM_3, LONG, SECONDS]


@pytest.mark.parametrize("size", [1, 2, 13, 4096])
def test_values_that_no_server_here_writes(size):
    """Hashes whose fields expire (7.4), module values, cluster slots, and what is older than 6.2."""
    data = HEAD + MODULE_AUX + b"\xfe\x05" + SLOT + b"".join(NEWER) + MODULE_AUX + END
    passed, skim = skimmed(data + MARK, size)
    assert passed == data
    assert skim.databases == {"5": len(NEWER)}
    assert skim.aux == {"redis-ver": "7.4.1", "ctime": "1700000000"}


@pytest.mark.parametrize("size", [1, 7, 60, 4096])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_an_unknown_type_passes_uncounted(size, mark):
    """A newer Redis's value ends the counting, not the backup, and the mark is still cut off."""
    known = HEAD + b"\xfe\x00" + b"\x00\x01a\x01b" + b"\xfe\x01" + b"\x00\x01a\x01b"
    data = known + b"\x63\x01k" + b"\x00\xff\xfe" * 100 + END
    passed, skim = skimmed(data + mark, size)
    assert passed == data
    assert skim.databases == {"0": 1, "1": None}


def test_an_unknown_type_cut_short():
    """Without a count there is still the end to look for."""
    data = HEAD + b"\xfe\x00\x63\x01k" + b"value" * 20
    with pytest.raises(DamagedError, match="cut short"):
        skimmed(data)


def test_an_empty_dump_is_a_dump():
    """A server without keys."""
    passed, skim = skimmed(b"REDIS0011" + END + MARK)
    assert passed == b"REDIS0011" + END
    assert skim.databases == {}


def test_valkey_has_a_magic_of_its_own():
    """Valkey 9 writes its name into the head."""
    _, skim = skimmed(b"VALKEY080" + b"\x00\x01a\x01b" + END)
    assert (skim.version, skim.databases) == (80, {"0": 1})


@pytest.mark.parametrize("data", [b"-ERR unknown command", b"REDISxxxx" + END])
def test_something_else_is_refused(data):
    """What does not begin like a dump is none."""
    with pytest.raises(DamagedError, match="no Redis dump"):
        skimmed(data)


@pytest.mark.parametrize("more", [b"x", b"x" * 40, MARK + b"x", MARK * 3])
@pytest.mark.parametrize("size", [1, 4096])
def test_more_than_a_dump_is_refused(more, size):
    """Nothing but the mark may follow the end."""
    with pytest.raises(DamagedError, match="follow"):
        skimmed(HEAD + END + more, size)


def test_a_long_value_is_never_held():
    """A value of 256 MB passes in well under a chunk's worth of memory."""
    chunk = bytes(1 << 16)

    def chunks():
        yield HEAD + b"\x00\x01k\x80" + (256 << 20).to_bytes(4, "big")
        for _ in range((256 << 20) // len(chunk)):
            yield chunk
        yield END

    tracemalloc.start()
    try:
        skim = Skim(chunks())
        size = sum(map(len, skim))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 256 << 20
    assert skim.databases == {"0": 1}
    assert peak < 1 << 20
