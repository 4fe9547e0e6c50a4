"""How a BookReader's PostgreSQL and Redis let us in: what containers and files say, tried until it works."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import unquote, urlsplit

from bookreader_backup_assets.actions.discover import BookReader
from bookreader_backup_assets.components.psql import connect
from bookreader_backup_assets.components.redis_talk import Talk
from bookreader_backup_assets.core.errors import BackupError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_project import Container, read, runner

_FAMILIES = (
    ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"),
    ("POSTGRESQL_USERNAME", "POSTGRESQL_PASSWORD", "POSTGRESQL_DATABASE"),
    ("DB_USER", "DB_PASSWORD", "DB_NAME"),
    ("DATABASE_USER", "DATABASE_PASSWORD", "DATABASE_NAME"),
    ("PGUSER", "PGPASSWORD", "PGDATABASE"),
)
"""Variables for user, password and database: of the official image, Bitnami's, BookReader, and libpq."""
_SUPERUSER = "postgres"
_REQUIREPASS = re.compile(r"""(?:--|^\s*)requirepass[\s=]+(?:"([^"]*)"|'([^']*)'|([^\s"']+))""", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_CACHE = ("REDIS_PASSWORD", "REDISCLI_AUTH", "REDIS_PASS", "VALKEY_PASSWORD")
_SHOWN = ("appendonly", "save", "maxmemory-policy")
_ABOUT = """
SELECT jsonb_build_object('version', current_setting('server_version'),
  'tables', (SELECT count(*) FROM pg_catalog.pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema')))
"""


@dataclass(frozen=True)
class Access:
    """How a server lets us in, and what it said. `why` says why it does not, if none of it worked."""

    database: str = ""
    user: str = ""
    password: Secret | None = field(default=None, repr=False)
    said: str = ""
    why: str = ""


@dataclass(frozen=True)
class _Login:
    user: str
    password: Secret | None
    database: str


def database(engine: Engine, there: BookReader, told: Access) -> Access:
    """Return what connects to the database that BookReader uses, by connecting; as it was `told` first."""
    own = list(_logins(engine, there.postgresql))
    if told.password or told.user:
        user = told.user or next((login.user for login in own), _SUPERUSER)
        own.insert(0, _Login(user, told.password, told.database))
    theirs = [login for one in there.others for login in _logins(engine, one)]
    named = (told.database, *(login.database for login in (*theirs, *own)))
    databases = dict.fromkeys(name for name in named if name)
    databases |= dict.fromkeys([*(login.user for login in own), "bookreader"])
    logins = {(login.user, login.password and login.password.reveal()): login for login in (*own, *theirs)}
    why = f"{there.postgresql.name} says neither user nor password"
    for login in logins.values():
        for name in databases:
            env = {"PGHOST": "127.0.0.1", "PGPORT": "5432", "PGUSER": login.user}
            env |= {"PGPASSWORD": login.password.reveal()} if login.password else {}
            try:
                with connect(runner(engine, there.postgresql), env, name) as psql:
                    about = psql.ask(_ABOUT)
            except BackupError as error:
                why = error.message
                continue
            version = str(about["version"]).split(" ", 1)[0]
            said = (
                f"PostgreSQL {version} in {there.postgresql.name}, database {name}, {about['tables']} tables"
            )
            return Access(name, login.user, login.password, f"{said}, as {login.user}")
    best = next(iter(logins.values()), _Login(_SUPERUSER, None, ""))
    return Access(next(iter(databases)), best.user, best.password, why=why)


def redis(engine: Engine, there: BookReader, told: Secret | None) -> Access:
    """Return what Redis answers PING to: no password, if it takes none."""
    reached = runner(engine, there.redis)
    why = ""
    for password in (Secret(""), *((told,) if told else ()), *_passwords(engine, there)):
        # an empty variable hides the container's own: what works must work for us
        env = {"REDISCLI_AUTH": password.reveal()}
        talk = Talk(reached, ("redis-cli",), password)
        try:
            if b"PONG" not in reached.run(["redis-cli", "PING"], env=env, timeout=30).stdout:
                why = why or f"{there.redis.name} wants a password, and none that was found is it"
                continue
        except BackupError as error:
            why = error.message
            continue
        return Access(
            password=password or None, said=f"Redis {_told(talk)} in {there.redis.name}{_flags(talk)}"
        )
    return Access(why=why)


def _told(talk: Talk) -> str:
    with suppress(BackupError):
        return talk.info("server").get("redis_version", "")
    return ""


def _flags(talk: Talk) -> str:
    found = {}
    for name in _SHOWN:
        with suppress(BackupError):  # CONFIG may have been renamed
            found[name] = talk.config(name)
    return "".join(f", {name} {value or 'none'}" for name, value in found.items())


def _logins(engine: Engine, one: Container) -> Iterator[_Login]:
    env = one.environment
    for names in _FAMILIES:
        user, password, name = (_value(engine, one, variable) for variable in names)
        if user or password:
            yield _Login(user or _SUPERUSER, Secret(password) if password else None, name)
    for value in env.values():
        if re.match(r"postgres(ql)?(\+\w+)?://", value):
            with suppress(ValueError):
                parts = urlsplit(value)
                password = unquote(parts.password or "")
                user, name = unquote(parts.username or ""), unquote(parts.path.strip("/"))
                yield _Login(user or _SUPERUSER, Secret(password) if password else None, name)


def _passwords(engine: Engine, there: BookReader) -> Iterator[Secret]:
    """Yield what could be the password of Redis, each once, the likeliest first."""
    one = there.redis
    found = [after for word, after in pairwise(one.words) if word == "--requirepass"]
    files = [read(engine, one, word) or "" for word in one.words if word.endswith(".conf")]
    for text in (*one.words, *files):
        for match in _REQUIREPASS.finditer(text):
            word = next(group for group in match.groups() if group is not None)
            named = _VARIABLE.fullmatch(word)
            found.append(_value(engine, one, named[1]) if named else word)
    containers = (one, *there.others)
    found += [_value(engine, each, name) for each in containers for name in _CACHE]
    found += list(_in_urls(there.others))
    return (Secret(text) for text in dict.fromkeys(found) if text)


def _in_urls(containers: Iterable[Container]) -> Iterator[str]:
    for one in containers:
        for value in one.environment.values():
            if value.startswith(("redis://", "rediss://")):
                with suppress(ValueError):
                    yield unquote(urlsplit(value).password or "")


def _value(engine: Engine, one: Container, variable: str) -> str:
    """Return a variable of a container, or what lies in the file that `…_FILE` names."""
    value = one.environment.get(variable, "")
    path = one.environment.get(f"{variable}_FILE", "")
    return value or ((read(engine, one, path) or "").rstrip("\n") if path else "")
