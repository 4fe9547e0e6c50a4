"""A bucket, and the vaults of installations in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bookreader_backup_assets.vaults.base import Terms
from bookreader_backup_assets.vaults.names import IDENTITY, is_name
from bookreader_backup_assets.vaults.s3 import S3Vault
from bookreader_backup_assets.vaults.s3_access import Access, connect

FOLDER = "bookreader-backups/"
"""What the keys of this program begin with in a bucket, as the guide has them."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Bucket:
    """Implements `Place`. `pruning` is the account that may delete, if it is another one.

    `client` gives the client of S3, if it is not made from `access`: under Dagster its resource does. One
    that is `quick` is not waited for long: for whoever only looks.
    """

    access: Access
    pruning: Access | None = None
    client: Callable[[], Any] | None = field(default=None, repr=False)
    name: str = "offsite"
    quick: bool = False

    def vault(self, installation: str, terms: Terms | None = None) -> S3Vault:
        """See `Place.vault`."""
        wanted = terms or Terms()
        return S3Vault(
            access=self.access,
            prefix=f"{FOLDER}{installation}/",
            storage_class=wanted.storage_class,
            lock_days=wanted.lock_days,
            name=self.name,
            connect=lambda: self._connected,
            pruning=lambda: self._connected_to_prune,
        )

    def installations(self) -> list[str]:
        """See `Place.installations`."""
        folders = (name.removeprefix(FOLDER).rstrip("/") for name in self.vault("").folders(FOLDER))
        named = sorted(name for name in folders if is_name(name))  # `doctor` tries things beside them
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return [name for name, there in zip(named, threads.map(self._has, named), strict=True) if there]

    def _has(self, installation: str) -> bool:
        """Whether an installation has a vault here: to list its file takes no more rights than above."""
        return any(stored.name == IDENTITY for stored in self.vault(installation).list(IDENTITY))

    @cached_property
    def _connected(self) -> Any:
        return (self.client or (lambda: connect(self.access, quick=self.quick)))()

    @cached_property
    def _connected_to_prune(self) -> Any:
        return connect(self.pruning) if self.pruning else self._connected
