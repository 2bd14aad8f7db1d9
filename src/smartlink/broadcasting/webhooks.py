"""Receives the realtime server's webhooks: verifies them, and calls your functions with typed events.

receiver = WebhookReceiver({"app-key": "app-secret"})

@receiver.on(MemberAdded)
async def came(event: MemberAdded) -> None:
    await mark_online(event.user_id)

Source: Pusher Channels, "Webhooks". Webhooks are delivered at least once, and in order for each app. If a handler
raises, the webhook is sent again, so handlers must be idempotent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from smartlink.broadcasting.authorizer import AuthResponse
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.routes import is_http
from smartlink.broadcasting.socket_id import Receive, Scope, Send
from smartlink.broadcasting.steps import Steps, settle, settle_sync
from smartlink.protocol.signing import verify_webhook

__all__ = [
    "CacheMiss",
    "ChannelOccupied",
    "ChannelVacated",
    "ClientEvent",
    "EventDelivered",
    "MemberAdded",
    "MemberRemoved",
    "SubscriptionCount",
    "UnknownEvent",
    "UserEvent",
    "UserOffline",
    "UserOnline",
    "Webhook",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookRefused",
]

_RECORDED = re.compile(r"([1-9][0-9]{0,18})-[0-9a-f]{16}")
MAX_BODY_BYTES = 1024 * 1024


class WebhookRefused(Exception):
    """The request is not a valid webhook. `status` is 401 for the signature, 400 for the form, 405 or 413."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """The base class of events about a channel; `channel` is its full name."""

    channel: str


@dataclass(frozen=True, slots=True)
class ChannelOccupied(WebhookEvent):
    """The channel has its first subscriber."""


@dataclass(frozen=True, slots=True)
class ChannelVacated(WebhookEvent):
    """The last subscriber left."""


@dataclass(frozen=True, slots=True)
class MemberAdded(WebhookEvent):
    """A user joined a presence channel, with their first socket."""

    user_id: str


@dataclass(frozen=True, slots=True)
class MemberRemoved(WebhookEvent):
    """A user left a presence channel, with their last socket."""

    user_id: str


@dataclass(frozen=True, slots=True)
class ClientEvent(WebhookEvent):
    """A client event: `data` is JSON as text; `user_id` is set on presence channels."""

    event: str
    data: str
    socket_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class CacheMiss(WebhookEvent):
    """A client subscribed to a cache channel without a cached event: publish the event again."""


@dataclass(frozen=True, slots=True)
class SubscriptionCount(WebhookEvent):
    """The current number of subscribers of a channel."""

    subscription_count: int


@dataclass(frozen=True, slots=True)
class EventDelivered(WebhookEvent):
    """The first client of a user has received and handled an event that was sent with `receipts`.

    `id` is the event's id in the call that published it. Sent once for each user and event, rarely twice.
    """

    id: str
    user_id: str

    @property
    def event_id(self) -> int | None:
        """The id in the outbox (`recorded_events.id`, clients' `eventId`); None if the event came from elsewhere."""
        found = _RECORDED.fullmatch(self.id)
        return None if found is None else int(found[1])


@dataclass(frozen=True, slots=True)
class UserEvent:
    """The base class of events about a signed-in user, regardless of channels."""

    user_id: str


@dataclass(frozen=True, slots=True)
class UserOnline(UserEvent):
    """A user's first connection signed in."""


@dataclass(frozen=True, slots=True)
class UserOffline(UserEvent):
    """A user's last signed-in connection was closed."""


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event with a name or fields that this version does not know."""

    name: str
    fields: Mapping[str, Any]


_KINDS: Final[Mapping[str, type[WebhookEvent | UserEvent]]] = {
    "channel_occupied": ChannelOccupied,
    "channel_vacated": ChannelVacated,
    "member_added": MemberAdded,
    "member_removed": MemberRemoved,
    "client_event": ClientEvent,
    "cache_miss": CacheMiss,
    "subscription_count": SubscriptionCount,
    "event_delivered": EventDelivered,
    "user_online": UserOnline,
    "user_offline": UserOffline,
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook request: the app's key, the time in milliseconds since 1970, and the events, in order."""

    key: str
    time_ms: int
    events: tuple[WebhookEvent | UserEvent | UnknownEvent, ...]


Heard = TypeVar("Heard", bound=WebhookEvent | UserEvent | UnknownEvent | Webhook)
Handler = Callable[[Any], object]


class WebhookReceiver:
    """Receives webhooks as an ASGI app; in other frameworks, call `receive` and `handle_sync`.

    `secrets` maps each app's key to its secret, or to several during a rotation. An intercepted webhook could be
    replayed: with `max_age_s`, older ones are refused. Allow for the sender's retries (our server: 5 minutes), and for
    `smartlink webhooks retry`, which sends old webhooks too. `clock` returns seconds since 1970. Raises
    BroadcastConfigError for an empty secret, which anyone could sign with.
    """

    def __init__(
        self,
        secrets: Mapping[str, str | Sequence[str]],
        *,
        max_age_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = {
            key: (secret,) if isinstance(secret, str) else tuple(secret or ()) for key, secret in secrets.items()
        }
        for key, own in self._secrets.items():
            if not own or not all(own):
                raise BroadcastConfigError(f"the webhooks of {key!r} have an empty secret; give the app's secret")
        self._max_age_s = max_age_s
        self._clock = clock
        self._handlers: list[tuple[type, Handler]] = []

    def on(self, kind: type[Heard]) -> Callable[[Callable[[Heard], Any]], Callable[[Heard], Any]]:
        """Call the decorated function with each event of `kind` or a subclass; it may be async.

        With `Webhook`, it is called with each whole request, before its events.
        """

        def add(handler: Callable[[Heard], Any]) -> Callable[[Heard], Any]:
            self._handlers.append((kind, handler))
            return handler

        return add

    def receive(self, body: bytes, *, key: str, signature: str) -> Webhook:
        """Return the webhook in `body`; `key` and `signature` are the headers `X-Pusher-Key` and `X-Pusher-Signature`.

        The signature is verified first, in constant time. Raises WebhookRefused.
        """
        # All secrets are tried, so that the time taken does not reveal which one matched.
        right = [verify_webhook(secret, body, signature) for secret in self._secrets.get(key, ("",))]
        if key not in self._secrets or not any(right):
            raise WebhookRefused(401, "The webhook's signature does not match.")
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise WebhookRefused(400, "The body is not valid JSON.") from None
        if not isinstance(told, dict) or not isinstance(told.get("events"), list):
            raise WebhookRefused(400, "The events field must be a list.")
        time_ms = told.get("time_ms")
        if isinstance(time_ms, bool) or not isinstance(time_ms, int):
            time_ms = 0
        if self._max_age_s is not None and time_ms < (self._clock() - self._max_age_s) * 1000:
            raise WebhookRefused(400, f"The webhook is older than {self._max_age_s:g} s.")
        events = tuple(_event(fields) for fields in told["events"])
        return Webhook(key, time_ms, events)

    async def handle(self, webhook: Webhook) -> None:
        """Call the handlers for each event, in the order they were added. Raises what they raise."""
        await settle(self._handling(webhook))

    def handle_sync(self, webhook: Webhook) -> None:
        """Call the handlers synchronously; async handlers run in an event loop of their own."""
        settle_sync(self._handling(webhook))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await is_http(scope, send):
            return
        try:
            if scope["method"] != "POST":
                raise WebhookRefused(405, "Use POST.")
            body = await _read(receive)
            if body is None:
                return
            headers = dict(scope["headers"])
            key, signature = (
                headers.get(name, b"").decode("latin-1") for name in (b"x-pusher-key", b"x-pusher-signature")
            )
            await self.handle(self.receive(body, key=key, signature=signature))
        except WebhookRefused as refused:
            allow = {"allow": "POST"} if refused.status == 405 else {}
            answer = AuthResponse(refused.status, msgspec.json.encode({"message": refused.message}), allow)
        else:
            answer = AuthResponse(200, b'{"status":"ok"}')
        raw = [(name.encode(), value.encode()) for name, value in answer.all_headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    def _handling(self, webhook: Webhook) -> Steps[None]:
        for told in (webhook, *webhook.events):
            for kind, handler in self._handlers:
                if isinstance(told, kind):
                    yield handler(told)


def _event(fields: object) -> WebhookEvent | UserEvent | UnknownEvent:
    if not isinstance(fields, dict):
        return UnknownEvent("", {})
    name = fields.get("name")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is not None:
        try:
            return msgspec.convert({key: value for key, value in fields.items() if key != "name"}, kind)
        except msgspec.ValidationError:
            pass  # unknown fields or types: an UnknownEvent
    return UnknownEvent(str(name), fields)


async def _read(receive: Receive) -> bytes | None:
    """Return the body, or None if the sender disconnects. Raises WebhookRefused above 1 MiB."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise WebhookRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)
