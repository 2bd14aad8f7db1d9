"""An event class knows its name on the wire, and reads what its instances were sent as."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import ClassVar

import pytest
from pydantic import BaseModel

from smartlink.broadcasting import BroadcastEvent, BroadcastNow, Channel
from smartlink.broadcasting.payloads import encode_payload
from smartlink.broadcasting.testing import FakeBroadcaster


class Colour(enum.Enum):
    RED = "red"


class Painted(BroadcastEvent):
    number: int
    price: Decimal
    at: dt.datetime
    colour: Colour
    by: uuid.UUID
    note: str | None = None
    channel = Channel("paint")


class Mixed(BaseModel, BroadcastNow):
    number: int
    channel: ClassVar = Channel("paint")


class Renamed(BroadcastEvent):
    number: int
    channel = Channel("paint")

    def broadcast_as(self) -> str:
        return ".paint.renamed"


class Numbered(Renamed):
    def broadcast_as(self) -> str:
        return f"paint.{self.number}"


class Own(BroadcastEvent):
    channel = Channel("paint")

    def __init__(self, number: int) -> None:
        self.number = number


EVENTS = [
    Painted(7, Decimal("1.50"), dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC), Colour.RED, uuid.UUID(int=7)),
    Mixed(number=7),
    Renamed(7),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_class_reads_what_its_instance_was_sent_as(event: BroadcastEvent) -> None:
    sent = encode_payload({**event.broadcast_with(), "eventId": 41}).decode()

    assert type(event).broadcast_from(sent) == event


@pytest.mark.parametrize("namespace", ["App\\Events\\", ""])
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_its_name_is_the_one_that_is_sent(event: BroadcastEvent, namespace: str) -> None:
    assert type(event).broadcast_name(namespace) == FakeBroadcaster(namespace).wire_name(event)


@pytest.mark.parametrize("payload", ["{}", "[]", "x", '{"number":"seven"}', '{"number":null}'])
def test_what_does_not_fit_is_an_error(payload: str) -> None:
    with pytest.raises(ValueError):
        Renamed.broadcast_from(payload)


def test_what_a_class_cannot_know_is_said() -> None:
    with pytest.raises(TypeError, match="depends on the event's fields"):
        Numbered.broadcast_name()
    with pytest.raises(TypeError, match=r"override broadcast_from\(\)"):
        Own.broadcast_from('{"number":7}')
