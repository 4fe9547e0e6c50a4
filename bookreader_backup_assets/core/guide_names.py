"""What the guide's backup script, and its steps done by hand, leave behind: names, and the text of sums.

The script writes `postgresql/bookreader_<stamp>.dump`, `….sql.gz`, `redis/dump_<stamp>.rdb.gz`,
`storage/storage_<stamp>.tar.gz`, `config/config_<stamp>.tar.gz.gpg` (`.tar.gz`, in clear, where there was no
gpg) and `backup_manifest_<stamp>.txt`, a stamp being `2025-10-24_02-00-00` in the time of its host. The steps
by hand, and the guide's appendix A, have a day alone, `redis_dump`, `storage_backup`, or a word at the end.
A name is a claim: what a file is, its content has to say too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from bookreader_backup_assets.core.errors import RefusedError

SUMS = "sums"
"""The kind of a file that holds checksums of the others."""
_STAMP = r"(?P<day>\d{4}-\d\d-\d\d)(?:_(?P<time>\d\d-\d\d-\d\d))?(?:_[a-z]+)?"
_FORMS = {
    "postgresql/dump": r"[A-Za-z0-9][A-Za-z0-9_-]*_{stamp}\.dump",
    "postgresql/sql": r"bookreader[A-Za-z0-9_-]*_{stamp}\.sql(?P<gz>\.gz)?",
    "redis/rdb": r"(?:redis_)?dump_{stamp}\.rdb(?P<gz>\.gz)?",
    "storage/archive": r"storage(?:_backup)?_{stamp}\.tar(?P<gz>\.gz)",
    "config/archive": r"config(?:_backup)?_{stamp}\.tar(?P<gz>\.gz)(?P<gpg>\.gpg)?",
    SUMS: r"backup_(?:manifest|checksums)_{stamp}\.txt",
}
_PATTERNS = {kind: re.compile(form.replace("{stamp}", _STAMP), re.ASCII) for kind, form in _FORMS.items()}
_SUM = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?P<path>.+)")
_HOST = re.compile(r"Hostname: (\S+)")
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True)
class GuideName:
    """A name as the guide makes them: `kind` is the asset it claims to be, or `sums`.

    `day` and `time` are as written, wall time of the script's host; `codecs` are what its suffixes say was
    applied, in order.
    """

    kind: str
    day: str
    time: str | None
    codecs: tuple[str, ...] = ()

    def instant(self, zone: ZoneInfo, written: datetime, now: datetime) -> datetime:
        """Return the instant that the name says, its host being in `zone`.

        Of the hour that a DST night has twice it is the one nearer to `written`, when the file was last
        written; a name without a time takes that instant, if it is of the day. Raises `RefusedError` for
        what is no moment, or is still to come.
        """
        try:
            day = date.fromisoformat(self.day)
            at = time.fromisoformat(self.time.replace("-", ":")) if self.time is not None else None
        except ValueError:
            raise RefusedError(
                f"{self.day} {self.time or ''}".strip() + " is no moment", hint="correct the name"
            ) from None
        if at is None:
            found = written.astimezone(zone)
            if found.date() != day:
                raise RefusedError(
                    f"its name has no time, and the file was written on another day, {found.date()}",
                    hint="give the name the time of the backup: NAME_2025-10-24_02-00-00",
                )
        else:
            both = [datetime.combine(day, at, zone).replace(fold=fold) for fold in (0, 1)]
            if both[0].timestamp() > both[1].timestamp():
                raise RefusedError(
                    f"{self.day} {at} was skipped by the clocks of {zone.key}",
                    hint="set BACKUP_TIMEZONE to the timezone of the host that the script ran on",
                )
            found = min(both, key=lambda one: abs(one.timestamp() - written.timestamp()))
        if found.timestamp() > (now + _CLOCKS_DIFFER).timestamp():
            raise RefusedError(
                f"{found:%Y-%m-%d %H:%M:%S} in {zone.key} is still to come",
                hint="set BACKUP_TIMEZONE to the timezone of the host that the script ran on",
            )
        return found


def parse(name: str) -> GuideName | None:
    """Return what a file's name says it is, or None if it says nothing of the guide's."""
    for kind, pattern in _PATTERNS.items():
        if (match := pattern.fullmatch(name)) is not None:
            said = match.groupdict()
            codecs = tuple(codec for suffix, codec in (("gz", "gzip"), ("gpg", "gpg")) if said.get(suffix))
            return GuideName(kind, match["day"], match["time"], codecs)
    return None


def sums(text: str) -> dict[str, str]:
    """Return the checksums in a manifest, or in what `sha256sum` wrote: name without folder to SHA-256.

    The script's manifest lists itself, half written: that line is left to the caller, who knows its name.
    """
    lines = (match for line in text.splitlines() if (match := _SUM.fullmatch(line)))
    return {line["path"].rpartition("/")[2]: line["sha256"] for line in lines}


def hostname(text: str) -> str:
    """Return the host that a manifest names, or nothing."""
    match = _HOST.search(text)
    return match[1] if match else ""
