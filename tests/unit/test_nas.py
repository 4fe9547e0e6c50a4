"""The vault on a NAS: there while it is mounted, and nowhere else."""

import pytest

from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.vaults.nas import FOLDER, MARKER, Nas


@pytest.fixture
def nas(tmp_path):
    """A NAS that is mounted."""
    (tmp_path / MARKER).touch()
    return Nas(tmp_path)


def test_each_installation_has_a_vault(nas):
    """What one installation writes is in a folder of its own, and the place knows whose there are."""
    nas.vault("one").put("a/b", [b"x"])
    nas.vault("one").put("installation.json", [b"{}"])
    nas.vault("something-else").put("readme", [b"x"])
    assert nas.installations() == ["one"]
    assert list(nas.vault("two").list()) == []
    assert (nas.mount / FOLDER / "one" / "a" / "b").read_bytes() == b"x"


def test_what_is_not_mounted_is_refused(nas):
    """Without its marker nothing is read, nothing is written, and the error says what to do."""
    vault = nas.vault("one")
    vault.put("kept", [b"x"])
    (nas.mount / MARKER).unlink()
    for use in (
        lambda: vault.put("new", [b"x"]),
        lambda: list(vault.open("kept")),
        lambda: list(vault.list()),
        lambda: vault.stat("kept"),
        lambda: vault.digest("kept"),
        lambda: vault.delete("kept"),
        vault.free,
        lambda: list(vault.unfinished()),
        lambda: vault.discard("kept"),
        lambda: vault.locked_until("kept"),
        nas.installations,
    ):
        with pytest.raises(VaultError, match="not mounted") as error:
            use()
        assert "findmnt" in error.value.hint
    assert (nas.mount / FOLDER / "one" / "kept").exists()
    assert not (nas.mount / FOLDER / "one" / "new").exists()


def test_unmounted_while_it_is_written(nas):
    """A NAS that goes away in mid-write leaves nothing under the name, and nobody is told otherwise."""

    def chunks():
        yield b"begun"
        (nas.mount / MARKER).unlink()
        yield b"and on"

    with pytest.raises(VaultError, match="not mounted"):
        nas.vault("one").put("new", chunks())
    assert not (nas.mount / FOLDER / "one" / "new").exists()
