"""One file among 100,000 is lost: restored by reading the little of the archive that holds it."""

import os
import shutil
from dataclasses import dataclass, field, replace

import pytest

from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import undo
from bookreader_backup_assets.codecs import index
from bookreader_backup_assets.components.storage import StorageArchive
from bookreader_backup_assets.core.errors import DamagedError, KeyMissingError, RefusedError
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.vaults.local import LocalVault
from tests.fixtures.living import with_settings

FOLDERS, EACH = 100, 1000


@dataclass(frozen=True)
class Counting(LocalVault):
    """A vault that counts the bytes that are read of archives."""

    read: list[int] = field(default_factory=list)

    def open(self, name, offset=0, length=None):
        for chunk in super().open(name, offset, length):
            if name.endswith(".tar.gz"):
                self.read.append(len(chunk))
            yield chunk


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """100,000 small files whose contents do not compress."""
    root = tmp_path_factory.mktemp("many")
    for folder in range(FOLDERS):
        (root / f"books{folder}").mkdir()
        opened = os.open(root / f"books{folder}", os.O_RDONLY)
        for number in range(EACH):
            file = os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=opened)
            os.write(file, os.urandom(300))
            os.close(file)
        os.close(opened)
    return root


def ask(there, *paths, **options):
    """Restore files."""
    asked = Options(paths=paths, **options)
    confirm = "" if asked.into else plan(there.installation, "storage").target
    return restore(there.installation, "file", options=asked, confirm=confirm)


def test_one_of_a_hundred_thousand(embedded_bookreader, many):
    """Compared with what it was; of the archive, no more is read than the member that holds it."""
    there = with_settings(embedded_bookreader, storage_path=str(many))
    there.back_up("storage")
    lost = many / "books57" / "123.txt"
    good, folder = (lost.read_bytes(), lost.stat()), lost.parent.stat()
    lost.unlink()
    counting = Counting(there.installation.vault.root)
    there = replace(there, installation=replace(there.installation, vault=counting))
    report = ask(there, "books57/123.txt")
    assert report.good, report
    (archive,) = (counting.root / "storage").glob("*.tar.gz")
    assert 0 < sum(counting.read) < archive.stat().st_size / 4
    assert {step.step: step.bytes for step in report.steps}["beside"] == sum(counting.read)
    assert lost.read_bytes() == good[0]
    assert (lost.stat().st_mtime_ns, lost.stat().st_mode) == (good[1].st_mtime_ns, good[1].st_mode)
    assert lost.parent.stat().st_mode == folder.st_mode
    assert sum(len(names) for _, _, names in os.walk(many)) == FOLDERS * EACH


def test_globs_folders_and_undo(bookreader):
    """Damaged and deleted files come back while the services run; undo brings the damage back."""
    good = bookreader.files()
    bookreader.back_up("storage")
    running = bookreader.installation.services.running()
    shutil.rmtree(bookreader.storage / "covers")
    (bookreader.storage / "books/0.bin").write_bytes(b"junk")
    (bookreader.storage / "books/later.bin").write_bytes(b"later")
    before = bookreader.files()
    report = ask(bookreader, "/app/storage/covers", "storage/books/0.*")
    assert report.good, report
    assert not {"stop", "start"} & {step.step for step in report.steps}
    after = bookreader.files()
    assert after[b"books/later.bin"] == before[b"books/later.bin"]
    files = {path: what for path, what in good.items() if what[4] is not None}
    assert files.items() <= after.items()
    assert after[b"covers"] == good[b"covers"]
    undo(bookreader.installation, report.id, confirm=report.target)
    assert bookreader.files() == before
    assert bookreader.installation.services.running() == running


def test_into_a_folder_touches_nothing_live(embedded_bookreader, tmp_path):
    """What is wanted lies there under its path, as it was captured."""
    bookreader = embedded_bookreader
    good = bookreader.files()
    bookreader.back_up("storage")
    shutil.rmtree(bookreader.storage / "covers")
    before = bookreader.files()
    assert ask(bookreader, "covers/*", into=str(tmp_path / "look")).good
    found = bookreader.files(tmp_path / "look")
    assert {p: w for p, w in found.items() if p != b"."} == {
        p: w for p, w in good.items() if p.startswith(b"covers")
    }
    assert bookreader.files() == before


def test_what_is_not_in_the_set_is_refused(embedded_bookreader):
    """With what it nearly is, and nothing is begun."""
    there = embedded_bookreader
    there.back_up("storage")
    before = there.files()
    with pytest.raises(RefusedError) as refused:
        ask(there, "books/00.bin")
    assert "'books/0.bin'" in refused.value.hint
    assert there.files() == before


def test_a_damaged_part_of_the_archive(embedded_bookreader):
    """The wanted file is not as captured: said so, and nothing live is touched."""
    there = embedded_bookreader
    there.back_up("storage")
    (there.storage / "books/0.bin").unlink()
    before = there.files()
    (archive,) = (there.installation.vault.root / "storage").glob("*.tar.gz")
    row = index.find([archive.with_name(f"{archive.name}.index.gz").read_bytes()], b"books/0.bin")
    data = bytearray(archive.read_bytes())
    data[row.offset + row.inside + 100] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedError):
        ask(there, "books/0.bin")
    assert there.files() == before


def test_an_encrypted_archive_is_read_from_its_start(embedded_bookreader):
    """The plan says so; the file comes back, and with another key nothing is touched."""
    there = embedded_bookreader
    components = dict(there.installation.components)
    plain = components["storage/archive"]
    components["storage/archive"] = StorageArchive(plain.runner, plain.path, codecs=("gpg",))
    there = replace(there, installation=replace(there.installation, components=components))
    there.back_up("storage")
    good = there.files()
    (there.storage / "books/0.bin").unlink()
    before = there.files()
    planned = plan(there.installation, "file", options=Options(paths=("books/0.bin",)))
    assert any("encrypted" in note for note in planned.preview.notes)
    with pytest.raises((KeyMissingError, DamagedError)):
        ask(with_settings(there, key="another key", key_file=""), "books/0.bin")
    assert there.files() == before
    assert ask(there, "books/0.bin").good
    assert there.files()[b"books/0.bin"] == good[b"books/0.bin"]
