"""Every file that a row points to is there, or the check says which is not."""

import os

import pytest

from bookreader_backup_assets.actions.references import FileColumn, file_columns, files, references
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import SettingsError, SourceAbsentError
from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.settings import Settings
from tests.fixtures.compose import BOOKS, IMAGES_MADE

COLUMNS = file_columns(Settings().file_columns)
PATHS = [
    "/app/storage/books/1.epub",
    "books/2.epub",
    "./books/3.epub",
    "storage/books/4.epub",
    "./storage/books/5.epub",
    "/storage/books/6.epub",
    "/app/storage//books/../books/7.epub",
    r"books/a \ and	tab.epub",
    "books/a\nline.epub",
    "/app/storage/books/книга.epub",
    "/srv/data/books/8.epub",
]
NAMES = [
    *(f"books/{n}.epub" for n in range(1, 9)),
    *(r"books/a \ and	tab.epub", "books/a\nline.epub", "books/книга.epub"),
]


@pytest.fixture
def rows(postgresql_server):
    """A database whose books point to `paths`, and its check against `names`."""
    database = postgresql_server.new_database()
    quoted = ["(NULL)", "('')", *(f"(convert_from('\\x{path.encode().hex()}', 'UTF8'))" for path in PATHS)]
    postgresql_server.sql(
        "CREATE TABLE books (file_path text, cover_image varchar(100));"
        "CREATE TABLE generated_images (local_path text);"
        f"INSERT INTO books (file_path) VALUES {', '.join(quoted)};"
        "INSERT INTO books (cover_image) VALUES ('https://example.org/a.png'), ('data:image/png;base64,AA');",
        database,
    )

    def check(names=NAMES, columns=COLUMNS, more=""):
        if more:
            postgresql_server.sql(more, database)
        return references(
            postgresql_server.runner,
            postgresql_server.env,
            database,
            columns,
            lambda: (os.fsencode(name) for name in names),
            roots=("/srv/data",),
        )

    return check


def test_all_there_however_a_path_is_written(rows):
    """Absolute in the container or on the host, relative, as a URL's path: each finds its file."""
    found = rows([*NAMES, "orphan.png"])
    assert found.passed, found
    assert found.measured["rows"] == {
        "books.file_path": len(PATHS), "books.cover_image": 2, "generated_images.local_path": 0,
    }  # fmt: skip
    assert found.measured["files_pointed_to"] == len(NAMES)
    assert found.measured["files_no_row_points_to"] == 1
    assert found.measured["rows_with_a_url"] == 2


@pytest.mark.parametrize("lost", NAMES)
def test_one_lost_file_fails(rows, lost):
    """Whichever it is, and it is named."""
    found = rows([name for name in NAMES if name != lost])
    assert found.verdict is Verdict.FAILED
    assert found.measured["rows_without_file"] == 1
    assert len(found.measured["missing"]) == 1
    assert found.measured["missing"][0].startswith("books.file_path: ")


def test_all_lost_names_twenty(rows):
    """Of many, some are named and all are counted."""
    found = rows(
        [], more="INSERT INTO books (file_path) SELECT n || '.epub' FROM generate_series(1, 30000) n"
    )
    assert found.verdict is Verdict.FAILED
    assert found.measured["rows_without_file"] == 30000 + len(PATHS)
    assert len(found.measured["missing"]) == 20


def test_two_rows_with_one_file(rows):
    """Rows and files are counted apart."""
    found = rows(more="INSERT INTO books (file_path) VALUES ('books/1.epub')")
    assert found.passed
    assert found.measured["rows"]["books.file_path"] == len(PATHS) + 1
    assert found.measured["files_pointed_to"] == len(NAMES)


def test_a_folder_for_relative_paths(rows):
    """`generated_images.local_path=generated_images` for a column with bare names."""
    more = "INSERT INTO generated_images VALUES ('a.png'), ('generated_images/b.png'), ('/app/storage/c.png')"
    names = [*NAMES, "generated_images/a.png", "generated_images/b.png", "c.png"]
    columns = file_columns(["books.file_path", "generated_images.local_path=generated_images"])
    assert rows(names, columns, more).passed
    assert rows(names, COLUMNS).verdict is Verdict.FAILED


def test_a_column_that_is_not_there_cannot_be_told(rows):
    """A setting that fits another schema is no pass."""
    found = rows(columns=file_columns(["books.file_path", "books.nothing", "other.books.file_path"]))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.measured["columns_absent"] == ["books.nothing", "other.books.file_path"]
    assert "BACKUP_FILE_COLUMNS" in found.message
    assert rows(columns=file_columns(["no.column"])).verdict is Verdict.INCONCLUSIVE
    assert rows(columns=()).passed


@pytest.mark.parametrize("path", ["/tmp/upload.epub", "../secrets", "/app/storage/../x"])
def test_a_path_out_of_storage_cannot_be_told(rows, path):
    """Nobody backs it up, and it is no file of storage that was lost."""
    found = rows(more=f"INSERT INTO books (file_path) VALUES ('{path}')")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.measured["outside"] == [f"books.file_path: {path}"]


def test_names_are_quoted(postgresql_server):
    """A table may be called anything."""
    database = postgresql_server.new_database()
    postgresql_server.sql(
        """CREATE SCHEMA "My ""S'"; CREATE TABLE "My ""S'"."Select" ("pa'th" text);
        INSERT INTO "My ""S'"."Select" VALUES ('a')""",
        database,
    )
    column = FileColumn("My \"S'", "Select", "pa'th")
    arguments = (postgresql_server.runner, postgresql_server.env, database, [column])
    assert references(*arguments, lambda: [b"a"]).passed
    assert references(*arguments, lambda: [b"b"]).verdict is Verdict.FAILED


def test_a_setting_that_is_no_column_is_refused():
    """It says how to write one."""
    with pytest.raises(SettingsError, match="BACKUP_FILE_COLUMNS: 'books' is not a column"):
        file_columns(["books"])


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_a_live_bookreader(bookreader_project):
    """Rows and files of a running system; then one of its files is deleted; then the server is gone."""
    project = bookreader_project

    def check():
        tree = LocalRunner().read_tree(str(project.storage))
        return references(project.postgresql, project.libpq, "bookreader", COLUMNS, lambda: files(tree))

    found = check()
    assert found.passed, found
    assert found.measured["files"] == found.measured["files_pointed_to"] == BOOKS + BOOKS // 2 + IMAGES_MADE
    (project.storage / "covers" / "4.jpg").unlink()
    found = check()
    assert found.verdict is Verdict.FAILED
    assert found.measured["missing"] == ["books.cover_image: /app/storage/covers/4.jpg"]
    project.compose.down()
    with pytest.raises(SourceAbsentError):
        check()
