"""Describes all events of the portal as an AsyncAPI 3 document.

The document is generated from what a sample of each event would send, so it cannot differ from what clients receive.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from smartlink.broadcasting import Broadcaster, BroadcastEvent, Channel, Delivery
from smartlink.portal.admin.events import AdminEvent, AdminFigures, RightsChanged
from smartlink.portal.admin.schemas import ConsoleEntry, Figures
from smartlink.portal.campaigns.events import (
    BudgetChanged,
    CampaignActivated,
    CampaignCreated,
    CampaignDeactivated,
    CampaignDeleted,
    CampaignUpdated,
)
from smartlink.portal.campaigns.schemas import CampaignOut
from smartlink.portal.chat.events import (
    MessageDeleted,
    MessageDelivered,
    MessageRead,
    MessageSent,
    MessageUpdated,
    PrivateMessageSent,
    UnreadChanged,
    UserTyping,
)
from smartlink.portal.chat.schemas import DirectMessageOut, MessageOut, RoomUnread
from smartlink.portal.finance.events import BalanceUpdated, DepositCompleted, WithdrawalProcessed
from smartlink.portal.finance.schemas import TransactionOut
from smartlink.portal.notifications.events import (
    EchoNotification,
    NotificationChanged,
    NotificationCreated,
    NotificationRead,
    NotificationsRead,
)
from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.presence.events import UserJoined, UserLeft
from smartlink.portal.users.events import UserUpdated
from smartlink.portal.users.schemas import Profile

__all__ = ["document", "samples"]

_CHANNELS = {
    "chat": ("General chat", "Everyone with the app's key."),
    "presence-chat": ("Who is online", "Signed-in users."),
    "private-user.{userId}": ("A user's own events", "That user."),
    "private-chat.{lowId}.{highId}": ("A direct conversation", "Those two users."),
    "private-campaign.{campaignId}": ("A campaign", "Its owner and admins."),
    "private-financial.{userId}": ("A user's wallet", "That user."),
    "private-admin": ("For admins", "Admins."),
}
_TO_OTHERS = (MessageSent, PrivateMessageSent, UserTyping)
_DELIVERIES = {
    Delivery.DURABLE: "Recorded with its change, then sent at least once; repeats have the same `eventId`.",
    Delivery.LIVE: "Sent at once, at most once.",
    Delivery.STATE: "Recorded to keep its order, then sent at least once; clients that missed it query the state.",
}
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_MONEY = re.compile(r"-?[0-9]+\.[0-9]{2}\Z")


def samples() -> list[BroadcastEvent]:
    """Return a sample of each event; two of those that are sent on two kinds of channels."""
    now = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    ana, ben = Profile(id=7, name="Ana"), Profile(id=9, name="Ben")
    words: dict[str, Any] = {"message": "Hello, world!", "created_at": now, "updated_at": now, "user": ana}
    words |= {"version": 1, "edited_at": None, "deleted_at": None}
    words |= {"is_read": False, "read_at": None, "delivered_at": None}
    said = MessageOut(id=41, user_id=ana.id, recipient_id=None, **words)
    unread = DirectMessageOut(id=42, user_id=ana.id, recipient_id=ben.id, recipient=ben, **words)
    edited = [
        MessageOut.model_validate(message.model_dump() | {"version": 2, "edited_at": now}) for message in (said, unread)
    ]
    deletion = {"message": "", "version": 3, "deleted_at": now}
    delivered = unread.model_copy(update={"delivered_at": now})
    read = delivered.model_copy(update={"is_read": True, "read_at": now})
    about = {"message_id": 42, "sender": {"id": ana.id, "name": ana.name}, "excerpt": "Hello, world!"}
    notification = NotificationOut.model_validate(
        {"id": 5, "type": "private_message", "data": about, "read_at": None, "created_at": now}
    )
    campaign = CampaignOut(
        id=3,
        user_id=ana.id,
        name="Summer",
        description=None,
        status="active",
        budget=Decimal("1000.00"),
        starts_at=now,
        ends_at=None,
        version=2,
        created_at=now,
        updated_at=now,
    )
    amounts = {"amount": Decimal("12.50"), "balance_after": Decimal("112.50")}
    movement = TransactionOut(id=8, type="deposit", version=4, created_at=now, **amounts)
    figures = Figures(
        at=now,
        realtime="up",
        connections=12,
        channels=5,
        nodes=1,
        workers=1,
        redis="up",
        received_per_s=1.0,
        published_per_s=1.0,
        delivered_per_s=1.0,
        publish_latency_ms=4.0,
        queue_waiting=0,
        queue_lag_s=0.0,
        queue_workers=1,
        failed_jobs=0,
        users_online=2,
        errors=0,
    )
    entry = ConsoleEntry(kind="join", at=now, channel="presence-chat", name="Ana", detail={})
    return [
        MessageSent(said),
        UserTyping(ana, typing=True),
        UserTyping(ana, typing=True, recipient_id=ben.id),
        *(MessageUpdated(message) for message in edited),
        *(MessageDeleted(message.model_copy(update=deletion)) for message in edited),
        MessageDelivered(delivered, ben),
        MessageRead(read, ben),
        UnreadChanged(
            [RoomUnread(peer_id=None, unread_count=1, first_unread_id=said.id, last_message_id=said.id)], ben
        ),
        PrivateMessageSent(unread),
        UserJoined(ana.id, ana.name),
        UserLeft(ana.id, ana.name),
        UserUpdated(ana),
        RightsChanged(ana.id, is_admin=True),
        NotificationCreated(notification, ben),
        EchoNotification(notification, ben.id),
        NotificationChanged(notification, ben),
        NotificationRead(notification.root.id, ben),
        NotificationsRead([notification.root.id], notification.root.id, ben),
        CampaignCreated(campaign),
        CampaignUpdated(campaign),
        CampaignActivated(campaign),
        CampaignDeactivated(campaign),
        CampaignDeleted(campaign),
        BudgetChanged(campaign, Decimal("900.00"), Decimal("1000.00")),
        DepositCompleted(ana, movement),
        WithdrawalProcessed(ana, movement.model_copy(update={"type": "withdrawal"})),
        BalanceUpdated(ana, Decimal("100.00"), Decimal("112.50"), version=4),
        AdminFigures(figures),
        AdminEvent(entry),
    ]


def document(broadcaster: Broadcaster) -> dict[str, Any]:
    """Return the document. Event names are those that `broadcaster` would send."""
    channels: dict[str, dict[str, Any]] = {address: _channel(address) for address in _CHANNELS}
    messages: dict[str, dict[str, Any]] = {}
    models: set[type[BaseModel]] = set()
    for event in samples():
        name = type(event).__name__
        messages[name] = _message(event, broadcaster, models)
        channels[_address(event)]["messages"][name] = {"$ref": f"#/components/messages/{name}"}
    _, described = models_json_schema(
        [(model, "serialization") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SmartLink events",
            "version": "1.0.0",
            "description": "The events that clients receive over the Pusher protocol. `data` is the payload as JSON.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "realtime": {
                "host": "127.0.0.1:8080",
                "protocol": "ws",
                "pathname": "/app/{key}",
                "variables": {"key": {"default": "app-key", "description": "The app's key, from `/api/realtime`."}},
            }
        },
        "channels": {_key(address): channel for address, channel in channels.items()},
        "operations": {
            f"send_{_key(address)}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_key(address)}"},
                "summary": f"Events on {address}",
            }
            for address in channels
        },
        "components": {"messages": messages, "schemas": described["$defs"]},
    }


def _channel(address: str) -> dict[str, Any]:
    title, who = _CHANNELS[address]
    channel: dict[str, Any] = {"address": address, "title": title, "description": f"Subscribers: {who}", "messages": {}}
    names = re.findall(r"{(\w+)}", address)
    if names:
        channel["parameters"] = {
            name: {"description": "A canonical decimal id.", "x-type": "integer"} for name in names
        }
    return channel


def _key(address: str) -> str:
    return re.sub(r"[{}]", "", address).replace(".", "_").replace("-", "_")


def _address(event: BroadcastEvent) -> str:
    channel = event.broadcast_on()
    assert isinstance(channel, Channel)  # noqa: S101 - none of ours goes to several at once
    return next(
        address
        for address in _CHANNELS
        if re.fullmatch(re.sub(r"{\w+}", "[0-9]+", address.replace(".", r"\.")), str(channel))
    )


def _message(event: BroadcastEvent, broadcaster: Broadcaster, models: set[type[BaseModel]]) -> dict[str, Any]:
    payload = event.broadcast_with()
    properties = {name: _schema(value, models) for name, value in payload.items()}
    if event.delivery is Delivery.DURABLE:
        properties["eventId"] = {"type": "integer", "minimum": 1}
    text = _DELIVERIES[event.delivery]
    if isinstance(event, _TO_OTHERS):
        text += " The sender's own socket, named by X-Socket-ID, does not receive it."
    return {
        "name": broadcaster.wire_name(event),
        "title": type(event).__name__,
        "summary": (type(event).__doc__ or "").strip(),
        "description": text,
        "tags": [{"name": event.delivery.value}],
        "payload": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": isinstance(event, EchoNotification),
        },
        "examples": [{"payload": _shown(payload) | ({"eventId": 41} if "eventId" in properties else {})}],
    }


def _schema(value: object, models: set[type[BaseModel]]) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        models.add(type(value))
        return {"$ref": f"#/components/schemas/{type(value).__name__}"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    if isinstance(value, Mapping):
        return {"type": "object"}
    if isinstance(value, list):
        return {"type": "array", "items": _schema(value[0], models)}
    if _MONEY.match(str(value)):
        return {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$"}
    return {"type": "string"}


def _shown(payload: Mapping[str, object]) -> dict[str, Any]:
    return {name: _ANY.dump_python(value, mode="json") for name, value in payload.items()}
