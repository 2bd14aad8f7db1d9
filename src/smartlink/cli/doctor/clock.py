"""Compares clocks: signatures and leases expire, so machines must agree on the time."""

from __future__ import annotations

from smartlink.cli.doctor.finding import Finding, failed, fine

__all__ = ["compare"]

MOST_SKEW_S = 2.0


def compare(whose: str, seconds: float) -> Finding:
    """Report a clock that is `seconds` ahead of ours (negative: behind); more than 2 s is a failure."""
    if abs(seconds) <= MOST_SKEW_S:
        return fine("clock", f"{whose} is within {abs(seconds):.1f} s")
    ahead = "ahead" if seconds > 0 else "behind"
    return failed("clock", f"{whose} is {abs(seconds):.1f} s {ahead}", "run an NTP client on both machines")
