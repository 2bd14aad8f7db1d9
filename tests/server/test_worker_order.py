"""The socket that orders publications of workers: full, too small, and with a worker that dies."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kit.waiting import eventually
from kit.worker_hub import workers
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication
from smartlink.server.workers import messages
from smartlink.server.workers.engines import WorkerBroker
from smartlink.server.workers.order import BUFFER_BYTES, Ordered, Ordering, TooLarge, ordering_pair
from smartlink.server.workers.parent_link import ParentLink

SIZE = 1_000


def record(number: int) -> bytes:
    return b"%0*d" % (SIZE, number)


async def filled() -> tuple[socket.socket, Ordering, list[asyncio.Future[None]], list[bool]]:
    """A parent's end that nobody reads, and a worker's with three records that the kernel does not take."""
    here, there = ordering_pair()
    drained: list[bool] = []
    ordering = Ordering(there, lambda: drained.append(True))
    number = 0
    places: list[asyncio.Future[None]] = []
    while len(places) < 3:
        place = ordering.send(record(number))
        places += [] if place is None else [place]
        number += 1
    assert ordering.waiting_bytes == 3 * SIZE
    return here, ordering, places, drained


async def test_what_the_kernel_does_not_take_keeps_its_order() -> None:
    here, ordering, places, drained = await filled()
    assert not any(place.done() for place in places)
    assert not drained

    heard: list[bytes] = []
    ordered = Ordered(here, heard.append)
    await asyncio.gather(*places)
    await eventually(lambda: ordering.send(record(0)) is None)
    await eventually(lambda: heard[-1] == record(0))

    assert heard[:-1] == [record(number) for number in range(len(heard) - 1)]
    assert drained == [True]
    assert ordering.waiting_bytes == 0
    ordering.close()
    ordered.close()


async def test_without_a_parent_what_waits_fails_and_so_does_what_follows() -> None:
    here, ordering, places, _ = await filled()

    here.close()

    for place in places:
        with pytest.raises(BrokerUnavailable):
            await place
    with pytest.raises(BrokerUnavailable):
        ordering.send(record(0))
    ordering.close()


async def test_closing_a_workers_end_fails_what_waits() -> None:
    here, ordering, places, _ = await filled()

    ordering.close()

    for place in places:
        with pytest.raises(BrokerUnavailable):
            await place
    here.close()


async def test_what_waited_too_long_is_dropped_and_its_publishers_are_told() -> None:
    here, ordering, places, _ = await filled()

    ordering.give_up(60)
    assert not any(place.done() for place in places)
    ordering.give_up(-60)

    for place in places:
        with pytest.raises(BrokerUnavailable):
            await place
    heard: list[bytes] = []
    ordered = Ordered(here, heard.append)
    await eventually(lambda: heard)
    assert ordering.send(record(0)) is None
    await eventually(lambda: heard[-1] == record(0))
    assert heard[:-1] == [record(number) for number in range(len(heard) - 1)]
    ordering.close()
    ordered.close()


async def test_live_publications_that_wait_are_sent_in_order_too() -> None:
    here, there = socket.socketpair()
    parent, order = ordering_pair()
    link = ParentLink(there, order)
    broker, number = WorkerBroker(link), 0
    while not link._ordering.waiting_bytes:
        await broker.publish(Publication("1", "chat", record(number), is_live=True))
        number += 1
    await broker.publish(Publication("1", "chat", record(number), is_live=True))

    heard: list[bytes] = []
    ordered = Ordered(parent, heard.append)
    await eventually(lambda: len(heard) == number + 1)

    frames = [message.frame for message in map(messages.from_worker, heard) if hasattr(message, "frame")]
    assert frames == [record(each) for each in range(number + 1)]
    await link.close()
    ordered.close()
    here.close()


async def test_too_large_a_record_is_refused() -> None:
    here, there = ordering_pair()
    ordering = Ordering(there, lambda: None)

    with pytest.raises(TooLarge):
        ordering.send(bytes(4 * BUFFER_BYTES))

    assert ordering.send(b"small") is None
    ordering.close()
    here.close()


async def test_a_publication_too_large_for_the_socket_keeps_its_place() -> None:
    large = b"x" * (4 * BUFFER_BYTES)
    for is_live in (False, True):
        async with workers() as machine:
            ours, others = WorkerBroker(await machine.link()), WorkerBroker(await machine.link())
            heard: list[Publication | Control] = []
            await others.start(heard.append)
            await others.subscribe("1", "chat")

            frames = [b"first", large, b"last"]
            for frame in frames:
                await ours.publish(Publication("1", "chat", frame, is_live=is_live))

            await eventually(lambda heard=heard: len(heard) == 3)
            assert [each.frame for each in heard if isinstance(each, Publication)] == frames


async def test_what_a_worker_has_published_reaches_others_though_it_dies_at_once() -> None:
    async with workers() as machine:
        link = await machine.link()
        ours, others = WorkerBroker(link), WorkerBroker(await machine.link())
        heard: list[Publication | Control] = []
        await others.start(heard.append)
        await others.subscribe("1", "chat")

        for number in range(50):
            await ours.publish(Publication("1", "chat", b"%d" % number))
        machine.kill(link)

        await eventually(lambda: len(heard) == 50)
        assert [each.frame for each in heard if isinstance(each, Publication)] == [b"%d" % n for n in range(50)]


async def test_publications_of_two_workers_in_turn_have_that_order_everywhere() -> None:
    async with workers() as machine:
        brokers = [WorkerBroker(await machine.link()) for _ in range(3)]
        heard: list[list[bytes]] = [[] for _ in brokers]
        for broker, own in zip(brokers, heard, strict=True):
            await broker.start(lambda each, own=own: own.append(getattr(each, "frame", b"")))
            await broker.subscribe("1", "chat")

        frames = [b"%d" % number for number in range(300)]
        for number, frame in enumerate(frames):
            await brokers[number % 2].publish(Publication("1", "chat", frame))

        await eventually(lambda: all(len(own) == len(frames) for own in heard))
        assert heard == [frames, frames, frames]


async def test_a_record_does_not_overtake_a_publication_that_waits_for_the_kernel() -> None:
    here, there = socket.socketpair()
    parent, order = ordering_pair()
    link = ParentLink(there, order)
    here.setblocking(False)
    await eventually(lambda: link._stream.waiting_bytes == 0)
    assert here.recv(65_536)
    while (place := link.order(Publication("1", "chat", bytes(SIZE)))) is None:
        pass

    link.send(messages.Settled(1))
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        here.recv(65_536)

    ordered = Ordered(parent, lambda _: None)
    await place
    await eventually(lambda: link._stream.waiting_bytes == 0)
    assert here.recv(65_536)
    await link.close()
    ordered.close()
    here.close()
