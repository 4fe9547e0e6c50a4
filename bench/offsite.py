"""Sending one large file to a bucket: this project against boto3's transfer manager, on one embedded server.

    python bench/offsite.py                # 1 GB, about a minute
    python bench/offsite.py --megabytes 200

Prints a table of ratios to boto3's plain upload, which compares nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from bookreader_backup_assets.servers import s3
from bookreader_backup_assets.vaults.s3 import S3Vault
from bookreader_backup_assets.vaults.s3_access import connect

CHUNK = 1 << 20
_PART = 16 << 20


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    size = parser.parse_args().megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder, s3.start(Path(folder) / "s3") as server:
        source = Path(folder) / "source"
        _fill(source, size)
        access = server.make_bucket("bench")
        vault, client = S3Vault(access, "bookreader-backups/bench/"), connect(access)
        config = TransferConfig(multipart_chunksize=_PART, multipart_threshold=_PART, max_concurrency=4)

        def plain() -> None:
            client.upload_file(str(source), "bench", "plain", Config=config)

        def summed() -> None:
            extra = {"ChecksumAlgorithm": "SHA256"}
            client.upload_file(str(source), "bench", "summed", Config=config, ExtraArgs=extra)

        def interrupted() -> None:
            try:
                vault.put("resumed", _read(source, ends=size // 2), size=size)
            except RuntimeError:
                return

        rows: list[tuple[str, float]] = []
        for what, work in (
            ("boto3, nothing compared", plain),
            ("boto3, SHA-256 of each part", summed),
            (
                "this project: SHA-256 of each part and of all",
                lambda: vault.put("ours", _read(source), size=size),
            ),
            ("the first half of it, then killed", interrupted),
            ("gone on with", lambda: vault.put("resumed", _read(source), size=size)),
            ("read back and hashed", lambda: vault.digest("ours")),
        ):
            rows.append((what, _timed(work)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{size / 1e6:.0f} MB; peak of this process {peak:.0f} MB\n")
    print("| what | seconds | to boto3 |\n| --- | --: | --: |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.1f} | {seconds / rows[0][1]:.2f} |")


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // CHUNK + 1):
            file.write(os.urandom(CHUNK))
        file.truncate(size)


def _read(path: Path, ends: int | None = None) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            if ends is not None and file.tell() >= ends:
                raise RuntimeError("killed")


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
