"""What the switchboard's engines promise over several workers, beside the suites of the ports."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from conformance.test_broker import BrokerPromises
from conformance.test_history import HistoryPromises
from conformance.test_receipts import ReceiptPromises
from conformance.test_roster import RosterPromises
from kit.switchboard import Switchboard, switchboard
from kit.waiting import LIMIT_S, eventually
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
from smartlink.server.workers.parent_link import ParentLink

APP_BYTES = 100_000
"""What the suites of the ports ask for where it matters; nowhere else do they keep as much."""
ANA, BEN = PresenceMember("1", b'{"name":"Ana"}'), PresenceMember("2")


@pytest.fixture
async def board() -> AsyncIterator[Switchboard]:
    async with switchboard() as running:
        yield running


class TestSwitchboardBroker(BrokerPromises):
    @pytest.fixture(autouse=True)
    async def _line(self, board: Switchboard) -> None:
        self._broker = WorkerBroker(await board.line())

    def broker(self) -> WorkerBroker:
        return self._broker


class TestSwitchboardHistory(HistoryPromises):
    @pytest.fixture(autouse=True)
    async def _line(self) -> AsyncIterator[None]:
        async with switchboard(APP_BYTES) as board:
            self._history = WorkerHistory(await board.line())
            yield

    def history(self, keep: int = 1, max_app_bytes: int = APP_BYTES) -> WorkerHistory:
        return self._history


class TestSwitchboardReceipts(ReceiptPromises):
    @pytest.fixture(autouse=True)
    async def _line(self) -> AsyncIterator[None]:
        async with switchboard(APP_BYTES) as board:
            self._receipts = WorkerIdempotency(await board.line())
            yield

    def idempotency(self, max_app_bytes: int = APP_BYTES) -> WorkerIdempotency:
        return self._receipts


class TestSwitchboardRoster(RosterPromises):
    @pytest.fixture(autouse=True)
    async def _lines(self, board: Switchboard) -> None:
        self._roster = WorkerPresence(await board.line())

    def presence(self) -> WorkerPresence:
        return self._roster


async def test_all_workers_hear_one_order_and_only_those_that_subscribed(board: Switchboard) -> None:
    brokers = [WorkerBroker(await board.line()) for _ in range(3)]
    heard: list[list[Publication | Control]] = [[], [], []]
    for broker, ears in zip(brokers, heard, strict=True):
        await broker.start(ears.append)
    for broker in brokers[:2]:
        await broker.subscribe("1", "chat")
    # An answer to each, so that all have subscribed before anything is published.
    for line in board.lines:
        await WorkerPresence(line).nodes()

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


async def test_what_is_published_after_an_answer_comes_later_whichever_worker_it_is_published_at(
    board: Switchboard,
) -> None:
    brokers = [WorkerBroker(await board.line()) for _ in range(3)]
    heard: list[Publication | Control] = []
    await brokers[0].start(heard.append)
    await brokers[0].subscribe("1", "chat")

    sent = [Publication("1", "chat", b"%d" % number) for number in range(300)]
    for number, publication in enumerate(sent):
        await brokers[number % 3].publish(publication)
    await eventually(lambda: len(heard) == 300)

    assert heard == sent


async def test_a_control_reaches_every_worker(board: Switchboard) -> None:
    heard: list[Publication | Control] = []
    brokers = [WorkerBroker(await board.line()) for _ in range(3)]
    for broker in brokers:
        await broker.start(heard.append)

    await brokers[0].publish(Control("1", "terminate_user", "7", "x"))
    await eventually(lambda: len(heard) == 3)

    assert heard == [Control("1", "terminate_user", "7", "x")] * 3


async def test_counts_and_firsts_are_of_all_workers(board: Switchboard) -> None:
    one, two = WorkerPresence(await board.line()), WorkerPresence(await board.line())

    assert await one.join("1", "presence-a", "1.1", ANA) == Arrival(True, True, 1)
    assert await two.join("1", "presence-a", "1.2", ANA) == Arrival(False, False, 2)
    assert await two.join("1", "presence-a", "1.3", BEN) == Arrival(False, True, 3)
    assert list(await one.members("1", "presence-a")) == [ANA, BEN]
    assert await one.count("1", "presence-a") == ChannelCount(3, 2)
    assert await one.leave("1", "presence-a", "1.1") == Departure(False, False, 2)
    assert await two.leave("1", "presence-a", "1.2") == Departure(False, True, 1)
    assert await two.nodes() == 2


async def test_connections_of_the_others_are_known(board: Switchboard) -> None:
    one, two = WorkerPresence(await board.line()), WorkerPresence(await board.line())
    one.report_connections("1", 5)
    one.report_connections("1", 7)
    two.report_connections("1", 2)
    await eventually(lambda: (one.connections_elsewhere("1"), two.connections_elsewhere("1")) == (2, 7))
    third = WorkerPresence(await board.line())
    await eventually(lambda: third.connections_elsewhere("1") == 9)

    board.kill(board.lines[0])
    await eventually(lambda: two.connections_elsewhere("1") == 0)


async def test_a_dead_workers_entries_vanish_and_one_other_is_told(board: Switchboard) -> None:
    rosters = [WorkerPresence(await board.line()) for _ in range(3)]
    told: list[Change] = []
    for presence in rosters:
        await presence.start(told.append)
    await rosters[1].join("1", "presence-a", "2.2", ANA)
    await rosters[0].join("1", "presence-a", "1.1", replace(ANA, is_number=True))
    await rosters[1].leave("1", "presence-a", "2.2")
    await rosters[0].join("1", "presence-a", "1.2", BEN)
    await rosters[0].join("1", "chat", "1.1", None)
    await rosters[0].join("1", "lobby", "1.1", None)
    await rosters[1].join("1", "lobby", "2.1", None)
    await rosters[1].join("1", "presence-a", "2.1", BEN)

    board.kill(board.lines[0])
    await eventually(lambda: len(told) == 3)

    assert sorted(told, key=lambda change: change.channel) == [
        Change("1", "chat", is_vacated=True),
        Change("1", "lobby"),
        Change("1", "presence-a", removed=(ANA,)),
    ]
    assert await rosters[1].count("1", "presence-a") == ChannelCount(1, 1)
    assert await rosters[2].channels("1") == {"lobby": ChannelCount(1, 0), "presence-a": ChannelCount(1, 1)}


async def test_with_no_worker_left_only_webhooks_hear_of_the_dead(board: Switchboard) -> None:
    presence = WorkerPresence(await board.line())
    await presence.join("1", "presence-a", "1.1", ANA)

    board.kill(board.lines[0])
    await eventually(lambda: len(board.told) == 2)

    assert [event.name for _, event in board.told] == ["member_removed", "channel_vacated"]


class Bare:
    """The far end of a switchboard's socket, spoken record by record."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._buffer = b""

    async def say(self, *said: msgspec.Struct) -> None:
        records = [messages.encode(message) for message in said]
        data = b"".join(len(record).to_bytes(4, "big") + record for record in records)
        await asyncio.get_running_loop().sock_sendall(self._end, data)

    async def heard(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT_S):
            while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "big"):
                self._buffer += await loop.sock_recv(self._end, 65_536)
        size = 4 + int.from_bytes(self._buffer[:4], "big")
        record, self._buffer = self._buffer[4:size], self._buffer[size:]
        return record


async def test_a_return_waits_until_the_leave_has_been_announced(board: Switchboard) -> None:
    """Ana leaves on one worker and comes back on another: `removed` must not overtake `added`."""
    other = WorkerPresence(await board.line())
    here, there = socket.socketpair()
    board.worker_hub.peer(here)
    with there:
        leaver = Bare(there)
        await leaver.say(
            messages.Hello(messages.VERSION, 1),
            messages.Join(1, "1", "presence-a", "1.1", ANA),
            messages.Leave(2, "1", "presence-a", "1.1"),
        )
        arrived = messages.from_switchboard(await leaver.heard())
        departed = messages.from_switchboard(await leaver.heard())
        assert isinstance(arrived, messages.Arrived)
        assert isinstance(departed, messages.Departed)
        coming_back = asyncio.ensure_future(other.join("1", "presence-a", "2.1", ANA))
        elsewhere = await other.join("1", "presence-b", "2.1", ANA)
        assert elsewhere.is_first_of_user
        await leaver.say(messages.Settled(arrived.turn))
        assert await other.nodes() == 1
        assert not coming_back.done()

        await leaver.say(messages.Settled(departed.turn))

        async with asyncio.timeout(LIMIT_S):
            assert await coming_back == Arrival(True, True, 1)


async def test_a_turn_that_nobody_ends_is_over_after_a_while(board: Switchboard) -> None:
    other = WorkerPresence(await board.line())
    here, there = socket.socketpair()
    board.worker_hub.peer(here)
    with there:
        stuck = Bare(there)
        await stuck.say(messages.Hello(messages.VERSION, 1), messages.Join(1, "1", "presence-a", "1.1", ANA))
        await stuck.heard()
        joining = asyncio.ensure_future(other.join("1", "presence-a", "2.1", ANA))
        await other.join("1", "chat", "2.1", None)
        await other.nodes()
        assert not joining.done()

        board.worker_hub.sweep(time.monotonic() + 10)

        async with asyncio.timeout(LIMIT_S):
            assert await joining == Arrival(False, False, 2)


async def test_what_is_said_after_an_answer_is_heard_after_its_asker_ran() -> None:
    """So that between the state a join learned and the first event it hears, nothing is missed."""
    here, there = socket.socketpair()
    line, board = ParentLink(here), Bare(there)
    broker, presence = WorkerBroker(line), WorkerPresence(line)
    log: list[str] = []
    await broker.start(lambda publication: log.append(getattr(publication, "frame", b"").decode()))

    async def join(number: int) -> None:
        arrival = await presence.join("1", "presence-a", f"1.{number}", ANA)
        log.append(f"joined, {len(arrival.members)} there")

    joins = [asyncio.ensure_future(join(number)) for number in range(3)]
    for kind in (messages.Hello, messages.Join, messages.Join, messages.Join):
        assert isinstance(messages.from_worker(await board.heard()), kind)
    await board.say(
        messages.Publish(0, "1", "presence-a", b"before", None, False),
        messages.Arrived(1, Arrival(True, True, 1), (ANA,), 1),
        messages.Publish(0, "1", "presence-a", b"between", None, False),
        messages.Arrived(2, Arrival(False, True, 2), (ANA, BEN), 2),
        messages.Arrived(3, Arrival(False, False, 3), (ANA, BEN), 0),
        messages.Publish(0, "1", "presence-a", b"after", None, False),
    )
    await asyncio.gather(*joins)
    await eventually(lambda: "after" in log)

    there_are_two = "joined, 2 there"
    assert log == ["before", "joined, 1 there", "between", there_are_two, there_are_two, "after"]
    turns = [messages.from_worker(await board.heard()) for _ in range(2)]
    assert turns == [messages.Settled(1), messages.Settled(2)]
    await line.close()
    there.close()


async def test_history_and_receipts_are_of_all_workers(board: Switchboard) -> None:
    one, two = await board.line(), await board.line()
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


async def test_a_call_that_a_dead_worker_carried_out_may_be_repeated_at_once(board: Switchboard) -> None:
    one, two = await board.line(), await board.line()
    assert await WorkerIdempotency(one).claim("1", "k") is None

    board.kill(one)

    assert await WorkerIdempotency(two).claim("1", "k") is None


async def test_without_the_switchboard_nothing_hangs(board: Switchboard) -> None:
    line: ParentLink = await board.line()
    lost: list[bool] = []
    line.on_lost = lambda: lost.append(True)
    waiting = asyncio.ensure_future(WorkerHistory(line).latest("1", "cache-a"))
    await asyncio.sleep(0)

    board.kill(line)
    with pytest.raises(BrokerUnavailable):
        await waiting

    assert lost == [True]
    with pytest.raises(BrokerUnavailable):
        await WorkerBroker(line).publish(Publication("1", "chat", b""))
    assert await WorkerPresence(line).leave("1", "chat", "1.1") == Departure(False, False, 0)
    assert await WorkerPresence(line).nodes() == 1


async def test_another_version_is_turned_away_with_the_reason(board: Switchboard) -> None:
    here, there = socket.socketpair()
    peer = board.worker_hub.peer(here)
    with there:
        record = messages.encode(messages.Hello(messages.VERSION + 1, 1))
        there.sendall(len(record).to_bytes(4, "big") + record)
        await eventually(lambda: not peer.is_open)

    assert "stop and start instead" in (peer.failure or "")


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\0\0\0\2\xc1\xc1", b"\0\0\0\1\x01"])
async def test_nonsense_ends_its_seat_alone(board: Switchboard, nonsense: bytes) -> None:
    good = WorkerPresence(await board.line())
    here, there = socket.socketpair()
    peer = board.worker_hub.peer(here)
    with there:
        there.sendall(nonsense)
        await eventually(lambda: not peer.is_open)

    assert await good.nodes() == 1
