"""Publishing: from a frame to the broker, with how long it is kept by the policy of its channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache

from smartlink.protocol.names import is_cache
from smartlink.server.apps.base import App
from smartlink.server.apps.policies import ChannelPolicy, PolicyTable
from smartlink.server.cluster.brokers.base import (
    Broker,
    Publication,
    Retention,
)
from smartlink.server.cluster.history.base import History
from smartlink.server.core.fanout import MAX_PENDING_BYTES
from smartlink.server.core.hub import Hub
from smartlink.server.core.noting import note_publication
from smartlink.server.runtime.eager import in_one_turn
from smartlink.server.runtime.feed import Feed
from smartlink.server.runtime.metrics import Metrics

__all__ = ["Publishing"]


class Publishing:
    """Sends events to the subscribers on all nodes, and reads those that are kept."""

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        history: History,
        policies: PolicyTable,
        retention: Retention,
        metrics: Metrics,
        feed: Feed,
    ) -> None:
        """`retention`: of channels without a policy of their own."""
        self._hub = hub
        self._broker = broker
        self._history = history
        self._policies = policies
        self._retention = retention
        self._metrics = metrics
        self._feed = feed

    async def publish(
        self,
        app: App,
        channel: str,
        frame: bytes,
        except_socket: str | None = None,
        *,
        is_live: bool = False,
        report_id: str | None = None,
        trace: str | None = None,
    ) -> None:
        """Send a frame's payload to every subscriber on every node; on a cache channel, keep it unless it is live.

        With a `report_id`, the event's, users whose clients have a session and handled it are reported by webhook.

        `trace` is the `traceparent` of the span that publishes.

        Waits while too many bytes are on their way to the channel on this node. Raises BrokerUnavailable, except for
        live frames.
        """
        app_id = app.id
        subscribers = self._hub.channel(app_id, channel)
        while subscribers is not None and subscribers.pending_bytes > MAX_PENDING_BYTES:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            subscribers.waiters.append(waiter)
            await waiter
            subscribers = self._hub.channel(app_id, channel)
        metrics = self._metrics
        metrics.publications += 1
        metrics.app(app_id).publications += 1
        if self._feed.watches:
            note_publication(self._feed, self._hub, app.id, channel, frame, except_socket)
        began_at = time.perf_counter()
        retention = None if is_live else self._retention_of(app, channel)
        sending = self._broker.publish(
            Publication(app_id, channel, frame, except_socket, is_live, 0, 0, retention, report_id, trace, time.time())
        )
        if not is_live and is_cache(channel):
            # Both in one turn, so that no other event comes between: the cached event is the last one sent to all.
            await in_one_turn(self._history.append(app.id, channel, frame, app.cache_ttl_s), sending)
        else:
            await sending
        metrics.publish.observe(time.perf_counter() - began_at)

    def _retention_of(self, app: App, channel: str) -> Retention:
        policy = self._policies.of(app.id, channel)
        return self._retention if policy.history is None else _retention(policy)

    async def history_of(self, app: App, channel: str, after: int | None) -> tuple[Sequence[Publication], bool]:
        """Return the events kept after a position, all without one, and whether none is missing between.

        Raises BrokerUnavailable.
        """
        found = await self._broker.replay(app.id, channel, after)
        if found is not None:
            return found, after is not None
        kept = await self._broker.replay(app.id, channel, None) or ()
        return [each for each in kept if after is None or each.position > after], False


@lru_cache(maxsize=1_024)
def _retention(policy: ChannelPolicy) -> Retention:
    return Retention(policy.history or 0, policy.history_ttl_s, policy.history_bytes, is_always=True)
