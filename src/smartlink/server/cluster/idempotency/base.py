"""The port `IdempotencyStore`: a call repeated with the same key is carried out once."""

from __future__ import annotations

from typing import Protocol

__all__ = ["KEPT_S", "MAX_APP_BYTES", "CallUnderWay", "IdempotencyStore"]

KEPT_S = 120
"""How long a repeat is recognised."""
MAX_APP_BYTES = 67_108_864
"""Memory for the answers of one application, including overhead."""


class CallUnderWay(Exception):
    """A call with the same key is in progress; the caller is asked to retry (409)."""


class IdempotencyStore(Protocol):
    """Remembers, over all nodes, which calls were carried out and their answers.

    tests/conformance/test_idempotency.py checks these promises for every engine: of several callers with one key, one
    claims it until it releases it or `KEPT_S` pass; apps do not share keys. An app over its memory limit loses its own
    oldest answers. Raises BrokerUnavailable if the other nodes are unreachable.
    """

    async def claim(self, app_id: str, key: str) -> bytes | None:
        """Claim the call: None if it is to be carried out now, else its previous answer. Raises CallUnderWay.

        After None the caller must `complete` or `release`.
        """

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        """The call was carried out with this answer. Never raises; if the answer is not stored, a repeat is carried out
        again.
        """

    async def release(self, app_id: str, key: str) -> None:
        """The call was not carried out: a repeat may claim the key. Never raises."""
