"""Formats numbers with the nouns they count."""

from __future__ import annotations

__all__ = ["counted", "waiting"]


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return "1 event" or "2 events". `many` is the plural where adding an s does not make it."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def waiting(number: int) -> str:
    """Return "1 event waiting" or "2 events waiting"."""
    return f"{counted(number, 'event')} waiting"
