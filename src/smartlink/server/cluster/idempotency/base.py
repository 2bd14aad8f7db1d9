"""The port `IdempotencyStore`: a call that is repeated with the same key is carried out once."""

from __future__ import annotations

from typing import Protocol

__all__ = ["KEPT_S", "MAX_APP_BYTES", "CallUnderWay", "IdempotencyStore"]

KEPT_S = 120
"""For how long a repeat is recognised."""
MAX_APP_BYTES = 67_108_864
"""Bytes that the receipts of one application may take, with all that goes with them."""


class CallUnderWay(Exception):
    """A call with the same key is being carried out now; the caller is told to come back (409)."""


class IdempotencyStore(Protocol):
    """Remembers, over all nodes, which calls were carried out, and what was answered.

    Promises, tried on every engine by tests/conformance/test_receipts.py: of any number of callers with one key, one
    claims it, until it releases it or `KEPT_S` have gone by; apps do not share keys. An app whose receipts take more
    bytes than it may have loses its oldest ones, no other app any. Raises BrokerUnavailable where the other nodes
    cannot be reached.
    """

    async def claim(self, app_id: str, key: str) -> bytes | None:
        """None when the call is to be carried out now; else the answer it got. Raises Pending.

        Who claims must `complete` or `release`.
        """

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        """The call was carried out and answered so. Never raises: not remembered, a repeat is carried out again."""

    async def release(self, app_id: str, key: str) -> None:
        """The call was not carried out: the next one with this key is. Never raises."""
