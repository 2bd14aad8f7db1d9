"""Reports by webhook which users have received an event."""

from __future__ import annotations

from collections.abc import Callable

from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import (
    BrokerUnavailable,
)
from smartlink.server.cluster.idempotency.base import CallUnderWay, IdempotencyStore
from smartlink.server.core.grants import user_of
from smartlink.server.core.hub import Connection
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.webhooks.base import OutgoingEvent

__all__ = ["Receipts"]


class Receipts:
    """Reports each event once per user."""

    def __init__(
        self, idempotency: IdempotencyStore, emit: Callable[[App, OutgoingEvent], None], tasks: EagerTasks
    ) -> None:
        self._idempotency = idempotency
        self._emit = emit
        self._tasks = tasks

    def report(self, connection: Connection, channel: str, event_id: str) -> None:
        """Report that a client has handled an event: the user's first client only."""
        user_id = user_of(connection, channel, connection.session.channels.get(channel))
        if user_id is not None and connection.app.webhooks:
            self._tasks.run(self._report_once(connection.app, channel, event_id, user_id))

    async def _report_once(self, app: App, channel: str, event_id: str, user_id: str) -> None:
        key = f"delivered\n{channel}\n{event_id}\n{user_id}"
        try:
            if await self._idempotency.claim(app.id, key) is not None:
                return
            await self._idempotency.complete(app.id, key, b"reported")
        except CallUnderWay:
            return
        except BrokerUnavailable:
            pass  # Better twice than not at all.
        self._emit(app, OutgoingEvent("event_delivered", channel, user_id, id=event_id))
