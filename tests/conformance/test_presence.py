"""The promises of every engine of the port `PresenceStore`, by example and against a naive model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kit.redis import RedisServer
from kit.redis_engines import RedisEngines, redis_engines
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.presence.base import Arrival, ChannelCount, ChannelState, Departure, PresenceStore
from smartlink.server.cluster.presence.memory import MemoryPresence

T = TypeVar("T")
ANA, BEN = PresenceMember("1", b'{"name":"Ana"}'), PresenceMember("2")


class PresencePromises:
    """Subclassed per engine."""

    def presence(self) -> PresenceStore:
        raise NotImplementedError

    async def test_first_and_last_are_reported_exactly_once(self) -> None:
        presence = self.presence()

        assert await presence.join("1", "presence-a", "1.1", ANA) == Arrival(True, True, 1)
        assert await presence.join("1", "presence-a", "1.2", ANA) == Arrival(False, False, 2)
        assert await presence.join("1", "presence-a", "1.3", BEN) == Arrival(False, True, 3)
        assert await presence.leave("1", "presence-a", "1.1") == Departure(False, False, 2)
        assert await presence.leave("1", "presence-a", "1.2") == Departure(False, True, 1)
        assert await presence.leave("1", "presence-a", "1.3") == Departure(True, True, 0)

    async def test_repetition_changes_nothing(self) -> None:
        presence = self.presence()
        await presence.join("1", "presence-a", "1.1", ANA)

        assert await presence.join("1", "presence-a", "1.1", ANA) == Arrival(False, False, 1)
        assert await presence.leave("1", "presence-a", "9.9") == Departure(False, False, 1)
        assert await presence.leave("1", "nowhere", "1.1") == Departure(False, False, 0)
        assert await presence.leave("1", "presence-a", "1.1") == Departure(True, True, 0)
        assert await presence.leave("1", "presence-a", "1.1") == Departure(False, False, 0)

    async def test_each_user_is_listed_once(self) -> None:
        presence = self.presence()
        for socket_id, member in (("1.1", ANA), ("1.2", BEN), ("1.3", ANA)):
            await presence.join("1", "presence-a", socket_id, member)

        assert list(await presence.members("1", "presence-a")) == [ANA, BEN]
        assert await presence.count("1", "presence-a") == ChannelCount(3, 2)

    async def test_a_user_is_reported_with_the_first_form_of_the_id(self) -> None:
        presence = self.presence()
        number, text = PresenceMember("1", b'{"a":1}', is_number=True), PresenceMember("1")

        assert await presence.join("1", "presence-a", "1.1", number) == Arrival(True, True, 1)
        assert await presence.join("1", "presence-a", "1.2", text) == Arrival(False, False, 2, is_number=True)
        assert await presence.join("1", "presence-a", "1.3", number) == Arrival(False, False, 3)
        assert list(await presence.members("1", "presence-a")) == [number]
        assert await presence.join("1", "presence-b", "1.1", text) == Arrival(True, True, 1)
        assert await presence.join("1", "presence-b", "1.2", number) == Arrival(False, False, 2, is_number=False)
        assert list(await presence.members("1", "presence-b")) == [text]

    async def test_user_info_of_a_present_member_can_be_changed(self) -> None:
        presence = self.presence()
        number = PresenceMember("1", b'{"a":1}', is_number=True)
        await presence.join("1", "presence-a", "1.1", number)
        await presence.join("1", "presence-a", "1.2", BEN)

        assert await presence.change("1", "presence-a", "1", b'{"a":2}') == number
        changed = PresenceMember("1", b'{"a":2}', is_number=True)
        assert list(await presence.members("1", "presence-a")) == [changed, BEN]
        assert await presence.change("1", "presence-a", "1", b'{"a":2}') == changed
        assert await presence.change("1", "presence-a", "9", b"{}") is None
        assert await presence.change("1", "nowhere", "1", b"{}") is None
        await presence.leave("1", "presence-a", "1.1")
        assert await presence.change("1", "presence-a", "1", b"{}") is None
        await presence.join("1", "presence-a", "1.1", number)
        assert list(await presence.members("1", "presence-a")) == [BEN, number]

    async def test_apps_do_not_see_each_other(self) -> None:
        presence = self.presence()
        await presence.join("1", "presence-a", "1.1", ANA)

        assert await presence.join("2", "presence-a", "1.1", ANA) == Arrival(True, True, 1)
        await presence.leave("2", "presence-a", "1.1")
        assert await presence.channels("2") == {}
        assert await presence.channels("1") == {"presence-a": ChannelCount(1, 1)}

    async def test_states_and_changes_share_one_sequence_of_versions(self) -> None:
        presence = self.presence()
        ana = await presence.join("1", "presence-a", "1.1", ANA)
        ben = await presence.join("1", "presence-a", "1.2", BEN)
        tab = await presence.join("1", "presence-a", "1.3", ANA)

        assert 0 < ana.version < ben.version == tab.version
        assert (ana.members, ben.members, tab.members) == ((ANA,), (ANA, BEN), (ANA, BEN))
        assert await presence.state("1", "presence-a") == ChannelState(tab.version, 3, (ANA, BEN))
        assert (await presence.leave("1", "presence-a", "1.1")).version == tab.version
        gone = await presence.leave("1", "presence-a", "1.3")
        assert gone.version > tab.version
        assert await presence.state("1", "presence-a") == ChannelState(gone.version, 1, (BEN,))
        empty = await presence.leave("1", "presence-a", "1.2")
        again = await presence.join("1", "presence-a", "1.4", BEN)
        assert gone.version < empty.version < again.version

    async def test_concurrent_joins_each_get_their_own_state(self) -> None:
        presence = self.presence()
        people = [PresenceMember(str(number)) for number in range(20)]
        arrivals = await asyncio.gather(
            *(presence.join("1", "presence-a", f"1.{number}", member) for number, member in enumerate(people))
        )

        arrivals.sort(key=lambda arrival: arrival.version)
        assert [len(arrival.members) for arrival in arrivals] == list(range(1, 21))
        assert len({arrival.version for arrival in arrivals}) == 20

    async def test_a_users_sign_ins_and_outs_are_numbered_too(self) -> None:
        presence = self.presence()
        came = await presence.join("1", "#user-7", "1.1", None)
        tab = await presence.join("1", "#user-7", "1.2", None)
        assert 0 < came.version == tab.version == (await presence.state("1", "#user-7")).version
        assert (await presence.leave("1", "#user-7", "1.1")).version == came.version
        gone = await presence.leave("1", "#user-7", "1.2")
        assert gone.version > came.version
        assert await presence.state("1", "#user-7") == ChannelState(gone.version, 0)

    async def test_channels_are_found_by_prefix(self) -> None:
        presence = self.presence()
        await presence.join("1", "chat", "1.1", None)
        await presence.join("1", "presence-a", "1.1", ANA)

        assert set(await presence.channels("1")) == {"chat", "presence-a"}
        assert set(await presence.channels("1", "presence-")) == {"presence-a"}
        assert await presence.count("1", "nobody") == ChannelCount(0, 0)


class TestMemoryPresence(PresencePromises):
    def presence(self) -> PresenceStore:
        return MemoryPresence()


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine of the memory engine: it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the memory engine waited")


SOCKETS = st.integers(0, 5).map(lambda n: f"1.{n}")
CHANNELS = st.sampled_from(["presence-a", "presence-b", "chat"])
MEMBERS = st.sampled_from([ANA, BEN])


class AgainstAModel(RuleBasedStateMachine):
    """A list of (channel, socket, member) is all there is to know."""

    def __init__(self) -> None:
        super().__init__()
        self.presence = MemoryPresence()
        self.entries: list[tuple[str, str, PresenceMember | None]] = []

    def on(self, channel: str) -> list[tuple[str, str, PresenceMember | None]]:
        return [entry for entry in self.entries if entry[0] == channel]

    @rule(channel=CHANNELS, socket_id=SOCKETS, member=MEMBERS)
    def join(self, channel: str, socket_id: str, member: PresenceMember) -> None:
        who = member if channel.startswith("presence-") else None
        here = self.on(channel)
        is_there = any(entry[1] == socket_id for entry in here)
        expected = Arrival(
            not is_there and not here,
            not is_there and who is not None and all(entry[2] != who for entry in here),
            len(here) + (not is_there),
        )
        if not is_there:
            self.entries.append((channel, socket_id, who))

        assert done(self.presence.join("1", channel, socket_id, who)) == expected

    @rule(channel=CHANNELS, socket_id=SOCKETS)
    def leave(self, channel: str, socket_id: str) -> None:
        gone = [entry for entry in self.on(channel) if entry[1] == socket_id]
        self.entries = [entry for entry in self.entries if entry not in gone]
        here = self.on(channel)
        expected = Departure(
            bool(gone) and not here,
            bool(gone) and gone[0][2] is not None and all(entry[2] != gone[0][2] for entry in here),
            len(here),
        )

        assert done(self.presence.leave("1", channel, socket_id)) == expected

    @invariant()
    def counts_agree(self) -> None:
        counts = done(self.presence.channels("1"))
        assert set(counts) == {channel for channel, _, _ in self.entries}
        for channel, count in counts.items():
            users = {entry[2] for entry in self.on(channel)} - {None}
            assert count == ChannelCount(len(self.on(channel)), len(users))
            assert set(done(self.presence.members("1", channel))) == users


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60)


def test_the_memory_engine_never_waits() -> None:
    assert done(MemoryPresence().count("1", "chat")) == ChannelCount(0, 0)
    assert asyncio.iscoroutinefunction(MemoryPresence.join)


class TestRedisPresence(PresencePromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def presence(self) -> PresenceStore:
        return self._made.presence


async def test_all_nodes_use_the_first_form_of_an_id(shared_redis: RedisServer) -> None:
    number, text = PresenceMember("1", is_number=True), PresenceMember("1", b'{"a":1}')
    async with redis_engines(shared_redis.url) as one, redis_engines(shared_redis.url, one.names.prefix) as two:
        await one.presence.join("1", "presence-a", "1.1", text)
        for socket_id in ("2.1", "2.2"):
            arrival = await two.presence.join("1", "presence-a", socket_id, number)
            assert (arrival.is_first_of_user, arrival.is_number) == (False, False)

        for engines in (one, two):
            assert list(await engines.presence.members("1", "presence-a")) == [text]


async def test_two_nodes_agree_with_the_model(shared_redis: RedisServer) -> None:
    """Any joins and leaves on two nodes, one after the other, against a list of who is where."""
    dice = random.Random(7)
    async with redis_engines(shared_redis.url) as one, redis_engines(shared_redis.url, one.names.prefix) as two:
        stores = (one.presence, two.presence)
        entries: set[tuple[str, int, str, PresenceMember | None]] = set()
        for _ in range(400):
            node, channel = dice.randrange(2), dice.choice(["presence-a", "presence-b", "chat"])
            socket_id = f"{node}.{dice.randrange(4)}"
            member = dice.choice([ANA, BEN]) if channel.startswith("presence-") else None
            here = {entry for entry in entries if entry[0] == channel}
            mine = {entry for entry in here if entry[1:3] == (node, socket_id)}
            if dice.random() < 0.5:
                arrival = await stores[node].join("1", channel, socket_id, member)
                is_first_of_user = not mine and member is not None and all(entry[3] != member for entry in here)
                assert (arrival.is_first_on_channel, arrival.is_first_of_user) == (not here, is_first_of_user)
                entries |= mine or {(channel, node, socket_id, member)}
            else:
                departure = await stores[node].leave("1", channel, socket_id)
                left = here - mine
                users = {entry[3] for entry in mine} - {None} - {entry[3] for entry in left}
                assert (departure.is_last_on_channel, departure.is_last_of_user) == (
                    bool(mine) and not left,
                    bool(users),
                )
                entries -= mine
            there = [entry for entry in entries if entry[0] == channel]
            members = {entry[3] for entry in there} - {None}
            other = stores[1 - node]
            assert await other.count("1", channel) == ChannelCount(len(there), len(members))
            assert set(await other.members("1", channel)) == members
        assert set(await one.presence.channels("1")) == {entry[0] for entry in entries}
