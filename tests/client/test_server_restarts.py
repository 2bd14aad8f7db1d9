"""Restarts, killed workers and cut lines of a real server: a client with a session loses nothing, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from kit.balancer import Balancer
from kit.reverb import Reverb, reverb
from kit.subscribers import a_client
from kit.waiting import LIMIT_S
from peers.test_resuming_through_faults import Stage
from smartlink.client import Channel, Event, Gap, Stream

CHANNELS = 4
ROUNDS = int(os.environ.get("SMARTLINK_RESUME_ROUNDS", "1"))


async def cut(line: Balancer, _: Reverb) -> None:
    await line.cut()


async def dead_line(line: Balancer, _: Reverb) -> None:
    await line.swallow(0.5)


async def restart(_: Balancer, server: Reverb) -> None:
    done = await asyncio.to_thread(server.command, "restart")
    assert done.returncode == 0, done.stderr


async def killed_worker(_: Balancer, server: Reverb) -> None:
    os.kill(server.workers()[0], signal.SIGKILL)


async def test_nothing_is_lost_nor_doubled_over_faults(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2", reverb_app_ping_interval=3600) as server:
        line = Balancer(server.port)
        await line.start()
        stage = Stage(line, [server], payload=lambda number: json.dumps({"eventId": number}))
        async with a_client(line.port) as client:
            channels = [client.channel(f"private-c{number}") for number in range(CHANNELS)]
            streams = {channel.name: channel.events(buffer=100_000) for channel in channels}
            await asyncio.gather(*map(_ready, channels))
            await stage.publish_for(0.3)
            for fault in (cut, dead_line, killed_worker, restart) * ROUNDS:
                publishing = asyncio.create_task(stage.publish_for(1))
                await asyncio.sleep(0.2)
                await fault(line, server)
                await publishing
            for name, stream in streams.items():
                expected = stage.accepted[name]
                found = await _numbers(stream, expected[-1])
                assert list(dict.fromkeys(found)) == expected
                twice = {str(number) for number in found if found.count(number) > 1}
                assert twice <= stage.repeated
        await line.stop()
    sys.stdout.write(f"{stage.count} events, {4 * ROUNDS} faults, lost 0, twice only what was posted twice\n")


async def _ready(channel: Channel) -> None:
    async with asyncio.timeout(LIMIT_S):
        await channel.ready()


async def _numbers(stream: Stream[Event | Gap], last: int) -> list[int]:
    found: list[int] = []
    while not found or found[-1] != last:
        item = await stream.get(LIMIT_S)
        assert isinstance(item, Event), item
        found.append(item.data["eventId"])
    return found
