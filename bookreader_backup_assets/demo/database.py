"""BookReader's database, filled through psql: a few thousand rows that point at the files of `content`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.demo.content import SEED, BookFile, Library
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers.postgresql import Server

NAME = "bookreader"
_SCHEMA = Path(__file__).with_name("schema.sql")
_PSQL = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
_BEGAN = datetime(2024, 10, 24, 2, tzinfo=UTC)
_USERS = 300
_FLAGS = ("new_reader", "image_generation", "push", "reading_goals", "multi_nlp", "dark_theme")


@dataclass(frozen=True)
class Table:
    """Rows to copy: `columns` in order, `rows` as Python values (None is NULL, a dict is jsonb)."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


def fill_database(server: Server, library: Library, *, owner: Secret, reader: Secret) -> dict[str, int]:
    """Make the database `bookreader` with roles, schema and rows; return the rows per table.

    `owner` is the password of `bookreader_user`, who owns it all; `reader` of `bookreader_readonly`.
    """
    tables = list(_tables(library))
    LocalRunner(programs=server.programs).run(
        _PSQL, env={**server.env, "PGCLIENTENCODING": "UTF8"}, stdin=_script(tables, owner, reader)
    )
    return {table.name: len(table.rows) for table in tables}


def _script(tables: Iterable[Table], owner: Secret, reader: Secret) -> Iterator[bytes]:
    quoted = [secret.reveal().replace("\\", "\\\\").replace("'", "\\'") for secret in (owner, reader)]
    yield f"CREATE DATABASE {NAME} TEMPLATE template0;\n\\connect {NAME}\n".encode()
    yield f"\\set owner_password '{quoted[0]}'\n\\set reader_password '{quoted[1]}'\n".encode()
    yield _SCHEMA.read_bytes()
    yield b"BEGIN;\n"
    for table in tables:
        yield f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN;\n".encode()
        yield b"".join("\t".join(map(_text, row)).encode() + b"\n" for row in table.rows)
        yield b"\\.\n"
    yield b"SELECT setval('payments_id_seq', (SELECT max(id) FROM payments)),"
    yield b" setval('reading_sessions_id_seq', (SELECT max(id) FROM reading_sessions));\n"
    yield b"COMMIT;\nANALYZE;\n"


def _text(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _tables(library: Library) -> Iterator[Table]:
    random = Random(SEED)  # noqa: S311 - content, not secrets
    users = [_id(random) for _ in range(_USERS)]
    yield Table("alembic_version", ("version_num",), [("3f1c9a7be204",)])
    yield from _accounts(random, users)
    owners = [random.choice(users) for _ in library.books]
    yield Table(
        "books",
        ("id", "user_id", "title", "author", "language", "file_path", "file_format", "file_size",
         "cover_image", "book_metadata", "is_parsed", "created_at"),
        [_book(day, *pair) for day, pair in enumerate(zip(library.books, owners, strict=True))],
    )  # fmt: skip
    chapters = [
        (_id(random), file.book.id, number, chapter.title, "\n".join(chapter.paragraphs))
        for file in library.books
        for number, chapter in enumerate(file.book.chapters, 1)
    ]
    yield Table("chapters", ("id", "book_id", "chapter_number", "title", "content"), chapters)
    descriptions = [
        (_id(random), chapter[0], random.choice(("location", "character", "atmosphere")), text[:120],
         round(random.random(), 3), random.random() * 100, "{" + ",".join(text.split()[:2]) + "}")
        for chapter in chapters
        for text in chapter[4].split(". ")[:3]
    ]  # fmt: skip
    columns = ("id", "chapter_id", "type", "content", "confidence", "priority", "entities")
    yield Table("descriptions", columns, [(*row[:6], row[6].replace(".", "")) for row in descriptions])
    yield Table(
        "generated_images",
        ("id", "description_id", "local_path", "status", "width", "height", "file_size",
         "generation_seconds", "created_at"),
        [
            (_id(random), described[0], image.path, "completed", image.width, image.height, image.size,
             f"{random.uniform(3, 40):.3f} s", _BEGAN + timedelta(hours=number))
            for number, (image, described) in enumerate(zip(library.images, descriptions, strict=False))
        ],
    )  # fmt: skip
    yield from _reading(random, users, library.books, [row[0] for row in chapters])


def _accounts(random: Random, users: list[UUID]) -> Iterator[Table]:
    yield Table(
        "users",
        ("id", "email", "password_hash", "full_name", "is_admin", "reader_settings", "created_at",
         "last_login"),
        [
            (user, f"reader{number}@example.org", f"$2b$12${random.randbytes(26).hex()}",
             None if number % 7 == 0 else f"Читатель «№{number}»\tO'Reader", number == 0,
             {"theme": random.choice(("light", "dark", "sepia")), "font": {"size": 12 + number % 9}},
             _BEGAN + timedelta(hours=number), _BEGAN + timedelta(days=300, seconds=number * 37.5))
            for number, user in enumerate(users)
        ],
    )  # fmt: skip
    yield Table(
        "subscriptions",
        ("id", "user_id", "plan", "status", "started_at", "ends_at", "books_uploaded"),
        [
            (_id(random), user, random.choice(("free", "free", "premium", "ultimate")), "active",
             _BEGAN + timedelta(hours=number), _BEGAN + timedelta(days=400) if number % 3 else None,
             random.randint(0, 50))
            for number, user in enumerate(users)
        ],
    )  # fmt: skip
    yield Table(
        "payments",
        ("id", "user_id", "amount", "currency", "provider_reference", "receipt", "paid_at"),
        [
            (number, random.choice(users), f"{random.randint(99, 9999)}.{random.randint(0, 99):02}", "RUB",
             f"pay_{random.getrandbits(64):016x}", random.randbytes(48), _BEGAN + timedelta(hours=7 * number))
            for number in range(1, 501)
        ],
    )  # fmt: skip
    yield Table(
        "feature_flags",
        ("name", "enabled", "rules"),
        [(name, random.random() < 0.5, {"percent": random.randint(0, 100)}) for name in _FLAGS],
    )
    yield Table(
        "push_subscriptions",
        ("id", "user_id", "endpoint", "keys"),
        [
            (_id(random), user, f"https://push.example.org/{number}", {"auth": random.randbytes(16).hex()})
            for number, user in enumerate(users[::3])
        ],
    )


def _reading(
    random: Random, users: list[UUID], books: Sequence[BookFile], chapters: list[UUID]
) -> Iterator[Table]:
    pairs = sorted({(user, random.choice(books).book.id) for user in users for _ in range(3)})
    yield Table(
        "reading_progress",
        ("user_id", "book_id", "chapter_number", "percent"),
        [(*pair, random.randint(1, 9), round(random.uniform(0, 100), 2)) for pair in pairs],
    )
    sessions = []
    for number in range(1, 2001):
        started = _BEGAN + timedelta(minutes=11 * number)
        ended = None if number % 50 == 0 else started + timedelta(minutes=random.randint(1, 90))
        device = f"10.{number % 200}.0.{number % 250}"
        user, book = random.choice(pairs)
        sessions.append((number, user, book, started, ended, random.randint(0, 60), device))
    columns = ("id", "user_id", "book_id", "started_at", "ended_at", "pages_read", "device")
    yield Table("reading_sessions", columns, sessions)
    yield Table(
        "reading_goals",
        ("user_id", "minutes_per_day", "valid"),
        [(user, random.randint(5, 120), "[2025-01-01,2026-01-01)") for user in users[::2]],
    )
    yield Table(
        "bookmarks",
        ("id", "user_id", "chapter_id", "position", "note"),
        [
            (_id(random), random.choice(users), random.choice(chapters), random.randint(0, 5000),
             random.choice((None, "", "вернуться сюда", 'a "quote"\nand a \\ backslash')))
            for _ in range(700)
        ],
    )  # fmt: skip


def _book(day: int, file: BookFile, owner: UUID) -> tuple[Any, ...]:
    book = file.book
    kind = file.path.rpartition(".")[2]
    about = {"chapters": len(book.chapters), "uploaded_as": file.path.rpartition("/")[2]}
    return (
        book.id, owner, book.title, book.author, book.language, file.path, kind, file.size, file.cover,
        about, True, _BEGAN + timedelta(days=day),
    )  # fmt: skip


def _id(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)
