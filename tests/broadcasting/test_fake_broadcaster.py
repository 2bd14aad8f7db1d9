"""The public test helper: says what was sent, and complains with what was sent instead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from smartlink.broadcasting import BroadcastEvent, Channel, PrivateChannel
from smartlink.broadcasting.testing import FakeBroadcaster


@dataclass(frozen=True)
class Shipped(BroadcastEvent):
    order: int

    def broadcast_on(self) -> list[Channel]:
        return [PrivateChannel(f"orders.{self.order}"), Channel("feed")]


class Renamed(Shipped):
    def broadcast_as(self) -> str:
        return "order.shipped"


async def test_what_was_broadcast_is_found_however_it_is_asked_for() -> None:
    broadcaster = FakeBroadcaster()
    await broadcaster.send(Shipped(1))
    await broadcaster.send(Renamed(2), socket_id="1.1")

    broadcaster.assert_broadcast(Shipped)
    broadcaster.assert_broadcast(Shipped, on=PrivateChannel("orders.1"), times=1)
    broadcaster.assert_broadcast(Shipped, on="feed", times=2)
    broadcaster.assert_broadcast(Renamed, times=2, to_others=True)
    broadcaster.assert_broadcast(Shipped, on="feed", to_others=False, times=1)
    broadcaster.assert_broadcast(Shipped, where=lambda payload: payload["order"] == 2, times=2)
    broadcaster.assert_broadcast(Renamed, on="private-orders.1", times=0)


async def test_what_was_not_is_complained_about_with_what_was() -> None:
    broadcaster = FakeBroadcaster()
    await broadcaster.send(Shipped(1))

    with pytest.raises(AssertionError, match=r"Renamed at least once, found 0; sent: .*Shipped on private-orders\.1"):
        broadcaster.assert_broadcast(Renamed)
    with pytest.raises(AssertionError, match=r"Shipped on feed 2 times, found 1"):
        broadcaster.assert_broadcast(Shipped, on="feed", times=2)
    with pytest.raises(AssertionError, match="expected no broadcast"):
        broadcaster.assert_nothing_broadcast()


async def test_packing_alone_is_not_broadcasting() -> None:
    broadcaster = FakeBroadcaster()
    broadcaster.pack(Shipped(1))

    broadcaster.assert_nothing_broadcast()
