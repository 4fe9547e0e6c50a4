"""An artifact's name, its entry (written last: the commit), and its proofs (added later, never edited).

The formats are described in `docs/reference/formats.md`; what is written under a `format_version`
can be read for ever.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from bookreader_backup_assets.core.check import Outcome, Verdict
from bookreader_backup_assets.core.errors import DamagedError, RefusedError

FORMAT_VERSION = 1
ENTRY_SUFFIX = ".entry.json"
"""Not plain `.json`: a manifest is an artifact that ends in `.json` itself."""
PROOF_INFIX = ".proof-"
KINDS = ("full", "incr")

_NAME = re.compile(
    r"(?P<component>[a-z_]+)/(?P<stem>[A-Za-z0-9][A-Za-z0-9_-]*?)"
    r"_(?P<taken>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)"
    r"(?:_(?P<twin>[2-9]|[1-9]\d+))?"
    r"(?:_(?P<kind>full|incr))?"
    r"(?:_(?P<label>[a-z][a-z0-9-]{0,39}))?"
    r"(?P<suffix>(?:\.[a-z0-9]+)+)",
    re.ASCII,  # other scripts have digits, too
)
_LABEL = re.compile(r"[a-z][a-z0-9-]{0,39}")


def check_label(label: str) -> str:
    """Return `label` if it can stand in a name: a letter, then letters, digits or dashes, 40 at most.

    Raises `RefusedError` otherwise, and for `full` and `incr`, which name kinds.
    """
    if not _LABEL.fullmatch(label) or label in KINDS:
        raise RefusedError(
            f"{label!r} cannot be a label",
            hint="use at most 40 lower-case letters, digits and dashes, beginning with a letter: pre-deploy;"
            f" but not {' or '.join(KINDS)}, which name kinds",
        )
    return label


@dataclass(frozen=True, order=True)
class ArtifactName:
    """`<component>/<stem>_<date>_<time>[_<twin>][_<kind>][_<label>]<suffix>`, the guide's appendix A.

    `taken` is the wall time of the capture in the plan's timezone, whole seconds, without zone.
    Two captures of one second, or of the hour that a DST night has twice, are told apart by `twin`.
    Order and age never come from here: see `Entry.captured_at`.
    """

    component: str
    stem: str
    taken: datetime
    suffix: str
    twin: int = 1
    kind: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        """The path inside a vault."""
        parts = [self.stem, self.taken.isoformat("_", "seconds").replace(":", "-")]
        parts += [str(self.twin)] if self.twin > 1 else []
        parts += [part for part in (self.kind, self.label) if part]
        return f"{self.component}/{'_'.join(parts)}{self.suffix}"

    @classmethod
    def parse(cls, text: str) -> ArtifactName:
        """Return the name that `str` formatted. Raises `RefusedError` for anything else."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise RefusedError(f"{text!r} is not the name of an artifact")
        try:
            taken = datetime.strptime(match["taken"], "%Y-%m-%d_%H-%M-%S")  # noqa: DTZ007 - wall time
        except ValueError as error:
            raise RefusedError(f"{text!r} is not the name of an artifact: {error}") from None
        return cls(
            component=match["component"],
            stem=match["stem"],
            taken=taken,
            suffix=match["suffix"],
            twin=int(match["twin"] or 1),
            kind=match["kind"],
            label=match["label"],
        )

    def next_twin(self) -> ArtifactName:
        """The name to try when this one is taken."""
        return dataclasses.replace(self, twin=self.twin + 1)


@dataclass(frozen=True)
class Problem:
    """Something the capture met and survived: what it was, and where (a path, a table), if anywhere.

    Bytes of a path that are no UTF-8 are kept as surrogate escapes.
    """

    what: str
    where: str = ""


@dataclass(frozen=True)
class Companion:
    """A file that belongs to an artifact, such as the index of an archive: role, name, bytes, sha256."""

    role: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """Everything known about one artifact at the moment it was committed. It never changes.

    `captured_at` is the instant (UTC) the source is held at; `set` the id of the backup set;
    `size` (bytes) and `sha256` speak of the stored bytes; `codecs` were applied in that order;
    `fingerprint` is what the source held at that instant; `source` says where it was read
    (runner, container, image); `seconds` how long capture took; `late` that it was filed under a
    past day; `checks` names the checks that must pass before it counts as verified, and `verified`
    what held already when this entry was written (its bytes, read back).
    """

    installation: str
    component: str
    artifact: str
    name: str
    set: str
    captured_at: datetime
    size: int
    sha256: str
    codecs: tuple[str, ...] = ()
    label: str | None = None
    late: bool = False
    host: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()
    problems: tuple[Problem, ...] = ()
    checks: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def asset(self) -> str:
        """The name people and Dagster use: `postgresql/dump`."""
        return f"{self.component}/{self.artifact}"

    @property
    def regular(self) -> bool:
        """Whether it is of a day's set, and no labelled extra such as the state before a restore."""
        return self.label is None or self.late

    @property
    def entry_name(self) -> str:
        """The name of the file this entry is kept in."""
        return self.name + ENTRY_SUFFIX

    def companion(self, role: str) -> Companion:
        """Return the companion in that role. Raises `DamagedError` if the entry names none."""
        for companion in self.companions:
            if companion.role == role:
                return companion
        raise DamagedError(f"{self.entry_name} names no {role}")

    def to_json(self) -> bytes:
        """The entry as it is stored."""
        return dump_document(self)

    @classmethod
    def from_json(cls, data: bytes, *, name: str = "an entry") -> Entry:
        """Return the entry in `data`. Raises `DamagedError` if it is none, or newer than this program."""
        document = load_document(data, name)
        try:
            return cls(
                **{
                    **document,
                    "captured_at": parse_utc(document["captured_at"]),
                    "codecs": tuple(document["codecs"]),
                    "companions": tuple(Companion(**c) for c in document["companions"]),
                    "problems": tuple(Problem(**p) for p in document["problems"]),
                    "checks": tuple(document["checks"]),
                    "verified": tuple(document["verified"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{name} is not an entry: {error}") from None


@dataclass(frozen=True)
class Proof:
    """What was found when an artifact was looked at again: dated, added beside the entry, never edited.

    `sha256` is of the artifact that was meant, so that a proof cannot speak for other bytes.
    """

    installation: str
    artifact: str
    sha256: str
    at: datetime
    checks: tuple[Outcome, ...]
    host: str = ""
    seconds: float = 0.0
    format_version: int = FORMAT_VERSION

    @property
    def proof_name(self) -> str:
        """The name of the file this proof is kept in, beside the artifact."""
        return f"{self.artifact}{PROOF_INFIX}{self.at.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z.json"

    def to_json(self) -> bytes:
        """The proof as it is stored."""
        return dump_document(self)

    @classmethod
    def from_json(cls, data: bytes, *, name: str = "a proof") -> Proof:
        """Return the proof in `data`. Raises `DamagedError` if it is none."""
        document = load_document(data, name)
        try:
            checks = tuple(
                Outcome(**{**check, "verdict": Verdict(check["verdict"])}) for check in document["checks"]
            )
            return cls(**{**document, "at": parse_utc(document["at"]), "checks": checks})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{name} is not a proof: {error}") from None


def parse_utc(text: str) -> datetime:
    """Return the instant in `text`. Raises `ValueError` unless it names its offset."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} names no offset from UTC")
    return instant.astimezone(UTC)


def dump_document(document: Any) -> bytes:
    """Return a dataclass as stable, readable JSON: `format_version` first, UTC instants, ASCII only."""
    fields = dataclasses.asdict(document)
    ordered = {"format_version": fields.pop("format_version"), **fields}
    return (json.dumps(ordered, indent=1, default=_jsonable) + "\n").encode("ascii")


def load_document(data: bytes, name: str) -> dict[str, Any]:
    """Return a stored document as a dictionary. Raises `DamagedError` for other or newer ones."""
    try:
        document = json.loads(data)
        version = document["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{name} is no document of this program") from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DamagedError(
            f"{name} has format version {version}, and this program reads up to {FORMAT_VERSION}",
            hint="use the newer release of bookreader-backup that wrote it",
        )
    return dict(document)


def _jsonable(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a document")
