"""A shop that announces what happens through `Broadcasting`, and how a browser follows it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from smartlink.broadcasting import BroadcastEvent, BroadcastNow, BroadcastSettings, PrivateChannel

if TYPE_CHECKING:
    from kit.client import Client  # a shop in a process of its own needs no server

__all__ = ["Base", "Order", "OrderShipped", "Typed", "User", "follow", "settings_for"]

Ask = Callable[[str, Mapping[str, str], str], Awaitable[tuple[int, Any]]]
"""Posts a form to a path for a user; gives status and JSON."""


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="new")


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


class Typed(BroadcastNow):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@dataclass(frozen=True)
class User:
    id: int


def settings_for(port: int, **more: Any) -> BroadcastSettings:
    """Settings that reach a server on `port`, and read no file."""
    return BroadcastSettings(_env_file=None, reverb_port=port, timeout_s=1, **more)


async def follow(browser: Client, ask: Ask, channel: str, user: str) -> dict[str, Any]:
    """What Echo does: ask the application, show the server what it said; gives the answer of the server."""
    form = {"socket_id": browser.socket_id, "channel_name": channel}
    status, said = await ask("/broadcasting/auth", form, user)
    assert status == 200, said
    browser.send("pusher:subscribe", {"channel": channel} | said)
    subscribed = await browser.expect("pusher_internal:subscription_succeeded")
    return dict(json.loads(subscribed["data"]))


def encoded(form: Mapping[str, str]) -> bytes:
    """A form as browsers send it."""
    return urlencode(form).encode()
