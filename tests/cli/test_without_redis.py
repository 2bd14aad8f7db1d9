"""Commands for a server whose Redis is unavailable: messages and exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from cli.test_serving import command
from kit.client import connected
from kit.realtime import APP_ID, KEY, SECRET, realtime_server
from kit.redis import redis_server
from kit.serve import Smartlink
from kit.waiting import eventually


async def test_status_names_redis_and_a_failed_event_is_not_reported_as_sent(tmp_path: Path) -> None:
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        async with realtime_server(**settings) as server, connected(server.port) as ana:
            await ana.subscribe("chat")
            environment = Smartlink(tmp_path).environment | {
                "BROADCAST_DRIVER": "reverb",
                "REVERB_APP_ID": APP_ID,
                "REVERB_APP_KEY": KEY,
                "REVERB_APP_SECRET": SECRET,
                "REVERB_HOST": "127.0.0.1",
                "REVERB_PORT": str(server.port),
                "REVERB_SCHEME": "http",
            }
            redis.kill()
            await eventually(lambda: not server.node.is_connected)

            told, sent = await asyncio.gather(
                asyncio.to_thread(command, tmp_path, "reverb", "status", "--json", environment=environment),
                asyncio.to_thread(command, tmp_path, "event", "trigger", "chat", "hello", environment=environment),
            )

            report = json.loads(told.stdout)
            assert (told.returncode, report["state"], report["redis"]) == (1, "degraded", "down")
            assert report["problems"][0].startswith("Other nodes are unreachable: Redis is unreachable (")
            assert sent.returncode == 1
            assert "Not sent" in sent.stderr
            assert "Redis" in sent.stderr  # unreachable, or lost with this very call
            assert await ana.is_quiet()
