"""Webhooks: what happens on channels, posted to the application. Batched, signed, retried.

A leave waits `grace_s` and falls away, together with the arrival that would follow it, if the user or the channel is
back by then: a reload of a page is not news. Events of one app leave in order, at most `BATCH_S` after they happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass

import httpx2
import msgspec
import structlog

from smartlink.protocol.signing import sign_webhook
from smartlink.server.apps.base import App
from smartlink.server.metrics import Metrics

__all__ = ["Webhooks"]

BATCH_S = 0.1
MAX_BATCH = 100
MAX_WAITING = 10_000
RETRY_FOR_S = 300.0
MAX_BACKOFF_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Event:
    app: App
    fields: dict[str, str]
    key: tuple[str, str, str]


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

    def channel_occupied(self, app: App, channel: str) -> None:
        self._arrive(app, channel, "", {"name": "channel_occupied", "channel": channel})

    def channel_vacated(self, app: App, channel: str) -> None:
        self._leave(app, channel, "", {"name": "channel_vacated", "channel": channel})

    def member_added(self, app: App, channel: str, user_id: str) -> None:
        self._arrive(app, channel, user_id, {"name": "member_added", "channel": channel, "user_id": user_id})

    def member_removed(self, app: App, channel: str, user_id: str) -> None:
        self._leave(app, channel, user_id, {"name": "member_removed", "channel": channel, "user_id": user_id})

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

    def _arrive(self, app: App, channel: str, user_id: str, fields: dict[str, str]) -> None:
        if app.webhook_url is None:
            return
        key = (app.id, channel, user_id)
        leave = self._pending_leaves.pop(key, None)
        if leave is not None:
            leave.cancel()
            return
        self._append(_Event(app, fields, key))

    def _leave(self, app: App, channel: str, user_id: str, fields: dict[str, str]) -> None:
        if app.webhook_url is None:
            return
        if self._is_stopping.is_set():
            return  # A restart is not news: clients are back within seconds, and the portal sweeps.
        event = _Event(app, fields, (app.id, channel, user_id))
        loop = asyncio.get_running_loop()
        self._pending_leaves[event.key] = loop.call_later(self._grace_s, self._leave_for_good, event)

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
                answer = await self._client.post(app.webhook_url or "", content=body, headers=headers)
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
