"""The state sent to a newcomer and the changes sent afterwards agree: each change is in exactly one of them."""

from __future__ import annotations

import asyncio
import json

import pytest

from kit.client import connected
from kit.engines import Between
from kit.realtime import realtime_server
from kit.simultaneous_joins import misled, misled_by_leaves
from kit.waiting import eventually
from smartlink.protocol import encoding
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.newcomers import Newcomers
from smartlink.server.run.lifecycle import RealtimeServer


async def test_two_joining_members_see_each_other_once(server: RealtimeServer) -> None:
    assert await misled([server.port], 20) == []
    assert await misled_by_leaves([server.port], 20) == []


def told(version: int, has_come: bool = True) -> Publication:
    frame = encoding.member_added("presence-a", "2", b"{}") if has_come else encoding.member_removed("presence-a", "2")
    return Publication("1001", "presence-a", frame, version=version)


async def test_a_change_included_in_the_state_is_not_sent_and_the_next_one_is(server: RealtimeServer) -> None:
    async with connected(server.port) as old, connected(server.port) as new:
        await old.subscribe("presence-a", {"user_id": "1"})
        await new.subscribe("presence-a", {"user_id": "3"})
        await old.expect("pusher_internal:member_added")
        version = (await server.node.presence.state("1001", "presence-a")).version
        server.node.deliver(told(version))
        server.node.deliver(told(version + 1, has_come=False))

        assert [(await old.receive())["event"][16:] for _ in range(2)] == ["member_added", "member_removed"]
        await new.expect("pusher_internal:member_removed")
        assert await new.is_quiet()


async def test_resubscribing_sends_the_state_and_later_changes() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as client:
        await client.subscribe("presence-a", {"user_id": "1"})
        between.reading.shut()
        client.send("pusher:subscribe", {"channel": "presence-a"})
        await eventually(lambda: between.reading.waiting == 1)
        async with connected(server.port) as other:
            await other.subscribe("presence-a", {"user_id": "2"})
            await client.expect("pusher_internal:member_added")
            between.reading.open()

            state = json.loads((await client.expect("pusher_internal:subscription_succeeded"))["data"])
            assert state["presence"]["ids"] == ["1"]
            await client.expect("pusher_internal:member_added")


async def test_a_watchers_state_and_later_changes_agree() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server:
        async with connected(server.port) as watcher, connected(server.port) as user:
            between.reading.shut()
            await watcher.sign_in("w", watchlist=["7"])
            await eventually(lambda: between.reading.waiting == 1)
            await user.sign_in("7")
            between.reading.open()
            told = json.loads((await watcher.expect("pusher_internal:watchlist_events"))["data"])
            assert told == {"events": [{"name": "offline", "user_ids": ["7"]}]}
            told = json.loads((await watcher.expect("pusher_internal:watchlist_events"))["data"])
            assert told == {"events": [{"name": "online", "user_ids": ["7"]}]}
            version = (await server.node.presence.state("1001", "#user-7")).version
            async with connected(server.port) as late:
                await late.sign_in("l", watchlist=["7"])
                await late.expect("pusher_internal:watchlist_events")
                frame = encoding.watchlist_events({"online": ["7"]})
                server.node.deliver(Publication("1001", "#watch-7", frame, version=version))
                assert await late.is_quiet()


async def test_newcomers_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smartlink.server.core.newcomers.SWEEP_S", 0.01)
    newcomers, connections = Newcomers(known_s=0.03), [object(), object(), object()]
    for version, connection in zip((5, 3, 5), connections, strict=True):
        newcomers.note("1", "presence-a", version, connection)  # type: ignore[arg-type] # only identity matters
    newcomers.note("1", "presence-a", 0, connections[0])  # type: ignore[arg-type] # as above
    assert [len(newcomers.aware_of("1", "presence-a", version)) for version in (0, 3, 4, 5, 6)] == [0, 3, 2, 2, 0]
    assert newcomers.aware_of("2", "presence-a", 3) == ()

    await eventually(lambda: not newcomers._sent and newcomers._timer is None)


async def test_a_rejoin_reconciled_before_its_publication_is_sent_once() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as here,
        realtime_server(engines=between.engines()) as there,
        connected(here.port) as client,
        connected(there.port) as leaver,
        connected(there.port) as comer,
    ):
        await client.subscribe("presence-a", {"user_id": "1"})
        await leaver.subscribe("presence-a", {"user_id": "2"})
        await client.expect("pusher_internal:member_added")
        leaver.send("pusher:unsubscribe", {"channel": "presence-a"})
        await client.expect("pusher_internal:member_removed")
        between.joining.shut()
        coming = asyncio.create_task(comer.subscribe("presence-a", {"user_id": "2"}))
        await client.expect("pusher_internal:member_added")  # from the presence store; it was not announced
        between.joining.open()
        await coming
        comer.send("pusher:unsubscribe", {"channel": "presence-a"})

        await client.expect("pusher_internal:member_removed")
        assert await client.is_quiet()


async def test_a_watched_user_reconciled_before_the_publication_is_sent_once() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as here,
        realtime_server(engines=between.engines()) as there,
        connected(here.port) as watcher,
        connected(there.port) as comer,
    ):
        async with connected(there.port) as leaver:
            await leaver.sign_in("7")
            await watcher.sign_in("w", watchlist=["7"])
            await watcher.expect("pusher_internal:watchlist_events")
        assert "offline" in (await watcher.expect("pusher_internal:watchlist_events"))["data"]
        between.joining.shut()
        coming = asyncio.create_task(comer.sign_in("7"))
        assert "online" in (await watcher.expect("pusher_internal:watchlist_events"))["data"]
        between.joining.open()
        await coming
        comer.writer.close()

        assert "offline" in (await watcher.expect("pusher_internal:watchlist_events"))["data"]
        assert await watcher.is_quiet()


async def test_a_correction_is_sent_only_to_those_who_received_the_wrong_change(server: RealtimeServer) -> None:
    async with connected(server.port) as old, connected(server.port) as between, connected(server.port) as new:
        await old.subscribe("presence-a", {"user_id": "1"})
        await between.subscribe("presence-a", {"user_id": "4"})
        await old.expect("pusher_internal:member_added")
        left = (await server.node.presence.state("1001", "presence-a")).version
        # As at another node, which has yet to tell of it.
        came = (await server.node.presence.join("1001", "presence-a", "9.9", PresenceMember("2"))).version
        assert (await new.subscribe("presence-a", {"user_id": "5"}))["presence"]["ids"] == ["1", "4", "2", "5"]
        for client in (old, between):
            await client.expect("pusher_internal:member_added")
        server.node.deliver(told(left, has_come=False))

        await old.expect("pusher_internal:member_removed")
        assert "2" in (await old.expect("pusher_internal:member_added"))["data"]
        assert await between.is_quiet()
        server.node.deliver(told(came))
        assert "2" in (await between.expect("pusher_internal:member_added"))["data"]
        for client in (old, between, new):
            assert await client.is_quiet()


async def test_corrections_are_kept_for_a_bounded_time() -> None:
    corrections = Corrections(known_s=0)
    corrections.note("1001", "presence-a", {"2": 5}, 7)

    assert [corrections.covered("1001", "presence-a", "2", number) for number in (0, 7, 8)] == [None, 5, None]
    await eventually(lambda: corrections.covered("1001", "presence-a", "2", 7) is None)
    assert (corrections._known, corrections._timers) == ({}, set())


async def test_nothing_is_kept_of_newcomers_who_have_ended_or_left(server: RealtimeServer) -> None:
    newcomers = server.node._newcomers
    newcomers._known_s = 3600.0
    async with connected(server.port) as client:
        for _ in range(5):
            await client.subscribe("presence-a", {"user_id": "1"})
        await client.subscribe("presence-b", {"user_id": "1"})
        await client.sign_in("w", watchlist=["7", "8"])
        await client.expect("pusher_internal:watchlist_events")
        assert len(newcomers) == 4
        client.send("pusher:unsubscribe", {"channel": "presence-b"})
        assert await client.is_quiet()
        assert len(newcomers) == 3
    await eventually(lambda: len(newcomers) == 0)
    assert (newcomers._sent, newcomers._of) == ({}, {})
