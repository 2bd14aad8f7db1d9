"""An in-memory webhook queue for one process; its content is lost when the process ends."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from smartlink.server.webhooks.queue import (
    MAX_FAILED,
    MAX_WAITING,
    Address,
    Batch,
    Check,
    FailedBatch,
    QueuedEvent,
    Subject,
    WebhookReport,
)

__all__ = ["MemoryQueue"]


@dataclass(slots=True)
class _Subject:
    is_announced: bool = False
    version: int = 0
    due: float | None = None


@dataclass(slots=True)
class _Address:
    waiting: deque[QueuedEvent] = field(default_factory=deque)
    free_at: float = 0.0
    """When it may be taken next: the end of a lease, or of a pause after a failure."""
    lease: str = ""
    attempts: int = 0
    failing_since: float = 0.0


class MemoryQueue:
    """A `WebhookQueue` within one process."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._subjects: dict[Subject, _Subject] = {}
        self._due: dict[bool, list[tuple[float, int, Subject]]] = {True: [], False: []}
        """A heap of users and one of channels; entries that no longer match their subject are skipped."""
        self._seen: dict[Subject, float] = {}
        self._addresses: dict[Address, _Address] = {}
        self._failed: dict[int, FailedBatch] = {}
        self._count = itertools.count(1)

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def record(self, reports: Sequence[WebhookReport]) -> int:
        dropped = 0
        now = self._now()
        for report in reports:
            if report.kind == "event":
                if report.once_for_s and self._was_seen(report, now):
                    continue
                dropped += self._append(report, now)
                continue
            subject = self._subjects.setdefault(report.subject, _Subject())
            subject.version = next(self._count)
            if report.kind == "leave":
                self._set_due(report.subject, subject, now + (report.check_in_s or 0.0))
                continue
            if not subject.is_announced:
                subject.is_announced = True
                dropped += self._append(report, now)
            if report.check_in_s is not None and subject.due is None:
                self._set_due(report.subject, subject, now + report.check_in_s)
        return dropped

    async def recheck(self, in_s: float) -> None:
        due = self._now() + in_s
        for key, subject in sorted(self._subjects.items(), key=lambda item: not item[0].user_id):
            self._set_due(key, subject, due)

    async def claim(self, limit: int, lease_s: float, *, of_users: bool) -> Sequence[Check]:
        now, heap = self._now(), self._due[of_users]
        checks: list[Check] = []
        while heap and heap[0][0] <= now and len(checks) < limit:
            due, _, key = heapq.heappop(heap)
            subject = self._subjects.get(key)
            if subject is None or subject.due != due:
                continue
            self._set_due(key, subject, now + lease_s)
            checks.append(Check(key, str(subject.version), subject.is_announced))
        return checks

    async def settle(self, check: Check, *, is_announced: bool, report: WebhookReport | None) -> bool:
        subject = self._subjects.get(check.subject)
        if subject is None or str(subject.version) != check.version:
            if subject is not None:
                self._set_due(check.subject, subject, self._now())
            return False
        subject.version = next(self._count)
        subject.is_announced = is_announced
        subject.due = None
        if not is_announced:
            del self._subjects[check.subject]
        if report is not None:
            self._append(report, self._now())
        return True

    async def ready(self, limit: int) -> Sequence[Address]:
        now = self._now()
        ready = (key for key, address in self._addresses.items() if address.waiting and address.free_at <= now)
        return list(itertools.islice(ready, limit))

    async def take(self, address: Address, limit: int, lease_s: float) -> Batch | None:
        queue = self._addresses.get(address)
        now = self._now()
        if queue is None or not queue.waiting or queue.free_at > now:
            return None
        queue.free_at = now + lease_s
        queue.lease = str(next(self._count))
        return Batch(address, queue.lease, tuple(itertools.islice(queue.waiting, limit)), queue.attempts)

    async def done(self, batch: Batch) -> None:
        queue = self._leased(batch)
        if queue is None:
            return
        for _ in batch.entries:
            queue.waiting.popleft()
        self._free(batch.address, queue, 0.0)

    async def defer(self, batch: Batch, again_in_s: float, give_up_after_s: float, reason: str) -> int:
        queue = self._leased(batch)
        if queue is None:
            return 0
        now = self._now()
        queue.lease = ""
        queue.attempts += 1
        queue.failing_since = queue.failing_since or now
        queue.free_at = now + again_in_s
        if now - queue.failing_since < give_up_after_s:
            return 0
        expired: list[QueuedEvent] = []
        while queue.waiting and queue.waiting[0].since <= now - give_up_after_s:
            expired.append(queue.waiting.popleft())
        size = max(1, len(batch.entries))
        for start in range(0, len(expired), size):
            self._keep_failed(batch.address, expired[start : start + size], reason)
        return len(expired)

    async def give_up(self, batch: Batch, reason: str) -> int:
        queue = self._leased(batch)
        if queue is None:
            return 0
        for _ in batch.entries:
            queue.waiting.popleft()
        self._keep_failed(batch.address, batch.entries, reason)
        self._free(batch.address, queue, 0.0)
        return len(batch.entries)

    async def failed(self, limit: int = 1_000) -> Sequence[FailedBatch]:
        return list(itertools.islice(reversed(self._failed.values()), limit))

    async def retry(self, batch_id: int | None) -> int:
        now = self._now()
        batches = self._pop_failed(batch_id)
        for batch in batches:
            queue = self._addresses.setdefault(batch.address, _Address())
            queue.waiting.extend(replace(entry, since=now) for entry in batch.entries)
            if not queue.lease:
                queue.free_at = now
        return len(batches)

    async def forget(self, batch_id: int | None) -> int:
        return len(self._pop_failed(batch_id))

    def _was_seen(self, report: WebhookReport, now: float) -> bool:
        if len(self._seen) > MAX_WAITING:
            self._seen = {key: until for key, until in self._seen.items() if until > now}
        if self._seen.get(report.subject, 0.0) > now:
            return True
        self._seen[report.subject] = now + report.once_for_s
        return False

    def _append(self, report: WebhookReport, now: float) -> int:
        dropped = 0
        for address in report.addresses:
            queue = self._addresses.setdefault(address, _Address())
            if len(queue.waiting) >= MAX_WAITING:
                dropped += 1
            else:
                queue.waiting.append(QueuedEvent(report.at, now, report.event))
        return dropped

    def _set_due(self, key: Subject, subject: _Subject, due: float) -> None:
        subject.due = due
        heapq.heappush(self._due[bool(key.user_id)], (due, next(self._count), key))

    def _leased(self, batch: Batch) -> _Address | None:
        queue = self._addresses.get(batch.address)
        return queue if queue is not None and queue.lease == batch.lease else None

    def _free(self, address: Address, queue: _Address, free_at: float) -> None:
        queue.lease, queue.attempts, queue.failing_since, queue.free_at = "", 0, 0.0, free_at
        if not queue.waiting:
            del self._addresses[address]

    def _keep_failed(self, address: Address, entries: Sequence[QueuedEvent], reason: str) -> None:
        number = next(self._count)
        self._failed[number] = FailedBatch(number, address, self._now(), reason, tuple(entries))
        of_address = [key for key, batch in self._failed.items() if batch.address == address]
        for key in of_address[:-MAX_FAILED]:
            del self._failed[key]

    def _pop_failed(self, batch_id: int | None) -> list[FailedBatch]:
        keys = list(self._failed) if batch_id is None else [batch_id] if batch_id in self._failed else []
        return [self._failed.pop(key) for key in keys]
