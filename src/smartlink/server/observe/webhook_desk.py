"""Failed webhooks for operators: list, replay, delete. Runs in the process that delivers webhooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from smartlink.server.observe.records import FailedWebhook, Kind, Question
from smartlink.server.webhooks.delivery import Webhooks
from smartlink.server.webhooks.queue import FailedBatch, QueueUnavailable, WebhookQueue

__all__ = ["Refused", "WebhookDesk", "shown_address"]

MAX_LISTED = 200
MAX_EVENTS = 20


class Refused(Exception):
    """What operators asked for is not done. `status` is the HTTP status; the message says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def shown_address(url: str) -> str:
    """A webhook address without user, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


class WebhookDesk:
    """Answers questions about failed webhooks; an empty `app_id` means all applications."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self.answers: dict[Kind, Callable[[Question], Any]] = {
            "webhooks_failed": self._failed,
            "webhooks_retry": self._retry,
            "webhooks_forget": self._forget,
        }

    async def _failed(self, question: Question) -> list[FailedWebhook]:
        return [_shown(batch) for batch in (await self._of(question))[:MAX_LISTED]]

    async def _retry(self, question: Question) -> int:
        return await self._each(question, lambda queue, batch_id: queue.retry(batch_id))

    async def _forget(self, question: Question) -> int:
        return await self._each(question, lambda queue, batch_id: queue.forget(batch_id))

    async def _of(self, question: Question) -> list[FailedBatch]:
        try:
            batches = await self._webhooks.queue.failed()
        except QueueUnavailable as error:
            if not self._webhooks.is_open:
                return []
            raise Refused(503, f"The webhook queue is unavailable: {error}") from None
        return [batch for batch in batches if question.app_id in ("", batch.address.app_id)]

    async def _each(self, question: Question, act: Callable[[WebhookQueue, int], Any]) -> int:
        """Act on the batch that the question names, or on all of its app. Returns how many."""
        wanted = [batch.id for batch in await self._of(question) if question.batch_id in (None, batch.id)]
        if not wanted and question.batch_id is not None:
            raise Refused(404, f"There is no failed batch {question.batch_id}")
        try:
            return sum([await act(self._webhooks.queue, batch_id) for batch_id in wanted])
        except QueueUnavailable as error:
            raise Refused(503, f"The webhook queue is unavailable: {error}") from None


def _shown(batch: FailedBatch) -> FailedWebhook:
    return FailedWebhook(
        id=batch.id,
        app_id=batch.address.app_id,
        address=shown_address(batch.address.url),
        failed_at=batch.failed_at,
        reason=batch.reason,
        events=[msgspec.json.decode(entry.event) for entry in batch.entries[:MAX_EVENTS]],
        count=len(batch.entries),
    )
