"""Books as users upload them: EPUB 3 and FictionBook 2, small and real."""

from __future__ import annotations

import base64
import zipfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID
from xml.sax.saxutils import escape

_ENGLISH = """
the a of and under beyond winter river lantern harbour garden silence mirror clock tower fog stone letter
captain sister stranger road forest window music salt amber shadow morning bridge snow ship walked remembered
opened followed burned whispered waited crossed forgot carried slowly again never
"""
_RUSSIAN = """
и в под над за снег река фонарь сад тишина зеркало часы башня туман камень письмо капитан сестра дорога лес
окно музыка соль янтарь тень утро мост корабль город шла вспомнил открыла горел шептал ждал прошёл забыла
медленно опять никогда
"""
_WORDS = {"en": _ENGLISH.split(), "ru": _RUSSIAN.split()}
_NAMES = {
    "en": ("Ada Marsh", "Tom Heron", "Iris Vale", "John Brook", "Mary O'Dell", "Ben Stone"),
    "ru": ("Анна Лесная", "Пётр Зимин", "Людмила Громова", "Илья Снегов", "Ольга Речная"),
}
_ZIP_DATE = (2025, 10, 24, 2, 0, 0)  # the same bytes from the same seed


@dataclass(frozen=True)
class Chapter:
    """A title and its paragraphs."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Book:
    """A made-up book. `id` is what its file and its database row have in common."""

    id: UUID
    title: str
    author: str
    language: str
    chapters: tuple[Chapter, ...]


def make_book(random: Random) -> Book:
    """Return a book of 4 to 10 chapters, about 20 kB of text in English or Russian."""
    language = random.choice(("en", "ru", "ru"))
    words = _WORDS[language]
    chapters = tuple(
        Chapter(_phrase(random, words, 3), tuple(_paragraph(random, words) for _ in range(8)))
        for _ in range(random.randint(4, 10))
    )
    return Book(
        id=UUID(int=random.getrandbits(128), version=4),
        title=_phrase(random, words, random.randint(2, 4)),
        author=random.choice(_NAMES[language]),
        language=language,
        chapters=chapters,
    )


def write_epub(path: Path, book: Book, cover: bytes) -> None:
    """Write an EPUB 3: `mimetype` first and stored, then container, package, navigation, cover, chapters."""
    names = [f"chapter-{number}.xhtml" for number in range(1, len(book.chapters) + 1)]
    with zipfile.ZipFile(path, "w") as archive:

        def add(name: str, content: str | bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, compression)

        add("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        add("META-INF/container.xml", _CONTAINER)
        add("OEBPS/content.opf", _package(book, names))
        add("OEBPS/nav.xhtml", _navigation(book, names))
        add("OEBPS/cover.png", cover, zipfile.ZIP_STORED)
        for name, chapter in zip(names, book.chapters, strict=True):
            body = "".join(f"<p>{escape(text)}</p>\n" for text in chapter.paragraphs)
            add(f"OEBPS/{name}", _page(book, chapter.title, f"<h1>{escape(chapter.title)}</h1>\n{body}"))


def write_fb2(path: Path, book: Book, cover: bytes) -> None:
    """Write a FictionBook 2.0 document with its cover inside."""
    first, _, last = escape(book.author).partition(" ")
    sections = "".join(
        f"<section><title><p>{escape(chapter.title)}</p></title>\n"
        + "".join(f"<p>{escape(text)}</p>\n" for text in chapter.paragraphs)
        + "</section>\n"
        for chapter in book.chapters
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" '
        'xmlns:l="http://www.w3.org/1999/xlink">\n'
        f"<description><title-info><genre>prose</genre>"
        f"<author><first-name>{first}</first-name><last-name>{last}</last-name></author>"
        f"<book-title>{escape(book.title)}</book-title>"
        f'<coverpage><image l:href="#cover.png"/></coverpage><lang>{book.language}</lang></title-info>'
        f"<document-info><id>{book.id}</id><version>1.0</version></document-info></description>\n"
        f"<body><title><p>{escape(book.title)}</p></title>\n{sections}</body>\n"
        f'<binary id="cover.png" content-type="image/png">{base64.b64encode(cover).decode()}</binary>\n'
        "</FictionBook>\n"
    )
    path.write_text(text, encoding="utf-8")


def _phrase(random: Random, words: list[str], count: int) -> str:
    return " ".join(random.choices(words, k=count)).capitalize()


def _paragraph(random: Random, words: list[str]) -> str:
    return " ".join(_phrase(random, words, random.randint(6, 14)) + "." for _ in range(5))


def _package(book: Book, names: list[str]) -> str:
    items = "".join(
        f'<item id="c{number}" href="{name}" media-type="application/xhtml+xml"/>\n'
        for number, name in enumerate(names, 1)
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(1, len(names) + 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">\n'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">\n'
        f'<dc:identifier id="id">urn:uuid:{book.id}</dc:identifier>\n'
        f"<dc:title>{escape(book.title)}</dc:title>\n<dc:creator>{escape(book.author)}</dc:creator>\n"
        f"<dc:language>{book.language}</dc:language>\n"
        '<meta property="dcterms:modified">2025-10-24T02:00:00Z</meta>\n</metadata>\n<manifest>\n'
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>\n'
        '<item id="cover" href="cover.png" media-type="image/png" properties="cover-image"/>\n'
        f"{items}</manifest>\n<spine>{spine}</spine>\n</package>\n"
    )


def _navigation(book: Book, names: list[str]) -> str:
    rows = "".join(
        f'<li><a href="{name}">{escape(chapter.title)}</a></li>'
        for name, chapter in zip(names, book.chapters, strict=True)
    )
    return _page(book, book.title, f'<nav epub:type="toc"><ol>{rows}</ol></nav>')


def _page(book: Book, title: str, body: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" '
        f'xml:lang="{book.language}">\n<head><title>{escape(title)}</title></head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )


_CONTAINER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/>'
    "</rootfiles></container>\n"
)
