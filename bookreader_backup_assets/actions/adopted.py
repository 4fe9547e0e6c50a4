"""A file of the guide's script as a component that captures it, so that it is stored as any artifact is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from bookreader_backup_assets.components.base import Capture, Component, Facts, Scratch, Stored
from bookreader_backup_assets.core.artifact import Entry, Problem
from bookreader_backup_assets.core.check import Outcome


@dataclass(frozen=True)
class Adopted:
    """`component`, but for its source: that is what `reading` reads. `notes` are added to its problems."""

    of: Component
    reading: Callable[[], AbstractContextManager[Capture]]
    notes: tuple[Problem, ...] = ()

    @property
    def component(self) -> str:
        """See `Component.component`."""
        return self.of.component

    @property
    def artifact(self) -> str:
        """See `Component.artifact`."""
        return self.of.artifact

    @property
    def stem(self) -> str:
        """See `Component.stem`."""
        return self.of.stem

    @property
    def suffix(self) -> str:
        """See `Component.suffix`."""
        return self.of.suffix

    @property
    def kind(self) -> str | None:
        """See `Component.kind`."""
        return self.of.kind

    @property
    def codecs(self) -> tuple[str, ...]:
        """See `Component.codecs`."""
        return self.of.codecs

    @property
    def checks(self) -> Mapping[str, str]:
        """See `Component.checks`."""
        return self.of.checks

    def probe(self) -> dict[str, str]:
        """See `Component.probe`: the file was read."""
        return {}

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """See `Component.capture`."""
        with self.reading() as capture:

            def facts() -> Facts:
                found = capture.facts()
                return replace(found, problems=(*found.problems, *self.notes))

            yield replace(capture, facts=facts)

    def unchanged_since(self, newest: Entry) -> bool:  # noqa: ARG002 - a file is known by its bytes
        """See `Component.unchanged_since`."""
        return False

    def verify(self, stored: Stored, scratch: Scratch, names: frozenset[str]) -> Iterator[Outcome]:
        """See `Component.verify`."""
        return self.of.verify(stored, scratch, names)
