"""What a configuration's archive holds: read into memory, compared with its hash, and put into a folder."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bookreader_backup_assets.codecs import extract
from bookreader_backup_assets.codecs.extract import Extractor
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.codecs.tar import SECOND
from bookreader_backup_assets.components.base import Stored
from bookreader_backup_assets.core.errors import DamagedError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.base import Kind

_KINDS: dict[bytes, Kind] = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symlink"}
_FORMATS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
_PARENT = 0o755


@dataclass(frozen=True)
class Member:
    """One path of the archive, relative to the configuration's folder. `target` is a symlink's."""

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str = ""
    data: bytes = field(default=b"", repr=False)

    def row(self) -> Row:
        """Return it as what an archive's index has of a path."""
        return Row(
            path=os.fsencode(self.name),
            kind=self.kind,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime * SECOND,
            offset=0,
            length=0,
            inside=0,
            size=len(self.data),
            target=os.fsencode(self.target),
        )


def read(stored: Stored, keys: Iterable[Secret]) -> tuple[Member, ...]:
    """Return what the artifact holds, each path once, parents first. Nothing of it touches a disk.

    Raises `DamagedError` unless names, modes, links and contents have the hash that was taken at
    capture, keyed with one of `keys`, and `KeyMissingError` where none here opens it.
    """
    plain = b"".join(stored.plain())
    for key in keys:
        try:
            members, content = unpack(plain, key)
        except tarfile.TarError as error:
            raise DamagedError(f"{stored.entry.name} does not unpack: {error}") from None
        if hmac.compare_digest(content, stored.entry.fingerprint["content"]):
            return members
    raise DamagedError(
        f"{stored.entry.name} does not hold what was captured",
        hint="take another set: `bookreader-backup list` shows which are verified; nothing was touched",
    )


def unpack(plain: bytes, key: Secret | None = None) -> tuple[tuple[Member, ...], str]:
    """Return what a tar of the configuration holds, as `read` does, and the hash of its content.

    Without a key the hash is none that an entry has. Raises `tarfile.TarError`, and `DamagedError` for
    what no capture makes.
    """
    content = hmac.new(key.reveal().encode() if key else b"", digestmod=hashlib.sha256)
    members: dict[str, Member] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape") as tar:
        for found in tar:
            reader = tar.extractfile(found) if found.isreg() else None
            data = reader.read() if reader else b""
            digest = hashlib.sha256(data).hexdigest()
            said = f"{found.name}\0{found.mode:o}\0{found.linkname}\0{digest}\n"
            content.update(said.encode("utf-8", "surrogateescape"))
            members[found.name] = _member(found, data)
    named = (member for member in members.values() if member.name != ".")
    return tuple(sorted(named, key=lambda member: member.name.split("/"))), content.hexdigest()


def put(members: Iterable[Member], into: Path, *, outside_links: bool, inside: Path) -> list[str]:
    """Put the members into the folder `into`, durably; return the links that were left out.

    Those lead out of `inside`, where the files are to be in the end. Raises `DamagedError` for a path
    that would leave the folder, or leads through a link.
    """
    top = os.fsencode(into)
    with Extractor(top, outside_links=outside_links, inside=os.fsencode(inside)) as extractor:
        made: set[str] = set()
        for member in members:
            for name in _above(member.name):
                if name not in made:
                    extractor.put(replace(member, name=name, kind="folder", mode=_PARENT).row())
                    made.add(name)
            if member.kind == "file":
                write = extractor.open(member.row())
                if write is not None:
                    write(member.data)
                extractor.close()
            else:
                extractor.put(member.row())
                made.add(member.name)
        extractor.finish()
        left_out = {os.fsdecode(path) for path in extractor.left_out}
    for folder, _, files in os.walk(into):
        for name in files:
            _sync(os.path.join(folder, name))
        _sync(folder)
    return sorted(left_out)


def differences(members: Iterable[Member], root: Path) -> dict[str, str]:
    """Return what of the members is not so under `root`, by name: what is different, never the content."""
    found = {member.name: _difference(member, root / member.name) for member in members}
    return {name: said for name, said in found.items() if said}


def leads_out(member: Member, inside: Path) -> bool:
    """Whether it is a link that leads, or may lead, out of the folder that it is to be in."""
    return member.kind == "symlink" and extract.leads_out(member.row(), os.fsencode(inside))


def leaves(name: str) -> bool:
    """Whether a name leads out of the folder that it is relative to."""
    return posixpath.normpath(name).split("/")[0] == ".."


def _member(found: tarfile.TarInfo, data: bytes) -> Member:
    if found.type not in _KINDS:
        raise DamagedError(f"{found.name!r} is no file, folder or link in the archive")
    return Member(
        name=found.name,
        kind=_KINDS[found.type],
        mode=found.mode,
        uid=found.uid,
        gid=found.gid,
        mtime=int(found.mtime),
        target=found.linkname,
        data=data,
    )


def _above(name: str) -> list[str]:
    """Return the folders above a name, from the top."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _difference(member: Member, path: Path) -> str:
    try:
        status = path.lstat()
        kind = _FORMATS.get(stat.S_IFMT(status.st_mode), "something else")
        if kind != member.kind:
            return f"is a {kind}, not a {member.kind}"
        if kind == "symlink":
            return "" if os.readlink(path) == member.target else "leads elsewhere"
        if kind == "file" and path.read_bytes() != member.data:
            return "has other content"
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror}", hint="run as a user that may read it"
        ) from None
    mode = stat.S_IMODE(status.st_mode)
    return "" if mode == member.mode else f"has mode {mode:o}, not {member.mode:o}"


def _sync(path: str) -> None:
    if os.path.islink(path):
        return
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
