"""The interface of drivers, which send events to a service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smartlink.broadcasting.envelope import Envelope

__all__ = ["MAX_BATCH", "Driver", "leaves_out_users", "reports_receipts"]

MAX_BATCH = 10
"""The number of envelopes in one call; the limit of the HTTP API."""


class Driver(Protocol):
    """Sends envelopes to a service.

    A driver sends envelopes in the given order, up to ten in one call, all or none. It raises only BroadcastFailed,
    and limits every wait. It may be used in several event loops, one after the other or at once; `aclose` closes the
    connections of the current loop.

    A failed call may have reached the service. `idempotency_key` lets the service detect a repeat of the same
    envelopes; a service without batches gets a key for each envelope, so that a repeat completes a partial call. A
    driver that can exclude all sockets of a user has `leaves_out_users = True`, one whose service reports receipts
    `reports_receipts = True`; one that can end subscriptions is a `RevokingDriver`.
    """

    @property
    def name(self) -> str:
        """The driver's name in the settings."""

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Send the envelopes to the service. Raises BroadcastUnavailable or BroadcastRefused."""

    async def aclose(self) -> None:
        """Close the connections. Sending afterwards raises BroadcastUnavailable."""


def leaves_out_users(driver: Driver) -> bool:
    """Return whether the driver's service can exclude all sockets of a user."""
    return getattr(driver, "leaves_out_users", False) is True


def reports_receipts(driver: Driver) -> bool:
    """Return whether the driver's service reports which users have received an event."""
    return getattr(driver, "reports_receipts", False) is True
