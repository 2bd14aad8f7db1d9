"""The port to a hosted service: how the library sends an event out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smartlink.broadcasting.envelope import Envelope

__all__ = ["MAX_BATCH", "Driver", "leaves_out_users"]

MAX_BATCH = 10
"""How many envelopes travel in one call; the limit of the HTTP API."""


class Driver(Protocol):
    """Promises: envelopes are sent in the order given; up to ten go in one call, all or nothing; whatever the
    peer does, nothing but BroadcastFailed is raised, and every wait has a limit. It may be used in several event
    loops, one after the other or side by side; `aclose` gives back the connections of the loop that awaits it.

    A call that failed may have arrived. `idempotency_key` lets the service see a repeat of the same envelopes; a
    service without such a call for ten takes the key for each envelope instead, so that a repeat mends what was
    half done. A driver whose service can leave out all sockets of a user says so by `leaves_out_users = True`.
    """

    @property
    def name(self) -> str:
        """The name settings choose it by."""

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Hand the envelopes to the service. Raises BroadcastUnavailable or BroadcastRefused."""

    async def aclose(self) -> None:
        """Give connections back. Sending afterwards raises BroadcastUnavailable."""


def leaves_out_users(driver: Driver) -> bool:
    """Whether the driver's service can leave out every socket of a user."""
    return getattr(driver, "leaves_out_users", False) is True
