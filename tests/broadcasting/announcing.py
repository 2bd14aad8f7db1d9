"""Models and events that sessions announce, and all that is needed to announce them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, ForeignKey, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from smartlink.broadcasting import (
    BroadcastEvent,
    BroadcastNow,
    Channel,
    Envelope,
)
from smartlink.broadcasting.envelope import DEFAULT_QUEUE
from smartlink.broadcasting.models import BroadcastsChanges
from smartlink.broadcasting.outbox import Outbox, define_tables
from smartlink.broadcasting.sessions import SessionBroadcasts


class Base(DeclarativeBase):
    pass


class Order(BroadcastsChanges, Base):
    __tablename__ = "orders"
    broadcast_fields = ("id", "status")

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")
    secret: Mapped[str] = mapped_column(default="hidden")


class Quiet(BroadcastsChanges, Base):
    __tablename__ = "quiet"
    broadcast_fields = ("id",)
    broadcast_changes = ("deleted",)
    broadcast_queue = "low"
    broadcast_to_others = True

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(default=0)


class Basket(Base):
    __tablename__ = "baskets"

    id: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[list[Item]] = relationship(cascade="all, delete-orphan")


class Item(BroadcastsChanges, Base):
    __tablename__ = "items"
    broadcast_fields = ("id",)

    id: Mapped[int] = mapped_column(primary_key=True)
    basket_id: Mapped[int | None] = mapped_column(ForeignKey("baskets.id"))


class Stamped(BroadcastsChanges, Base):
    __tablename__ = "stamped"
    broadcast_fields = ("id", "changed")

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(default=0)
    changed: Mapped[str | None] = mapped_column(onupdate=func.upper("x"))


class Room(Base):
    __tablename__ = "rooms"

    id: Mapped[int] = mapped_column(primary_key=True)
    seats: Mapped[list[Seat]] = relationship(passive_deletes="all", back_populates="room")


class Seat(BroadcastsChanges, Base):
    """On its room's channel; its room's end takes it along, in the database."""

    __tablename__ = "seats"
    broadcast_fields = ("id", "n", "changed")

    id: Mapped[int] = mapped_column(primary_key=True)
    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id", ondelete="CASCADE"))
    room: Mapped[Room] = relationship(back_populates="seats")
    n: Mapped[int] = mapped_column(default=0)
    changed: Mapped[str | None] = mapped_column(onupdate=func.upper("x"))

    def broadcast_on(self, change: str) -> Channel:
        return Channel(f"room.{self.room_id}")


tables = define_tables(Base.metadata)


@dataclass(frozen=True)
class Said(BroadcastEvent):
    text: str

    def broadcast_on(self) -> Channel:
        return Channel("chat")


@dataclass(frozen=True)
class Dispensable(BroadcastEvent):
    broadcast_rescue = True
    what: object

    def broadcast_on(self) -> Channel:
        return Channel("chat")


@dataclass(frozen=True)
class Blinked(BroadcastNow):
    def broadcast_on(self) -> Channel:
        return Channel("lamp")


class RingingOutbox(Outbox):
    """An outbox that remembers whom it woke."""

    def __init__(self) -> None:
        super().__init__(tables)
        self.rung: list[set[str]] = []

    def wake(self, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> None:
        self.rung.append(set(queues))
        super().wake(queues)


@dataclass(frozen=True)
class World:
    engine: Engine
    sessions: sessionmaker[Session]
    broadcasts: SessionBroadcasts
    outbox: RingingOutbox
    live: list[Envelope]

    def recorded(self) -> list[tuple[str, str, Any]]:
        events = tables.recorded_events
        columns = (events.c.channel, events.c.name, events.c.payload)
        with self.engine.connect() as connection:
            return [
                (channel, name, json.loads(payload))
                for channel, name, payload in connection.execute(select(*columns).order_by(events.c.id))
            ]
