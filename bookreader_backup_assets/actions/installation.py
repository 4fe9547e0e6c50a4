"""An installation: where its artifacts go, what it captures, and the id that tells it from others."""

from __future__ import annotations

import json
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from bookreader_backup_assets import __version__
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.outside import Outside
from bookreader_backup_assets.actions.program_log import silent
from bookreader_backup_assets.actions.system_check import System
from bookreader_backup_assets.codecs.chain import Codecs
from bookreader_backup_assets.components.base import Component, Scratch, Stored
from bookreader_backup_assets.components.restoration import Restoration
from bookreader_backup_assets.core.artifact import FORMAT_VERSION, Proof, load_document
from bookreader_backup_assets.core.errors import NameTakenError, NotFoundError, RefusedError
from bookreader_backup_assets.core.hour import HOUR, key_of
from bookreader_backup_assets.core.policy import Policy
from bookreader_backup_assets.core.restore_plan import Options
from bookreader_backup_assets.core.secret import Secret, key_id
from bookreader_backup_assets.core.streams import Progress, quiet
from bookreader_backup_assets.runners.base import Services
from bookreader_backup_assets.runners.local import NoServices
from bookreader_backup_assets.vaults import names
from bookreader_backup_assets.vaults.base import Vault

IDENTITY = names.IDENTITY
LOCAL = "local"
"""The name of the vault on this host."""
VAULTS = {
    "nas": "set BACKUP_NAS to the folder where it is mounted",
    "offsite": "set BACKUP_OFFSITE_BUCKET, and a key for it",
    "git": "set BACKUP_GIT_REMOTE to a remote that this host may push to",
}
"""The vaults away from this host, and what sets each of them up."""
_SOON: dict[str, Any] = {"wait": wait_fixed(0.05), "stop": stop_after_delay(10)}

Images = Callable[[], Mapping[str, Mapping[str, str]]]
"""The images of BookReader's containers, by service; none where nothing runs in containers."""


Restorations = Mapping[str, Callable[[Stored, Options], Restoration]]
"""How each scenario is restored from an artifact."""


Watch = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Shows somebody what is being done, over how many bytes if that is known, and how far it is."""


def utc_now() -> datetime:
    """The instant it is."""
    return datetime.now(UTC)


@contextmanager
def unwatched(_doing: str, _bytes: int | None) -> Iterator[Progress]:
    """A `Watch` that nobody looks at."""
    yield quiet


@dataclass(frozen=True)
class Installation:
    """What `assembly.assemble` makes of the settings, and every action works on.

    `components` are keyed by asset, as in `postgresql/dump`; `planned` are the assets of days' sets, and
    `due_on` says of a component whether a day is to have it; `restorations` are by scenario; `services` use
    the data, and are stopped while it is replaced; `lock` is the file that lets one restore work at a time.
    `zone` is the plan's timezone; `system` is all of it together; `key` encrypts; `log` has a line for each
    thing done; `now` is the clock; `watch` shows what takes long. `vault_named` is what an operator named
    the vault by, if it is not the one of the settings; `source_named` names the one that restores read.

    `policy` is what the plan keeps in the local vault, `outside` are the vaults away from this host, by name;
    `unset` are those that the plan wants, and no setting says where they are.
    """

    vault: Vault
    codecs: Codecs
    components: Mapping[str, Component]
    planned: tuple[str, ...]
    scratch: Scratch
    zone: ZoneInfo
    due_on: Callable[[str, date], bool] = lambda _component, _day: True
    restorations: Restorations = field(default_factory=dict)
    services: Services = field(default_factory=NoServices)
    system: System | None = None
    lock: Path = Path(tempfile.gettempdir()) / "bookreader-backup.lock"
    key: Secret | None = field(default=None, repr=False)
    images: Images = dict
    log: Logger = field(default_factory=silent, repr=False)
    now: Callable[[], datetime] = utc_now
    watch: Watch = unwatched
    vault_named: str = ""
    source_named: str = LOCAL
    policy: Policy | None = None
    outside: Mapping[str, Outside] = field(default_factory=dict)
    unset: Mapping[str, Outside] = field(default_factory=dict)
    host: str = socket.gethostname()
    version: str = __version__

    @cached_property
    def id(self) -> str:
        """The id in the vault's root, made at the first capture."""
        return self._identity()[0]

    @property
    def known_id(self) -> str | None:
        """The id, or None where nothing was captured yet."""
        identity = read_identity(self.vault)
        return identity[0] if identity else None

    @cached_property
    def source(self) -> Installation:
        """Itself over the vault that restores read: its entries, and the bytes."""
        return self.reading(self.source_named)

    def source_catalog(self) -> Catalog:
        """Return a reading of that vault: of one away from this host the same each time, for it is far."""
        return Catalog(self.source.vault) if self.source_named == LOCAL else self._far_catalog

    @cached_property
    def _far_catalog(self) -> Catalog:
        return Catalog(self.source.vault)

    def reading(self, name: str) -> Installation:
        """Return this installation over one of its vaults, to list, verify and read what is there.

        Raises `RefusedError` for a vault that there is not, and where nothing says whose artifacts are meant.
        """
        if name == LOCAL:
            return self
        outside = self.vault_outside(name)
        return replace(self, vault=outside.vault(outside.find(self.known_id)), source_named=LOCAL)

    def vault_outside(self, name: str) -> Outside:
        """Return a vault away from this host. Raises `RefusedError` for one that there is not."""
        if name not in self.outside:
            if name in VAULTS:
                raise RefusedError(f"the vault {name!r} is not set up", hint=VAULTS[name])
            known = ", ".join((LOCAL, *VAULTS))
            raise RefusedError(f"there is no vault {name!r}", hint=f"there are: {known}")
        return self.outside[name]

    @cached_property
    def key_id(self) -> str | None:
        """The short name of the passphrase that encrypts what is captured here; None without one."""
        return key_id(self.key, self.id) if self.key else None

    @cached_property
    def since(self) -> date:
        """The day this installation's vault was made, in the plan's timezone; today if it is not yet."""
        identity = read_identity(self.vault)
        made_at = identity[1] if identity else self.now()
        return made_at.astimezone(self.zone).date()

    def today(self) -> str:
        """The set id of the day it is."""
        return self.now().astimezone(self.zone).date().isoformat()

    def planned_on(self, day: date) -> tuple[str, ...]:
        """Return the assets that the set of a day is to have."""
        return tuple(asset for asset in self.planned if self.due_on(asset.split("/")[0], day))

    def week_of(self, component: str) -> str | None:
        """Return the day of this week that a weekly component belongs to; None if the plan has none."""
        today = date.fromisoformat(self.today())
        week = (today - timedelta(days=back) for back in range(7))
        return next((day.isoformat() for day in week if self.due_on(component, day)), None)

    def set_of(self, asset: str) -> str:
        """Return the id of the set that an asset is captured into now: the day's; the week's for code.

        Logs are those of the last hour that is over. Raises `RefusedError` for code that the plan does not
        have.
        """
        if asset.startswith("logs/"):
            return key_of(self.now() - HOUR)
        if not asset.startswith("code/"):
            return self.today()
        if week := self.week_of("code"):
            return week
        raise RefusedError(
            "the plan captures no code",
            hint="add a section [code] to it, or make a labelled set: --label now",
        )

    def component(self, asset: str) -> Component:
        """Return the component that captures `asset`. Raises `RefusedError` for an unknown one."""
        if asset not in self.components:
            raise RefusedError(
                f"there is no asset {asset!r}", hint=f"there are: {', '.join(self.components)}"
            )
        return self.components[asset]

    def keep(self, proof: Proof) -> Proof:
        """Store a proof beside its artifact and return it. Two of one microsecond are told apart."""
        while True:
            try:
                self.vault.put(proof.proof_name, [proof.to_json()])
            except NameTakenError:
                proof = replace(proof, at=proof.at + timedelta(microseconds=1))
            else:
                return proof

    def _identity(self) -> tuple[str, datetime]:
        if identity := read_identity(self.vault):
            return identity
        document = {
            "format_version": FORMAT_VERSION,
            "id": str(uuid.uuid4()),
            "made_at": self.now().isoformat(),
            "host": self.host,
        }
        with suppress(NameTakenError):  # another process was first, and may not have ended
            self.vault.put(IDENTITY, [json.dumps(document, indent=1).encode() + b"\n"])
        again = Retrying(retry=retry_if_exception_type(NotFoundError), reraise=True, **_SOON)
        return again(_read_identity, self.vault)


def read_identity(vault: Vault) -> tuple[str, datetime] | None:
    """Return the id of the installation that a vault is of, and when it was made; None where none is kept.

    Raises `VaultError` where the vault cannot be asked.
    """
    try:
        return _read_identity(vault)
    except NotFoundError:
        return None


def _read_identity(vault: Vault) -> tuple[str, datetime]:
    document = load_document(b"".join(vault.open(IDENTITY)), IDENTITY)
    return str(document["id"]), datetime.fromisoformat(document["made_at"])
