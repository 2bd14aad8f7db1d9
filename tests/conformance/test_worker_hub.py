"""The promises of the workers' engines across several workers, besides those of the ports."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from conformance.test_broker import MAX_APP_BYTES, BrokerPromises
from conformance.test_history import HistoryPromises
from conformance.test_idempotency import IdempotencyPromises
from conformance.test_presence import PresencePromises
from kit.waiting import LIMIT_S, eventually
from kit.worker_hub import Workers, workers
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication
from smartlink.server.cluster.idempotency.base import CallUnderWay
from smartlink.server.cluster.presence.base import Arrival, Change, ChannelCount, Departure
from smartlink.server.workers import messages
from smartlink.server.workers.engines import (
    WorkerBroker,
    WorkerHistory,
    WorkerIdempotency,
    WorkerPresence,
)
from smartlink.server.workers.order import ordering_pair
from smartlink.server.workers.parent_link import ParentLink

APP_BYTES = 100_000
"""What the suites of the ports ask for where it matters; nowhere else do they keep as much."""
ANA, BEN, CLEO, DAN = PresenceMember("1", b'{"name":"Ana"}'), *map(PresenceMember, "234")


@pytest.fixture
async def machine() -> AsyncIterator[Workers]:
    async with workers(log_bytes=MAX_APP_BYTES) as running:
        yield running


class TestWorkerBroker(BrokerPromises):
    @pytest.fixture(autouse=True)
    async def _link(self, machine: Workers) -> None:
        self._broker = WorkerBroker(await machine.link())

    def broker(self) -> WorkerBroker:
        return self._broker


class TestWorkerHistory(HistoryPromises):
    @pytest.fixture(autouse=True)
    async def _link(self) -> AsyncIterator[None]:
        async with workers(APP_BYTES) as machine:
            self._history = WorkerHistory(await machine.link())
            yield

    def history(self, keep: int = 1, max_app_bytes: int = APP_BYTES) -> WorkerHistory:
        return self._history


class TestWorkerIdempotency(IdempotencyPromises):
    @pytest.fixture(autouse=True)
    async def _link(self) -> AsyncIterator[None]:
        async with workers(APP_BYTES) as machine:
            self._idempotency = WorkerIdempotency(await machine.link())
            yield

    def idempotency(self, max_app_bytes: int = APP_BYTES) -> WorkerIdempotency:
        return self._idempotency


class TestWorkerPresence(PresencePromises):
    @pytest.fixture(autouse=True)
    async def _link(self, machine: Workers) -> None:
        self._presence = WorkerPresence(await machine.link())

    def presence(self) -> WorkerPresence:
        return self._presence


async def test_subscribed_workers_receive_publications_in_one_order(machine: Workers) -> None:
    brokers = [WorkerBroker(await machine.link()) for _ in range(3)]
    heard: list[list[Publication | Control]] = [[], [], []]
    for broker, ears in zip(brokers, heard, strict=True):
        await broker.start(ears.append)
    for broker in brokers[:2]:
        await broker.subscribe("1", "chat")
    # An answer to each, so that all have subscribed before anything is published.
    for link in machine.links:
        await WorkerPresence(link).nodes()

    for number in range(200):
        await brokers[number % 3].publish(Publication("1", "chat", b"%d" % number, is_live=number % 2 == 0))
        if number % 20 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(heard[0]) == len(heard[1]) == 200)

    assert heard[0] == heard[1]
    assert heard[2] == []
    frames = [int(p.frame) for p in heard[0] if isinstance(p, Publication)]
    for worker in range(3):
        own = [number for number in frames if number % 3 == worker]
        assert own == sorted(own)


async def test_publications_after_a_reply_arrive_after_it_from_any_worker(
    machine: Workers,
) -> None:
    brokers = [WorkerBroker(await machine.link()) for _ in range(3)]
    heard: list[Publication | Control] = []
    await brokers[0].start(heard.append)
    await brokers[0].subscribe("1", "chat")

    sent = [Publication("1", "chat", b"%d" % number) for number in range(300)]
    for number, publication in enumerate(sent):
        await brokers[number % 3].publish(publication)
    await eventually(lambda: len(heard) == 300)

    assert heard == sent


async def test_a_control_reaches_every_worker(machine: Workers) -> None:
    heard: list[Publication | Control] = []
    brokers = [WorkerBroker(await machine.link()) for _ in range(3)]
    for broker in brokers:
        await broker.start(heard.append)

    await brokers[0].publish(Control("1", "terminate_user", "7", "x"))
    await eventually(lambda: len(heard) == 3)

    assert heard == [Control("1", "terminate_user", "7", "x")] * 3


async def test_counts_and_first_joins_cover_all_workers(machine: Workers) -> None:
    one, two = WorkerPresence(await machine.link()), WorkerPresence(await machine.link())

    assert await one.join("1", "presence-a", "1.1", ANA) == Arrival(True, True, 1)
    assert await two.join("1", "presence-a", "1.2", ANA) == Arrival(False, False, 2)
    assert await two.join("1", "presence-a", "1.3", BEN) == Arrival(False, True, 3)
    assert list(await one.members("1", "presence-a")) == [ANA, BEN]
    assert await one.count("1", "presence-a") == ChannelCount(3, 2)
    assert await one.leave("1", "presence-a", "1.1") == Departure(False, False, 2)
    assert await two.leave("1", "presence-a", "1.2") == Departure(False, True, 1)
    assert await two.nodes() == 2


async def test_connections_of_other_workers_are_counted(machine: Workers) -> None:
    one, two = WorkerPresence(await machine.link()), WorkerPresence(await machine.link())
    one.report_connections("1", 5)
    one.report_connections("1", 7)
    two.report_connections("1", 2)
    await eventually(lambda: (one.connections_elsewhere("1"), two.connections_elsewhere("1")) == (2, 7))
    third = WorkerPresence(await machine.link())
    await eventually(lambda: third.connections_elsewhere("1") == 9)

    machine.kill(machine.links[0])
    await eventually(lambda: two.connections_elsewhere("1") == 0)


async def test_a_dead_workers_entries_are_removed_and_one_other_worker_announces_it(machine: Workers) -> None:
    stores = [WorkerPresence(await machine.link()) for _ in range(3)]
    told: list[Change] = []
    for presence in stores:
        await presence.start(told.append)
    await stores[1].join("1", "presence-a", "2.2", ANA)
    await stores[0].join("1", "presence-a", "1.1", replace(ANA, is_number=True))
    await stores[1].leave("1", "presence-a", "2.2")
    await stores[0].join("1", "presence-a", "1.2", BEN)
    await stores[0].join("1", "chat", "1.1", None)
    await stores[0].join("1", "lobby", "1.1", None)
    await stores[1].join("1", "lobby", "2.1", None)
    await stores[1].join("1", "presence-a", "2.1", BEN)

    machine.kill(machine.links[0])
    await eventually(lambda: len(told) == 3)

    assert sorted(told, key=lambda change: change.channel) == [
        Change("1", "chat", is_vacated=True),
        Change("1", "lobby"),
        Change("1", "presence-a", removed=(ANA,)),
    ]
    assert await stores[1].count("1", "presence-a") == ChannelCount(1, 1)
    assert await stores[2].channels("1") == {"lobby": ChannelCount(1, 0), "presence-a": ChannelCount(1, 1)}


async def test_members_with_a_grace_outlast_a_dead_worker(machine: Workers) -> None:
    one, two = WorkerPresence(await machine.link()), WorkerPresence(await machine.link())
    told: list[Change] = []
    await two.start(told.append)
    for user, grace_s in ((ANA, 5), (BEN, 60), (CLEO, 5), (DAN, 0)):
        await one.join("1", "presence-a", f"1.{user.user_id}", user, grace_s)

    machine.kill(machine.links[0])
    await eventually(lambda: told)
    await two.join("1", "presence-a", "2.3", CLEO, 5)
    machine.hub.sweep(time.monotonic() + 4)
    assert told == [Change("1", "presence-a", removed=(DAN,))]
    machine.hub.sweep(time.monotonic() + 6)
    await eventually(lambda: len(told) == 2)

    assert told[1] == Change("1", "presence-a", removed=(ANA,))
    assert set(await two.members("1", "presence-a")) == {BEN, CLEO}


async def test_members_of_a_worker_that_stops_leave_at_once(machine: Workers) -> None:
    one, two = WorkerPresence(await machine.link()), WorkerPresence(await machine.link())
    told: list[Change] = []
    await two.start(told.append)
    await one.join("1", "presence-a", "1.1", ANA, 60)

    await one.stop()
    await eventually(lambda: told)

    assert told == [Change("1", "presence-a", removed=(ANA,), is_vacated=True)]


async def test_with_no_worker_left_only_webhooks_report_the_dead_ones_leaves(machine: Workers) -> None:
    presence = WorkerPresence(await machine.link())
    await presence.join("1", "presence-a", "1.1", ANA)

    machine.kill(machine.links[0])
    await eventually(lambda: len(machine.webhook_events) == 2)

    assert [event.name for _, event in machine.webhook_events] == ["member_removed", "channel_vacated"]


class FarEnd:
    """The other end of a link, spoken record by record."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._buffer = b""

    async def send(self, *sent: msgspec.Struct) -> None:
        records = [messages.encode(message) for message in sent]
        data = b"".join(len(record).to_bytes(4, "big") + record for record in records)
        await asyncio.get_running_loop().sock_sendall(self._end, data)

    async def received(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT_S):
            while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "big"):
                self._buffer += await loop.sock_recv(self._end, 65_536)
        size = 4 + int.from_bytes(self._buffer[:4], "big")
        record, self._buffer = self._buffer[4:size], self._buffer[size:]
        return record

    async def reply(self) -> messages.Reply:
        message = messages.from_hub(await self.received())
        assert isinstance(message, messages.Reply)
        return message


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(messages.encode(value))


def call(number: int, method: str, *arguments: object, port: str = "PresenceStore") -> messages.Call:
    return messages.Call(number, port, method, raw(arguments))


async def test_a_return_waits_until_the_leave_has_been_announced(machine: Workers) -> None:
    """Ana leaves on one worker and comes back on another: `removed` must not overtake `added`."""
    other = WorkerPresence(await machine.link())
    here, there = socket.socketpair()
    machine.hub.peer(here)
    with there:
        leaver = FarEnd(there)
        await leaver.send(
            messages.Hello(messages.VERSION, 1),
            call(1, "join", "1", "presence-a", "1.1", ANA, 0),
            call(2, "leave", "1", "presence-a", "1.1"),
        )
        joined, left = await leaver.reply(), await leaver.reply()
        coming_back = asyncio.ensure_future(other.join("1", "presence-a", "2.1", ANA))
        elsewhere = await other.join("1", "presence-b", "2.1", ANA)
        assert elsewhere.is_first_of_user
        await leaver.send(messages.Settled(joined.turn))
        assert await other.nodes() == 1
        assert not coming_back.done()

        await leaver.send(messages.Settled(left.turn))

        async with asyncio.timeout(LIMIT_S):
            assert await coming_back == Arrival(True, True, 1)


async def test_an_unsettled_turn_times_out(machine: Workers) -> None:
    other = WorkerPresence(await machine.link())
    here, there = socket.socketpair()
    machine.hub.peer(here)
    with there:
        stuck = FarEnd(there)
        await stuck.send(messages.Hello(messages.VERSION, 1), call(1, "join", "1", "presence-a", "1.1", ANA, 0))
        await stuck.received()
        joining = asyncio.ensure_future(other.join("1", "presence-a", "2.1", ANA))
        await other.join("1", "chat", "2.1", None)
        await other.nodes()
        assert not joining.done()

        machine.hub.sweep(time.monotonic() + 10)

        async with asyncio.timeout(LIMIT_S):
            assert await joining == Arrival(False, False, 2)


async def test_publications_held_back_by_a_turn_are_dropped_with_their_worker(machine: Workers) -> None:
    first, second = await machine.link(), await machine.link()
    here, there = socket.socketpair()
    machine.hub.peer(here)
    with there:
        holder = FarEnd(there)
        await holder.send(messages.Hello(messages.VERSION, 1), call(1, "join", "1", "presence-a", "1.1", ANA, 0))
        turn = (await holder.reply()).turn
        lost = asyncio.ensure_future(WorkerPresence(first).join("1", "presence-a", "2.1", BEN))
        joining = asyncio.ensure_future(WorkerPresence(second).join("1", "presence-a", "3.1", ANA))
        await asyncio.sleep(0)
        assert await WorkerPresence(first).count("1", "presence-a") == ChannelCount(1, 1)
        assert await WorkerPresence(second).count("1", "presence-a") == ChannelCount(1, 1)
        machine.kill(first)
        await holder.send(messages.Settled(turn))

        async with asyncio.timeout(LIMIT_S):
            assert await joining == Arrival(False, False, 2)
            assert await lost == Arrival(False, False, 1)


async def test_records_after_a_reply_are_handled_after_its_caller_ran() -> None:
    """So that between the state a join learned and the first event it hears, nothing is missed."""
    here, there = socket.socketpair()
    ordered, order = ordering_pair()
    link, hub = ParentLink(here, order), FarEnd(there)
    broker, presence = WorkerBroker(link), WorkerPresence(link)
    log: list[str] = []
    await broker.start(lambda publication: log.append(getattr(publication, "frame", b"").decode()))

    async def join(number: int) -> None:
        arrival = await presence.join("1", "presence-a", f"1.{number}", ANA)
        log.append(f"joined, {len(arrival.members)} there")

    subscribing = asyncio.ensure_future(broker.subscribe("1", "presence-a"))
    for kind in (messages.Hello, messages.Call):
        assert isinstance(messages.from_worker(await hub.received()), kind)
    await hub.send(messages.Reply(1, raw(None)))
    await subscribing
    joins = [asyncio.ensure_future(join(number)) for number in range(3)]
    for _ in joins:
        assert isinstance(messages.from_worker(await hub.received()), messages.Call)
    await hub.send(
        messages.ForwardedPublication(0, "1", "presence-a", b"before", None, False),
        messages.Reply(2, raw(Arrival(True, True, 1, members=(ANA,))), 1),
        messages.ForwardedPublication(0, "1", "presence-a", b"between", None, False),
        messages.Reply(3, raw(Arrival(False, True, 2, members=(ANA, BEN))), 2),
        messages.Reply(4, raw(Arrival(False, False, 3, members=(ANA, BEN)))),
        messages.ForwardedPublication(0, "1", "presence-a", b"after", None, False),
    )
    await asyncio.gather(*joins)
    await eventually(lambda: "after" in log)

    there_are_two = "joined, 2 there"
    assert log == ["before", "joined, 1 there", "between", there_are_two, there_are_two, "after"]
    turns = [messages.from_worker(await hub.received()) for _ in range(2)]
    assert turns == [messages.Settled(1), messages.Settled(2)]
    await link.close()
    ordered.close()
    there.close()


@pytest.mark.parametrize(
    ("port", "method"),
    [
        ("PresenceStore", "start"),
        ("PresenceStore", "note"),
        ("PresenceStore", "__init__"),
        ("PresenceStore", "drop"),
        ("Broker", "publish"),
        ("Broker", "is_available"),
        ("Broker", "stop"),
        ("Engine", "count"),
    ],
)
async def test_an_unknown_call_ends_only_its_workers_link(machine: Workers, port: str, method: str) -> None:
    good = WorkerPresence(await machine.link())
    here, there = socket.socketpair()
    peer = machine.hub.peer(here)
    with there:
        arguments = ("1", "presence-a", "1", b"") if method == "note" else ()
        await FarEnd(there).send(call(1, method, *arguments, port=port))
        await eventually(lambda: not peer.is_open)

    assert await good.nodes() == 1


async def test_a_call_with_wrong_arguments_ends_the_link(machine: Workers) -> None:
    here, there = socket.socketpair()
    peer = machine.hub.peer(here)
    with there:
        await FarEnd(there).send(call(1, "count", "1", 7))
        await eventually(lambda: not peer.is_open)


async def test_history_and_idempotency_are_shared_by_all_workers(machine: Workers) -> None:
    one, two = await machine.link(), await machine.link()
    assert await WorkerHistory(one).append("1", "cache-a", b"x", 60) == 1
    assert await WorkerHistory(two).append("1", "cache-a", b"y", 60) == 2
    latest = await WorkerHistory(one).latest("1", "cache-a")
    since = await WorkerHistory(two).since("1", "cache-a", 0)
    assert latest is not None
    assert (latest.position, latest.frame) == (2, b"y")
    assert [entry.frame for entry in since or ()] == [b"x", b"y"]
    assert await WorkerHistory(one).latest("1", "cache-b") is None

    assert await WorkerIdempotency(one).claim("1", "k") is None
    with pytest.raises(CallUnderWay):
        await WorkerIdempotency(two).claim("1", "k")
    await WorkerIdempotency(one).complete("1", "k", b"done")
    await WorkerPresence(one).nodes()
    assert await WorkerIdempotency(two).claim("1", "k") == b"done"


async def test_a_call_of_a_dead_worker_may_be_repeated_at_once(machine: Workers) -> None:
    one, two = await machine.link(), await machine.link()
    assert await WorkerIdempotency(one).claim("1", "k") is None

    machine.kill(one)

    assert await WorkerIdempotency(two).claim("1", "k") is None


async def test_calls_fail_when_the_parent_is_gone(machine: Workers) -> None:
    link = await machine.link()
    lost: list[bool] = []
    link.on_lost = lambda: lost.append(True)
    waiting = asyncio.ensure_future(WorkerHistory(link).latest("1", "cache-a"))
    await asyncio.sleep(0)

    machine.kill(link)
    with pytest.raises(BrokerUnavailable):
        await waiting

    assert lost == [True]
    with pytest.raises(BrokerUnavailable):
        await WorkerBroker(link).publish(Publication("1", "chat", b""))
    assert await WorkerPresence(link).leave("1", "chat", "1.1") == Departure(False, False, 0)
    assert await WorkerPresence(link).nodes() == 1


async def test_another_protocol_version_is_refused_with_the_reason(machine: Workers) -> None:
    here, there = socket.socketpair()
    peer = machine.hub.peer(here)
    with there:
        record = messages.encode(messages.Hello(messages.VERSION + 1, 1))
        there.sendall(len(record).to_bytes(4, "big") + record)
        await eventually(lambda: not peer.is_open)

    assert "worker protocol version mismatch" in (peer.failure or "")


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\0\0\0\2\xc1\xc1", b"\0\0\0\1\x01"])
async def test_malformed_records_end_only_their_workers_link(machine: Workers, nonsense: bytes) -> None:
    good = WorkerPresence(await machine.link())
    here, there = socket.socketpair()
    peer = machine.hub.peer(here)
    with there:
        there.sendall(nonsense)
        await eventually(lambda: not peer.is_open)

    assert await good.nodes() == 1
