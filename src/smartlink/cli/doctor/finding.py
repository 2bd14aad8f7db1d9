"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["CheckState", "Finding", "failed", "fine", "skipped", "warning"]


class CheckState(Enum):
    FINE = "fine"
    WARNING = "warning"
    """Works now, but may not under load or in production."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not used here, or not checkable until something else is fixed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result: `said` is what was found, `fix` what to do about it. Neither contains secrets."""

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
