"""The live console: events, joins and leaves, and errors, sent to admins who have the page open."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Sequence
from typing import Any

from smartlink.background import ended
from smartlink.broadcasting import Envelope
from smartlink.broadcasting.webhooks import (
    ChannelOccupied,
    ChannelVacated,
    ClientEvent,
    MemberAdded,
    MemberRemoved,
    UnknownEvent,
    UserEvent,
    WebhookEvent,
)
from smartlink.portal.admin.events import AdminEvent, admin_channel
from smartlink.portal.admin.figures import FigureBoard
from smartlink.portal.admin.schemas import ConsoleEntry
from smartlink.portal.shared.unit_of_work import Announcer

__all__ = ["Console"]

MAX_WAITING = 200
"""How many entries may wait; beyond that the oldest are dropped. The console is not a record."""

KEPT = dt.timedelta(seconds=10)
"""How long an entry waits for a viewer: an admin who opens the page and acts at once is not subscribed yet."""

LOOKS_EVERY_S = 1.0

_KINDS: dict[type[WebhookEvent], Any] = {
    ChannelOccupied: "occupied",
    ChannelVacated: "vacated",
    MemberAdded: "join",
    MemberRemoved: "leave",
    ClientEvent: "client_event",
}


class Console:
    """Collects entries and sends them on `private-admin` while an admin is subscribed."""

    def __init__(self, announcer: Announcer, board: FigureBoard) -> None:
        self._announcer = announcer
        self._board = board
        self._waiting: deque[ConsoleEntry] = deque(maxlen=MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def envelopes(self, sent: Sequence[Envelope]) -> None:
        """Note events that were committed or sent live. Skips the admins' own, which would report themselves."""
        for envelope in sent:
            if envelope.channel != str(admin_channel()):
                self.note("event", envelope.channel, envelope.name, {"delivery": str(envelope.delivery.value)})

    def webhooks(self, events: Sequence[WebhookEvent | UserEvent | UnknownEvent]) -> None:
        """Note what the realtime server's webhooks report."""
        for event in events:
            if not isinstance(event, WebhookEvent):
                continue
            kind = _KINDS.get(type(event))
            if kind is None or event.channel == str(admin_channel()):
                continue
            detail = {}
            if isinstance(event, MemberAdded | MemberRemoved | ClientEvent) and event.user_id is not None:
                detail["user_id"] = event.user_id
            self.note(kind, event.channel, event.event if isinstance(event, ClientEvent) else None, detail)

    def error(self, what: str, where: str) -> None:
        """Note an unexpected error: its type and the endpoint, never its text."""
        self.note("error", None, what, {"where": where})

    def note(self, kind: Any, channel: str | None, name: str | None, detail: dict[str, Any]) -> None:
        """Add an entry."""
        entry = ConsoleEntry(kind=kind, at=dt.datetime.now(dt.UTC), channel=channel, name=name, detail=detail)
        self._waiting.append(entry)
        if self._task is None or self._task.done():
            self._task = self._announcer.background.start("console", self._say_all())

    async def aclose(self) -> None:
        """Drop the entries and stop."""
        self._waiting.clear()
        await ended(self._task)

    async def _say_all(self) -> None:
        while self._waiting:
            if await self._board.has_viewer():
                if self._waiting:  # empty after aclose
                    self._announcer.say(AdminEvent(self._waiting.popleft()))
                continue
            await asyncio.sleep(LOOKS_EVERY_S)
            oldest = dt.datetime.now(dt.UTC) - KEPT
            while self._waiting and self._waiting[0].at < oldest:
                self._waiting.popleft()
