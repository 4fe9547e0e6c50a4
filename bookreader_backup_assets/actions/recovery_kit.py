"""The recovery kit: one printed page from which a BookReader comes back without this program."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bookreader_backup_assets.core.secret import Secret

WIDTH = 100
"""Characters of its longest line that is no command."""
LINES = 66
"""Lines of a printed page."""
_EARLIER = "\nWhere gpg says `Bad session key`, an earlier key is wanted: the file's .entry.json says which."
_GPG = "gpg --batch --pinentry-mode loopback --passphrase-file"


@dataclass(frozen=True)
class Kit:
    """What a kit says. `restore` is how `pg_restore` and `psql` are reached, as words before them.

    `offsite` says where copies are; `keys` are the passphrases that it is to show, by their ids.
    """

    host: str
    installation: str
    vault: Path
    settings: str
    plan: str
    at: datetime
    key_id: str
    key_file: str
    old_keys: tuple[str, ...]
    database: str
    restore: tuple[str, ...]
    config: str
    storage: str
    offsite: tuple[str, ...] = ()
    keys: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)


def text(kit: Kit) -> str:
    """Return the page. It has the passphrases only if the kit has them; its commands have none."""
    shown = [(identity, key.reveal()) for identity, key in kit.keys] or [(kit.key_id or "none yet", "_" * 50)]
    old = ", ".join(kit.old_keys)
    earlier = _EARLIER if old else ""
    ours = [
        ("host", kit.host),
        ("installation", kit.installation),
        ("vault", str(kit.vault)),
        ("settings", kit.settings),
        ("plan", kit.plan),
        *(("copies in", place) for place in kit.offsite),
        ("configuration", f"of {kit.config}"),
        ("storage", f"of {kit.storage}"),
        ("key", f"{kit.key_id}, a passphrase, in {kit.key_file}" if kit.key_id else "none here"),
        *([("earlier keys", old)] if old else []),
        *(("passphrase", f"{identity}  {key}") for identity, key in shown),
    ]
    where = "\n".join(f"{name:<14} {value}" for name, value in ours)
    return f"""\
RECOVERY KIT OF BOOKREADER'S BACKUPS                                   {kit.at:%Y-%m-%d %H:%M} UTC

{where}

Print this page, write the passphrase on it if it is not there, and keep it away from this host.
A file of it, where that is gone: umask 077; printf %s 'PASSPHRASE' > key. Name it after KEY= below.{earlier}
A vault without its key cannot give back the roles and the configuration: keep the key elsewhere,
and not beside a copy of the vault. Whoever has both can read everything.

In the vault, of each day:
  backup_set/*.txt                  what belongs together, with the sha256 of each file
  postgresql/globals_*.sql.gz.gpg   roles and their passwords, encrypted
  postgresql/*.dump[.gpg]           the database, for pg_restore
  redis/*.rdb.gz[.gpg]              all keys, as Redis loads them
  storage/*.tar.gz                  the files
  config/*.tar.gz.gpg               compose file, .env and what else is configured, encrypted
  code/*.bundle                     BookReader's repository, for git clone; once a week
A file without an .entry.json beside it is not whole. Suffixes are undone from the end.

WITHOUT THIS PROGRAM: type this in an empty folder. It brings the newest whole set into ./restored,
and replaces nothing. Put the files in their place and start the servers before the last step.
    cd -P . && TO=$PWD/restored && umask 077 && mkdir -p "$TO/config" "$TO/storage"
    KEY={shlex.quote(kit.key_file)} && cd {shlex.quote(str(kit.vault))}
    SET=$(grep -LE '^(postgresql/(dump|globals)|redis/rdb|(storage|config)/archive): MISSING' \\
      backup_set/backup_manifest_*.txt | grep -E '_[0-9-]+\\.json\\.txt$' | tail -n 1) && echo "$SET"
    of() {{ grep -oE "$1(\\.gpg)?\\$" "$SET"; }}
    out() {{ case $1 in *.gpg) {_GPG} "$KEY" -d "$1";; *) cat "$1";; esac; }}
1. Is every file as it was captured?
    grep -E '^[0-9a-f]{{64}}  ' "$SET" | sha256sum -c
2. Configuration and roles, decrypted
    out "$(of 'config/[^ ]+\\.tar\\.gz')" | tar -xpzf - -C "$TO/config"
    out "$(of 'postgresql/globals_[^ ]+\\.sql\\.gz')" | gunzip > "$TO/roles.sql"
3. Storage
    out "$(of 'storage/[^ ]+\\.tar\\.gz')" | tar --numeric-owner -xpzf - -C "$TO/storage"
4. Redis: the dump to start it on
    out "$(of 'redis/[^ ]+\\.rdb\\.gz')" | gunzip > "$TO/dump.rdb"
5. Database {kit.database}, on a server that has none of that name
    {_restore(kit)}

Slower, and with an undo for each step: docs/runbooks/without-this-program.md of this program.
With it, from a copy: its BACKUP_… settings, BACKUP_KEY_FILE, and bookreader-backup list --vault.
"""


def _restore(kit: Kit) -> str:
    """Roles first; that some exist already is harmless."""
    prefix = shlex.join(kit.restore) + " " if kit.restore else ""
    roles = f'{prefix}psql -X -q -d postgres < "$TO/roles.sql"'
    dump = "$(of 'postgresql/[^ ]+\\.dump')"
    return f'{roles}\n    out "{dump}" | {prefix}pg_restore --exit-on-error --create -d postgres'
