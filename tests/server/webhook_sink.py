"""Webhooks of one node without its sockets, and what tests of webhooks share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.realtime import SECRET
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.static import StaticApps
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.webhooks.delivery import Webhooks, WebhookTimes
from smartlink.server.webhooks.guard import Guard
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.post import Poster
from smartlink.server.webhooks.queue import WebhookQueue

__all__ = ["ANA", "BEN", "CHANNEL_EVENTS", "MEMBER_EVENTS", "World", "app_with", "client_event", "sink"]

CHANNEL_EVENTS, MEMBER_EVENTS = ["channel_occupied", "channel_vacated"], ["member_added", "member_removed"]
ANA, BEN = {"user_id": "1", "user_info": {"name": "Ana"}}, {"user_id": "2"}


class World:
    """Who is where, as the presence store knows it."""

    def __init__(self) -> None:
        self.users: dict[tuple[str, str], set[str]] = {}

    async def occupants(self, app_id: str, channel: str) -> set[str] | None:
        await asyncio.sleep(0)
        return set(self.users.get((app_id, channel), ())) or None


def app_with(*hooks: WebhookTarget, number: str = "1001") -> App:
    return App(number, "app-key" if number == "1001" else f"key-{number}", SECRET, webhooks=hooks)


@asynccontextmanager
async def sink(
    *apps: App,
    world: World | None = None,
    queue: WebhookQueue | None = None,
    timeout_s: float = 5.0,
    restart_grace_s: float = 0.0,
    **times: float,
) -> AsyncIterator[tuple[Webhooks, Metrics]]:
    metrics = Metrics()
    webhooks = Webhooks(
        apps=StaticApps(apps),
        queue=queue or MemoryQueue(),
        poster=Poster(Guard(allow_private=True), timeout_s),
        occupants=(world or World()).occupants,
        metrics=metrics,
        times=WebhookTimes(restart_grace_s=restart_grace_s, first_pause_s=0.05, **times),
    )
    await webhooks.start()
    try:
        yield webhooks, metrics
    finally:
        await webhooks.stop()
        assert metrics.internal_errors == 0


def client_event(number: int) -> OutgoingEvent:
    return OutgoingEvent("client_event", "private-a", event="client-x", data=str(number))
