"""Every event is described, and has exactly the documented keys."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import smartlink.portal
from kit.portal import World
from smartlink.broadcasting import BroadcastEvent
from smartlink.broadcasting.testing import FakeBroadcaster
from smartlink.portal import asyncapi
from smartlink.portal.admin.events import WrittenByHand

PROFILE = {"id", "name"}
MESSAGE = {
    "id", "user_id", "recipient_id", "message", "version", "edited_at", "deleted_at", "is_read", "read_at",
    "delivered_at", "created_at", "updated_at",
}  # fmt: skip
CAMPAIGN = {
    "id", "user_id", "name", "description", "status", "budget", "starts_at", "ends_at", "version", "created_at",
    "updated_at",
}  # fmt: skip
FIGURES = {
    "at", "realtime", "connections", "channels", "nodes", "workers", "redis", "received_per_s", "published_per_s",
    "delivered_per_s", "publish_latency_ms", "queue_waiting", "queue_lag_s", "queue_workers", "failed_jobs",
    "users_online", "errors",
}  # fmt: skip
GENERAL = {"message": MESSAGE | {"user"}, "message.user": PROFILE}
DIRECT = {"message": MESSAGE | {"user", "recipient"}, "message.user": PROFILE, "message.recipient": PROFILE}
ABOUT = {"message_id", "sender", "excerpt"}
MOVED = {"": {"user", "amount", "transactionId"}, "user": PROFILE}
OF_CAMPAIGN = {"": {"campaign"}, "campaign": CAMPAIGN}

# Channel, and the keys of the payload and of each object in it. `eventId` comes with every durable one.
EVENTS: dict[str, tuple[set[str], str, dict[str, set[str]]]] = {
    "MessageSent": ({"chat"}, "durable", {"": {"message"}} | GENERAL),
    "UserTyping": ({"chat", "private-chat.7.9"}, "live", {"": {"user", "typing"}, "user": PROFILE}),
    "MessageUpdated": ({"chat", "private-chat.7.9"}, "durable", {"": {"message"}} | GENERAL),
    "MessageDeleted": ({"chat", "private-chat.7.9"}, "durable", {"": {"message"}} | GENERAL),
    "MessageDelivered": ({"private-user.7"}, "durable", {"": {"message", "user"}, "user": PROFILE} | DIRECT),
    "MessageRead": ({"private-user.7"}, "durable", {"": {"message", "user"}, "user": PROFILE} | DIRECT),
    "UnreadChanged": ({"private-user.9"}, "durable", {"": {"rooms", "user"}, "user": PROFILE}),
    "PrivateMessageSent": ({"private-chat.7.9"}, "durable", {"": {"message"}} | DIRECT),
    "UserJoined": ({"presence-chat"}, "state", {"": PROFILE}),
    "UserLeft": ({"presence-chat"}, "state", {"": PROFILE}),
    "UserUpdated": ({"presence-chat"}, "durable", {"": {"user"}, "user": PROFILE}),
    "RightsChanged": ({"private-user.7"}, "state", {"": {"is_admin"}}),
    "NotificationCreated": ({"private-user.9"}, "durable", {
        "": {"notification", "user"}, "user": PROFILE, "notification": {"id", "type", "data", "read_at", "created_at"},
        "notification.data": ABOUT, "notification.data.sender": PROFILE}),
    "NotificationChanged": ({"private-user.9"}, "durable", {
        "": {"notification", "user"}, "user": PROFILE, "notification": {"id", "type", "data", "read_at", "created_at"},
        "notification.data": ABOUT, "notification.data.sender": PROFILE}),
    "EchoNotification": ({"private-user.9"}, "durable", {"": {"id", "type"} | ABOUT, "sender": PROFILE}),
    "NotificationRead": ({"private-user.9"}, "durable", {"": {"notificationId", "user"}, "user": PROFILE}),
    "NotificationsRead": ({"private-user.9"}, "durable", {"": {"notificationIds", "upTo", "user"}, "user": PROFILE}),
    "CampaignCreated": ({"private-user.7"}, "durable", OF_CAMPAIGN),
    "CampaignDeleted": ({"private-user.7"}, "durable", OF_CAMPAIGN),
    "CampaignUpdated": ({"private-campaign.3"}, "durable", OF_CAMPAIGN),
    "CampaignActivated": ({"private-campaign.3"}, "durable", OF_CAMPAIGN),
    "CampaignDeactivated": ({"private-campaign.3"}, "durable", OF_CAMPAIGN),
    "BudgetChanged": ({"private-campaign.3"}, "durable", {
        "": {"campaign", "oldBudget", "newBudget"}, "campaign": CAMPAIGN}),
    "DepositCompleted": ({"private-financial.7"}, "durable", MOVED),
    "WithdrawalProcessed": ({"private-financial.7"}, "durable", MOVED),
    "BalanceUpdated": ({"private-financial.7"}, "durable", {
        "": {"user", "oldBalance", "newBalance", "version"}, "user": PROFILE}),
    "AdminFigures": ({"private-admin"}, "live", {"": {"figures"}, "figures": FIGURES}),
    "AdminEvent": ({"private-admin"}, "live", {
        "": {"entry"}, "entry": {"kind", "at", "channel", "name", "detail"}, "entry.detail": set()}),
}  # fmt: skip


def _classes(base: type = BroadcastEvent) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


def _objects(value: Any, place: str = "") -> Iterator[tuple[str, set[str]]]:
    if isinstance(value, dict):
        yield place, set(value)
        for name, inner in value.items():
            yield from _objects(inner, f"{place}.{name}".strip("."))


def _variants(schema: dict[str, Any], schemas: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the object schemas that a reference leads to: several for a union."""
    found = schemas[schema["$ref"].rpartition("/")[2]]
    return [each for one in found["oneOf"] for each in _variants(one, schemas)] if "oneOf" in found else [found]


def test_every_event_of_the_portal_is_in_the_test_tables() -> None:
    for module in pkgutil.walk_packages(smartlink.portal.__path__, "smartlink.portal."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    own = {
        kind.__name__
        for kind in _classes()
        if kind.__module__.startswith("smartlink.portal.") and not kind.__name__.startswith("_")
    } - {WrittenByHand.__name__}

    assert own == set(EVENTS)
    assert {type(event).__name__ for event in asyncapi.samples()} == set(EVENTS)
    assert set(asyncapi.document(FakeBroadcaster())["components"]["messages"]) == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_has_exactly_the_documented_keys(name: str) -> None:
    channels, delivery, keys = EVENTS[name]
    packed = [FakeBroadcaster().pack(event) for event in asyncapi.samples() if type(event).__name__ == name]

    assert {envelope.channel for envelopes in packed for envelope in envelopes} == channels
    for (envelope,) in packed:
        assert dict(_objects(json.loads(envelope.payload))) == keys
        assert envelope.delivery == delivery
        # Only the user's own pages are told of their rights.
        secret = {"email", "password"} if name == "RightsChanged" else {"email", "is_admin", "password"}
        assert not secret & set().union(*keys.values())


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_matches_its_description(name: str) -> None:
    _, delivery, keys = EVENTS[name]
    described = asyncapi.document(FakeBroadcaster())
    message = described["components"]["messages"][name]
    wanted = keys[""] | ({"eventId"} if delivery == "durable" else set())

    assert set(message["payload"]["required"]) == set(message["payload"]["properties"]) == wanted
    assert message["name"] == (
        "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
        if name == "EchoNotification"
        else f"App\\Events\\{name}"
    )
    for field, schema in message["payload"]["properties"].items():
        if "$ref" in schema:
            for variant in _variants(schema, described["components"]["schemas"]):
                assert set(variant["properties"]) == keys[field]


async def test_the_description_is_served(world: World) -> None:
    answer = await world.client().get("/asyncapi.json")

    assert answer.json() == asyncapi.document(FakeBroadcaster())
    assert answer.json()["asyncapi"] == "3.0.0"
