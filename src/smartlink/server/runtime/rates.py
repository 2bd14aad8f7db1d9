"""The server's current figures and rates, also over all workers of the machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Protocol

from smartlink.server.runtime.metrics import Metrics
from smartlink.server.runtime.sweeper import EVERY_S

__all__ = ["MachineOverview", "ProcessOverview", "RateSampler", "Totals"]

OVER_S = 10
"""Window of the rates, in seconds."""


class RateSampler:
    """Samples the counters once a second."""

    def __init__(self, metrics: Metrics, connections: Sized, now: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._connections = connections
        self._now = now
        self.more: Callable[[], dict[str, float]] = dict
        """Additional samples for operators."""
        self._looked_at = 0.0
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=OVER_S + 1)
        self.started_at = now()

    def __iter__(self) -> Iterator[RateSampler]:
        """Make it a source of the sweeper."""
        yield self

    def sweep(self, now: float) -> None:
        if self._looked_at:
            self._metrics.loop_lag_s = max(0.0, now - self._looked_at - EVERY_S)
        self._looked_at = now
        self._samples.append((now, self._counters()))

    def figures(self) -> dict[str, float]:
        """Connections, messages per second (received from clients, published, delivered), and samples for operators."""
        figures: dict[str, float] = {"connections": len(self._connections)}
        counters = self._counters()
        since, before = self._samples[0] if self._samples else (self.started_at, dict.fromkeys(counters, 0))
        elapsed_s = max(self._now() - since, 1e-3)
        for name, value in counters.items():
            figures[f"{name}_per_s"] = (value - before[name]) / elapsed_s
        return figures | self.more()

    def _counters(self) -> dict[str, int]:
        metrics = self._metrics
        return {
            "received": metrics.messages_received,
            "published": metrics.publications,
            "delivered": metrics.deliveries,
        }


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of all workers of this machine, added up."""

    workers: int
    uptime_s: float
    figures: dict[str, float]


class MachineOverview(Protocol):
    """Reports the totals of all workers of this machine."""

    async def totals(self) -> Totals: ...


class ProcessOverview:
    """The overview of a single process."""

    def __init__(self, rates: RateSampler, now: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._now = now

    async def totals(self) -> Totals:
        return Totals(1, self._now() - self._rates.started_at, self._rates.figures())
