"""Pusher Channels' HTTP API: Pusher itself, Laravel Reverb, our own server, and other compatible services.

Different events go to `/batch_events`, ten in a call; one event for many channels goes to `/events`, a hundred
channels in a call. Connections are kept. JSON is not escaped to ASCII: an emoji takes four bytes, not twelve.
Source: Pusher Channels, "HTTP API reference".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

import msgspec

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.drivers.http import HttpService, ServiceResponse
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastRefused, BroadcastUnavailable
from smartlink.broadcasting.revocation import Revocation, unsupported
from smartlink.protocol.signing import signed_query

__all__ = ["MAX_CHANNELS", "PusherDriver"]

MAX_CHANNELS = 100
"""The maximum number of channels for one event in one call; the limit of the HTTP API."""

_log = logging.getLogger("smartlink.broadcasting")
_REFUSED = frozenset({400, 413, 422})


class PusherDriver:
    """Sends to one app of one service.

    `timeout_s` limits a whole call, connecting included. `trust_env` applies the environment's proxy variables; leave
    it off for a server on this host or network. `unix_socket` is the path of a socket to connect to instead of `host`
    and `port`. `clock` returns seconds since 1970. With `is_smartlink`, calls carry our own server's extensions of the
    API: each event's id, whether it is live, the user to exclude, and receipts; other Reverb servers ignore them. Only
    then are calls retried that may have arrived.
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
        connect_timeout_s: float = 3.0,
        trust_env: bool = False,
        is_smartlink: bool = False,
        unix_socket: str | None = None,
        name: str = "pusher",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._key = key
        self._secret = secret
        self._clock = clock
        self._is_smartlink = is_smartlink
        self._abilities: frozenset[str] | None = None
        """What the server can do beyond Pusher's API; None until it has been asked."""
        self._warned_of_receipts = False
        self._path = f"/apps/{app_id}"
        self._service = HttpService(
            host=host,
            port=port,
            scheme=scheme,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            trust_env=trust_env,
            unix_socket=unix_socket,
        )

    @property
    def leaves_out_users(self) -> bool:
        """Whether the server can exclude all sockets of a user; assumed true until the server has been asked."""
        return self._is_smartlink and (self._abilities is None or "except_user" in self._abilities)

    @property
    def reports_receipts(self) -> bool:
        """Whether the server is expected to report which users have received an event."""
        return self._is_smartlink

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Send in order, in as few calls as the API allows. Raises BroadcastUnavailable or BroadcastRefused.

        If one of several calls fails, the earlier ones have been accepted.
        """
        if any(envelope.except_user is not None for envelope in envelopes):
            await self._check("except_user", "cannot exclude all sockets of a user", "use to_others() there")
        if self._is_smartlink and any(envelope.receipts for envelope in envelopes):
            await self._warn_without_receipts()
        for start, call in _calls(envelopes):
            key = f"{idempotency_key}.{start}" if idempotency_key and start else idempotency_key
            if len({envelope.channel for envelope in call}) == len(call) and _is_one_event(call):
                message = self._event(call[0]) | {"channels": [envelope.channel for envelope in call]}
                await self._call("/events", message, key)
            else:
                batch = [self._event(envelope) | {"channel": envelope.channel} for envelope in call]
                await self._call("/batch_events", {"batch": batch}, key)

    async def revoke(self, revocation: Revocation) -> None:
        """End subscriptions. Raises BroadcastFailed, and BroadcastConfigError for any but a SmartLink server."""
        if not self._is_smartlink:
            raise unsupported(self.name)
        await self._check("revoke", "cannot end subscriptions", "end the user's connections there")
        whom: dict[str, object] = {}
        if revocation.channel is None:
            endpoint = f"/users/{quote(revocation.user_id or '', safe='')}/revoke"
        else:
            endpoint = f"/channels/{quote(revocation.channel, safe='')}/revoke"
            whom = {"all": True} if revocation.user_id is None else {"user_id": revocation.user_id}
        if revocation.reason is not None:
            whom["reason"] = revocation.reason
        await self._call(endpoint, whom, None, may_repeat=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._service.aclose()

    async def _warn_without_receipts(self) -> None:
        """Say once that the server reports no receipts: the event itself must not fail for that."""
        if self._warned_of_receipts:
            return
        self._warned_of_receipts = True
        try:
            await self._check("receipts", "reports no receipts", "the events are sent without")
        except BroadcastRefused as lack:
            _log.warning("%s", lack)
        except BroadcastUnavailable:
            self._warned_of_receipts = False  # Not asked: the send that follows fails for the same reason, or succeeds.

    async def _check(self, ability: str, lack: str, advice: str) -> None:
        """Raise BroadcastRefused unless the server has an ability; others ignore what they do not know."""
        if self._is_smartlink and ability not in (self._abilities or ()):
            answer = await self._get("/status")
            if answer.status != 404:
                _check_response(answer)
            said = answer.json()
            abilities = said.get("abilities") if isinstance(said, dict) else None
            self._abilities = frozenset(map(str, abilities)) if isinstance(abilities, list) else frozenset()
        if ability not in (self._abilities or ()):
            raise BroadcastRefused(f"{self._service.origin} {lack}: only a SmartLink server can; {advice}")

    async def read(self, endpoint: str, params: Mapping[str, str] | None = None, *, max_bytes: int) -> bytes:
        """Return the answer to a signed GET of an endpoint below `/apps/{app_id}`, as JSON of at most `max_bytes`.

        Raises BroadcastUnavailable or BroadcastRefused.
        """
        answer = await self._get(endpoint, params, max_bytes + 1)
        if len(answer.body) > max_bytes:
            raise BroadcastRefused(f"{answer.called}: the answer is larger than {max_bytes} bytes")
        _check_response(answer)
        return answer.body

    async def call(self, endpoint: str, message: object) -> bytes:
        """Return the answer to a signed POST, as JSON; for calls that may be repeated. Raises like `read`."""
        return await self._call(endpoint, message, None, may_repeat=True)

    async def _get(
        self, endpoint: str, params: Mapping[str, str] | None = None, max_bytes: int = 65_536
    ) -> ServiceResponse:
        path = self._path + endpoint
        query = signed_query(self._key, self._secret, "GET", path, timestamp=int(self._clock()), params=params)
        return await self._service.get(path, query=query, max_bytes=max_bytes)

    async def _call(
        self, endpoint: str, message: object, idempotency_key: str | None, *, may_repeat: bool = False
    ) -> bytes:
        path = self._path + endpoint
        body = msgspec.json.encode(message)
        query = signed_query(self._key, self._secret, "POST", path, body, timestamp=int(self._clock()))
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        repeat = may_repeat or (self._is_smartlink and idempotency_key is not None)
        answer = await self._service.post(path, body, query=query, headers=headers, repeat=repeat)
        _check_response(answer)
        return answer.body

    def _event(self, envelope: Envelope) -> dict[str, object]:
        event: dict[str, object] = {"name": envelope.name, "data": envelope.payload}
        if envelope.socket_id is not None:
            event["socket_id"] = envelope.socket_id
        if self._is_smartlink:
            if envelope.event_id is not None:
                event["id"] = envelope.event_id
            if envelope.delivery is Delivery.LIVE:
                event["live"] = True
            if envelope.except_user is not None:
                event["except_user"] = envelope.except_user
            if envelope.receipts:
                event["receipts"] = True
        return event


def _calls(envelopes: Sequence[Envelope]) -> Iterator[tuple[int, Sequence[Envelope]]]:
    """Yield each call's start index and envelopes: up to ten events, or one event for up to a hundred channels."""
    start = 0
    while start < len(envelopes):
        end = start + 1
        while end < len(envelopes) and end - start < MAX_CHANNELS and _is_same_event(envelopes[start], envelopes[end]):
            end += 1
        call = envelopes[start : max(end, start + MAX_BATCH)]
        if len({envelope.channel for envelope in call}) < len(call):
            # The same event twice on one channel is two events.
            call = call[:MAX_BATCH]
        yield start, call
        start += len(call)


def _is_one_event(call: Sequence[Envelope]) -> bool:
    return all(_is_same_event(call[0], envelope) for envelope in call)


def _is_same_event(one: Envelope, other: Envelope) -> bool:
    return (
        one.name == other.name
        and one.payload == other.payload
        and one.socket_id == other.socket_id
        and one.except_user == other.except_user
        and one.delivery is other.delivery
        and one.event_id is None
        and other.event_id is None
    )


def _check_response(answer: ServiceResponse) -> None:
    """Raise BroadcastUnavailable or BroadcastRefused unless the service accepted the call."""
    if 200 <= answer.status < 300:
        if not isinstance(answer.json(), dict):
            raise BroadcastUnavailable(f"{answer}; this is not the Pusher API, check host, port and scheme")
    elif 400 <= answer.status < 500 and answer.status != 429 and answer.is_page:
        # A proxy's page, not the service's response; but the proxy may always refuse this call.
        raise BroadcastUnavailable(str(answer), answered=True)
    elif answer.status in _REFUSED:
        raise BroadcastRefused(str(answer))
    elif 300 <= answer.status < 400:
        raise BroadcastUnavailable(f"{answer}; redirects are not followed, check host, port and scheme")
    elif answer.status in (401, 403, 404):
        raise BroadcastUnavailable(f"{answer}; check app id, key, secret, and this host's clock")
    else:
        raise BroadcastUnavailable(str(answer), answered=answer.status >= 500 and answer.status != 503)
