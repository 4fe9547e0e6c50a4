"""The runner for a service that no setting says how to reach: who needs it is told which one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from bookreader_backup_assets.core.errors import SourceAbsentError


@dataclass(frozen=True)
class UnsetRunner:
    """Implements `Runner`, and raises `SourceAbsentError` of all that is asked of it: what lies in a vault
    is listed, verified and removed without the service.
    """

    message: str
    hint: str

    def stream(self, *_: object, **__: object) -> NoReturn:
        """See `Runner.stream`."""
        raise self._error

    def run(self, *_: object, **__: object) -> NoReturn:
        """See `Runner.run`."""
        raise self._error

    def session(self, *_: object, **__: object) -> NoReturn:
        """See `Runner.session`."""
        raise self._error

    def read_tree(self, path: str) -> NoReturn:  # noqa: ARG002 - see `Runner`
        """See `Runner.read_tree`."""
        raise self._error

    def local_folder(self, path: str) -> None:
        """See `Runner.local_folder`: nobody can tell."""

    def describe(self) -> dict[str, str]:
        """See `Runner.describe`."""
        return {"runner": "unset"}

    @property
    def _error(self) -> SourceAbsentError:
        return SourceAbsentError(self.message, hint=self.hint)
