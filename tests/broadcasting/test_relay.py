"""The relay sends at least once, in order per channel, and with one id per event."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from broadcasting.outbox_database import (
    OutboxDatabase,
    envelope,
    numbers,
    open_database,
    pusher_driver,
    relaying,
    taken,
)
from kit.pusher_service import PusherService
from kit.waiting import eventually
from smartlink.broadcasting import Broadcaster, BroadcastUnavailable, Channel, Delivery, Envelope
from smartlink.broadcasting.outbox import Wakeup
from smartlink.broadcasting.outbox.service import PROBE_CHANNEL
from smartlink.broadcasting.testing import FakeDriver, fake_broadcasts


async def test_durable_events_carry_their_id_and_state_events_do_not(
    database: OutboxDatabase, service: PusherService
) -> None:
    [first, _, third] = await database.record(
        envelope(1), envelope(2, delivery=Delivery.STATE), Envelope("chat", "Empty", "{}", "1.2")
    )

    async with relaying(database, pusher_driver(service)):
        await eventually(lambda: taken(service) == 3)

    assert service.payloads() == [{"eventId": first, "n": 1}, {"n": 2}, {"eventId": third}]
    assert [event.get("socket_id") for event in service.taken] == [None, None, "1.2"]
    assert await database.column("state") == ["sent"] * 3


async def test_a_running_relay_sends_to_a_fake_within_its_block(
    database: OutboxDatabase, service: PusherService
) -> None:
    broadcaster = Broadcaster(pusher_driver(service))
    async with relaying(database, broadcaster.driver):
        with fake_broadcasts(broadcaster) as broadcasts:
            await database.record(*broadcaster.pack(broadcaster.on(Channel("news")).as_("faked").event))
            await eventually(lambda: broadcasts.sent)
        await database.record(*broadcaster.pack(broadcaster.on(Channel("news")).as_("sent").event))
        await eventually(lambda: taken(service) == 1)

    assert [event["name"] for event in service.taken] == ["sent"]
    broadcasts.assert_broadcast("faked", times=1)


async def test_a_wakeup_makes_the_relay_send_at_once(database: OutboxDatabase, service: PusherService) -> None:
    async with relaying(database, pusher_driver(service), sweep_s=3600):
        for number in range(3):
            await database.record(envelope(number))
            await eventually(lambda number=number: taken(service) == number + 1)  # type: ignore[misc]


async def test_events_recorded_by_another_process_are_found_without_a_wakeup(
    database: OutboxDatabase, service: PusherService
) -> None:
    async with relaying(database, pusher_driver(service), wakeup=Wakeup()):
        await database.record(envelope(1))
        await eventually(lambda: service.taken)


async def test_ten_events_are_sent_in_one_call(database: OutboxDatabase, service: PusherService) -> None:
    await database.record(*(envelope(number) for number in range(25)))

    async with relaying(database, pusher_driver(service)):
        await eventually(lambda: taken(service) == 25)

    assert [len(call.events) for call in service.calls] == [10, 10, 5]
    assert numbers(service) == list(range(25))


async def test_a_backlog_of_many_rounds_is_sent_in_order(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await database.record(*(envelope(number, f"private-{number % 7}") for number in range(1500)))

    relay = database.relay(driver)
    counts = [await relay.run_once() for _ in range(9)]

    assert sum(counts) == 1500
    assert counts[-1] == 0
    for channel in range(7):
        sent = [json.loads(sent.payload)["n"] for sent in driver.sent if sent.channel == f"private-{channel}"]
        assert sent == list(range(channel, 1500, 7))


async def test_an_event_has_one_id_however_often_it_is_sent(database: OutboxDatabase) -> None:
    driver = Forgetful(losing=3)
    await database.record(*(envelope(number) for number in range(7)))
    async with relaying(database, driver):
        await eventually(lambda: driver.calls)
        await database.record(envelope(7, delivery=Delivery.STATE))
        await eventually(lambda: any(each.payload == '{"n":7}' for each in driver.sent))

    ids = defaultdict(set)
    for sent in driver.tried:
        ids[sent.payload].add(sent.event_id)
    assert [len(each) for each in ids.values()] == [1] * 8
    assert len(set.union(*ids.values())) == 8
    assert None not in set.union(*ids.values())


class Forgetful(FakeDriver):
    """Takes the first few calls, and says that they failed."""

    def __init__(self, losing: int) -> None:
        super().__init__()
        self.losing = losing
        self.calls = 0
        self.tried: list[Envelope] = []

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        self.calls += 1
        self.tried += [each for each in envelopes if each.channel != PROBE_CHANNEL]
        if self.calls <= self.losing:
            raise BroadcastUnavailable("the answer was lost", answered=True)
        await super().send(envelopes, idempotency_key=idempotency_key)


async def test_ids_differ_between_databases_with_the_same_numbers(tmp_path: Any) -> None:
    ids, keys = [], []
    for name in ("one", "two"):
        async with open_database(f"sqlite+aiosqlite:///{tmp_path / name}.db") as database:
            driver = FakeDriver()
            assert await database.record(envelope(1)) == [1]
            await database.relay(driver).run_once()
            ids += [sent.event_id for sent in driver.sent]
            keys += driver.idempotency_keys

    assert None not in keys
    assert len(set(keys)) == len(set(ids)) == 2


async def test_overlapping_transactions_lose_nothing_and_keep_each_channels_order(
    database: OutboxDatabase, service: PusherService
) -> None:
    chance = random.Random(7)
    committed: dict[str, list[int]] = defaultdict(list)

    async def writer(number: int) -> None:
        for step in range(12):
            channels = chance.sample(["private-a", "private-b", "private-c", "private-d"], chance.randint(1, 3))
            async with database.sessions() as session:
                ids = await database.outbox.record(
                    session, [envelope(number * 100 + step, channel) for channel in channels]
                )
                await asyncio.sleep(chance.random() / 200)
                if chance.random() < 0.2:
                    await session.rollback()
                    continue
                await session.commit()
            database.outbox.wake()
            for channel, event_id in zip(channels, ids, strict=True):
                committed[channel].append(event_id)

    async with relaying(database, pusher_driver(service)):
        await asyncio.gather(*(writer(number) for number in range(8)))
        await eventually(lambda: taken(service) >= sum(len(ids) for ids in committed.values()))

    for channel, ids in committed.items():
        assert [payload["eventId"] for payload in service.payloads(channel)] == sorted(ids)
