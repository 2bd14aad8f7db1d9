"""Chooses a node's engines: the only file that names them.

Redis' engines are imported where they are chosen: redis-py takes as long to import as all of the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smartlink.server.cluster.brokers.base import Broker
from smartlink.server.cluster.brokers.log import ChannelLog
from smartlink.server.cluster.brokers.memory import MemoryBroker
from smartlink.server.cluster.history.base import History
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.base import IdempotencyStore
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.base import PresenceStore
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.settings.config import ServerSettings
from smartlink.server.settings.redis_address import Kind, parse_url
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.queue import WebhookQueue
from smartlink.server.webhooks.sqlite import SqliteQueue
from smartlink.server.workers.engines import (
    WorkerBroker,
    WorkerHistory,
    WorkerIdempotency,
    WorkerPresence,
    WorkerSessions,
)
from smartlink.server.workers.parent_link import ParentLink

if TYPE_CHECKING:
    from smartlink.server.cluster.redis.commands import RedisCommands

__all__ = ["Engines", "engines_for", "memory_stores", "uses_redis", "webhook_queue_for", "worker_engines"]


def uses_redis(settings: ServerSettings) -> bool:
    """Whether Redis joins the nodes."""
    return settings.reverb_scaling_enabled


@dataclass(frozen=True, slots=True)
class Engines:
    """The stores and broker of a node: shared with other nodes, or local when it runs alone."""

    broker: Broker
    presence: PresenceStore
    history: History
    idempotency: IdempotencyStore
    sessions: SessionStore
    redis: RedisCommands | None = None
    """The shared connection when nodes are joined by Redis."""


def engines_for(settings: ServerSettings, metrics: Metrics) -> Engines:
    """The engines that `settings` select. Raises UnsafeSettings."""
    if uses_redis(settings):
        return _redis_engines(settings, metrics)
    log, history, idempotency, sessions = memory_stores(settings)
    return Engines(MemoryBroker(log), MemoryPresence(), history, idempotency, sessions)


def _redis_engines(settings: ServerSettings, metrics: Metrics) -> Engines:
    from smartlink.server.cluster.brokers.redis import RedisBroker
    from smartlink.server.cluster.brokers.redis_scripts import BROKER_SCRIPTS
    from smartlink.server.cluster.history.redis import HISTORY_SCRIPTS, RedisHistory
    from smartlink.server.cluster.idempotency.redis import IDEMPOTENCY_SCRIPTS, RedisIdempotency
    from smartlink.server.cluster.presence.lua import PRESENCE_SCRIPTS
    from smartlink.server.cluster.presence.redis import RedisPresence
    from smartlink.server.cluster.redis.commands import RedisCommands
    from smartlink.server.cluster.redis.naming import Names
    from smartlink.server.cluster.sessions.redis import SESSION_SCRIPTS, RedisSessions
    from smartlink.server.webhooks.redis import WEBHOOK_SCRIPTS

    address = settings.redis_address
    stores = (*HISTORY_SCRIPTS, *IDEMPOTENCY_SCRIPTS, *SESSION_SCRIPTS)
    scripts = (*BROKER_SCRIPTS, *PRESENCE_SCRIPTS, *stores, *WEBHOOK_SCRIPTS)
    prefix = settings.reverb_scaling_channel
    commands, names = RedisCommands(address, scripts, prefix), Names(prefix)
    commands.round_trips = metrics.redis
    return Engines(
        RedisBroker(
            commands,
            names,
            metrics,
            is_sharded=address.kind is Kind.CLUSTER,
            kept_s=2 * settings.reverb_server_session_ttl,
            max_app_bytes=settings.reverb_server_history_bytes,
        ),
        RedisPresence(commands, names),
        RedisHistory(commands, names, max_app_bytes=settings.reverb_server_cache_bytes),
        RedisIdempotency(commands, names, settings.reverb_server_receipt_bytes),
        RedisSessions(commands, names, settings.reverb_server_session_bytes),
        commands,
    )


def memory_stores(
    settings: ServerSettings,
) -> tuple[ChannelLog, MemoryHistory, MemoryIdempotency, MemorySessions]:
    """In-memory stores for a machine without Redis."""
    return (
        ChannelLog(settings.reverb_server_history_bytes),
        MemoryHistory(max_app_bytes=settings.reverb_server_cache_bytes),
        MemoryIdempotency(max_app_bytes=settings.reverb_server_receipt_bytes),
        MemorySessions(max_app_bytes=settings.reverb_server_session_bytes),
    )


def worker_engines(link: ParentLink) -> Engines:
    """The engines of a worker: each forwards to the parent."""
    return Engines(
        WorkerBroker(link), WorkerPresence(link), WorkerHistory(link), WorkerIdempotency(link), WorkerSessions(link)
    )


def webhook_queue_for(settings: ServerSettings, shared: RedisCommands | None = None) -> WebhookQueue:
    """The webhook queue that `settings` select, not started; uses `shared` when the queue is in the nodes' Redis.

    Raises UnsafeSettings.
    """
    where = settings.webhook_queue
    if where == "memory":
        return MemoryQueue()
    if where.startswith("sqlite:///"):
        return SqliteQueue(Path(where.removeprefix("sqlite:///")))
    from smartlink.server.cluster.redis.commands import RedisCommands
    from smartlink.server.cluster.redis.naming import Names
    from smartlink.server.webhooks.redis import WEBHOOK_SCRIPTS, RedisQueue

    if where != "redis":
        address = parse_url(where, ca_file=settings.redis_ca_file)
        shared = RedisCommands(address, WEBHOOK_SCRIPTS)
    elif shared is None:
        shared = RedisCommands(settings.redis_address, WEBHOOK_SCRIPTS)
    return RedisQueue(shared, Names(settings.reverb_scaling_channel))
