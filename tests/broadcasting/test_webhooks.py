"""Receiving webhooks: the signature is verified first, then events are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from kit.asgi import connect_websocket
from smartlink.broadcasting import BroadcastConfigError
from smartlink.broadcasting.webhooks import (
    CacheMiss,
    ChannelOccupied,
    ChannelVacated,
    ClientEvent,
    EventDelivered,
    MemberAdded,
    MemberRemoved,
    SubscriptionCount,
    UnknownEvent,
    UserEvent,
    UserOffline,
    UserOnline,
    Webhook,
    WebhookEvent,
    WebhookReceiver,
    WebhookRefused,
)
from smartlink.protocol.signing import sign_webhook

KEY, SECRET, OLD = "app-key", "new-secret", "old-secret"


def webhook(*events: object, **more: object) -> bytes:
    return json.dumps({"time_ms": 1_700_000_000_000, "events": list(events)} | more).encode()


def received(body: bytes, key: str = KEY, secret: str = SECRET) -> Webhook:
    receiver = WebhookReceiver({KEY: [SECRET, OLD], "other": "other-secret"})
    return receiver.receive(body, key=key, signature=sign_webhook(secret, body))


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({"name": "channel_occupied", "channel": "chat"}, ChannelOccupied("chat")),
        ({"name": "channel_vacated", "channel": "chat"}, ChannelVacated("chat")),
        ({"name": "member_added", "channel": "presence-a", "user_id": "7"}, MemberAdded("presence-a", "7")),
        ({"name": "member_removed", "channel": "presence-a", "user_id": "7"}, MemberRemoved("presence-a", "7")),
        ({"name": "cache_miss", "channel": "cache-a"}, CacheMiss("cache-a")),
        ({"name": "user_online", "user_id": "7"}, UserOnline("7")),
        ({"name": "user_offline", "user_id": "7"}, UserOffline("7")),
        (
            {"name": "event_delivered", "channel": "private-a", "id": "9-0123456789abcdef", "user_id": "7"},
            EventDelivered("private-a", "9-0123456789abcdef", "7"),
        ),
        ({"name": "subscription_count", "channel": "a", "subscription_count": 5}, SubscriptionCount("a", 5)),
        (
            {"name": "client_event", "channel": "private-a", "event": "client-x", "data": "{}", "socket_id": "1.2"},
            ClientEvent("private-a", "client-x", "{}", "1.2"),
        ),
        ({"name": "member_added", "channel": "presence-a", "user_id": "7", "new": 1}, MemberAdded("presence-a", "7")),
    ],
)
def test_each_kind_of_event_is_typed(fields: dict[str, Any], event: WebhookEvent | UserEvent) -> None:
    told = received(webhook(fields))

    assert told == Webhook(KEY, 1_700_000_000_000, (event,))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "from_the_future", "channel": "a"},
        {"name": "member_added", "channel": "presence-a", "user_id": 7},
        {"name": "member_added", "channel": "presence-a"},
        {"name": ["member_added"]},
        {"name": "__proto__"},
        {},
        1,
        None,
    ],
)
def test_an_unknown_event_is_passed_on_with_its_fields(fields: object) -> None:
    [event] = received(webhook(fields)).events

    assert isinstance(event, UnknownEvent)


@pytest.mark.parametrize(("key", "secret"), [(KEY, SECRET), (KEY, OLD), ("other", "other-secret")])
def test_any_secret_of_the_named_app_is_right(key: str, secret: str) -> None:
    assert received(webhook(), key, secret).key == key


@pytest.mark.parametrize(
    ("key", "secret"), [(KEY, "wrong"), ("other", SECRET), ("unknown", SECRET), ("", ""), ("unknown", "")]
)
def test_a_signature_that_does_not_match_is_refused(key: str, secret: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        received(webhook(), key, secret)
    assert refused.value.status == 401


def test_a_changed_body_is_refused() -> None:
    receiver = WebhookReceiver({KEY: SECRET})

    with pytest.raises(WebhookRefused):
        receiver.receive(webhook() + b" ", key=KEY, signature=sign_webhook(SECRET, webhook()))
    with pytest.raises(WebhookRefused):
        receiver.receive(webhook(), key=KEY, signature="é\udc80")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b"{}", b'{"events":{}}'])
def test_a_signed_body_that_is_not_a_webhook_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused) as refused:
        received(body)
    assert refused.value.status == 400


def build() -> tuple[WebhookReceiver, list[object]]:
    receiver, heard = WebhookReceiver({KEY: SECRET}), []

    @receiver.on(Webhook)
    def whole(told: Webhook) -> None:
        heard.append(len(told.events))

    @receiver.on(MemberAdded)
    async def came(event: MemberAdded) -> None:
        heard.append(event)

    @receiver.on(WebhookEvent)
    def anything(event: WebhookEvent) -> None:
        heard.append(event.channel)

    return receiver, heard


JOINED = {"name": "member_added", "channel": "presence-a", "user_id": "7"}
EXPECTED = [2, "chat", MemberAdded("presence-a", "7"), "presence-a"]


async def test_handlers_receive_the_events_they_asked_for_in_order() -> None:
    receiver, heard = build()
    body = webhook({"name": "channel_occupied", "channel": "chat"}, JOINED)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(receiver), base_url="http://app") as client:
        headers = {"x-pusher-key": KEY, "x-pusher-signature": sign_webhook(SECRET, body)}
        answer = await client.post("/webhooks", content=body, headers=headers)
        again = await client.post("/webhooks", content=body + b" ", headers=headers)
        nothing = await client.get("/webhooks")
        large = await client.post("/webhooks", content=b"x" * 1_100_000, headers=headers)

    assert [each.status_code for each in (answer, again, nothing, large)] == [200, 401, 405, 413]
    assert nothing.headers["allow"] == "POST"
    assert heard == EXPECTED


async def test_it_is_a_route_of_starlette_and_fastapi() -> None:
    from fastapi import FastAPI
    from starlette.routing import Route

    receiver, heard = build()
    app = FastAPI()
    app.router.routes.append(Route("/webhooks/realtime", receiver))
    body = webhook({"name": "channel_occupied", "channel": "chat"}, JOINED)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
        headers = {"x-pusher-key": KEY, "x-pusher-signature": sign_webhook(SECRET, body)}
        answer = await client.post("/webhooks/realtime", content=body, headers=headers)

    assert answer.status_code == 200
    assert heard == EXPECTED


def test_sync_code_can_handle_webhooks_too() -> None:
    receiver, heard = build()
    body = webhook({"name": "channel_occupied", "channel": "chat"}, JOINED)

    receiver.handle_sync(receiver.receive(body, key=KEY, signature=sign_webhook(SECRET, body)))

    assert heard == EXPECTED


async def test_a_raising_handler_makes_the_sender_retry() -> None:
    receiver = WebhookReceiver({KEY: SECRET})

    @receiver.on(MemberAdded)
    def fails(event: MemberAdded) -> None:
        raise OSError("the database is away")

    with pytest.raises(OSError, match="away"):
        await receiver.handle(received(webhook(JOINED)))


@pytest.mark.parametrize("secret", ["", [], [""], ["right", ""], None])
def test_an_empty_secret_is_refused_at_startup(secret: Any) -> None:
    with pytest.raises(BroadcastConfigError, match="'app-key' have an empty secret"):
        WebhookReceiver({KEY: secret})


@pytest.mark.parametrize(
    ("time_ms", "is_taken"),
    [(1_000_000, True), (940_001, True), (939_999, False), (None, False), ("1000000", False), (True, False)],
)
def test_old_webhooks_can_be_refused_as_replays(time_ms: object, is_taken: bool) -> None:
    receiver = WebhookReceiver({KEY: SECRET}, max_age_s=60, clock=lambda: 1000.0)
    body = webhook(JOINED, time_ms=time_ms)

    if is_taken:
        assert receiver.receive(body, key=KEY, signature=sign_webhook(SECRET, body)).time_ms == time_ms
        return
    with pytest.raises(WebhookRefused) as refused:
        receiver.receive(body, key=KEY, signature=sign_webhook(SECRET, body))
    assert refused.value.status == 400


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128, 100_000])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    right = sign_webhook(SECRET, webhook())

    with pytest.raises(WebhookRefused):
        WebhookReceiver({KEY: SECRET}).receive(webhook(), key=KEY, signature=(right * 2000)[:length])


@pytest.mark.parametrize("change", [str.upper, lambda text: text + "\n", lambda text: " " + text])
def test_a_signature_in_another_notation_is_refused(change: Callable[[str], str]) -> None:
    with pytest.raises(WebhookRefused):
        WebhookReceiver({KEY: SECRET}).receive(webhook(), key=KEY, signature=change(sign_webhook(SECRET, webhook())))


async def test_a_websocket_is_refused() -> None:
    assert await connect_websocket(WebhookReceiver({KEY: SECRET})) == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    ("event_id", "recorded"),
    [
        ("41-0123456789abcdef", 41),
        ("41", None),
        ("0-0123456789abcdef", None),
        ("x-0123456789abcdef", None),
        ("41-0123456789ABCDEF", None),
        ("41-0123456789abcdef\n", None),
        ("4\u0661-0123456789abcdef", None),
        ("9" * 20 + "-0123456789abcdef", None),
    ],
)
def test_a_delivered_event_of_an_outbox_names_its_record(event_id: str, recorded: int | None) -> None:
    assert EventDelivered("private-a", event_id, "7").event_id == recorded
