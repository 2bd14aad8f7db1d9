"""Webhooks of several nodes with the queue in Redis."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from kit.client import connected
from kit.ports import free_port
from kit.realtime import realtime_server
from kit.receiver import Receiver, receiver
from kit.redis import RedisServer, fresh_prefix, redis_server
from kit.reverb import reverb
from kit.waiting import eventually, eventually_told
from smartlink.server.settings.config import ServerSettings, UnsafeSettings

ANA, BEN = {"user_id": "1"}, {"user_id": "2"}
GRACE_S = 0.5


def settings(redis_url: str, target: Receiver, prefix: str) -> dict[str, Any]:
    return {
        "reverb_scaling_enabled": True,
        "reverb_scaling_channel": prefix,
        "redis_url": redis_url,
        "reverb_webhook_url": target.url,
        "reverb_webhook_allowed_hosts": f"127.0.0.1:{target.port}",
        "reverb_webhook_grace": GRACE_S,
    }


def told(target: Receiver, name: str, user_id: str | None = None) -> int:
    return sum(event["name"] == name and event.get("user_id") == user_id for event in target.events)


async def test_two_servers_post_each_event_once_also_for_a_killed_one(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with receiver() as target:
        prefix = fresh_prefix()
        shared = settings(shared_redis.url, target, prefix)

        async def is_queue_empty() -> bool:
            async with Redis.from_url(shared_redis.url) as redis:
                return not await redis.keys(f"*{prefix}*wait:*")

        with (
            reverb(folders[0], "--workers", "1", **shared) as one,
            reverb(folders[1], "--workers", "1", **shared) as two,
        ):
            async with connected(one.port) as ana, connected(two.port) as tab, connected(two.port) as ben:
                for client, user_id in ((ana, "1"), (tab, "1"), (ben, "2")):
                    await client.sign_in(user_id)
                await ana.subscribe("presence-a", ANA)
                await tab.subscribe("presence-a", ANA)
                await ben.subscribe("presence-a", BEN)
                await eventually(lambda: told(target, "member_added", "2") == 1)
                await eventually(lambda: told(target, "user_online", "2") == 1)
                ana.send("client-hi", {}, channel="presence-a")
                await eventually(lambda: "client_event" in target.names)
                # What a killed node has posted without having noted it is posted again.
                await eventually_told(is_queue_empty)
                os.kill(two.process.pid, signal.SIGKILL)
                await eventually(lambda: told(target, "member_removed", "2"))
                await eventually(lambda: told(target, "user_offline", "2"))
                assert told(target, "member_removed", "1") == told(target, "user_offline", "1") == 0
            await eventually(lambda: told(target, "channel_vacated"))
            await eventually(lambda: told(target, "user_offline", "1"))

    assert sorted(target.names) == sorted(
        ["channel_occupied", *["member_added"] * 2, "client_event", *["member_removed"] * 2, "channel_vacated"]
        + ["user_online", "user_offline"] * 2
    )


@pytest.mark.usefixtures("impatient")
async def test_events_during_an_outage_are_posted_afterwards() -> None:
    port = free_port()
    async with receiver() as target:
        shared = settings(f"redis://127.0.0.1:{port}/0", target, fresh_prefix())
        async with realtime_server(**shared) as server, connected(server.port) as ana:
            await ana.subscribe("presence-a", ANA)
            with redis_server(port=port):
                await eventually(lambda: sorted(target.names) == ["channel_occupied", "member_added"])


@pytest.mark.parametrize("queue", ["memory", "sqlite:///webhooks.db"])
def test_a_local_queue_is_refused_with_several_machines(queue: str) -> None:
    asked = ServerSettings(_env_file=None, reverb_scaling_enabled=True, reverb_webhook_queue=queue)

    with pytest.raises(UnsafeSettings, match=r"REVERB_WEBHOOK_QUEUE=(memory|sqlite) is local to one machine"):
        asked.check_start()
    assert ServerSettings(_env_file=None, reverb_scaling_enabled=True).webhook_queue == "redis"
