"""The last events of channels, in memory: for clients that were away for a moment."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.cluster.budgets import BoundedStore

__all__ = ["MAX_APP_BYTES", "ChannelLog"]

MAX_APP_BYTES = 33_554_432
"""Memory for the kept events of one application, including overhead."""
PER_CHANNEL, PER_EVENT = 700, 350
"""Overhead in bytes of each, measured and rounded up."""


class _Log:
    __slots__ = ("base", "events", "last", "retained_until", "size")

    def __init__(self, start: int) -> None:
        self.base = start
        """All events after this position are in `events`."""
        self.last = start
        self.events: deque[tuple[float, Publication]] = deque()
        """Each with its expiry."""
        self.size = 0
        self.retained_until = 0.0

    def drop_first(self) -> None:
        _, publication = self.events.popleft()
        self.base = publication.position
        self.size -= PER_EVENT + len(publication.frame)


class ChannelLog:
    """What `Broker.retain` and `Broker.replay` promise, for the processes of one machine. Plain and synchronous.

    Positions begin at the time in microseconds: a log that is begun anew continues above those of its predecessor. An
    application over its budget loses its own channels used longest ago. Those without events, which clients begin by
    subscribing, have a budget of their own, so that no client can drive out events.
    """

    def __init__(self, max_app_bytes: int = MAX_APP_BYTES, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logs: BoundedStore[str, _Log] = BoundedStore(max_app_bytes, now)
        self._empty: BoundedStore[str, _Log] = BoundedStore(max_app_bytes // 4, now)

    def used(self, app_id: str) -> int:
        """Bytes currently used by the application's events."""
        return self._logs.used(app_id) + self._empty.used(app_id)

    def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        """As `Broker.retain`."""
        log = self._get(app_id, channel) or _Log(time.time_ns() // 1_000)
        log.retained_until = max(log.retained_until, self._now() + ttl_s)
        self._put(app_id, channel, log)
        return log.last

    def append(self, publication: Publication) -> Publication:
        """Return an event with its position if it is kept, otherwise unchanged."""
        retention = publication.retention
        if retention is None:
            return publication
        app_id, channel = publication.app_id, publication.channel
        log = self._get(app_id, channel)
        if log is None:
            if not retention.is_always:
                return publication
            log = _Log(time.time_ns() // 1_000)
        now = self._now()
        log.last += 1
        kept = Publication(
            app_id,
            channel,
            publication.frame,
            publication.except_socket,
            position=log.last,
            report_id=publication.report_id,
            trace=publication.trace,
            published_at=publication.published_at,
        )
        log.events.append((now + retention.ttl_s, kept))
        log.size += PER_EVENT + len(kept.frame)
        while log.events and (len(log.events) > retention.frames or log.size > retention.max_bytes):
            log.drop_first()
        if retention.is_always:
            log.retained_until = max(log.retained_until, now + retention.ttl_s)
        self._put(app_id, channel, log)
        return kept

    def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        """As `Broker.replay`."""
        log = self._get(app_id, channel)
        if log is None:
            return [] if after is None else None
        self._expire(log)
        if after is None:
            return [publication for _, publication in log.events]
        if not log.base <= after <= log.last:
            return None
        return [publication for _, publication in log.events if publication.position > after]

    def _expire(self, log: _Log) -> None:
        now = self._now()
        while log.events and log.events[0][0] <= now:
            log.drop_first()

    def _get(self, app_id: str, channel: str) -> _Log | None:
        return self._logs.get(app_id, channel) or self._empty.get(app_id, channel)

    def _put(self, app_id: str, channel: str, log: _Log) -> None:
        self._expire(log)
        ttl_s = log.retained_until - self._now()
        store, other = (self._logs, self._empty) if log.events else (self._empty, self._logs)
        other.take(app_id, channel)
        store.put(app_id, channel, log, PER_CHANNEL + len(channel) + log.size, ttl_s)
