"""What every engine of the port `Broker` promises."""

from __future__ import annotations

from smartlink.server.brokers.base import Broker, Control, Publication
from smartlink.server.brokers.memory import MemoryBroker


class BrokerPromises:
    """Subclassed per engine."""

    def broker(self) -> Broker:
        raise NotImplementedError

    async def started(self) -> tuple[Broker, list[Publication | Control]]:
        broker, heard = self.broker(), list[Publication | Control]()
        await broker.start(heard.append)
        return broker, heard

    async def test_a_subscribed_node_hears_its_own_publications_once_and_in_order(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.subscribe("1", "chat")
        sent = [Publication("1", "chat", b"%d" % number, "1.1") for number in range(100)]
        for publication in sent:
            await broker.publish(publication)

        assert heard == sent
        await broker.stop()

    async def test_nothing_comes_of_channels_that_are_not_subscribed(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.publish(Publication("1", "other", b""))
        await broker.publish(Publication("2", "chat", b""))
        await broker.unsubscribe("1", "chat")
        await broker.unsubscribe("1", "chat")
        await broker.publish(Publication("1", "chat", b""))

        assert heard == []
        await broker.stop()

    async def test_a_control_reaches_every_node(self) -> None:
        broker, heard = await self.started()
        await broker.publish(Control("1", "terminate_user", "7"))

        assert heard == [Control("1", "terminate_user", "7")]
        await broker.stop()

    async def test_after_the_stop_nothing_comes(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.stop()
        await broker.publish(Publication("1", "chat", b""))

        assert heard == []


class TestMemoryBroker(BrokerPromises):
    def broker(self) -> Broker:
        return MemoryBroker()
