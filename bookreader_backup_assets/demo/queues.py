"""What BookReader keeps in Redis: sessions and cache (0), Celery's queues (1) and their results (2)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from random import Random
from uuid import UUID

from bookreader_backup_assets.core.errors import SourceError
from bookreader_backup_assets.demo.content import SEED, Library
from bookreader_backup_assets.servers.redis import RedisServer

_HOUR = 3600
_DAY = 24 * _HOUR


def fill_redis(server: RedisServer, library: Library) -> dict[str, int]:
    """Write sessions, cache, queues and results; return the keys per logical database."""
    said = server.run("--pipe", stdin=_protocol(_commands(library)))
    if "errors: 0" not in said:
        raise SourceError(f"redis-cli could not fill the demo's Redis: {said.strip().splitlines()[-1]}")
    return {number: int(server.run("-n", number, "DBSIZE").split()[-1]) for number in ("0", "1", "2")}


def _protocol(commands: Iterator[tuple[str | int, ...]]) -> Iterator[bytes]:
    for command in commands:
        words = [str(word).encode() for word in command]
        yield b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _commands(library: Library) -> Iterator[tuple[str | int, ...]]:
    random = Random(SEED)  # noqa: S311 - content, not secrets
    yield "SELECT", 0
    for number in range(400):
        session = {"user": number % 300, "agent": "Mozilla/5.0", "csrf": random.randbytes(16).hex()}
        yield "SET", f"session:{random.randbytes(16).hex()}", json.dumps(session), "EX", _DAY + number
    for file in library.books:
        cached = {"title": file.book.title, "author": file.book.author, "path": file.path}
        yield "SET", f"cache:book:{file.book.id}", json.dumps(cached, ensure_ascii=False), "EX", _DAY
        yield "ZADD", "popular:books", random.randint(1, 10_000), str(file.book.id)
    for number in range(60):
        yield "SET", f"rate_limit:10.0.0.{number}", random.randint(1, 99), "EX", 2 * _HOUR
        yield "HSET", f"parsing:{number}", "state", "running", "percent", random.randint(0, 99)
    yield "SELECT", 1
    for queue, task in (("celery", "parse_book"), ("image_generation", "generate_image")):
        yield "SADD", f"_kombu.binding.{queue}", f"{queue}\x06\x16\x06\x16{queue}"
        for _ in range(25):
            yield "LPUSH", queue, _message(random, queue, task)
    yield "HSET", "unacked", str(_id(random)), _message(random, "celery", "parse_book")
    yield "SELECT", 2
    for _ in range(200):
        task_id = str(_id(random))
        result = {"status": "SUCCESS", "result": {"images": random.randint(0, 9)}, "task_id": task_id}
        yield "SET", f"celery-task-meta-{task_id}", json.dumps(result), "EX", _DAY


def _message(random: Random, queue: str, task: str) -> str:
    body = base64.b64encode(json.dumps([[str(_id(random))], {}, {"callbacks": None}]).encode()).decode()
    headers = {"lang": "py", "task": f"app.tasks.{task}", "id": str(_id(random)), "retries": 0}
    properties = {"delivery_info": {"exchange": "", "routing_key": queue}, "body_encoding": "base64"}
    return json.dumps({"body": body, "headers": headers, "properties": properties})


def _id(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)
