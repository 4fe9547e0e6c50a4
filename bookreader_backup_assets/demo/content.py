"""The storage tree of a BookReader: books, covers and generated images, laid out as the guide draws it.

The same seed makes the same bytes; names are as odd as users make them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bookreader_backup_assets.demo.books import Book, make_book, write_epub, write_fb2
from bookreader_backup_assets.demo.images import png

SEED = 20251024
BOOKS = 150
FOLDERS = (
    "books/epub", "books/fb2", "images/locations", "images/characters", "images/atmospheres", "covers"
)  # fmt: skip
_IMAGES_PER_BOOK = 2
_ODD = ("Война и мир, том 1", 'the "quoted" one', "it's here", "two  spaces & more", "100% _naïve_")
_FIRST = 1_729_735_200  # 2024-10-24 02:00 UTC: files are as old as their books
_APART = 7_200


@dataclass(frozen=True)
class BookFile:
    """A book's file and cover; paths are relative to the storage folder, `size` is bytes."""

    book: Book
    path: str
    size: int
    cover: str


@dataclass(frozen=True)
class ImageFile:
    """A generated illustration; `kind` is `location`, `character` or `atmosphere`."""

    path: str
    kind: str
    width: int
    height: int
    size: int


@dataclass(frozen=True)
class Library:
    """Everything that was written, for the database rows that point at it."""

    books: tuple[BookFile, ...]
    images: tuple[ImageFile, ...]


def write_library(folder: Path, *, seed: int = SEED, scale: float = 1.0) -> Library:
    """Fill `folder` with a storage tree: at scale 1 150 books, 600 files and 16 MB."""
    random = Random(seed)  # noqa: S311 - content, not secrets
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / "images/atmospheres/drafts").mkdir()  # an empty folder comes back, too
    books = tuple(_write_book(folder, random, number) for number in range(max(5, round(BOOKS * scale))))
    count = len(books) * _IMAGES_PER_BOOK
    images = tuple(_write_image(folder, random, number) for number in range(count))
    (folder / "covers/default.png").symlink_to(os.path.basename(books[0].cover))
    return Library(books, images)


def _write_book(folder: Path, random: Random, number: int) -> BookFile:
    book = make_book(random)
    kind = "fb2" if number % 3 == 2 else "epub"
    stem = _ODD[number] if number < len(_ODD) else f"{book.id}"
    path, cover = f"books/{kind}/{stem}.{kind}", f"covers/{book.id}.png"
    drawn = png(random, 60, 90)
    (folder / cover).write_bytes(drawn)
    (write_fb2 if kind == "fb2" else write_epub)(folder / path, book, drawn)
    _age(folder, number, cover, path)
    return BookFile(book, path, (folder / path).stat().st_size, cover)


def _write_image(folder: Path, random: Random, number: int) -> ImageFile:
    kind = ("location", "character", "atmosphere")[number % 3]
    width, height = random.choice(((128, 128), (144, 96), (96, 144)))
    path = f"images/{kind}s/{kind}_{number:05}_{random.getrandbits(32):08x}.png"
    drawn = png(random, width, height)
    (folder / path).write_bytes(drawn)
    _age(folder, number // _IMAGES_PER_BOOK, path)
    return ImageFile(path, kind, width, height, len(drawn))


def _age(folder: Path, number: int, *paths: str) -> None:
    for path in paths:
        os.utime(folder / path, (_FIRST + number * _APART,) * 2)
