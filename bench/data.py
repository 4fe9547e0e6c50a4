"""The data that everybody backs up: a database, a Redis and a storage folder, shaped like BookReader's.

Made quickly, the same bytes each time, and about as compressible as the real thing: words of a few
thousand kinds, some far more frequent than others, beside hashes, tokens and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers.postgresql import Server
from bookreader_backup_assets.servers.redis import RedisServer

DATABASE = "bookreader"
DATABASE_FILL = Path(__file__).with_name("data.sql")
FILES = 4_324
STORAGE_BYTES = 2_000_000_000
CACHED = 78_000
"""Strings of Redis's cache; the other kinds of keys are in proportion: together 100 MB of memory."""
_SEED = 20251024


def fill_database(server: Server, scale: float) -> int:
    """Make the database on `server` and return its bytes on disk."""
    runner = LocalRunner(programs=server.programs)
    psql = ("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
    made = f"CREATE DATABASE {DATABASE} TEMPLATE template0;\n\\connect {DATABASE}\n\\set scale {scale}\n"
    runner.run(psql, env=server.env, stdin=[made.encode(), DATABASE_FILL.read_bytes()], timeout=1800)
    size = ("--dbname", DATABASE, "--command", "SELECT pg_database_size(current_database())")
    return int(runner.run((*psql, *size), env=server.env).stdout)


def fill_redis(server: RedisServer, scale: float) -> int:
    """Write keys of every kind into three databases of `server` and return its used memory (bytes)."""
    server.run("--pipe", stdin=_commands(Random(_SEED), max(10, int(CACHED * scale))))
    for line in server.run("INFO", "memory").splitlines():
        if line.startswith("used_memory:"):
            return int(line.partition(":")[2])
    raise AssertionError("Redis did not say how much memory it uses")


def _commands(random: Random, cached: int) -> Iterator[bytes]:
    lines = _lines(random, 2_000)

    def text(count: int) -> str:
        return " ".join(random.choices(lines, k=count))

    def token() -> str:
        return random.randbytes(24).hex()

    yield _command("SELECT", "0")
    for number in range(cached):
        page = {"id": number, "etag": token(), "page": text(5), "progress": random.random()}
        yield _command("SET", f"cache:book:{number}", json.dumps(page, ensure_ascii=False), "EX", "86400")
    for number in range(cached // 3):
        fields = {"user": str(number), "token": token(), "agent": text(1), "seen": str(random.random())}
        yield _command("HSET", f"session:{token()}", *(part for pair in fields.items() for part in pair))
    yield _command("SELECT", "1")
    for number in range(cached // 6):
        task = {"id": token(), "task": "parse_book", "args": [number, text(3)], "retries": 0}
        yield _command("RPUSH", f"celery:{number % 8}", json.dumps(task, ensure_ascii=False))
    yield _command("SELECT", "2")
    for number in range(cached // 3):
        done = {"status": "SUCCESS", "result": {"descriptions": number, "digest": token()}}
        yield _command("SET", f"celery-task-meta-{token()}", json.dumps(done))


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def fill_storage(folder: Path, scale: float) -> int:
    """Write books, covers and images below `folder` and return their bytes: 60 % do not compress."""
    random = Random(_SEED)
    count = max(10, int(FILES * scale))
    weights = [random.lognormvariate(0, 0.8) for _ in range(count)]  # as EPUBs: many small, few large
    sizes = [max(200, int(weight * STORAGE_BYTES * scale / sum(weights))) for weight in weights]
    text = [line.encode() + b"\n" for line in _lines(random, 200_000)]
    kinds = (("books/epub", "epub"), ("images/locations", "png"), ("covers", "jpg"))
    written = dense = 0
    for number, size in enumerate(sizes):
        if dense <= 0.6 * written:
            place, suffix = kinds[number % len(kinds)]
            content = random.randbytes(size)
            dense += size
        else:
            place, suffix = "books/fb2", "fb2"
            content = b"".join(random.choices(text, k=size // 60))[:size].ljust(size, b"\n")
        parent = folder / place / f"{number % 32:02}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number:06}.{suffix}").write_bytes(content)
        written += size
    return written


def fill_configuration(folder: Path) -> None:
    """Write the few small files that a deployment is configured by."""
    (folder / "nginx").mkdir(parents=True)
    (folder / "docker-compose.yml").write_text("services:\n  postgres:\n    image: postgres:15\n" * 20)
    (folder / ".env").write_text("DB_NAME=bookreader\nSECRET_KEY=not-a-secret\n")
    (folder / "nginx" / "nginx.conf").write_text("server { listen 443 ssl; }\n" * 40)


def _lines(random: Random, count: int) -> list[str]:
    """Return lines of 12 words, half of them Cyrillic, the first words of the vocabulary the commonest."""
    letters = ("etaoinshrdlucmfw", "оеаинтсрвлкмдпуя")
    words = ["".join(random.choices(letters[n % 2], k=random.randint(2, 9))) for n in range(4_000)]
    often = list(accumulate(1 / (n + 10) for n in range(len(words))))
    return [" ".join(random.choices(words, cum_weights=often, k=12)) for _ in range(count)]
