"""Packing events into envelopes: names, channels, and exact payloads."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import pydantic
import pytest
from pydantic.alias_generators import to_camel

from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastEvent,
    Channel,
    Delivery,
    EncryptedPrivateChannel,
    InvalidChannel,
    InvalidEventName,
    PayloadTooLarge,
    PresenceChannel,
    PrivateChannel,
    SyncBroadcaster,
    UnserialisablePayload,
)
from smartlink.broadcasting.broadcaster import EVENT_ID_BYTES
from smartlink.broadcasting.drivers.null import NullDriver

BROADCASTER = Broadcaster(NullDriver())

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class OrderShipped(BroadcastEvent):
    order: object

    def broadcast_on(self) -> Channel:
        return PrivateChannel("orders.1")


class LiveOrder(OrderShipped):
    delivery = Delivery.LIVE


def payload_of(value: object) -> Any:
    return json.loads(BROADCASTER.pack(OrderShipped(value))[0].payload)["order"]


def test_a_dataclass_event_is_packed_with_class_name_and_fields() -> None:
    [envelope] = BROADCASTER.pack(OrderShipped({"id": 1}))

    assert envelope.channel == "private-orders.1"
    assert envelope.name == "App\\Events\\OrderShipped"
    assert envelope.payload == '{"order":{"id":1}}'
    assert envelope.socket_id is None
    assert envelope.delivery is Delivery.DURABLE


def test_a_pydantic_event_is_packed_with_its_fields() -> None:
    class Item(pydantic.BaseModel):
        price: Decimal

    class Sold(pydantic.BaseModel, BroadcastEvent):
        item: Item
        count: int = 2

        def broadcast_on(self) -> Channel:
            return Channel("shop")

    [envelope] = BROADCASTER.pack(Sold(item=Item(price=Decimal("1.50"))))

    assert json.loads(envelope.payload) == {"item": {"price": "1.50"}, "count": 2}


def test_a_pydantic_models_payload_is_its_dump() -> None:
    class Tags(pydantic.RootModel[list[str]]):
        pass

    class Account(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)
        account_id: int
        password: str = pydantic.Field("hidden", exclude=True)

    class Opened(pydantic.BaseModel, BroadcastEvent):
        account: Account
        tags: Tags
        raw: bytes
        token: str = pydantic.Field("hidden", exclude=True)

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def label(self) -> str:
            return f"#{self.account.account_id}"

        @pydantic.field_serializer("raw")
        def _hex(self, raw: bytes) -> str:
            return raw.hex()

        def broadcast_on(self) -> Channel:
            return Channel("bank")

    account = Account(account_id=7)
    [envelope] = BROADCASTER.pack(Opened(account=account, tags=Tags(["new"]), raw=b"\x01"))

    assert json.loads(envelope.payload) == {"account": {"accountId": 7}, "tags": ["new"], "raw": "01", "label": "#7"}
    assert payload_of(account) == {"accountId": 7}
    assert payload_of(Tags(["a"])) == ["a"]


def test_a_pydantic_model_that_cannot_be_dumped_is_refused_with_its_path() -> None:
    class Price(pydantic.BaseModel):
        amount: int

        @pydantic.field_serializer("amount")
        def _never(self, _: int) -> str:
            raise ValueError("no price yet")

    with pytest.raises(UnserialisablePayload, match=r"payload\.order: .*no price yet"):
        BROADCASTER.pack(OrderShipped(Price(amount=1)))


def test_a_generic_event_is_named_without_type_arguments() -> None:
    class Changed(pydantic.BaseModel, BroadcastEvent, Generic[Value]):
        value: Value

        def broadcast_on(self) -> Channel:
            return Channel("changes")

    assert BROADCASTER.pack(Changed[int](value=1))[0].name == "App\\Events\\Changed"


def test_an_event_with_slots_is_packed_with_its_public_attributes() -> None:
    class Base(BroadcastEvent):
        __slots__ = ("at", "unset")

        def broadcast_on(self) -> Channel:
            return Channel("game")

    class Moved(Base):
        __slots__ = ("_secret", "to")

        def __init__(self) -> None:
            self.at, self.to, self._secret = 1, "left", "no"

    assert BROADCASTER.pack(Moved())[0].payload == '{"at":1,"to":"left"}'


def test_a_plain_event_is_packed_with_its_public_attributes() -> None:
    class Moved(BroadcastEvent):
        def __init__(self) -> None:
            self.to = "left"
            self._secret = "no"

        def broadcast_on(self) -> Channel:
            return Channel("game")

    assert BROADCASTER.pack(Moved())[0].payload == '{"to":"left"}'


def test_the_namespace_is_a_setting_and_may_be_empty() -> None:
    event = OrderShipped(1)

    assert Broadcaster(NullDriver(), namespace="Shop.").wire_name(event) == "Shop.OrderShipped"
    assert Broadcaster(NullDriver(), namespace="").wire_name(event) == "OrderShipped"


def test_an_overridden_name_is_sent_unchanged() -> None:
    class Named(OrderShipped):
        def broadcast_as(self) -> str:
            return "order.shipped"

    assert BROADCASTER.pack(Named(1))[0].name == "order.shipped"


class Names(enum.Enum):
    SHIPPED = "order.shipped"
    SENT = 1


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        (".order.shipped", "order.shipped"),
        ("\\Shop\\Shipped", "Shop\\Shipped"),
        ("..order", ".order"),
        (Names.SHIPPED, "order.shipped"),
        (Names.SENT, "SENT"),
    ],
)
def test_a_name_may_have_echos_leading_dot_or_be_an_enum_member(given: str | enum.Enum, wire: str) -> None:
    class Named(OrderShipped):
        def broadcast_as(self) -> str | enum.Enum:
            return given

    assert BROADCASTER.pack(Named(1))[0].name == wire


@pytest.mark.parametrize("name", ["", ".", "x" * 201, "a\nb", "pusher:ping", "pusher_internal:member_added"])
def test_a_reserved_or_invalid_name_is_refused(name: str) -> None:
    class Named(OrderShipped):
        def broadcast_as(self) -> str:
            return name

    with pytest.raises(InvalidEventName):
        BROADCASTER.pack(Named(1))


def test_an_event_for_several_channels_is_one_envelope_each() -> None:
    class Everywhere(OrderShipped):
        def broadcast_on(self) -> Sequence[Channel]:  # type: ignore[override]
            return [Channel("a"), PresenceChannel("b"), Channel("a")]

    assert [envelope.channel for envelope in BROADCASTER.pack(Everywhere(1))] == ["a", "presence-b"]


def test_an_event_whose_broadcast_when_is_false_is_not_packed() -> None:
    class Never(OrderShipped):
        def broadcast_when(self) -> bool:
            return False

    assert BROADCASTER.pack(Never(1)) == ()


@pytest.mark.parametrize("on", ["private-orders.1", ["orders"], None, 7])
def test_a_channel_given_as_a_string_is_refused(on: object) -> None:
    class Loose(OrderShipped):
        def broadcast_on(self) -> Any:
            return on

    with pytest.raises(InvalidChannel, match="broadcast_on"):
        BROADCASTER.pack(Loose(1))


def test_an_encrypted_channel_without_a_key_is_refused() -> None:
    class Secret(OrderShipped):
        def broadcast_on(self) -> Channel:
            return EncryptedPrivateChannel("vault")

    with pytest.raises(BroadcastConfigError, match="BROADCAST_ENCRYPTION_MASTER_KEY"):
        BROADCASTER.pack(Secret(1))


@pytest.mark.parametrize("socket_id", ["1", "1.1\n", "١.١", "1.1:private-x", ""])
def test_an_invalid_socket_id_is_refused(socket_id: str) -> None:
    with pytest.raises(ValueError, match="not a socket id"):
        BROADCASTER.pack(OrderShipped(1), socket_id=socket_id)


def test_the_envelope_names_the_excluded_socket() -> None:
    assert BROADCASTER.pack(OrderShipped(1), socket_id="1.2")[0].socket_id == "1.2"


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    _hidden: int = 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("10.50"), '"10.50"'),
        (Decimal("1E+2"), '"100"'),
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), '"2026-01-02T03:04:05Z"'),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2))), '"2026-01-02T01:00:00Z"'),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Colour.RED, '"red"'),
        (Point(3), '{"x":3}'),
        ((1, None, True, 1.5), "[1,null,true,1.5]"),
        ({1: "a"}, '{"1":"a"}'),
        ("🎉\u2028é", '"🎉\u2028é"'),
        ({"__proto__": {}, "{0.__class__}": ""}, '{"__proto__":{},"{0.__class__}":""}'),
        (2**53 - 1, "9007199254740991"),
        (-(2**53) + 1, "-9007199254740991"),
        ("a\x00b", '"a\\u0000b"'),
    ],
)
def test_values_with_an_exact_json_form_are_encoded(value: object, text: str) -> None:
    assert BROADCASTER.pack(OrderShipped(value))[0].payload == f'{{"order":{text}}}'


def circle() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (float("nan"), r"payload\.order: JSON has no nan"),
        ({"a": [float("inf")]}, r"payload\.order\.a\[0\]: JSON has no inf"),
        (Decimal("NaN"), "JSON has no NaN"),
        ({1, 2}, r"payload\.order: a set has no order"),
        (frozenset(), "sorted list"),
        (b"bytes", "base64"),
        (dt.datetime(2026, 1, 2), "without a zone"),  # noqa: DTZ001 - the point
        (dt.timedelta(1), "timedelta has no form"),
        (object(), "object has no form"),
        (Point, "type has no form"),
        ((number for number in [1]), "generator has no form"),
        ({None: 1}, "a name in JSON is text"),
        ({True: 1}, "a name in JSON is text"),
        (circle(), "within itself"),
        ("\ud800", "half a character"),
        (2**53, r"payload\.order: a browser reads a whole number beyond 2\*\*53 as another one"),
        ([-(2**53)], r"payload\.order\[0\]: .*send it as text"),
        ([10**5000], "send it as text"),
        ({1: "a", "1": "b"}, r"payload\.order: two of its keys are the same text"),
    ],
)
def test_values_without_an_exact_json_form_are_refused_with_their_path(value: object, complaint: str) -> None:
    with pytest.raises(UnserialisablePayload, match=complaint):
        BROADCASTER.pack(OrderShipped(value))


def test_a_payload_is_a_mapping() -> None:
    class Listed(OrderShipped):
        def broadcast_with(self) -> Mapping[str, object]:
            return [1]  # type: ignore[return-value]

    with pytest.raises(UnserialisablePayload, match="not list"):
        BROADCASTER.pack(Listed(1))


def test_the_size_is_counted_in_bytes_of_utf8() -> None:
    frame = len('{"order":""}')
    most = "é" * ((10_240 - frame) // 2)

    [envelope] = BROADCASTER.pack(LiveOrder(most))
    assert len(envelope.payload.encode()) == 10_240

    with pytest.raises(PayloadTooLarge, match=r"takes 10241 bytes, the limit is 10240") as refused:
        BROADCASTER.pack(LiveOrder(most + "x"))
    assert (refused.value.payload_bytes, refused.value.max_bytes) == (10_241, 10_240)


def test_a_thousand_emoji_fit() -> None:
    assert payload_of("🎉" * 1000) == "🎉" * 1000


def test_a_durable_payload_leaves_room_for_its_id() -> None:
    fits = "x" * (10_240 - len('{"order":""}') - EVENT_ID_BYTES)

    BROADCASTER.pack(OrderShipped(fits))
    with pytest.raises(PayloadTooLarge, match=r"OrderShipped with its eventId takes 10241 bytes"):
        BROADCASTER.pack(OrderShipped(fits + "x"))


async def test_a_payload_sent_without_the_outbox_may_use_the_full_limit() -> None:
    most = "x" * (10_240 - len('{"order":""}'))

    await BROADCASTER.send(OrderShipped(most))
    with SyncBroadcaster(lambda: BROADCASTER) as broadcaster:
        await asyncio.to_thread(broadcaster.send, OrderShipped(most))
    with pytest.raises(PayloadTooLarge, match="takes 10241 bytes"):
        await BROADCASTER.send(OrderShipped(most + "x"))


def test_durable_payloads_may_not_contain_event_id() -> None:
    @dataclass
    class Clash(BroadcastEvent):
        eventId: int  # noqa: N815 - the wire's name

        def broadcast_on(self) -> Channel:
            return Channel("chat")

    with pytest.raises(UnserialisablePayload, match="eventId"):
        BROADCASTER.pack(Clash(1))


class Waits(OrderShipped):
    async def broadcast_with(self) -> dict[str, object]:  # type: ignore[override]
        return {}


class WaitsToDecide(OrderShipped):
    async def broadcast_when(self) -> bool:  # type: ignore[override]
        return False


class WaitsForItsChannel(OrderShipped):
    async def broadcast_on(self) -> Channel:  # type: ignore[override]
        return Channel("orders")


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Waits, "broadcast_with"), (WaitsToDecide, "broadcast_when"), (WaitsForItsChannel, "broadcast_on")],
)
def test_an_event_with_async_methods_is_refused(kind: type[OrderShipped], method: str) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\.{method}\(\) is async"):
        BROADCASTER.pack(kind(1))


@pytest.mark.parametrize("thing", [{"order": 1}, OrderShipped, None, "orders"])
def test_packing_something_other_than_an_event_raises(thing: Any) -> None:
    with pytest.raises(TypeError, match="is not an event"):
        BROADCASTER.pack(thing)


@pytest.mark.parametrize("name", [None, 7, ["order.shipped"]])
def test_a_name_that_is_not_a_string_is_refused(name: Any) -> None:
    class Named(OrderShipped):
        def broadcast_as(self) -> Any:
            return name

    with pytest.raises(InvalidEventName, match=r"Named\.broadcast_as\(\) returned"):
        BROADCASTER.pack(Named(1))


def test_delivery_may_be_a_string_and_unknown_values_are_refused() -> None:
    class Said(OrderShipped):
        delivery = "state"  # type: ignore[assignment]

    class Nonsense(OrderShipped):
        delivery = "often"  # type: ignore[assignment]

    assert BROADCASTER.pack(Said(1))[0].delivery is Delivery.STATE
    with pytest.raises(ValueError, match="often"):
        BROADCASTER.pack(Nonsense(1))


@pytest.mark.parametrize("socket_id", [12, b"1.2", 1.2])
def test_a_socket_id_that_is_not_a_string_is_refused(socket_id: Any) -> None:
    with pytest.raises(ValueError, match="not a socket id"):
        BROADCASTER.pack(OrderShipped(1), socket_id=socket_id)


@pytest.mark.parametrize(
    ("value", "where"),
    [("\ud800", "payload.order"), ({"a": ["x", "\udfff"]}, r"payload.order.a\[1\]"), ({"\ud800": 1}, "payload.order")],
)
def test_a_lone_surrogate_is_refused_with_its_path(value: object, where: str) -> None:
    with pytest.raises(UnserialisablePayload, match=rf"{where}: text with half a character"):
        BROADCASTER.pack(OrderShipped(value))
