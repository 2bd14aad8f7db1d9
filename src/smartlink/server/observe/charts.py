"""Charts of the last hour, six hours and day, kept in rings of a fixed size: no Prometheus is needed for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["EVERY_S", "SERIES", "SPANS", "Charts"]

EVERY_S: Final = 10
POINTS: Final = 360
SPANS: Final = {"1h": 1, "6h": 6, "24h": 24}
"""Spans by name, and how many samples make one point of it."""
SERIES: Final = (
    "connections", "received_per_s", "published_per_s", "delivered_per_s", "refused_per_s", "webhooks_failed_per_s",
    "loop_lag_s", "memory_bytes",
)  # fmt: skip
_WORST = frozenset({"loop_lag_s"})
"""Of several samples the greatest is shown, not the mean."""
_COUNTERS = {
    "refused_per_s": "smartlink_connections_refused_total",
    "webhooks_failed_per_s": 'smartlink_webhook_events_total{outcome="failed"}',
}

Point = tuple[float, ...]
"""The time in seconds since 1970, then a value per series."""


@dataclass(slots=True)
class _Ring:
    samples_per_point: int
    points: deque[Point]
    pending: list[Point]


class Charts:
    """Takes a sample every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self._rings = {name: _Ring(count, deque(maxlen=POINTS), []) for name, count in SPANS.items()}
        self._counters: dict[str, float] | None = None

    def take(self, at: float, figures: Mapping[str, float]) -> None:
        """Add the machine's figures at a time in seconds since 1970."""
        point = (at, *self._values(figures))
        for ring in self._rings.values():
            ring.pending.append(point)
            if len(ring.pending) >= ring.samples_per_point:
                ring.points.append(_merged(ring.pending))
                ring.pending.clear()

    def points(self, span: str) -> list[Point]:
        """Return the points of a span, oldest first. Raises KeyError if there is no such span."""
        return list(self._rings[span].points)

    def _values(self, figures: Mapping[str, float]) -> list[float]:
        counters = {name: _sum(figures, sample) for name, sample in _COUNTERS.items()}
        before, self._counters = self._counters or counters, counters
        known = {
            "loop_lag_s": max(_labelled(figures, "smartlink_event_loop_lag_seconds"), default=0.0),
            "memory_bytes": sum(_labelled(figures, "smartlink_resident_memory_bytes")),
        }
        # A counter falls when a process was replaced before its last report came.
        known |= {name: max(0.0, value - before[name]) / EVERY_S for name, value in counters.items()}
        return [round(known.get(name, figures.get(name, 0.0)), 4) for name in SERIES]


def _labelled(figures: Mapping[str, float], name: str) -> list[float]:
    return [value for key, value in figures.items() if key.startswith(name)]


def _sum(figures: Mapping[str, float], name: str) -> float:
    return sum(_labelled(figures, name))


def _merged(points: list[Point]) -> Point:
    merged = [points[-1][0]]
    for index, name in enumerate(SERIES, 1):
        values = [point[index] for point in points]
        merged.append(max(values) if name in _WORST else round(sum(values) / len(values), 4))
    return tuple(merged)
