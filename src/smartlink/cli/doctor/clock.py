"""Clocks: signatures and leases hold for a time."""

from __future__ import annotations

from smartlink.cli.doctor.finding import Finding, failed, fine

__all__ = ["compare"]

MOST_SKEW_S = 2.0


def compare(whose: str, seconds: float) -> Finding:
    """By how many seconds the clock of `whose` is ahead of ours."""
    if abs(seconds) <= MOST_SKEW_S:
        return fine("clock", f"{whose} is {abs(seconds):.1f} s away")
    ahead = "ahead" if seconds > 0 else "behind"
    return failed("clock", f"{whose} is {abs(seconds):.1f} s {ahead}", "run an NTP client on both machines")
