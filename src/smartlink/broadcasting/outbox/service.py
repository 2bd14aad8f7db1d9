"""A connection's service as a relay sees it: whether it is away, whether it takes others' events, when to try it again.

Only what is known about it is kept here; what becomes of an event, the relay decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence

from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastUnavailable
from smartlink.broadcasting.outbox.queue import MAX_BACKOFF_S, batch_key

__all__ = ["PROBE_CHANNEL", "Service", "Services"]

PROBE_CHANNEL = "smartlink-outbox-probe"
"""Nobody listens here: an event on it shows whether the service takes events at all."""

_PAUSE_AFTER_FAILURE_S = 0.05
_log = logging.getLogger("smartlink.broadcasting.outbox")


class Service:
    """What a driver reaches through one connection, and what its answers tell. `send_timeout_s` bounds one call
    whatever the driver does."""

    def __init__(self, driver: Driver, connection: str | None, send_timeout_s: float) -> None:
        self.try_at = 0.0
        """When the next call may be made while it seems away, on the monotonic clock."""
        self.probe: asyncio.Task[bool] | None = None
        """The probe under way."""
        self._driver = driver
        self._connection = connection
        self._name = connection or driver.name
        self._send_timeout_s = send_timeout_s
        self._failures = 0
        self._taken_at = float("-inf")
        self._is_reported = False

    @property
    def seems_away(self) -> bool:
        """Whether calls failed since one was answered; while it does, one call at a time tries."""
        return self._failures > 0

    def may_be_tried(self) -> bool:
        """Whether it does not seem away, or has been left alone for long enough."""
        return not self._failures or time.monotonic() >= self.try_at

    def begin_anew(self) -> None:
        """Forget that it seemed away."""
        self._failures = 0

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Raises BroadcastFailed only, whatever the driver does."""
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._driver.send(envelopes, idempotency_key=batch_key(envelopes))
        except BroadcastFailed:
            raise
        except TimeoutError:
            said = f"{self._name} gave no answer in {self._send_timeout_s:g} s"
            raise BroadcastUnavailable(said, answered=True) from None
        except Exception as error:
            # A bug, of which one trace is enough.
            tell = _log.warning if self._is_reported else _log.exception
            tell("outbox: driver %s raised what it may not raise: %r", self._name, error)
            raise BroadcastUnavailable(f"{type(error).__name__}: {error}", answered=True) from error

    def note_reached(self) -> None:
        """It has given a verdict."""
        self._failures = 0
        if self._is_reported:
            _log.warning("outbox: %s accepts events again; sending what was kept", self._name)
            self._is_reported = False

    def note_taken(self) -> None:
        """It has taken events."""
        self._taken_at = time.monotonic()

    def note_away(self) -> None:
        """A call failed, and no other was taken meanwhile: leave it alone for a while, longer each time."""
        self._failures += 1
        pause_s = _PAUSE_AFTER_FAILURE_S * 2.0 ** min(self._failures - 1, 10)
        self.try_at = time.monotonic() + min(MAX_BACKOFF_S, pause_s)

    def report(self, failure: BroadcastFailed) -> None:
        """Log that events are kept; once, until it has given a verdict again."""
        if not self._is_reported:
            _log.warning("outbox: keeping events until %s takes them: %s", self._name, failure)
            self._is_reported = True

    def has_taken_since(self, since: float) -> bool:
        """Whether it has taken an event since then."""
        return self._taken_at > since

    async def takes_others(self, since: float) -> bool:
        """Whether it has taken another event since then, or takes one now: it is asked by a probe."""
        if self.has_taken_since(since):
            return True
        if self.probe is None:
            self.probe = asyncio.create_task(self._probe())
            self.probe.add_done_callback(self._forget_probe)
        return await asyncio.shield(self.probe)

    async def _probe(self) -> bool:
        try:
            await self.send([Envelope(PROBE_CHANNEL, "probe", "{}", None, Delivery.LIVE, connection=self._connection)])
        except BroadcastFailed:
            return False
        self.note_reached()
        return True

    def _forget_probe(self, _: asyncio.Task[bool]) -> None:
        self.probe = None


class Services:
    """The service of each connection that events have named: one that is away says nothing about the others."""

    def __init__(self, driver: Driver, send_timeout_s: float) -> None:
        self._driver = driver
        self._send_timeout_s = send_timeout_s
        self._by_connection: dict[str | None, Service] = {}

    def __iter__(self) -> Iterator[Service]:
        return iter(self._by_connection.values())

    def of(self, connection: str | None) -> Service:
        """The one that `connection` reaches; None is the default connection."""
        service = self._by_connection.get(connection)
        if service is None:
            service = self._by_connection[connection] = Service(self._driver, connection, self._send_timeout_s)
        return service
