"""Settings from the environment, from `bookreader-backup.env` or `.env`, or secret files: `BACKUP_…`, or
`BACKUP_…_FILE` for a value that lies in a file. The table in `docs/reference/settings.md` is made from
this module.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bookreader_backup_assets.core.errors import SettingsError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.settings_file import PREFIX, read_file, settings_file
from bookreader_backup_assets.settings_places import require_apart, require_plain_url


def _secret(value: object) -> Secret:
    return value if isinstance(value, Secret) else Secret(str(value))


def _listed(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


SecretText = Annotated[Secret, BeforeValidator(_secret)]
Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Settings(BaseModel):
    """Where BookReader is, where backups go, and how they are kept. Descriptions are the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    runner: Literal["docker", "local"] = Field(
        "docker",
        description="How services are reached: `docker` (in their containers) or `local` (URLs, paths)",
    )
    vault: Path = Field(
        Path("/var/backups/bookreader"), description="Folder that keeps the artifacts: the local vault"
    )
    plan: str = Field("production", description="Name of a shipped plan, or the path of your own")
    timezone: str | None = Field(None, description="Replaces the plan's timezone, such as `Europe/Moscow`")
    first_day: date | None = Field(
        None, description="First daily partition in Dagster; without it, the day the vault was made"
    )
    key: SecretText | None = Field(
        None,
        description="Passphrase that encrypts config and roles (AES256). Keep a copy away from this host",
    )
    old_key_files: Listed = Field(
        (),
        description="Files with earlier passphrases, separated by commas: they open what they encrypted, and "
        "encrypt nothing",
    )
    log: Path | None = Field(
        None, description="File to append a line to for each capture, check, restore and refusal"
    )
    compose_project: str | None = Field(
        None, description="Compose project to look for containers in, where a host runs several"
    )
    postgresql_container: str | None = Field(
        None, description="Container of PostgreSQL, if not found by itself"
    )
    postgresql_database: str = Field("bookreader", description="Name of the database (runner `docker`)")
    postgresql_user: str = Field("postgres", description="User that reads it (runner `docker`)")
    postgresql_password: SecretText | None = Field(None, description="That user's password")
    postgresql_url: SecretText | None = Field(
        None, description="`postgresql://user:password@host:port/database` (runner `local`)"
    )
    postgresql_programs: Path | None = Field(
        None, description="Folder of `pg_dump` and `psql` not older than the server (runner `local`)"
    )
    redis_container: str | None = Field(None, description="Container of Redis, if not found by itself")
    redis_password: SecretText | None = Field(None, description="Redis's `requirepass`")
    redis_url: SecretText | None = Field(None, description="`redis://:password@host:port` (runner `local`)")
    redis_programs: Path | None = Field(
        None, description="Folder of `redis-cli` and `redis-server` for runner `local` and scratch servers"
    )
    storage_container: str | None = Field(
        None, description="Container that mounts the storage folder, if not found by itself"
    )
    storage_path: str = Field(
        "/app/storage", description="The storage folder: inside that container, or on this machine"
    )
    config_root: Path = Field(Path(), description="Folder of BookReader's compose file")
    config_paths: Listed = Field(
        ("docker-compose.yml", ".env", "nginx"),
        description="Files and folders of the configuration, relative to that folder, separated by commas",
    )
    code_path: Path | None = Field(
        None,
        description="Folder of BookReader's git repository, the one with `.git` in it, if that is not the "
        "folder of its compose file",
    )
    services: Listed = Field(
        ("backend", "celery-worker", "celery-beat"),
        description="Services that use the data: stopped while a restore replaces it. Compose services, or "
        "names of containers, in the order in which they start (runner `docker`)",
    )
    compose_files: Listed = Field(
        (),
        description="Compose files in that folder, such as `docker-compose.prod.yml`, if not the usual one",
    )
    health_urls: Listed = Field(
        ("http://127.0.0.1:8000/api/v1/health", "http://127.0.0.1:8000/api/v1/books"),
        description="Asked after a system restore: each has to answer 2xx, without a login. "
        "A comma alone is for none",
    )
    file_columns: Listed = Field(
        ("books.file_path", "books.cover_image", "generated_images.local_path"),
        description="Columns that hold paths of storage, as `table.column`, or `table.column=folder` where "
        "they are relative to a folder in it: after a restore the files are looked for",
    )
    nas: Path | None = Field(
        None,
        description="Folder where a NAS is mounted: the vault `nas`. It has a file "
        "`.bookreader-nas`, without which nothing is written there",
    )
    git_remote: SecretText | None = Field(
        None, description="Git remote that takes the encrypted configuration: the vault `git`"
    )
    offsite_bucket: str | None = Field(None, description="Bucket of the vault `offsite`")
    offsite_endpoint: str = Field(
        "", description="URL of an S3-compatible service: MinIO, R2, Ceph …; without it, AWS"
    )
    offsite_region: str = Field("", description="Region of that bucket")
    offsite_access_key: SecretText | None = Field(
        None, description="Access key id; without it, whatever boto3 finds: environment, profile, role"
    )
    offsite_secret_key: SecretText | None = Field(None, description="Its secret access key")
    offsite_prune_access_key: SecretText | None = Field(
        None, description="Access key id of another account that may delete, where the first may not"
    )
    offsite_prune_secret_key: SecretText | None = Field(None, description="Its secret access key")
    offsite_installation: str = Field(
        "", description="Id of the installation to read offsite, where a bucket has several, on another host"
    )
    offsite_checksums: Literal["sha256", "none"] = Field(
        "sha256",
        description="What the service compares with what it received: `sha256`; `none` where it cannot "
        "(`doctor` finds out)",
    )
    offsite_encryption: Literal["AES256", "aws:kms", "none"] = Field(
        "AES256", description="Encryption by the service, besides ours"
    )
    offsite_conditional: bool = Field(
        default=True, description="Whether the service knows `If-None-Match`, which never overwrites"
    )
    offsite_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = Field(
        "GOVERNANCE", description="Mode of object locks, where a plan row has `lock_days`"
    )
    offsite_read_back: bool = Field(
        default=False,
        description="Read every upload back, also where the service computed the SHA-256 of what it received",
    )
    scratch: Path = Field(
        Path(tempfile.gettempdir()), description="Folder for the scratch servers that restores are tried on"
    )
    env_file: Path | None = Field(
        None,
        description="Only in the environment: the file with these settings, instead of one in the "
        "working folder",
    )


def load_settings(environ: Mapping[str, str] | None = None, *, env_file: Path | None = None) -> Settings:
    """Return the settings in `environ` (default: this process's) over those in a file.

    The file is `env_file`, or that of `settings_file`. Raises `SettingsError` naming the variable, the line
    of the file, and what may stand there.
    """
    environ = os.environ if environ is None else environ
    file = settings_file(environ) if env_file is None else env_file
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for given in (read_file(file), {name: (value, name) for name, value in environ.items()}):
        ours = {name: given[name] for name in given if name.startswith(PREFIX)}
        # of one source, a value set directly wins over one in a file, and either over an empty one
        for variable in sorted(ours, key=lambda name: (ours[name][0] != "", not name.endswith("_FILE"))):
            value, origin = ours[variable]
            field, text = _field(variable, value, origin)
            values[field], origins[field] = text, origin
    try:
        # an empty value is none: compose passes those for what nobody set
        settings = Settings.model_validate({field: text for field, text in values.items() if text})
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{origins[str(first['loc'][0])]}: {first['msg']}") from None
    if settings.offsite_endpoint:
        require_plain_url(settings.offsite_endpoint, origins["offsite_endpoint"])
    if settings.nas:
        require_apart(settings.vault, settings.nas, origins["nas"])
    return settings


def old_keys(settings: Settings) -> dict[Path, Secret | None]:
    """Return the earlier passphrases, by the file that each lies in.

    None for a file that cannot be read: it opens nothing then, and stops nothing that does not need it.
    """
    found: dict[Path, Secret | None] = {}
    for name in settings.old_key_files:
        path = Path(name).expanduser()
        try:
            text = path.read_bytes().decode("utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError):
            text = ""
        found[path] = Secret(text) if text else None
    return found


def variables() -> dict[str, str]:
    """Every variable, and what it is for."""
    fields = Settings.model_fields.items()
    return {f"{PREFIX}{name.upper()}": field.description or "" for name, field in fields}


def secret_variables() -> frozenset[str]:
    """The variables whose values are secrets, and belong into files."""
    fields = Settings.model_fields.items()
    return frozenset(f"{PREFIX}{name.upper()}" for name, field in fields if "Secret" in str(field.annotation))


def table() -> str:
    """Return the table of `docs/reference/settings.md`: variable, default, meaning."""
    rows = [f"| `{name}` | {_default(name)} | {meaning} |" for name, meaning in variables().items()]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _default(variable: str) -> str:
    default = Settings.model_fields[variable.removeprefix(PREFIX).lower()].default
    if default in {None, (), ""}:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if variable == f"{PREFIX}SCRATCH":
        return "`TMPDIR`, or `/tmp`"
    return f"`{','.join(default) if isinstance(default, tuple) else default}`"


def _field(variable: str, value: str, origin: str) -> tuple[str, str]:
    name = variable.removeprefix(PREFIX).lower()
    if name in Settings.model_fields:
        return name, value
    if variable.endswith("_FILE") and (name := name.removesuffix("_file")) in Settings.model_fields:
        try:
            text = Path(value).read_bytes().decode("utf-8").rstrip("\n") if value else ""
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{origin} names {value}, which cannot be read: {getattr(error, 'strerror', error)}",
                hint="make that file, readable by this user, with the value and nothing else in it",
            ) from None
        if "\r" in text:  # gpg would take it for a part of the passphrase, and most editors hide it
            raise SettingsError(
                f"{origin} names {value}, which has a carriage return in it",
                hint="save it with the line ends of Unix, or without any: printf %s SECRET > FILE",
            )
        return name, text
    known = [known for name in variables() for known in (name, f"{name}_FILE")]
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.5)
    raise SettingsError(
        f"{origin} is not a setting",
        hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(variables())}",
    )
