"""Events with channel templates in the class, which become dataclasses automatically."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import re
from typing import Any, ClassVar
from uuid import UUID

import pydantic
import pytest

from smartlink.broadcasting import (
    BroadcastEvent,
    BroadcastNow,
    Channel,
    EncryptedPrivateChannel,
    InvalidChannel,
    PresenceChannel,
    PrivateChannel,
)
from smartlink.broadcasting.testing import FakeBroadcaster


def channels_of(event: BroadcastEvent) -> list[str]:
    return [envelope.channel for envelope in FakeBroadcaster().pack(event)]


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


class Size(enum.Enum):
    LARGE = "large"


def test_fields_fill_the_placeholders_and_are_the_payload() -> None:
    [envelope] = FakeBroadcaster().pack(OrderShipped(order_id=7))

    assert (envelope.channel, envelope.name) == ("private-orders.7", "App\\Events\\OrderShipped")
    assert envelope.payload == '{"order_id":7}'
    assert OrderShipped(7).broadcast_on() == [PrivateChannel("orders.7")]


def test_a_class_without_a_decorator_is_a_frozen_dataclass() -> None:
    event = OrderShipped(7)

    assert (event, hash(event)) == (OrderShipped(order_id=7), hash(OrderShipped(7)))
    assert event != OrderShipped(8)
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.order_id = 8  # type: ignore[misc]
    with pytest.raises(TypeError, match="order"):
        OrderShipped(order=7)  # type: ignore[call-arg]


def test_decorated_classes_pydantic_models_and_plain_classes_have_templates_too() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Decorated(BroadcastEvent):
        order_id: int
        tags: list[str] = dataclasses.field(default_factory=list)
        channel = PrivateChannel("orders.{order_id}")

    class Model(pydantic.BaseModel, BroadcastEvent):
        order_id: int
        channel: ClassVar = PrivateChannel("orders.{order_id}")

    class Plain(BroadcastEvent):
        channel = PrivateChannel("orders.{order_id}")

        def __init__(self, order_id: int) -> None:
            self.order_id = order_id

    events: list[BroadcastEvent] = [Decorated(7), Model(order_id=7), Plain(7)]
    assert [channels_of(event) for event in events] == [["private-orders.7"]] * 3


def test_fields_and_templates_are_inherited() -> None:
    class Moved(OrderShipped):
        to: str
        tags: list[str] = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(frozen=True)
    class Further(Moved):
        by: str = "lorry"

    assert channels_of(Moved(7, "Rome")) == ["private-orders.7"]
    assert FakeBroadcaster().pack(Further(7, "Rome", ["a"]))[0].payload == (
        '{"order_id":7,"to":"Rome","tags":["a"],"by":"lorry"}'
    )


def test_several_channels_may_be_named_and_values_of_several_kinds_fill_them() -> None:
    class Sold(BroadcastNow):
        shop: UUID
        size: Size
        channels = (PresenceChannel("shops.{shop}"), EncryptedPrivateChannel("{size}.{city}"), Channel("news"))

        @property
        def city(self) -> str:
            return "Rome"

    sold = Sold(UUID(int=7), Size.LARGE)
    assert [str(channel) for channel in sold.broadcast_on()] == [  # type: ignore[union-attr]
        "presence-shops.00000000-0000-0000-0000-000000000007",
        "private-encrypted-large.Rome",
        "news",
    ]


def test_placeholders_in_broadcast_on_are_filled_too() -> None:
    class Base(BroadcastEvent):
        def broadcast_on(self) -> Channel:
            return self.channel  # type: ignore[attr-defined, no-any-return]

    class Shipped(Base):
        order_id: int
        channel = Channel("orders.{order_id}")

    assert channels_of(Shipped(7)) == ["orders.7"]


def test_a_placeholder_without_a_field_raises_at_class_definition() -> None:
    with pytest.raises(TypeError, match=re.escape("Slip: PrivateChannel('orders.{order}') needs a field order")):

        class Slip(BroadcastEvent):
            order_id: int
            channel = PrivateChannel("orders.{order}")


def test_creating_an_event_without_a_channel_raises() -> None:
    class Nowhere(BroadcastEvent):
        order_id: int

    with pytest.raises(TypeError, match="Nowhere has no channel"):
        Nowhere(7)


@pytest.mark.parametrize("value", [None, True, 1.5, "", "a b", "x" * 200])
def test_a_value_that_cannot_be_in_a_channel_name_is_refused(value: Any) -> None:
    with pytest.raises(InvalidChannel):
        FakeBroadcaster().pack(OrderShipped(value))


def test_an_unfilled_placeholder_is_never_sent() -> None:
    with pytest.raises(InvalidChannel, match="order_id"):
        FakeBroadcaster().pack(FakeBroadcaster().on(Channel("orders.{order_id}")).as_("x").event)


@pytest.mark.parametrize("name", ["orders.{", "orders.{}", "orders.{1}", "orders.{a.b}", "{a}" + "x" * 200])
def test_malformed_placeholders_are_refused(name: str) -> None:
    with pytest.raises(InvalidChannel):
        Channel(name)
