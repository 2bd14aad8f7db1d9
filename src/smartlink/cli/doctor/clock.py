"""Compares clocks: signatures and leases expire, so machines must agree on the time."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.protocol.signing import TIMESTAMP_WINDOW_S

__all__ = ["compare", "compare_date"]

MOST_SKEW_S = 2.0
_FIX = "run an NTP client on both machines"


def compare(whose: str, seconds: float) -> Finding:
    """Report a clock that is `seconds` ahead of ours (negative: behind); more than 2 s is a failure."""
    if abs(seconds) <= MOST_SKEW_S:
        return fine("clock", f"{whose} is within {abs(seconds):.1f} s")
    return failed("clock", f"{whose} is {_skew(seconds)}", _FIX)


def compare_date(whose: str, date: str | None, asked_at: float) -> Finding:
    """Report the clock that wrote `date`, the header of an answer (RFC 9110, section 6.6.1) to a request at `asked_at`.

    The header has whole seconds and may be as late as now. A failure is what makes signatures invalid.
    """
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return skipped("clock", f"{whose} sends no Date")
    earliest, latest = there - time.time(), there + 1 - asked_at
    seconds = earliest if earliest > 0 else min(latest, 0.0)
    if abs(seconds) <= MOST_SKEW_S:
        return fine("clock", f"{whose} is within {MOST_SKEW_S:.0f} s")
    if abs(seconds) <= TIMESTAMP_WINDOW_S:
        said = f"{whose} is {_skew(seconds)}; from {TIMESTAMP_WINDOW_S} s on signatures are refused"
        return warning("clock", said, _FIX)
    return failed("clock", f"{whose} is {_skew(seconds)}: signatures are refused", _FIX)


def _skew(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
