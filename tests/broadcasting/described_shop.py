"""A shop whose events are described: `smartlink events types described_shop:broadcasting`."""

import datetime as dt
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from smartlink.broadcasting import (
    BroadcastEvent,
    Broadcasting,
    BroadcastNow,
    BroadcastSettings,
    Channel,
    EncryptedPrivateChannel,
    PresenceChannel,
    PrivateChannel,
)

broadcasting = Broadcasting(BroadcastSettings(_env_file=None))


class State(enum.Enum):
    NEW = "new"
    SHIPPED = "shipped"


@dataclass
class Line:
    sku: str
    count: int = 1


class Address(BaseModel):
    street: str = Field(description="With the house number")
    zip_code: str | None = None


class OrderShipped(BroadcastEvent):
    """An order is on its way."""

    order_id: int
    state: State
    total: Decimal
    at: dt.datetime
    lines: list[Line]
    to: Address
    tags: dict[str, int]
    where: tuple[float, float] | None = None
    _note: str = ""
    channels = (PrivateChannel("orders.{order_id}"), Channel("shipments"))


class OrdersClosed(BroadcastNow):
    channel = PrivateChannel("orders.all")
    by: str


class StockChanged(BaseModel, BroadcastNow):
    site: uuid.UUID
    count: int
    channel: ClassVar = PresenceChannel("stock.{site}")

    def broadcast_as(self) -> str:
        return "stock.changed"


class Totals(TypedDict):
    open: int
    closed: int


class Counted(BroadcastNow):
    channel = Channel("totals")

    def broadcast_with(self) -> Totals:
        return {"open": 1, "closed": 2}


class Named(BroadcastNow):
    kind: str
    channel = EncryptedPrivateChannel("vault.{kind}")

    def broadcast_as(self) -> str:
        return f"named.{self.kind}"


class Vague(BroadcastNow):
    kind: str
    channel = EncryptedPrivateChannel("vault.{kind}")

    def broadcast_with(self) -> dict[str, object]:
        return {"kind": self.kind}


@broadcasting.private("orders.{order_id}")
def may_follow(user: object, order_id: int) -> bool:
    """The customer, and who packs it."""
    return True


@broadcasting.private("orders.all")
def may_see_all(user: object) -> bool:
    return True


@broadcasting.presence("rooms.{name}")
def may_enter(user: object, name: str) -> dict[str, object]:
    return {}
