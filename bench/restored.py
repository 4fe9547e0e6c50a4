"""Whether what the guide's script left behind restores: without this, repairing it proves nothing."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path

from competitors import DATE, PASSPHRASE, System
from data import DATABASE

from bookreader_backup_assets.runners.local import LocalRunner
from bookreader_backup_assets.servers import redis

_PATIENCE = 3600.0
_COUNTS = """
SELECT format('SELECT %L, count(*) FROM %I', relname, relname)
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname \\gexec
"""


def restored(system: System, part: str) -> str:
    """Restore one part of the script's output, compare it with its source, and say what was equal.

    Raises `RuntimeError` where it does not restore, or is different.
    """
    out = system.folder / "guide" / "out"
    return {"postgresql": _postgresql, "redis": _redis, "storage": _storage, "config": _config}[part](
        system, out
    )


def _postgresql(system: System, out: Path) -> str:
    runner = LocalRunner(programs=system.database.programs)
    psql = ("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")

    def counts(database: str) -> bytes:
        argv = (*psql, "--dbname", database)
        return runner.run(argv, env=system.database.env, stdin=[_COUNTS.encode()], timeout=_PATIENCE).stdout

    dump = out / "postgresql" / f"bookreader_{DATE}.dump"
    sql = out / "postgresql" / f"bookreader_{DATE}.sql.gz"
    expected = counts(DATABASE)
    for name in ("from_dump", "from_sql"):
        runner.run(
            (*psql, "--command", f"CREATE DATABASE {name} TEMPLATE template0"), env=system.database.env
        )
        if name == "from_dump":
            argv = ["pg_restore", "--exit-on-error", "--dbname", name, str(dump)]
            runner.run(argv, env=system.database.env, timeout=_PATIENCE)
        else:
            argv = [*psql, "--dbname", name, "--output=/dev/null"]
            runner.run(argv, env=system.database.env, stdin=_gunzipped(sql), timeout=_PATIENCE)
        _equal(name, counts(name), expected)
        runner.run((*psql, "--command", f"DROP DATABASE {name}"), env=system.database.env, timeout=300)
    return f"both restored: rows of {len(expected.splitlines())} tables equal"


def _redis(system: System, out: Path) -> str:
    expected = _keys(system.redis)
    programs = Path(system.redis.cli[0]).parent
    rdb = _gunzipped(out / "redis" / f"dump_{DATE}.rdb.gz")
    with redis.start(programs, system.folder, rdb=rdb) as server:
        _equal("redis", _keys(server), expected)
    return f"loaded: keys of {len(expected)} databases equal"


def _storage(system: System, out: Path) -> str:
    unpacked = system.folder / "guide" / "unpacked"
    unpacked.mkdir()
    archive = out / "storage" / f"storage_{DATE}.tar.gz"
    _run("tar", "-xpzf", str(archive), "-C", str(unpacked))
    _run("diff", "-r", "-q", str(system.storage), str(unpacked / "storage_backup"))
    return "unpacked: the same files"


def _config(system: System, out: Path) -> str:
    passphrase = system.folder / "guide" / "passphrase"
    passphrase.write_text(PASSPHRASE, encoding="ascii")
    plain = system.folder / "guide" / "config.tar.gz"
    home = {"GNUPGHOME": str(system.folder / "guide" / "home" / ".gnupg")}
    archive = out / "config" / f"config_{DATE}.tar.gz.gpg"
    options = ("--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase-file", str(passphrase))
    _run("gpg", *options, "--output", str(plain), "--decrypt", str(archive), env=home)
    _run("gpgconf", "--kill", "all", env=home)
    _run("tar", "-xzf", str(plain), "-C", str(plain.parent))
    _run("diff", str(system.configuration / ".env"), str(plain.parent / "config_backup" / ".env.backup"))
    return "decrypted and unpacked: .env equal"


def _keys(server: redis.RedisServer) -> dict[str, str]:
    rows = (line.strip().partition(":keys=") for line in server.run("INFO", "keyspace").splitlines())
    return {name: rest.partition(",")[0] for name, found, rest in rows if found}


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError(f"{what}: restored {found!r}, and {expected!r} was expected")


def _gunzipped(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _run(*argv: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv,
        env=None if env is None else {"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(argv[:2])} ended with {done.returncode}: {done.stdout}{done.stderr}"[:2000]
        )
