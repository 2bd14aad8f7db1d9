"""Ably's REST API, with the channel names of Ably's Pusher adapter, which Echo's `ably` connector uses too.

`private-x` becomes `private:x`, `presence-x` becomes `presence:x`, and a public `x` becomes `public:x`. Each envelope
is one message; its id contains the idempotency key, so that Ably drops duplicates.
Sources: Ably, "REST API: publish", "Idempotent publishing"; Laravel's AblyBroadcaster.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from smartlink.broadcasting.config import split_ably_key
from smartlink.broadcasting.drivers.http import HttpService, ServiceResponse
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastRefused, BroadcastUnavailable

__all__ = ["AblyDriver", "ably_channel"]


class AblyDriver:
    """Publishes to one Ably app. `key` is `appId.keyId:secret`; raises BroadcastConfigError if it is not."""

    name = "ably"

    def __init__(
        self,
        key: str,
        *,
        host: str = "rest.ably.io",
        port: int = 443,
        scheme: str = "https",
        timeout_s: float = 5.0,
        connect_timeout_s: float = 3.0,
        trust_env: bool = True,
    ) -> None:
        split_ably_key(key)
        self._headers = {"authorization": "Basic " + base64.b64encode(key.encode()).decode()}
        self._service = HttpService(
            host=host,
            port=port,
            scheme=scheme,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            trust_env=trust_env,
        )

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Send one call for each envelope, in order. Raises BroadcastUnavailable or BroadcastRefused.

        If one fails, the earlier ones have been accepted; sending all again with the same key has no duplicates.
        """
        for index, envelope in enumerate(envelopes):
            message: dict[str, object] = {"name": envelope.name, "data": envelope.payload, "encoding": "json"}
            if idempotency_key is not None:
                message["id"] = f"{idempotency_key}.{index}:0"
            if envelope.socket_id is not None:
                message["connectionKey"] = envelope.socket_id
            path = f"/channels/{quote(ably_channel(envelope.channel), safe='')}/messages"
            body = msgspec.json.encode(message)
            _check_response(
                await self._service.post(path, body, headers=self._headers, repeat=idempotency_key is not None)
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._service.aclose()


def ably_channel(wire_name: str) -> str:
    """Return Ably's name for a channel."""
    for prefix in ("private", "presence"):
        if wire_name.startswith(f"{prefix}-"):
            return f"{prefix}:{wire_name[len(prefix) + 1 :]}"
    return f"public:{wire_name}"


def _check_response(answer: ServiceResponse) -> None:
    if 200 <= answer.status < 300:
        if not isinstance(answer.json(), dict | list):
            raise BroadcastUnavailable(f"{answer}; this is not Ably's API, check ABLY_HOST")
    elif answer.status in (401, 403):
        raise BroadcastUnavailable(f"{answer}; check ABLY_KEY and its capabilities")
    elif answer.status in (400, 404, 413, 422) and not answer.is_page:
        raise BroadcastRefused(str(answer))
    else:
        has_verdict = answer.status in (429, 503)
        raise BroadcastUnavailable(str(answer), answered=not has_verdict and answer.status >= 400)
