"""The script's Redis dump and configuration, read for what they hold."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from bookreader_backup_assets.actions.adopt_found import Found, Seen
from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.components import config_members
from bookreader_backup_assets.components.base import Capture, Facts
from bookreader_backup_assets.components.config import ConfigArchive
from bookreader_backup_assets.components.rdb import Skim
from bookreader_backup_assets.core.artifact import Problem
from bookreader_backup_assets.core.errors import DamagedError, RefusedError

_TOP = "config_backup"
_RENAMED = {".env.backup": ".env"}
_NAMES = ("utf-8", "surrogateescape")
_END = bytes(2 * tarfile.BLOCKSIZE)


def look_at_rdb(installation: Installation, found: Found) -> Seen:
    """Read a dump to its end. Raises `DamagedError` where it is no dump, or not whole.

    The instant is the server's own, of the fork. One from before the script began is of the dump before:
    BGSAVE had not ended when the script copied it.
    """
    skim = Skim(found.decompressed())
    for _ in skim:
        pass
    try:
        captured_at = datetime.fromtimestamp(int(skim.aux["ctime"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):  # before Redis 3.2, or nonsense
        captured_at = found.at.astimezone(UTC)
    if captured_at > installation.now() + timedelta(minutes=5):
        raise RefusedError(f"Redis made it on {captured_at:%Y-%m-%d %H:%M} UTC, which is still to come")
    problems: tuple[Problem, ...] = ()
    if captured_at < found.at:
        before = timedelta(seconds=int((found.at - captured_at).total_seconds()))
        said = f"the dump before, of {captured_at:%Y-%m-%d %H:%M:%S} UTC, {before} older than its name says"
        problems = (Problem(f"{said}: BGSAVE had not ended when it was copied"),)
    server = skim.aux.get("redis-ver") or skim.aux.get("valkey-ver")

    @contextmanager
    def capture() -> Iterator[Capture]:
        again = Skim(found.decompressed())
        facts = Facts(
            captured_at=captured_at,
            fingerprint={"kind": "keys", "databases": dict(skim.databases)},
            versions={**({"server": server} if server else {}), "rdb": str(skim.version)},
            source=found.source(),
            problems=problems,
        )
        yield Capture(iter(again), lambda: facts, found.item.size)

    return Seen(captured_at, capture, problems)


def look_at_config(installation: Installation, found: Found) -> Seen:
    """Read a configuration to its end, in memory, and give its files the names that they had.

    Raises `DamagedError` where it is not whole, and `KeyMissingError` where there is no key to encrypt it
    with, or none here opens it.
    """
    component = installation.component(found.named.kind)
    assert isinstance(component, ConfigArchive)
    key = component.gpg.require()
    plain = b"".join(installation.codecs.decode(found.named.codecs, found.chunks()))
    try:
        members = _members(plain)
    except tarfile.TarError as error:
        raise DamagedError(f"it does not unpack: {error}") from None
    packed = b"".join(header.tobuf(tarfile.GNU_FORMAT, *_NAMES) + data for header, data in members) + _END
    problems: tuple[Problem, ...] = ()
    if "gpg" not in found.named.codecs:
        problems = (Problem("it is in clear there: once it is verified here, remove it"),)
    facts = Facts(
        captured_at=found.at,
        fingerprint={
            "kind": "paths",
            "configured": list(dict.fromkeys(header.name.split("/")[0] for header, _ in members)),
            "content": config_members.unpack(packed, key)[1],
            "files": {header.name: header.size for header, _ in members if not header.isdir()},
        },
        source=found.source(),
    )
    return Seen(found.at, lambda: nullcontext(Capture(iter([packed]), lambda: facts, len(packed))), problems)


def _members(plain: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return what the archive holds below its one folder, each file with its content and padding."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape") as held:
        for member in held:
            top, _, name = member.name.removeprefix("./").partition("/")
            if top != _TOP:
                raise DamagedError(f"it holds {member.name!r} besides the folder {_TOP}")
            if not name:
                continue
            reader = held.extractfile(member) if member.isreg() else None
            data = reader.read() if reader else b""
            member.name = _RENAMED.get(name, name)
            member.pax_headers = {}
            members.append((member, data + bytes(-len(data) % tarfile.BLOCKSIZE)))
    if not plain.endswith(_END):
        raise DamagedError("the archive is cut short")
    if not members:
        raise DamagedError("it holds nothing")
    return members
