"""Pusher Channels' HTTP API: Pusher itself, Laravel Reverb, our own server, and whoever else speaks it.

Source: Pusher Channels, "HTTP API reference". One envelope goes to `/events`, up to ten together to `/batch_events`,
over connections that are kept. Bodies are written unescaped: an emoji takes four bytes, not twelve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx2
import msgspec

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastRefused, BroadcastUnavailable
from smartlink.protocol.signing import signed_query

__all__ = ["PusherDriver"]

_REFUSED = frozenset({400, 413, 422})
_MAX_ANSWER_BYTES = 64 * 1024
_QUOTED_CHARACTERS = 200


class PusherDriver:
    """Sends to one app of one service.

    `timeout_s` bounds one whole call, connecting included. `trust_env` lets proxy variables of the environment
    apply; for a server on this host or network they must not. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        app_id: str,
        key: str,
        secret: str,
        *,
        host: str,
        port: int,
        scheme: str = "https",
        timeout_s: float = 5.0,
        trust_env: bool = False,
        name: str = "pusher",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._key = key
        self._secret = secret
        self._clock = clock
        self._timeout_s = timeout_s
        self._path = f"/apps/{app_id}"
        bracketed = f"[{host}]" if ":" in host else host
        self._origin = f"{scheme}://{bracketed}:{port}"
        self._closed = False
        self._client = httpx2.AsyncClient(
            timeout=timeout_s,
            trust_env=trust_env,
            verify=scheme == "https",
            headers={"content-type": "application/json", "accept-encoding": "identity"},
            limits=httpx2.Limits(max_connections=20, max_keepalive_connections=20, keepalive_expiry=30),
        )

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """One call for each ten envelopes, in order. Raises BroadcastUnavailable or BroadcastRefused.

        Of more than ten, those before the call that failed have been taken.
        """
        for start in range(0, len(envelopes), MAX_BATCH):
            key = f"{idempotency_key}.{start}" if idempotency_key and start else idempotency_key
            await self._send_batch(envelopes[start : start + MAX_BATCH], key)

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        await self._client.aclose()

    async def _send_batch(self, envelopes: Sequence[Envelope], idempotency_key: str | None) -> None:
        if len(envelopes) == 1:
            await self._call("/events", _single(envelopes[0]), idempotency_key)
        else:
            await self._call("/batch_events", {"batch": [_batched(each) for each in envelopes]}, idempotency_key)

    async def _call(self, endpoint: str, message: object, idempotency_key: str | None) -> None:
        path = self._path + endpoint
        if self._closed:
            raise BroadcastUnavailable(f"{self._origin}{path}: the driver has been closed")
        body = msgspec.json.encode(message)
        query = signed_query(self._key, self._secret, "POST", path, body, timestamp=int(self._clock()))
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        # The query carries the signature: it stays out of every message.
        called = f"{self._origin}{path}"
        try:
            async with asyncio.timeout(self._timeout_s):
                status, kind, answer = await self._post(f"{called}?{query}", body, headers)
        except TimeoutError:
            raise BroadcastUnavailable(f"{called}: no answer within {self._timeout_s:g} s", answered=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            reached = isinstance(error, httpx2.ReadError | httpx2.ReadTimeout | httpx2.RemoteProtocolError)
            raise BroadcastUnavailable(f"{called}: {type(error).__name__}: {error}", answered=reached) from None
        _judge(called, status, kind, answer)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > _MAX_ANSWER_BYTES:
                    break
            return response.status_code, response.headers.get("content-type", ""), bytes(answer)


def _judge(called: str, status: int, content_type: str, answer: bytes) -> None:
    """Raise unless the service took what was sent."""
    said = f"{called} answered {status}: {_quoted(answer)}"
    if 200 <= status < 300:
        if not _is_json_object(answer):
            raise BroadcastUnavailable(f"{said}; that is not this API, check host, port and scheme")
    elif 400 <= status < 500 and status != 429 and content_type.startswith("text/html"):
        # A proxy's page: the service has not spoken, but the proxy may never let this through.
        raise BroadcastUnavailable(said, answered=True)
    elif status in _REFUSED:
        raise BroadcastRefused(said)
    elif status in (401, 403, 404):
        raise BroadcastUnavailable(f"{said}; check app id, key, secret, and this host's clock")
    else:
        raise BroadcastUnavailable(said, answered=status >= 500 and status != 503)


def _is_json_object(answer: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(answer), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _quoted(answer: bytes) -> str:
    return repr(answer[:_QUOTED_CHARACTERS].decode("utf-8", "replace"))


def _single(envelope: Envelope) -> dict[str, object]:
    message: dict[str, object] = {
        "name": envelope.name,
        "channels": [envelope.channel],
        "data": envelope.payload,
    }
    if envelope.socket_id is not None:
        message["socket_id"] = envelope.socket_id
    return message


def _batched(envelope: Envelope) -> dict[str, object]:
    message: dict[str, object] = {"name": envelope.name, "channel": envelope.channel, "data": envelope.payload}
    if envelope.socket_id is not None:
        message["socket_id"] = envelope.socket_id
    return message
