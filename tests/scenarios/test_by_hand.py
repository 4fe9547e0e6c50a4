"""Somebody has the vault, the passphrase and ordinary programs, and not this program."""

import re
import subprocess
from pathlib import Path

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.seal import seal
from tests.fixtures.installation import KEY


@pytest.fixture
def vault(installation):
    """The folder of a vault that holds a whole set."""
    for component in installation.components.values():
        capture(installation, component, installation.today())
    seal(installation, installation.today())
    return installation.vault.root


def only(vault: Path, pattern: str) -> Path:
    """Return the one file of that pattern."""
    (found,) = vault.glob(pattern)
    return found


def output(*argv: str, stdin: bytes = b"") -> bytes:
    """Run an ordinary program and return what it prints."""
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=120).stdout


def test_checksums_are_checked_by_sha256sum(vault):
    """The manifest's text form holds lines that `sha256sum -c` accepts, and refuses once a byte differs."""
    text = only(vault, "backup_set/*.txt").read_text()
    lines = "".join(f"{line}\n" for line in text.splitlines() if re.match(r"[0-9a-f]{64}  ", line))
    argv = ["sha256sum", "--strict", "--quiet", "-c", "-"]
    subprocess.run(argv, input=lines.encode(), cwd=vault, check=True, timeout=60)
    assert lines.count("\n") == 6, "five artifacts, and the index of one"
    dump = only(vault, "postgresql/*.dump")
    dump.write_bytes(dump.read_bytes()[:-1] + b"?")
    assert subprocess.run(argv, input=lines.encode(), cwd=vault, check=False, timeout=60).returncode == 1


def test_storage_unpacks_with_tar(vault, system, tmp_path):
    """`tar -xpzf` gives the tree that was captured."""
    target = tmp_path / "storage"
    target.mkdir()
    output("tar", "-xpzf", str(only(vault, "storage/*.tar.gz")), "-C", str(target))
    output("diff", "-r", str(system.storage), str(target))


def test_config_and_roles_open_with_gpg(vault, system, tmp_path):
    """`gpg -d` and gunzip give the configuration and the roles."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(KEY)
    gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--homedir", str(tmp_path), "--no-autostart"]
    gpg += ["--passphrase-file", str(passphrase), "-d"]
    target = tmp_path / "config"
    target.mkdir()
    archive = output(*gpg, str(only(vault, "config/*.gpg")))
    output("tar", "-xzp", "-C", str(target), stdin=archive)
    output("diff", "-r", str(system.config), str(target))
    roles = output("gunzip", stdin=output(*gpg, str(only(vault, "postgresql/globals_*.gpg"))))
    assert b"CREATE ROLE" in roles


def test_the_dump_is_listed_by_pg_restore_and_redis_by_gunzip(vault, system):
    """`pg_restore --list` and `gunzip` read what their names promise."""
    programs = system.postgresql.server.programs
    listing = output(str(programs / "pg_restore"), "--list", str(only(vault, "postgresql/*.dump")))
    assert b"TABLE DATA" in listing
    assert output("gunzip", "-c", str(only(vault, "redis/*.rdb.gz"))).startswith(b"REDIS")
