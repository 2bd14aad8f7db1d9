"""What is wrong with this machine, since when, and what to do about it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from smartlink.server.core.health import CERTIFICATE_S

__all__ = ["Diagnosis", "Finding"]

WINDOW_S: Final = 60.0
"""How long something that was counted stays a finding."""
MAX_LAG_S: Final = 0.25

Figures = Mapping[str, float]
Level = Literal["problem", "warning"]


class Finding(msgspec.Struct):
    """One thing that is wrong. `since` is in seconds since 1970."""

    key: str
    level: Level
    title: str
    since: float
    advice: str
    where: str = ""
    """The node that reports it; empty for this machine."""


@dataclass(frozen=True, slots=True)
class _Rule:
    key: str
    level: Level
    title: str
    advice: str
    holds: Callable[[Figures, Figures], bool]
    """Decides by the figures now and those of `WINDOW_S` ago."""


def _sum(figures: Figures, name: str) -> float:
    return sum(value for key, value in figures.items() if key.startswith(name))


def _above(name: str, limit: float = 0) -> Callable[[Figures, Figures], bool]:
    return lambda now, _: any(value > limit for key, value in now.items() if key.startswith(name))


def _grew(name: str) -> Callable[[Figures, Figures], bool]:
    return lambda now, before: _sum(now, name) > _sum(before, name)


def _certificates(figures: Figures) -> list[float]:
    """When the certificates in use end, in seconds since 1970."""
    name = "smartlink_certificate_ends_timestamp_seconds"
    return [value for key, value in figures.items() if key.startswith(name)]


_RULES: Final = (
    _Rule(
        "not_ready", "problem", "No worker accepts connections",
        "The server is starting, draining, or its workers fail: see its log.",
        lambda now, _: not now.get("smartlink_workers_ready"),
    ),
    _Rule(
        "apart", "problem", "Other nodes are unreachable",
        "Publishing answers 503 until Redis is back. Check Redis and the network: smartlink doctor",
        _above("smartlink_workers_apart"),
    ),
    _Rule(
        "redis_full", "problem", "Redis is full and accepts no writes",
        "Free memory or raise maxmemory; keep maxmemory-policy noeviction.",
        _above("smartlink_redis_full"),
    ),
    _Rule(
        "tasks_died", "problem", "A background task crashed",
        "See the log for the error, then: smartlink reverb restart",
        _above("smartlink_tasks_died"),
    ),
    _Rule(
        "over_capacity", "problem", "Connections are refused for lack of room",
        "Raise REVERB_APP_MAX_CONNECTIONS, the descriptor limit (ulimit -n), or add a node.",
        _grew('smartlink_connections_refused_total{reason="over_capacity"}'),
    ),
    _Rule(
        "webhooks_failed", "problem", "Webhooks failed permanently",
        "Fix the receiver, then replay the failed batches on the page Webhooks.",
        _grew('smartlink_webhook_events_total{outcome="failed"}'),
    ),
    _Rule(
        "webhooks_dropped", "problem", "Webhook events are dropped",
        "The receiver is slower than what happens: let it accept batches faster.",
        _grew('smartlink_webhook_events_total{outcome="dropped"}'),
    ),
    _Rule(
        "webhook_queue_away", "problem", "The webhook queue is unavailable",
        "Events wait in memory. See the log for the reason: a full disk, or Redis.",
        _above("smartlink_webhook_queue_away"),
    ),
    _Rule(
        "certificate_ended", "problem", "The certificate has ended: clients refuse it",
        "Renew REVERB_SERVER_TLS_CERT, then send SIGHUP.",
        lambda now, _: any(value <= time.time() for value in _certificates(now)),
    ),
    _Rule(
        "certificate_ends", "warning", "The certificate ends within 14 days",
        "Renew REVERB_SERVER_TLS_CERT, then send SIGHUP.",
        lambda now, _: any(0 < value - time.time() < CERTIFICATE_S for value in _certificates(now)),
    ),
    _Rule(
        "internal_errors", "problem", "Internal errors",
        "Each is in the log with its traceback.",
        _grew("smartlink_internal_errors_total"),
    ),
    _Rule(
        "redis_evicts", "warning", "Redis may evict keys",
        "Set maxmemory-policy noeviction.",
        _above("smartlink_redis_evicts"),
    ),
    _Rule(
        "loop_lag", "warning", "A worker's event loop lags",
        "The machine is short of CPU: add workers or nodes, or publish less to the largest channels.",
        _above("smartlink_event_loop_lag_seconds", MAX_LAG_S),
    ),
    _Rule(
        "slow_consumers", "warning", "Slow clients are cut",
        "They read slower than their channels deliver; see them under Connections by backlog.",
        _grew("smartlink_slow_consumers_total"),
    ),
    _Rule(
        "rate_limited", "warning", "Clients or publishers exceed their rate",
        "See who on the page Console, kind refused; the limits are on the page Apps.",
        _grew("smartlink_rate_limited_total"),
    ),
    _Rule(
        "webhooks_retried", "warning", "Webhooks are retried",
        "The receiver does not answer 2xx in time; see the page Webhooks.",
        _grew('smartlink_webhook_events_total{outcome="retried"}'),
    ),
)  # fmt: skip


class Diagnosis:
    """Keeps since when each finding holds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._past: deque[tuple[float, Figures]] = deque()

    def take(self, at: float, figures: Figures) -> list[Finding]:
        """Return what is wrong now, problems first. Call it regularly; `at` is in seconds since 1970."""
        while len(self._past) > 1 and self._past[1][0] <= at - WINDOW_S:
            self._past.popleft()
        before = self._past[0][1] if self._past else figures
        if not self._past or at - self._past[-1][0] >= 1:
            self._past.append((at, dict(figures)))
        holding = [rule for rule in _RULES if rule.holds(figures, before)]
        self._since = {rule.key: self._since.get(rule.key, at) for rule in holding}
        found = [Finding(rule.key, rule.level, rule.title, self._since[rule.key], rule.advice) for rule in holding]
        return sorted(found, key=lambda finding: finding.level != "problem")
