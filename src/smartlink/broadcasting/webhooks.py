"""Webhooks of the realtime server, received: checked, typed, handed to your functions.

receiver = WebhookReceiver({"app-key": "app-secret"})

@receiver.on(MemberAdded)
async def came(event: MemberAdded) -> None:
    await mark_online(event.user_id)

Source: Pusher Channels, "Webhooks". Webhooks come at least once, those of one app in order: a handler that raises has
them sent again, so what it does must bear a repeat.
"""

from __future__ import annotations

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

MAX_BODY_BYTES = 1024 * 1024


class WebhookRefused(Exception):
    """A request that is no webhook of ours: 401 for its signature, 400 for its form, 405, 413."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Base of what is told of channels: something happened on `channel`, a wire name."""

    channel: str


@dataclass(frozen=True, slots=True)
class ChannelOccupied(WebhookEvent):
    """The first subscriber came."""


@dataclass(frozen=True, slots=True)
class ChannelVacated(WebhookEvent):
    """The last subscriber left."""


@dataclass(frozen=True, slots=True)
class MemberAdded(WebhookEvent):
    """A user's first socket came to a presence channel."""

    user_id: str


@dataclass(frozen=True, slots=True)
class MemberRemoved(WebhookEvent):
    """A user's last socket left a presence channel."""

    user_id: str


@dataclass(frozen=True, slots=True)
class ClientEvent(WebhookEvent):
    """A client said something to the others: `data` is its JSON as text; `user_id` is known on presence channels."""

    event: str
    data: str
    socket_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class CacheMiss(WebhookEvent):
    """Somebody subscribed to a cache channel that has no last event: publish it again."""


@dataclass(frozen=True, slots=True)
class SubscriptionCount(WebhookEvent):
    """How many subscribers a channel has now."""

    subscription_count: int


@dataclass(frozen=True, slots=True)
class UserEvent:
    """Base of what is told of a signed-in user, whatever channels they are on."""

    user_id: str


@dataclass(frozen=True, slots=True)
class UserOnline(UserEvent):
    """A user's first connection signed in."""


@dataclass(frozen=True, slots=True)
class UserOffline(UserEvent):
    """The last connection that was signed in as the user is gone."""


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a kind, or with fields, that this version does not know."""

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
    "user_online": UserOnline,
    "user_offline": UserOffline,
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request: the app's key, when it was sent, in milliseconds since 1970, and what happened, in order."""

    key: str
    time_ms: int
    events: tuple[WebhookEvent | UserEvent | UnknownEvent, ...]


Heard = TypeVar("Heard", bound=WebhookEvent | UserEvent | UnknownEvent | Webhook)
Handler = Callable[[Any], object]


class WebhookReceiver:
    """Receives for the apps whose keys it knows. It is an ASGI app; elsewhere call `receive` and `handle_sync`.

    `secrets` maps an app's key to its secret, or to several while they are being changed. A webhook that somebody
    has overheard can be sent again: with `max_age_s`, those that tell of longer ago are refused. Leave the sender
    time to try again (our server: 5 minutes), and mind that what `smartlink webhooks retry` sends is old too.
    `clock` gives seconds since 1970. Raises BroadcastConfigError for an empty secret: anybody could sign with it.
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
        """Have a plain or async function called with each event of `kind`, or of a subclass; with `Webhook`, with
        each request as a whole, before its events."""

        def add(handler: Callable[[Heard], Any]) -> Callable[[Heard], Any]:
            self._handlers.append((kind, handler))
            return handler

        return add

    def receive(self, body: bytes, *, key: str, signature: str) -> Webhook:
        """The webhook in `body`; `key` and `signature` are its headers `X-Pusher-Key` and `X-Pusher-Signature`.

        The signature is looked at before anything else, in constant time. Raises WebhookRefused.
        """
        # All are tried, so that the time taken says nothing about which.
        right = [verify_webhook(secret, body, signature) for secret in self._secrets.get(key, ("",))]
        if key not in self._secrets or not any(right):
            raise WebhookRefused(401, "The webhook's signature does not match.")
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise WebhookRefused(400, "The body is not JSON.") from None
        if not isinstance(told, dict) or not isinstance(told.get("events"), list):
            raise WebhookRefused(400, "The events field must be a list.")
        time_ms = told.get("time_ms")
        if isinstance(time_ms, bool) or not isinstance(time_ms, int):
            time_ms = 0
        if self._max_age_s is not None and time_ms < (self._clock() - self._max_age_s) * 1000:
            raise WebhookRefused(400, f"The webhook tells of more than {self._max_age_s:g} s ago.")
        events = tuple(_event(fields) for fields in told["events"])
        return Webhook(key, time_ms, events)

    async def handle(self, webhook: Webhook) -> None:
        """Call the handlers, event by event, each event's in the order they were added. Raises what they raise."""
        await settle(self._handling(webhook))

    def handle_sync(self, webhook: Webhook) -> None:
        """As `handle`, blocking; async handlers run in a loop of their own."""
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
            pass  # Fields of another shape than we know: told as what it is.
    return UnknownEvent(str(name), fields)


async def _read(receive: Receive) -> bytes | None:
    """The body; None when the sender is gone. Raises WebhookRefused above 1 MiB."""
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
