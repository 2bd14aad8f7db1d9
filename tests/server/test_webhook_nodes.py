"""Webhooks of several nodes over one queue: each event once, in order, and the last one true."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from kit.receiver import receiver
from kit.waiting import eventually
from server.webhook_sink import World, app_with, client_event, sink
from smartlink.server.apps.base import WebhookTarget
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.queue import WebhookReport


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_announcement_is_true_in_any_order_of_reports(seed: int) -> None:
    """Three nodes tell of users who come, go and move between them; each brings its reports when it pleases."""
    chance = random.Random(seed)
    world, queue = World(), MemoryQueue()
    there = world.users.setdefault(("1001", "presence-a"), set())
    where: dict[str, set[int]] = {str(user): set() for user in range(20)}
    told: dict[str, list[str]] = {}

    class Slow:
        """The queue as a node that is slow sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(queue, name)

        async def record(self, reports: list[WebhookReport]) -> int:
            await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1, 0.2]))
            return await queue.record(reports)

    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        times = {"grace_s": 0.05}
        async with (
            sink(app, world=world, queue=Slow(), **times) as (one, _),  # type: ignore[arg-type]
            sink(app, world=world, queue=Slow(), **times) as (two, _),  # type: ignore[arg-type]
            sink(app, world=world, queue=Slow(), **times) as (three, _),  # type: ignore[arg-type]
        ):
            nodes = (one, two, three)
            for _ in range(1_500):
                user, number = str(chance.randrange(20)), chance.randrange(3)
                tabs = where[user]
                if number in tabs:
                    tabs.discard(number)
                    if not tabs:
                        there.discard(user)
                        nodes[number].emit(app, OutgoingEvent("member_removed", "presence-a", user))
                else:
                    tabs.add(number)
                    if len(tabs) == 1:
                        there.add(user)
                        nodes[number].emit(app, OutgoingEvent("member_added", "presence-a", user))
                await asyncio.sleep(chance.choice([0, 0, 0, 0.002]))

            def believed() -> set[str]:
                told.clear()
                for event in target.events:
                    told.setdefault(event["user_id"], []).append(event["name"])
                return {user for user, names in told.items() if names[-1] == "member_added"}

            await eventually(lambda: believed() == there, what="what was told is what is true")
            await asyncio.sleep(0.5)
            await eventually(lambda: believed() == there, what="and stays so")

    for names in told.values():
        assert all(one != next_one for one, next_one in itertools.pairwise(names)), names


async def test_two_nodes_send_each_event_once_and_in_order() -> None:
    queue = MemoryQueue()
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, queue=queue) as (one, first), sink(app, queue=queue) as (two, second):
            for number in range(400):
                (one if number % 2 else two).emit(app, client_event(number))
                if number % 40 == 0:
                    await asyncio.sleep(0.01)
            await eventually(lambda: len(target.events) == 400)

    numbers = [int(event["data"]) for event in target.events]
    assert sorted(numbers) == list(range(400))
    assert [n for n in numbers if n % 2] == list(range(1, 400, 2))
    assert first.webhooks_sent + second.webhooks_sent == 400
