"""Sends nowhere: for set-ups without a realtime server."""

from __future__ import annotations

from collections.abc import Sequence

from smartlink.broadcasting.envelope import Envelope

__all__ = ["NullDriver"]


class NullDriver:
    """Takes everything and does nothing with it."""

    name = "null"

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Never raises."""

    async def aclose(self) -> None:
        """Nothing is held."""
