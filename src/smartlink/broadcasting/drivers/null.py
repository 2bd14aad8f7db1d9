"""Discards events: for setups without a realtime server."""

from __future__ import annotations

from collections.abc import Sequence

from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.revocation import Revocation

__all__ = ["NullDriver"]


class NullDriver:
    """Accepts all envelopes and discards them."""

    name = "null"

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Never raises."""

    async def revoke(self, revocation: Revocation) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Nothing is held."""
