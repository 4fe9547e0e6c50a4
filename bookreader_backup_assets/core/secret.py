"""A secret that does not print itself."""

from __future__ import annotations


class Secret:
    """Text that shows as `***` wherever it is printed, logged or compared in a failing test."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: call this only where it is handed to a program or a library."""
        return self._text

    def __bool__(self) -> bool:
        """False for an empty secret."""
        return bool(self._text)

    def __repr__(self) -> str:
        """Never the text."""
        return "***"

    __str__ = __repr__
