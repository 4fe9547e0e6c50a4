"""Somebody has the vault, the passphrase and ordinary programs, and not this program.

The commands are those of `docs/runbooks/without-this-program.md`, as they stand there. They run in a shell
that finds PostgreSQL's, Redis's and the system's programs, and neither Python's environment nor this package.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.servers import postgresql
from bookreader_backup_assets.servers.redis_wire import free_port
from tests.fixtures.away import plan_encrypting
from tests.fixtures.code import held
from tests.fixtures.installation import KEY
from tests.fixtures.living import _KEYS, _ROWS, with_settings
from tests.fixtures.pages import RUNBOOKS, blocks
from tests.fixtures.postgresql import programs
from tests.fixtures.trees import look

PAGE = RUNBOOKS / "without-this-program.md"
PASSWORD = "another server's password"
ONE = "books/12.bin"


@dataclass(frozen=True)
class Host:
    """Another host, on which something else lies: its servers, its folders, and a shell."""

    folder: Path
    values: dict[str, str]
    env: dict[str, str] = field(repr=False)

    def run(self, script: str) -> str:
        """Run a script and return what it prints; the shell ends at the first command that fails."""
        done = subprocess.run(
            ["bash", "-euc", script],
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def page(self, mark: str) -> str:
        """Run the page's blocks of that mark, in order, with this host's values."""
        return self.run(self.values_block() + "\n".join(text for own, text in blocks(PAGE) if own == mark))

    def values_block(self) -> str:
        """What stands in the place of the page's values."""
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.values.items())

    def rows(self) -> str:
        """Every table: how many rows, what they are, who owns it and who may use it."""
        name = self.values["DATABASE"]
        argv = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-d", name]
        return self._said(argv, _ROWS).rstrip("\n")

    def keys(self) -> dict[int, str]:
        """Every key with its type and value, by logical database, once Redis answers."""
        deadline = time.monotonic() + 20
        client = self.values["REDIS_CLI"].split()
        while "PONG" not in self._said([*client, "PING"], check=False):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return {n: self._said([*client, "-n", str(n), "EVAL", _KEYS, "0"]) for n in range(3)}

    def folders(self) -> tuple[object, object]:
        """Storage and configuration: kind, mode, owner, time and content of every path."""
        return as_in_tar(Path(self.values["STORAGE"])), as_in_tar(Path(self.values["CONFIG"]))

    def contents(self) -> dict[str, bytes]:
        """The files of storage, and the file of the configuration that the host had before."""
        storage, config = Path(self.values["STORAGE"]), Path(self.values["CONFIG"])
        files = [path for path in (*storage.rglob("*"), config / ".env") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    def _said(self, argv: list[str], text: str = "", *, check: bool = True) -> str:
        done = subprocess.run(
            argv, input=text, env=self.env, capture_output=True, encoding="latin-1", timeout=60, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def vault(embedded_bookreader, tmp_path, request):
    """A copy of the vault of a BookReader: a whole set, and an older manifest; "all of it" is encrypted."""
    there = embedded_bookreader
    if "all of it" in request.node.name:
        plan = plan_encrypting(tmp_path)
        there = with_settings(there, plan=str(plan), vault=str(tmp_path / "encrypted"))
    there.back_up()
    return shutil.copytree(there.installation.vault.root, tmp_path / "copy")


@pytest.fixture
def host(embedded_bookreader, redis_folder, vault, tmp_path):
    """A host of other data, where a database of that name, an append-only Redis and both folders exist."""
    folder = tmp_path / "host"
    for name in ("redis", "storage", "app"):
        (folder / name).mkdir(parents=True)
    (folder / "storage" / "later.txt").write_text("written later")
    (folder / "app" / ".env").write_text("SECRET_KEY=lost\n")
    (folder / "key").write_text(KEY + "\n")
    port = free_port()
    (folder / "redis.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}/redis\nappendonly yes\ndaemonize yes\n"
        f'requirepass "{PASSWORD}"\nlogfile {folder}/redis.log\n'
    )
    tools = programs()
    with postgresql.start(tools, superuser="postgres", password=Secret(PASSWORD)) as server:
        database = embedded_bookreader.database
        there = Host(
            folder,
            {
                "VAULT": str(vault),
                "KEY": str(folder / "key"),
                "SECRET_KEY": "",
                "WORK": str(folder / "work"),
                "DATABASE": database,
                "PG": "",
                "REDIS_CLI": f"redis-cli -p {port}",
                "REDIS_STOP": f"redis-cli -p {port} SHUTDOWN",
                "REDIS_START": f"redis-server {folder}/redis.conf",
                "REDIS_DATA": str(folder / "redis"),
                "STORAGE": str(folder / "storage"),
                "CONFIG": str(folder / "app"),
                "CODE": str(folder / "code"),
                "ONE": ONE,
            },
            {
                "PATH": f"{tools}:{redis_folder}:/usr/bin:/bin",
                "HOME": str(folder),
                "LC_ALL": "C.UTF-8",
                **{name: value for name, value in server.env.items() if name != "PGDATABASE"},
                "REDISCLI_AUTH": PASSWORD,
            },
        )
        there.run(
            f"psql -Xqd postgres -c 'CREATE DATABASE {database}'\n"
            f"psql -Xqd {database} -c 'CREATE TABLE users (id int)'\n"
            f"redis-server redis.conf\n"
            f"until redis-cli -p {port} PING | grep -q PONG; do sleep 0.05; done\n"
            f"redis-cli -p {port} SET later 1\n"
        )
        try:
            yield there
        finally:
            with suppress(AssertionError):
                there.run(f"redis-cli -p {port} SHUTDOWN NOSAVE")


def test_the_page_sets_what_it_uses():
    """The values that a reader writes down are those that the test replaces, and each is used."""
    ((_, text),) = [block for block in blocks(PAGE) if block[0] == "values"]
    commands = "".join(text for mark, text in blocks(PAGE) if mark in ("run", "undo"))
    names = re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)
    assert all(re.search(rf"\$\{{?{name}\b", commands) for name in names)
    assert {mark for mark, _ in blocks(PAGE)} == {"values", "run", "undo"}


@pytest.mark.parametrize("encryption", ["passphrase", "public key", "all of it"])
def test_everything_comes_back_and_can_be_undone(host, embedded_bookreader, vault, encryption):
    """Rows, owners, grants, keys, files and configuration are those captured; undo brings the others back.

    What the commands find on their path is ordinary: no Python that could import the package.
    """
    there = embedded_bookreader
    script = "! command -v bookreader-backup\n! python3 -I -c 'import bookreader_backup_assets' 2>/dev/null"
    assert host.run(script) == ""
    if encryption == "public key":
        encrypt_to_a_key(host, vault)
    before, contents = (host.rows(), host.keys()), host.contents()
    said = host.page("run")
    assert host.rows() == there.rows()
    assert host.keys() == there.keys()
    assert host.folders() == (as_in_tar(there.storage), as_in_tar(there.config))
    assert (host.folder / "work" / "one").read_bytes() == (there.storage / ONE).read_bytes()
    assert held(host.folder / "code", branches=False) == held(there.code, branches=False)
    assert said.count(": OK\n") == 7, "six artifacts, and the index of one"
    for restarts in range(2):
        host.run(f"{host.values['REDIS_CLI']} SET again {restarts}")
        host.run(f"{host.values['REDIS_CLI']} DEL again\n{host.values['REDIS_STOP']}")
        host.run(host.values["REDIS_START"])
        assert host.keys() == there.keys()
    host.page("undo")
    assert (host.rows(), host.keys()) == before
    assert host.contents() == contents
    assert not (host.folder / "code").exists()


def test_a_flipped_byte_is_found(host, vault):
    """`sha256sum -c` ends the page before anything is replaced."""
    before = host.rows(), host.keys(), host.folders()
    (dump,) = vault.glob("postgresql/*.dump")
    dump.write_bytes(dump.read_bytes()[:-1] + b"?")
    with pytest.raises(AssertionError, match=r"\.dump: FAILED"):
        host.page("run")
    assert (host.rows(), host.keys(), host.folders()) == before


def test_a_dump_alone_is_shadowed(host, embedded_bookreader):
    """Why the page writes append-only files: without them Redis 7 starts without the keys of the dump."""
    script = "\n".join(text for mark, text in blocks(PAGE) if mark == "run")
    host.run(
        host.values_block()
        + re.sub(r"\$REDIS_START\n", 'rm -r "$REDIS_DATA/appendonlydir"\n$REDIS_START\n', script)
    )
    assert set(host.keys().values()) == {"\n"}
    assert host.rows() == embedded_bookreader.rows(), "the page was run"


def as_in_tar(folder: Path) -> dict[bytes, object]:
    """What `look` sees below a folder, times in whole seconds: a tar archive has no more."""
    seen = look(os.fsencode(folder)).items()
    return {path: (*facts[:3], facts[3] // 10**9, *facts[4:]) for path, facts in seen if path != b"."}


def encrypt_to_a_key(host: Host, vault: Path) -> None:
    """Have roles and configuration encrypted to an OpenPGP key, and give the host its locked secret key."""
    home = host.folder / "g"
    home.mkdir(mode=0o700)
    gpg = f"gpg --homedir {home} --batch --yes --pinentry-mode loopback --passphrase-file {host.folder}/key"
    host.run(
        f"{gpg} --quick-gen-key backup rsa2048 encrypt never\n"
        f"{gpg} --armor --export-secret-keys > {host.folder}/secret.asc\n"
        f"for one in {vault}/config/*.gpg {vault}/postgresql/*.gpg; do\n"
        f"  {gpg} -d $one | {gpg} --trust-model always -r backup -e > $one.new\n"
        f"  old=$(sha256sum < $one | cut -c-64); new=$(sha256sum < $one.new | cut -c-64)\n"
        f"  sed -i s/$old/$new/ {vault}/backup_set/*.txt; mv $one.new $one\n"
        f"done\n"
        f"gpgconf --homedir {home} --kill all; rm -r {home}"
    )
    host.values["SECRET_KEY"] = str(host.folder / "secret.asc")
