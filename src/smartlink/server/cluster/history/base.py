"""The port `History` and its entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["MAX_APP_BYTES", "POSITION_KEPT_S", "History", "HistoryEntry"]

MAX_APP_BYTES = 33_554_432
"""Memory for the events of one application, including overhead."""
POSITION_KEPT_S = 86_400
"""How long positions outlive the last event: a restarted counter would tell an old reader that nothing is new."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One stored event: the text frame's payload, its position on the channel, and its remaining seconds."""

    position: int
    frame: bytes
    ttl_s: float


class History(Protocol):
    """Stores the last events of channels, over all nodes.

    tests/conformance/test_history.py checks these promises for every engine: positions on one channel increase by one,
    whichever node appends; an event is gone once its time to live is over; `since` reports when some of the requested
    events are no longer stored; apps are isolated. An app over its memory limit loses events of its own channels
    written longest ago. Raises BrokerUnavailable if the other nodes are unreachable.
    """

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        """Store `frame` as the channel's latest. Returns its position, from 1."""

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        """The latest event, or None if there is none or it has expired."""

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        """The events after `position`, oldest first; None if some of them are no longer stored."""
