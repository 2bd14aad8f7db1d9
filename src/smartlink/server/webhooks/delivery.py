"""Webhooks: what happens on channels, posted to the application. Batched, signed, retried.

A leave waits `grace_s` and falls away, together with the arrival that would follow it, if the user or the channel is
back by then: a reload of a page is not news. Events of one app leave in order, at most `BATCH_S` after they happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import asdict, dataclass

import httpx2
import msgspec
import structlog

from smartlink.protocol.signing import sign_webhook
from smartlink.server.apps.base import App
from smartlink.server.metrics import Metrics
from smartlink.server.webhooks.base import WebhookEvent

__all__ = ["Webhooks"]

BATCH_S = 0.1
MAX_BATCH = 100
MAX_WAITING = 10_000
RETRY_FOR_S = 300.0
MAX_BACKOFF_S = 10.0

log = structlog.get_logger(__name__)


_ARRIVALS = frozenset({"channel_occupied", "member_added"})
_LEAVES = frozenset({"channel_vacated", "member_removed"})


@dataclass(frozen=True, slots=True)
class _Event:
    app: App
    event: WebhookEvent

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.app.id, self.event.channel, self.event.user_id or "")

    @property
    def fields(self) -> dict[str, str | int]:
        return {name: value for name, value in asdict(self.event).items() if value is not None}


class Webhooks:
    """Collects events and posts them. Does nothing for apps without a webhook address."""

    def __init__(self, metrics: Metrics, grace_s: float = 3.0) -> None:
        self._metrics = metrics
        self._grace_s = grace_s
        self._waiting: dict[str, deque[_Event]] = {}
        self._pending_leaves: dict[tuple[str, str, str], asyncio.TimerHandle] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._client: httpx2.AsyncClient | None = None
        self._is_stopping = asyncio.Event()

    def tell(self, app: App, event: WebhookEvent) -> None:
        """Take one event. A leave waits for its grace, and falls away with the arrival that undoes it."""
        if not app.webhooks:
            return
        item = _Event(app, event)
        if event.name in _LEAVES:
            self._leave(item)
        elif event.name in _ARRIVALS:
            self._arrive(item)
        else:
            self._append(item)

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Send what waits for at most `timeout_s`. Leaves still in their grace fall away."""
        self._is_stopping.set()
        for handle in self._pending_leaves.values():
            handle.cancel()
        self._pending_leaves.clear()
        if self._senders:
            _, pending = await asyncio.wait(tuple(self._senders.values()), timeout=timeout_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        if self._client is not None:
            await self._client.aclose()

    def _arrive(self, item: _Event) -> None:
        leave = self._pending_leaves.pop(item.key, None)
        if leave is not None:
            leave.cancel()
            return
        self._append(item)

    def _leave(self, item: _Event) -> None:
        if self._is_stopping.is_set():
            return  # A restart is not news: clients are back within seconds, and the portal sweeps.
        loop = asyncio.get_running_loop()
        self._pending_leaves[item.key] = loop.call_later(self._grace_s, self._leave_for_good, item)

    def _leave_for_good(self, event: _Event) -> None:
        self._pending_leaves.pop(event.key, None)
        self._append(event)

    def _append(self, event: _Event) -> None:
        waiting = self._waiting.setdefault(event.app.id, deque())
        if len(waiting) >= MAX_WAITING:
            self._metrics.webhooks_failed += 1
            return
        waiting.append(event)
        if event.app.id not in self._senders:
            task = asyncio.get_running_loop().create_task(self._send_all(event.app))
            self._senders[event.app.id] = task

    async def _send_all(self, app: App) -> None:
        waiting = self._waiting[app.id]
        try:
            while waiting:
                if not self._is_stopping.is_set():
                    await asyncio.sleep(BATCH_S)
                batch = [waiting.popleft() for _ in range(min(MAX_BATCH, len(waiting)))]
                if await self._post(app, batch):
                    self._metrics.webhooks_sent += len(batch)
                else:
                    self._metrics.webhooks_failed += len(batch)
                    log.error("webhooks given up", app=app.id, events=len(batch))
        finally:
            self._senders.pop(app.id, None)

    async def _post(self, app: App, batch: list[_Event]) -> bool:
        """Post one batch until it is taken; False when the target did not take it for five minutes."""
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=5.0, follow_redirects=False, trust_env=False)
        body = msgspec.json.encode({"time_ms": int(time.time() * 1000), "events": [event.fields for event in batch]})
        headers = {
            "Content-Type": "application/json",
            "X-Pusher-Key": app.key,
            "X-Pusher-Signature": sign_webhook(app.secret, body),
        }
        give_up = time.monotonic() + RETRY_FOR_S
        backoff_s = 0.25
        while True:
            try:
                answer = await self._client.post(app.webhooks[0].url, content=body, headers=headers)
                if answer.is_success:
                    return True
                reason = f"answered {answer.status_code}"
            except httpx2.HTTPError as error:
                reason = type(error).__name__
            log.warning("webhook not taken", app=app.id, reason=reason, again_in_s=backoff_s)
            if time.monotonic() + backoff_s > give_up or self._is_stopping.is_set():
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
