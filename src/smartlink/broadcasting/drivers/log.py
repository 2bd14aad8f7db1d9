"""Writes events to the log instead of sending them: for development."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.revocation import Revocation

__all__ = ["LogDriver"]


class LogDriver:
    """Logs a line for each envelope at INFO: channel, name, size. Payloads may be private and are not logged.

    `show_payloads` logs them too, for a developer's own machine.
    """

    name = "log"

    def __init__(self, logger: logging.Logger | None = None, *, show_payloads: bool = False) -> None:
        self._logger = logger or logging.getLogger("smartlink.broadcasting")
        self._show_payloads = show_payloads

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Never raises."""
        for envelope in envelopes:
            size = len(envelope.payload.encode())
            left_out = f", not to {envelope.socket_id}" if envelope.socket_id else ""
            payload = f": {envelope.payload}" if self._show_payloads else ""
            self._logger.info(
                "broadcast %s on %s, %d bytes%s%s", envelope.name, envelope.channel, size, left_out, payload
            )

    async def revoke(self, revocation: Revocation) -> None:
        """Never raises."""
        self._logger.info("revoke %s", revocation)

    async def aclose(self) -> None:
        """Nothing is held."""
