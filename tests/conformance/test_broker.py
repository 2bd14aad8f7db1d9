"""The promises of every engine of the port `Broker`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from kit.redis import cluster, redis_server, sentinel
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import eventually, eventually_told
from smartlink.server.cluster.brokers.base import Broker, Control, Publication, Retention, left_out
from smartlink.server.cluster.brokers.log import PER_CHANNEL, ChannelLog
from smartlink.server.cluster.brokers.memory import MemoryBroker

MAX_APP_BYTES = 1_000_000


async def all_heard(broker: Broker, heard: list[Publication | Control]) -> list[Publication | Control]:
    """What was heard, once all that was published before has come."""
    last = Publication("1", "last", b"0")
    await broker.subscribe("1", "last")
    await broker.publish(last)
    await eventually(lambda: last in heard)
    return [publication for publication in heard if publication != last]


def event(number: int, retention: Retention | None = None) -> Publication:
    return Publication("1", "chat", b"%d" % number, retention=retention or Retention())


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

    async def test_the_time_of_a_publication_is_carried_along(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.retain("1", "chat", 60)
        for retention in (None, Retention()):
            await broker.publish(
                Publication("1", "chat", b"{}", retention=retention, published_at=1_700_000_000.123456)
            )

        times = [each.published_at for each in await all_heard(broker, heard) if isinstance(each, Publication)]
        assert times == [pytest.approx(1_700_000_000.123456, abs=1e-5)] * 2
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

    async def test_retained_events_have_rising_positions_and_are_replayed_from_any_of_them(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        start = await broker.retain("1", "chat", 60)
        for number in range(5):
            await broker.publish(event(number))
            await broker.publish(Publication("1", "chat", b'"internal"'))
            await broker.publish(Publication("1", "chat", b'"live"', is_live=True))
        came = [each for each in await all_heard(broker, heard) if isinstance(each, Publication) and each.position]

        assert [each.frame for each in came] == [b"%d" % number for number in range(5)]
        positions = [start, *(each.position for each in came)]
        assert positions == sorted(set(positions))
        assert positions[-1] < 1 << 53, "exact in JavaScript"
        for index, position in enumerate(positions):
            replayed = await broker.replay("1", "chat", position)
            assert replayed is not None
            assert [(each.frame, each.position) for each in replayed] == [
                (each.frame, each.position) for each in came[index:]
            ]
        assert await broker.retain("1", "chat", 60) >= positions[-1]
        await broker.stop()

    async def test_a_replay_says_whom_an_event_left_out(self) -> None:
        broker, _ = await self.started()
        start = await broker.retain("1", "chat", 60)
        whom = [None, left_out("1.1", None), left_out(None, "7")]
        for each in whom:
            await broker.publish(Publication("1", "chat", b"{}", each, retention=Retention()))

        assert [each.except_socket for each in await broker.replay("1", "chat", start) or ()] == whom
        await broker.stop()

    async def test_what_may_lack_events_is_not_replayed(self) -> None:
        broker, _ = await self.started()
        start = await broker.retain("1", "chat", 60)
        await broker.publish(event(1))
        last = await broker.retain("1", "chat", 60)

        assert await broker.replay("1", "chat", start - 1) is None
        assert await broker.replay("1", "chat", last + 1) is None
        assert await broker.replay("1", "never-retained", start) is None
        assert await broker.replay("2", "chat", start) is None
        assert await broker.replay("1", "chat", last) == []
        await broker.stop()

    async def test_only_the_last_events_are_kept_and_a_reader_of_older_ones_is_told(self) -> None:
        broker, _ = await self.started()
        start = await broker.retain("1", "chat", 60)
        for number in range(1_200):
            await broker.publish(event(number))
        last = await broker.retain("1", "chat", 60)

        assert await broker.replay("1", "chat", start) is None
        assert await broker.replay("1", "chat", last) == []
        await broker.stop()

    async def test_a_channel_whose_policy_keeps_events_needs_nobody_to_retain_it(self) -> None:
        broker, _ = await self.started()
        for number in range(3):
            await broker.publish(event(number, Retention(frames=10, is_always=True)))
        last = await broker.retain("1", "chat", 60)
        await broker.publish(event(3, Retention(frames=10, is_always=True)))

        replayed = await broker.replay("1", "chat", last)
        assert [each.frame for each in replayed or ()] == [b"3"]
        await broker.stop()

    async def test_an_app_over_its_budget_loses_only_its_own_oldest_events(self) -> None:
        broker, _ = await self.started()
        always = Retention(is_always=True)
        await broker.publish(Publication("2", "chat", b'"kept"', retention=always))
        for number in range(MAX_APP_BYTES // 10_000 + 20):
            await broker.publish(Publication("1", f"chat-{number}", b'"%b"' % (b"x" * 10_000), retention=always))

        async def has_gone() -> bool:
            return not await broker.replay("1", "chat-0", None)

        await eventually_told(has_gone)
        assert len(await broker.replay("1", f"chat-{number}", None) or ()) == 1
        assert [each.frame for each in await broker.replay("2", "chat", None) or ()] == [b'"kept"']
        await broker.stop()

    async def test_a_channel_over_the_budget_by_itself_is_bounded_and_tells_of_its_gap(self) -> None:
        broker, _ = await self.started()
        for number in range(200):
            frame = b'"%d%b"' % (number, b"x" * 10_000)
            await broker.publish(Publication("1", "chat", frame, retention=Retention(is_always=True)))
        start = await broker.retain("1", "chat", 60)

        async def is_bounded() -> bool:
            kept = await broker.replay("1", "chat", None) or ()
            return sum(len(each.frame) for each in kept) <= MAX_APP_BYTES

        await eventually_told(is_bounded)
        await broker.publish(event(1))
        replayed = await broker.replay("1", "chat", start)
        assert replayed is None or [each.frame for each in replayed] == [b"1"]
        await broker.stop()

    async def test_a_channel_keeps_no_more_bytes_than_its_policy_says(self) -> None:
        broker, _ = await self.started()
        always = Retention(max_bytes=20_000, is_always=True)
        positions = []
        for number in range(60):
            await broker.publish(Publication("1", "chat", b'"%03d%b"' % (number, b"x" * 995), retention=always))
            positions.append(await broker.retain("1", "chat", 60))
            await broker.publish(Publication("1", "other", b'"%03d%b"' % (number, b"x" * 995), retention=always))

        kept = await broker.replay("1", "chat", None) or ()
        assert 10_000 < sum(len(each.frame) for each in kept) <= 20_000
        assert [each.position for each in kept] == positions[-len(kept) :]
        assert len(await broker.replay("1", "chat", positions[-len(kept) - 1]) or ()) == len(kept)
        assert await broker.replay("1", "chat", positions[-len(kept) - 2]) is None
        await broker.stop()

    async def test_channels_without_events_drive_out_no_events(self) -> None:
        broker, _ = await self.started()
        before = await broker.retain("1", "busy", 60)
        await broker.publish(Publication("1", "busy", b"0", retention=Retention()))
        start = await broker.retain("1", "empty", 60)
        for number in range(MAX_APP_BYTES // PER_CHANNEL + 1):
            await broker.retain("1", f"empty-{number}", 60)

        async def has_gone() -> bool:
            return await broker.replay("1", "empty", start) is None

        await eventually_told(has_gone)
        assert len(await broker.replay("1", "busy", before) or ()) == 1
        await broker.stop()

    async def test_nothing_arrives_after_a_stop(self) -> None:
        broker, heard = await self.started()
        await broker.subscribe("1", "chat")
        await broker.stop()
        await broker.publish(Publication("1", "chat", b"{}"))

        assert heard == []


class TestMemoryBroker(BrokerPromises):
    def broker(self) -> Broker:
        return MemoryBroker(ChannelLog(MAX_APP_BYTES))


@pytest.fixture(scope="module", params=["single", "sentinel", "cluster"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of each form of Redis."""
    with ExitStack() as stack:
        if request.param == "cluster":
            masters = stack.enter_context(cluster(3))
            yield f"redis+cluster://127.0.0.1:{masters[0].port}"
        elif request.param == "sentinel":
            master = stack.enter_context(redis_server())
            watching = stack.enter_context(sentinel(master.port))
            yield f"redis+sentinel://127.0.0.1:{watching.port}/mymaster"
        else:
            yield request.getfixturevalue("shared_redis").url


class TestRedisBroker(BrokerPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, redis_url: str) -> AsyncIterator[None]:
        async with redis_engines(redis_url, is_started=False, max_app_bytes=MAX_APP_BYTES) as engines:
            self._made: RedisEngines = engines
            yield

    def broker(self) -> Broker:
        return self._made.broker
