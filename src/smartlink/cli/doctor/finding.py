"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["CheckState", "Finding", "failed", "fine", "skipped", "warning"]


class CheckState(Enum):
    FINE = "fine"
    WARNING = "warning"
    """It works, and may not as things grow."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not used here, or not to be asked before something else is right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`said` is what was found, `fix` what to do about it. Neither holds a secret."""

    check: str
    state: CheckState
    said: str
    fix: str = ""


def fine(check: str, said: str) -> Finding:
    return Finding(check, CheckState.FINE, said)


def warning(check: str, said: str, fix: str) -> Finding:
    return Finding(check, CheckState.WARNING, said, fix)


def failed(check: str, said: str, fix: str) -> Finding:
    return Finding(check, CheckState.FAILED, said, fix)


def skipped(check: str, said: str) -> Finding:
    return Finding(check, CheckState.SKIPPED, said)
