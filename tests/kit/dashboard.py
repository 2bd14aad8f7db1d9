"""A realtime server with something going on, and its dashboard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kit.client import Client, connected
from kit.operating import OperatorClient, operated
from kit.realtime import SECRET, call, realtime_server
from kit.receiver import Receiver, receiver
from kit.waiting import eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.run.lifecycle import RealtimeServer

__all__ = ["HOSTILE", "Dashboard", "dashboard"]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>"
"""What strangers may call themselves."""


@dataclass
class Dashboard:
    """The server, its dashboard's address, and who is connected."""

    server: RealtimeServer
    api: OperatorClient
    clients: list[Client]
    target: Receiver
    """Where webhooks go; it accepts none until told to."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}/"

    async def publish(self, channel: str, name: str, data: str) -> None:
        body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
        answer = await call(self.server.port, "POST", "/apps/1001/events", body)
        assert answer.status_code == 200


@asynccontextmanager
async def dashboard(token: str | None = None) -> AsyncIterator[Dashboard]:
    """Three clients on some channels, a cached event, a refusal, and a failed webhook."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(receiver(then=500))
        server = await stack.enter_async_context(
            realtime_server(
                reverb_app_ping_interval=3_600,  # they do not answer
                reverb_webhook_url=target.url, reverb_webhook_retry_seconds=1, reverb_webhook_allow_http=True,
                reverb_webhook_events=("channel_occupied",), reverb_webhook_channel_prefixes=("presence-",),
            )
        )  # fmt: skip
        api = await stack.enter_async_context(operated(server, token=token))
        query = "protocol=7&client=js&version=8.4.0"
        clients = [await stack.enter_async_context(connected(server.port, query=query)) for _ in range(3)]
        await clients[0].subscribe("private-orders.7")
        await clients[0].subscribe("cache-prices")
        await clients[0].expect("pusher:cache_miss")
        for number, client in enumerate(clients, 1):
            await client.subscribe("presence-support", {"user_id": str(number), "user_info": {"name": HOSTILE}})
        shown = Dashboard(server, api, clients, target)
        await shown.publish("cache-prices", "PriceChanged", '{"eur":7}')
        forged = sign_channel("app-key", f"not {SECRET}", clients[1].socket_id, "private-orders.7")
        clients[1].send("pusher:subscribe", {"channel": "private-orders.7", "auth": forged})
        clients[1].send("pusher:subscribe", {"channel": HOSTILE})
        await eventually(lambda: server.metrics.webhooks_failed)
        yield shown
