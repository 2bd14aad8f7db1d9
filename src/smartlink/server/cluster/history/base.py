"""The port `History` and what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["MAX_APP_BYTES", "POSITION_KEPT_S", "History", "HistoryEntry"]

MAX_APP_BYTES = 33_554_432
"""Bytes that the kept events of one application may take, with all that goes with them."""
POSITION_KEPT_S = 86_400
"""How long positions go on after the last event: a counter that began anew would tell an old reader nothing is new."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One kept event: the text frame's payload, where it stands on its channel, and for how many seconds more."""

    position: int
    frame: bytes
    ttl_s: float


class History(Protocol):
    """Keeps the last events of channels, over all nodes.

    Promises, tried on every engine by tests/conformance/test_history.py: positions on one channel rise by one, from
    whichever node an event is appended; an event is gone once its time to live is over; `since` says so when what it
    was asked for is not all kept any more; apps do not see each other. An app whose events take more bytes than it may
    have loses those of the channels that were written longest ago, no other app any. Raises BrokerUnavailable where the
    other nodes cannot be reached.
    """

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        """Keep `frame` as the channel's latest. Returns its position, from 1."""

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        """The latest event, or None when there is none or its time is over."""

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        """What came after `position`, oldest first; None when some of it is no longer kept."""
