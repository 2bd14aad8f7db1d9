"""The system's figures, from the realtime server, the outbox and the database, sampled over an hour."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, func, select

from smartlink.broadcasting.outbox import read_status
from smartlink.broadcasting.outbox.tables import in_utc
from smartlink.portal.admin.events import AdminFigures, admin_channel
from smartlink.portal.admin.model import FigureSample
from smartlink.portal.admin.schemas import Figures
from smartlink.portal.presence.model import UserPresence
from smartlink.portal.shared.db import outbox_tables
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway
from smartlink.portal.shared.unit_of_work import Announcer

__all__ = ["FigureBoard"]

log = logging.getLogger(__name__)

LIVE_EVERY_S = 1.0
LOOKS_EVERY_S = 10.0
"""How often to look whether an admin is there; a page shows the figures that it fetched until then."""
EXPECTED_S = 10.0
"""How long after a page has fetched the figures to look every second whether it is subscribed too."""
KEPT = dt.timedelta(hours=1)
LATENCY_OF = 200
LATENCY_WITHIN = dt.timedelta(minutes=1)
_OF_REALTIME = (
    "connections", "channels", "nodes", "workers", "redis", "received_per_s", "published_per_s", "delivered_per_s",
)  # fmt: skip


class FigureBoard:
    """Collects figures, stores samples, and sends figures every second while an admin has the page open."""

    def __init__(self, announcer: Announcer, realtime: RealtimeApi, errors: Callable[[], int]) -> None:
        self._announcer = announcer
        self._database = announcer.database
        self._realtime = realtime
        self._errors = errors
        self._looked_at: tuple[float, bool] = (-1e9, False)
        self._expected_until = -1e9
        self._expects_viewer = asyncio.Event()

    async def collect(self) -> Figures:
        """Return the current figures. Raises DatabaseAway."""
        realtime, (latency_ms, online), queue = await asyncio.gather(
            self._ask_realtime(), self._ask_database(), read_status(self._database.engine, outbox_tables)
        )
        return Figures(
            at=dt.datetime.now(dt.UTC),
            realtime="down" if realtime is None else "up",
            publish_latency_ms=latency_ms,
            queue_waiting=queue.waiting,
            queue_lag_s=queue.lag_s,
            queue_workers=sum(worker.is_alive for worker in queue.workers),
            failed_jobs=queue.failed,
            users_online=online,
            errors=self._errors(),
            **{name: (realtime or {}).get(name) for name in _OF_REALTIME},
        )

    async def history(self) -> list[FigureSample]:
        """Return the samples of the last hour, oldest first."""
        since = dt.datetime.now(dt.UTC) - KEPT
        async with self._database.reading() as session:
            found = select(FigureSample).where(FigureSample.at >= since).order_by(FigureSample.at)
            return list((await session.scalars(found)).all())

    async def sample(self) -> None:
        """Store a sample of the current figures, and delete samples older than an hour."""
        figures = await self.collect()
        async with self._database.writing() as session:
            session.add(FigureSample(at=figures.at, figures=figures.model_dump(mode="json", exclude={"at"})))
            await session.execute(delete(FigureSample).where(FigureSample.at < figures.at - KEPT))

    async def has_viewer(self, max_age_s: float = 2.0) -> bool:
        """Return whether an admin is subscribed; the answer may be up to `max_age_s` old."""
        asked, answer = self._looked_at
        if time.monotonic() - asked > max_age_s:
            try:
                channel = await self._realtime.get(f"/channels/{admin_channel()}")
                answer = isinstance(channel, dict) and channel.get("occupied") is True
            except RealtimeAway:
                answer = False
            self._looked_at = (time.monotonic(), answer)
        return answer

    def expect_viewer(self) -> None:
        """Look every second for a while: an admin's page has fetched the figures and is about to subscribe."""
        self._expected_until = time.monotonic() + EXPECTED_S
        self._expects_viewer.set()

    async def show(self, stop: asyncio.Event) -> None:
        """Send the figures every second while an admin is subscribed, until `stop` is set.

        They begin about a second after the admin came; at most ten if another process answers the page's requests.
        """
        while not stop.is_set():
            self._expects_viewer.clear()
            pause_s = await self._show_once()
            waits = {asyncio.create_task(event.wait()) for event in (stop, self._expects_viewer)}
            try:
                await asyncio.wait(waits, timeout=pause_s, return_when=FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _show_once(self) -> float:
        """Send the figures if an admin is subscribed. Returns for how many seconds to pause."""
        pause_s = LIVE_EVERY_S if time.monotonic() < self._expected_until else LOOKS_EVERY_S
        try:
            if await self.has_viewer(LIVE_EVERY_S / 2):
                pause_s = LIVE_EVERY_S
                self._announcer.say(AdminFigures(await self.collect()))
        except DatabaseAway as error:
            log.warning("figures not sent: %s", error)
        return pause_s

    async def _ask_realtime(self) -> dict[str, Any] | None:
        try:
            answer = await self._realtime.get("/status")
        except RealtimeAway:
            return None
        return answer if isinstance(answer, dict) else None

    async def _ask_database(self) -> tuple[float | None, int]:
        events = outbox_tables.recorded_events.c
        created_at, sent_at = in_utc(events.created_at), in_utc(events.sent_at)
        async with self._database.reading() as session:
            last = await session.scalar(select(func.max(events.id))) or 0
            sent = await session.execute(
                select(created_at, sent_at).where(
                    events.id > last - LATENCY_OF,
                    events.sent_at.is_not(None),
                    created_at >= dt.datetime.now(dt.UTC) - LATENCY_WITHIN,
                )
            )
            took_ms = [(row.sent_at - row.created_at).total_seconds() * 1000 for row in sent]
            online = await session.scalar(select(func.count()).where(UserPresence.is_online)) or 0
        return (round(sum(took_ms) / len(took_ms), 1) if took_ms else None), online
