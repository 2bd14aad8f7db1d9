"""`kill -9` of workers while events are recorded: none lost, none duplicated after deduplication, order kept.

Two workers share the outbox; again and again one of them is killed and replaced. The short form runs always, the
long one by `make test-kill`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Self

import pytest

from broadcasting.outbox_database import OutboxDatabase, envelope
from kit import processes
from kit.pusher_service import PusherService, pusher_service
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting.outbox import read_status

WORKER = Path(__file__).with_name("outbox_worker.py")
CHANNELS = 20


class Workers:
    """Two worker processes; `kill_one` ends one without a word and starts another."""

    def __init__(self, url: str, port: int) -> None:
        self._command = [sys.executable, str(WORKER), url, str(port)]
        self._running: list[asyncio.subprocess.Process] = []
        self.kills = 0

    async def __aenter__(self) -> Self:
        for _ in range(2):
            await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            await asyncio.wait_for(process.wait(), LIMIT_S)

    async def kill_one(self, chance: random.Random) -> None:
        process = self._running.pop(chance.randrange(len(self._running)))
        assert process.returncode is None, "a worker ended by itself"
        process.kill()
        await process.wait()
        self.kills += 1
        await self._start()

    async def _start(self) -> None:
        path = os.pathsep.join([str(WORKER.parents[1]), os.environ.get("PYTHONPATH", "")])
        self._running.append(await processes.spawn(*self._command, env={**os.environ, "PYTHONPATH": path}))


@pytest.mark.parametrize(
    ("kills", "events"),
    [
        pytest.param(6, 300, id="short"),
        pytest.param(50, 2000, id="long", marks=[pytest.mark.kill, pytest.mark.timeout(900)]),
    ],
)
async def test_nothing_is_lost_doubled_or_reordered(database: OutboxDatabase, kills: int, events: int) -> None:
    chance = random.Random(kills)
    url = database.engine.url.render_as_string(hide_password=False)
    async with pusher_service() as service, Workers(url, service.port) as workers:
        await _until_two_work(database)
        recording = asyncio.create_task(_record(database, events, pause_s=kills * 0.7 / events))
        while workers.kills < kills:
            # In the middle of things: just after the service has taken something more.
            before = len(service.taken)
            await eventually(lambda before=before: len(service.taken) > before or recording.done())  # type: ignore[misc]
            await asyncio.sleep(chance.random() * 0.6)
            await workers.kill_one(chance)
        committed = await recording
        await eventually(lambda: len(_first_seen(service)) >= events)

    assert workers.kills == kills
    assert _first_seen(service) == {event_id for ids in committed.values() for event_id in ids}
    for channel, ids in committed.items():
        seen = [payload["eventId"] for payload in service.payloads(channel)]
        assert list(dict.fromkeys(seen)) == ids
    _print_summary(service, events, kills)


async def _record(database: OutboxDatabase, events: int, pause_s: float) -> dict[str, list[int]]:
    """Record one by one, as requests do; the ids by channel, in the order of commits."""
    committed: dict[str, list[int]] = defaultdict(list)
    for number in range(events):
        channel = f"private-{number % CHANNELS}"
        committed[channel] += await database.record(envelope(number, channel))
        await asyncio.sleep(pause_s)
    return committed


def _first_seen(service: PusherService) -> set[int]:
    return {payload["eventId"] for payload in service.payloads()}


async def _until_two_work(database: OutboxDatabase) -> None:
    async with asyncio.timeout(LIMIT_S):
        while sum(worker.is_alive for worker in (await read_status(database.engine, database.tables)).workers) < 2:
            await asyncio.sleep(0.02)


def _print_summary(service: PusherService, events: int, kills: int) -> None:
    repeats = len(service.taken) - events
    print(f"\n{kills} kills, {events} events: none lost, {repeats} sent again, none twice after dedupe, order kept")  # noqa: T201 - the result of the long form
