"""The public test helpers: they find what was sent, and failed assertions list it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from smartlink.broadcasting import (
    Broadcaster,
    BroadcastEvent,
    Channel,
    ChannelRules,
    EncryptedPrivateChannel,
    PresenceChannel,
    PrivateChannel,
    SyncBroadcaster,
    from_socket,
)
from smartlink.broadcasting.drivers.null import NullDriver
from smartlink.broadcasting.testing import (
    FakeBroadcaster,
    assert_authorized,
    assert_authorized_async,
    assert_forbidden,
    assert_forbidden_async,
    fake_broadcasts,
)


@dataclass(frozen=True)
class Shipped(BroadcastEvent):
    order: int

    def broadcast_on(self) -> list[Channel]:
        return [PrivateChannel(f"orders.{self.order}"), Channel("feed")]


class Renamed(Shipped):
    def broadcast_as(self) -> str:
        return "order.shipped"


async def test_assert_broadcast_finds_events_by_every_criterion() -> None:
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


async def test_a_failed_assertion_lists_what_was_sent() -> None:
    broadcaster = FakeBroadcaster()
    await broadcaster.send(Shipped(1))

    with pytest.raises(AssertionError, match=r"Renamed at least once, found 0; sent: .*Shipped on private-orders\.1"):
        broadcaster.assert_broadcast(Renamed)
    with pytest.raises(AssertionError, match=r"Shipped on feed 2 times, found 1"):
        broadcaster.assert_broadcast(Shipped, on="feed", times=2)
    with pytest.raises(AssertionError, match="expected no broadcast"):
        broadcaster.assert_nothing_broadcast()


async def test_a_failed_assertion_names_the_criteria() -> None:
    broadcaster = FakeBroadcaster()
    await broadcaster.send(Renamed(1), to_others=True)
    await broadcaster.on(Channel("feed")).as_("said").via("ably").to_other_users(7).send()

    with pytest.raises(AssertionError) as complaint:
        broadcaster.assert_broadcast(
            Renamed, on="feed", to_others=False, to_other_users=8, via="reverb", where=lambda payload: False
        )

    assert str(complaint.value) == (
        "expected Renamed on feed to everyone but not to user 8 via reverb with a matching payload at least once, "
        "found 0; sent: order.shipped on private-orders.1 to others, order.shipped on feed to others, "
        "said on feed but not to user 7 via ably"
    )


async def test_packing_alone_is_not_broadcasting() -> None:
    broadcaster = FakeBroadcaster()
    broadcaster.pack(Shipped(1))

    broadcaster.assert_nothing_broadcast()


async def test_a_broadcaster_is_faked_only_within_the_block() -> None:
    broadcaster = Broadcaster(NullDriver())

    with fake_broadcasts(broadcaster) as broadcasts, from_socket("1.2"):
        await broadcaster.send(Shipped(1), to_others=True)
        await broadcaster.on(EncryptedPrivateChannel("vault")).as_("opened").with_({"gold": 1}).via("ably").send()
    await broadcaster.send(Shipped(2))

    broadcasts.assert_broadcast(Shipped, on="feed", to_others=True, times=1)
    broadcasts.assert_broadcast("opened", via="ably", where=lambda payload: payload == {"gold": 1})
    broadcasts.assert_not_broadcast(Renamed)
    with pytest.raises(AssertionError, match="Shipped on feed 0 times, found 1"):
        broadcasts.assert_not_broadcast(Shipped, on="feed")


async def test_excluded_recipients_can_be_asserted() -> None:
    broadcaster = FakeBroadcaster()
    await broadcaster.send(Shipped(1), to_other_users=7)

    broadcaster.assert_broadcast(Shipped, to_other_users="7")
    with pytest.raises(AssertionError):
        broadcaster.assert_broadcast(Shipped, to_other_users=8)


def test_a_sync_broadcaster_is_faked_too() -> None:
    with SyncBroadcaster(lambda: Broadcaster(NullDriver())) as broadcaster, fake_broadcasts(broadcaster) as broadcasts:
        broadcasts.assert_nothing_broadcast()
        broadcaster.send(Shipped(1))

        broadcasts.assert_broadcast(Shipped, times=2)


async def test_a_sync_broadcaster_is_faked_in_async_tests_too() -> None:
    with SyncBroadcaster(lambda: Broadcaster(NullDriver())) as broadcaster:
        with fake_broadcasts(broadcaster) as broadcasts:
            await asyncio.to_thread(broadcaster.send, Shipped(1))

        broadcasts.assert_broadcast(Shipped, times=2)


async def test_a_faked_broadcaster_keeps_its_connection_name() -> None:
    class Told(BroadcastEvent):
        def broadcast_on(self) -> Channel:
            return Channel("feed")

        def broadcast_with_for(self, connection: str) -> dict[str, object]:
            return {"via": connection}

    broadcaster = Broadcaster(NullDriver())
    with fake_broadcasts(broadcaster) as broadcasts:
        await broadcaster.send(Told())

    broadcasts.assert_broadcast(Told, where=lambda payload: payload["via"] == "null")


def rules_for_orders() -> ChannelRules:
    rules = ChannelRules()

    @rules.private("orders.{order}")
    def own(user: int, order: int) -> bool:
        return user == order

    @rules.presence("room")
    async def everybody(user: int) -> dict[str, object]:
        return {"id": user}

    return rules


def test_rules_can_be_asserted() -> None:
    rules = rules_for_orders()

    assert_authorized(rules, 1, PrivateChannel("orders.1"))
    assert assert_authorized(rules, 1, "presence-room").info == {"id": 1}
    assert_forbidden(rules, 1, PrivateChannel("orders.2"))
    with pytest.raises(AssertionError, match=r"expected 1 on private-orders\.2, but the rule says no \(private-orders"):
        assert_authorized(rules, 1, PrivateChannel("orders.2"))
    with pytest.raises(AssertionError, match="to be denied"):
        assert_forbidden(rules, 1, PrivateChannel("orders.1"))


async def test_async_rules_can_be_asserted_in_async_tests() -> None:
    rules = rules_for_orders()

    await assert_authorized_async(rules, 1, PresenceChannel("room"))
    await assert_forbidden_async(rules, 1, PresenceChannel("rooms"))


def test_a_failed_assertion_mentions_packed_but_unsent_events() -> None:
    broadcaster = FakeBroadcaster()
    broadcaster.pack(Shipped(1))

    with pytest.raises(
        AssertionError, match=r"sent: nothing; packed, but not sent: .*Shipped on feed, .*deliver_recorded"
    ):
        broadcaster.assert_broadcast(Shipped)
    broadcaster.assert_nothing_broadcast()
