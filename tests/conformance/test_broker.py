"""The promises of every engine of the port `Broker`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer, shared_redis
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import eventually
from smartlink.server.cluster.brokers.base import Broker, Control, Publication, left_out
from smartlink.server.cluster.brokers.memory import MemoryBroker

__all__ = ["shared_redis"]


async def all_heard(broker: Broker, heard: list[Publication | Control]) -> list[Publication | Control]:
    """What was heard, once all that was published before has come."""
    last = Publication("1", "last", b"0")
    await broker.subscribe("1", "last")
    await broker.publish(last)
    await eventually(lambda: last in heard)
    return [publication for publication in heard if publication != last]


class BrokerPromises:
    """Subclassed per engine."""

    def broker(self) -> Broker:
        raise NotImplementedError

    async def started(self) -> tuple[Broker, list[Publication | Control]]:
        broker, heard = self.broker(), list[Publication | Control]()
        await broker.start(heard.append)
        return broker, heard

    async def test_a_subscribed_node_receives_its_own_publications_once_and_in_order(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.subscribe("1", "chat")
        sent = [Publication("1", "chat", b"%d" % number, "1.1") for number in range(100)]
        for publication in sent:
            await broker.publish(publication)

        assert await all_heard(broker, heard) == sent
        await broker.stop()

    async def test_excluded_recipients_are_carried_along(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        whom = [None, left_out("1.1", None), left_out(None, "7"), left_out("1.1", "a@b: ü")]
        sent = [Publication("1", "chat", b"{}", each) for each in whom]
        for publication in sent:
            await broker.publish(publication)

        assert await all_heard(broker, heard) == sent
        await broker.stop()

    async def test_nothing_arrives_from_channels_that_are_not_subscribed(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.publish(Publication("1", "other", b"{}"))
        await broker.publish(Publication("2", "chat", b"{}"))
        await broker.unsubscribe("1", "chat")
        await broker.unsubscribe("1", "chat")
        await broker.publish(Publication("1", "chat", b"{}"))

        assert await all_heard(broker, heard) == []
        await broker.stop()

    async def test_a_control_reaches_every_node(self) -> None:
        broker, heard = await self.started()
        await broker.publish(Control("1", "terminate_user", "7"))

        assert await all_heard(broker, heard) == [Control("1", "terminate_user", "7")]
        await broker.stop()

    async def test_live_publications_are_ordered_too(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        sent = [Publication("1", "chat", b"%d" % number, is_live=number % 3 == 0) for number in range(30)]
        for publication in sent:
            await broker.publish(publication)

        came = await all_heard(broker, heard)
        assert [publication.frame for publication in came if isinstance(publication, Publication)] == [
            publication.frame for publication in sent
        ]
        await broker.stop()

    async def test_nothing_arrives_after_a_stop(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.stop()
        await broker.publish(Publication("1", "chat", b"{}"))

        assert heard == []


class TestMemoryBroker(BrokerPromises):
    def broker(self) -> Broker:
        return MemoryBroker()


class TestRedisBroker(BrokerPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url, is_started=False) as engines:
            self._made: RedisEngines = engines
            yield

    def broker(self) -> Broker:
        return self._made.broker
