"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted", "waiting"]


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number and what it counts: "1 event", "2 events"; `many` where an s does not make the plural."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def waiting(number: int) -> str:
    """How many events wait: "1 event waits", "2 events wait"."""
    return f"{counted(number, 'event')} {'waits' if number == 1 else 'wait'}"
