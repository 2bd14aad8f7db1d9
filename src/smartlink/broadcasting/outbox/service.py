"""What a relay knows about the service behind a connection: whether it is available, and when to try it again.

    state        until                                        calls
    -----------  -------------------------------------------  ----------------------------------------------
    available    a call fails and no other was taken          up to `concurrency` at once
    unavailable  a verdict: a call or probe taken or refused  one at a time, 50 ms after the first failure,
                                                              twice as long after each further one, at most 2 s

`calls` decides what becomes of the events.
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
"""A channel without subscribers: an event on it shows whether the service takes events at all."""

_PAUSE_AFTER_FAILURE_S = 0.05
_log = logging.getLogger("smartlink.broadcasting.outbox")


class Service:
    """The service behind one connection. `send_timeout_s` bounds a call, even if the driver has no timeout."""

    def __init__(self, driver: Driver, connection: str | None, send_timeout_s: float) -> None:
        self.try_at = 0.0
        """When the next call may be made while it is unavailable, on the monotonic clock."""
        self.probe: asyncio.Task[bool] | None = None
        """The running probe."""
        self._driver = driver
        self._connection = connection
        self._name = connection or driver.name
        self._send_timeout_s = send_timeout_s
        self._failures = 0
        self._accepted_at = float("-inf")
        self._is_reported = False

    @property
    def is_unavailable(self) -> bool:
        """Whether it is unavailable: calls have failed since the last verdict."""
        return self._failures > 0

    def may_be_tried(self) -> bool:
        """Return whether it is available, or its back-off has passed."""
        return not self._failures or time.monotonic() >= self.try_at

    def reset(self) -> None:
        """Count it as available again."""
        self._failures = 0

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Send `envelopes`. Raises only BroadcastFailed, even if the driver raises something else."""
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._driver.send(envelopes, idempotency_key=batch_key(envelopes))
        except BroadcastFailed:
            raise
        except TimeoutError:
            said = f"{self._name} did not answer within {self._send_timeout_s:g} s"
            raise BroadcastUnavailable(said, answered=True) from None
        except Exception as error:
            # A bug in the driver: one traceback is enough.
            write = _log.warning if self._is_reported else _log.exception
            write("outbox: driver %s raised an unexpected error: %r", self._name, error)
            raise BroadcastUnavailable(f"{type(error).__name__}: {error}", answered=True) from error

    def note_reached(self) -> None:
        """Note a verdict: it is available."""
        self._failures = 0
        if self._is_reported:
            _log.warning("outbox: %s accepts events again; sending the waiting ones", self._name)
            self._is_reported = False

    def note_accepted(self) -> None:
        """Note that it has accepted events."""
        self._accepted_at = time.monotonic()

    def note_failure(self) -> None:
        """Note a failed call while no other was accepted: back off, twice as long each time."""
        self._failures += 1
        pause_s = _PAUSE_AFTER_FAILURE_S * 2.0 ** min(self._failures - 1, 10)
        self.try_at = time.monotonic() + min(MAX_BACKOFF_S, pause_s)

    def report(self, failure: BroadcastFailed) -> None:
        """Log that events are waiting, once until the next verdict."""
        if not self._is_reported:
            _log.warning("outbox: events wait until %s accepts them: %s", self._name, failure)
            self._is_reported = True

    def has_accepted_since(self, since: float) -> bool:
        """Return whether it has accepted an event since then, on the monotonic clock."""
        return self._accepted_at > since

    async def accepts_others(self, since: float) -> bool:
        """Return whether it has accepted another event since then, or accepts a probe now."""
        if self.has_accepted_since(since):
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
    """The services by connection. Each is available or not by itself."""

    def __init__(self, driver: Driver, send_timeout_s: float) -> None:
        self._driver = driver
        self._send_timeout_s = send_timeout_s
        self._by_connection: dict[str | None, Service] = {}

    def __iter__(self) -> Iterator[Service]:
        return iter(self._by_connection.values())

    def of(self, connection: str | None) -> Service:
        """Return the service of `connection`; None is the default connection."""
        service = self._by_connection.get(connection)
        if service is None:
            service = self._by_connection[connection] = Service(self._driver, connection, self._send_timeout_s)
        return service
