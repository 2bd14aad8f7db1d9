"""Clients that connect, subscribe, publish and leave in turns, for a while."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass

from kit.client import Client, connected
from kit.two_tenants import ONE, Api, subscription

__all__ = ["Churn"]

CHANNELS = ("chat", "news", "private-room", "private-encrypted-room", "presence-room", "presence-hall", "cache-last")


@dataclass(slots=True)
class Churn:
    """`workers` clients at a time against `port`, until `for_s` seconds have passed. Deterministic but for timing."""

    port: int
    for_s: float
    workers: int = 20
    visits: int = 0
    published: int = 0

    async def run(self) -> None:
        until = time.monotonic() + self.for_s
        async with asyncio.TaskGroup() as group:
            for number in range(self.workers):
                group.create_task(self._work(random.Random(number), until))

    async def _work(self, chance: random.Random, until: float) -> None:
        api = Api(self.port)
        try:
            while time.monotonic() < until:
                async with connected(self.port) as client:
                    await self._visit(client, api, chance)
                    # Some say good-bye, some are gone without a word.
                    if chance.random() < 0.5:
                        client.send_frame(8, (1000).to_bytes(2, "big"))
                self.visits += 1
        finally:
            api.close()

    async def _visit(self, client: Client, api: Api, chance: random.Random) -> None:
        for channel in chance.sample(CHANNELS, chance.randint(0, len(CHANNELS))):
            member = json.dumps({"user_id": str(chance.randint(1, 5))}) if channel.startswith("presence-") else None
            is_public = not channel.startswith(("private-", "presence-"))
            client.send(
                "pusher:subscribe",
                {"channel": channel} if is_public else subscription(ONE, client.socket_id, channel, member),
            )
            client.send("client-x", {"n": 1}, channel=channel)
            if chance.random() < 0.3:
                client.send("pusher:unsubscribe", {"channel": channel})
        client.send("pusher:subscribe", {"channel": "private-refused"})
        if chance.random() < 0.5:
            client.send_text("nonsense")
            status, _ = await api.publish(ONE, chance.choice(CHANNELS), data="x" * chance.randint(0, 5_000))
            assert status == 200
            self.published += 1
        client.send("pusher:ping", {})
        while (await client.receive())["event"] != "pusher:pong":
            pass
